//! One tool at a time works at a run. It says again and again that it still does.

use std::time::{Duration, Instant};

use crossfade_message::{EntityHeld, EntityRun, Store};
use crossfade_model::Side;

use crate::ControlError;
use crate::hold::{ASK_EVERY, Hold, IsDead, RENEW_EVERY, TTL};

/// What a run is called.
pub(crate) fn name(run: &EntityRun) -> String {
    match run.to {
        Side::New => format!("entity move {}", run.id),
        Side::Old => format!("entity return {}", run.id),
    }
}

/// A run that is the asker's.
#[derive(Debug, Clone)]
pub struct Taken {
    pub run: EntityRun,
    /// A tool that has died had begun it.
    pub resumed: bool,
}

/// Takes the run that was begun with these words and left behind, or begins one. One that another tool has in hand is waited for
/// as long as that may have died.
///
/// # Errors
///
/// [`ControlError::Busy`]
pub async fn take_run(
    store: &Store,
    (to, words): (Side, &str),
    holder: &str,
    is_dead: IsDead,
) -> Result<Taken, ControlError> {
    let since = Instant::now();
    loop {
        match store.hold_entity_run(to, words, holder, TTL).await? {
            EntityHeld::Mine(run, resumed) => return Ok(Taken { run, resumed }),
            EntityHeld::Theirs { holder, run } if is_dead(&holder) => {
                store.renew_entity_run(run.id, &holder, Duration::ZERO).await?;
            }
            EntityHeld::Theirs { holder, run } if since.elapsed() > TTL + RENEW_EVERY => {
                return Err(ControlError::Busy { run: name(&run), holder });
            }
            EntityHeld::Theirs { .. } => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

/// Says again and again that the run is in hand.
pub(super) fn hold(store: &Store, run: u64, holder: &str) -> Hold {
    let (store, holder) = (store.clone(), holder.to_owned());
    Hold::renewed_by(move || {
        let (store, holder) = (store.clone(), holder.clone());
        async move { store.renew_entity_run(run, &holder, TTL).await }
    })
}
