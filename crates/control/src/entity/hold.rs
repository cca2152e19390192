//! One tool at a time works at a run. It says again and again that it still does.

use std::time::{Duration, Instant};

use crossfade_message::{EntityHeld, EntityRun, Store};
use crossfade_model::Side;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ControlError;
use crate::hold::{IsDead, TTL};

const RENEW_EVERY: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_millis(200);

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

/// Renews in the background until it is ended or dropped.
pub(super) struct Hold {
    end: CancellationToken,
    renewing: JoinHandle<()>,
    is_lost: watch::Receiver<bool>,
}

impl Hold {
    pub fn of(store: &Store, run: u64, holder: &str) -> Hold {
        let (lost, is_lost) = watch::channel(false);
        let (store, holder, end) = (store.clone(), holder.to_owned(), CancellationToken::new());
        let ends = end.clone();
        let renewing = tokio::spawn(async move {
            // At once: it may have been taken for longer, while there was much to ask for.
            loop {
                match store.renew_entity_run(run, &holder, TTL).await {
                    Ok(true) => {}
                    Ok(false) => {
                        lost.send_replace(true);
                        return;
                    }
                    // Each step says whose the run is; a store that is away for a moment takes nothing from anybody.
                    Err(error) => tracing::debug!(%error, "the store does not say whether the run is still in hand"),
                }
                if ends.run_until_cancelled(tokio::time::sleep(RENEW_EVERY)).await.is_none() {
                    return;
                }
            }
        });
        Hold { end, renewing, is_lost }
    }

    /// Returns when somebody else has taken it.
    pub async fn lost(&self) {
        let mut is_lost = self.is_lost.clone();
        if is_lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub async fn end(mut self) {
        self.end.cancel();
        // It was aborted, or has ended: both are its end.
        let _ = (&mut self.renewing).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
