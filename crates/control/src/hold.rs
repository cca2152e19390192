//! One tool at a time has a change in hand. It says again and again that it still does.

use std::time::{Duration, Instant};

use crossfade_message::{Held, Store, StoreError, SwitchRun};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::memory::name;
use crate::{Change, ControlError};

/// What a tool that has died has in hand is anybody's after this time.
pub(crate) const TTL: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Whether a holder is known to live no more.
pub type IsDead = fn(&str) -> bool;

/// Takes the open run, or begins one. One that another tool has in hand is waited for as long as that may have died.
pub(crate) async fn take(
    store: &Store,
    change: Change,
    holder: &str,
    is_dead: IsDead,
) -> Result<SwitchRun, ControlError> {
    let since = Instant::now();
    loop {
        match store.hold_switch_run(change.as_str(), holder, TTL).await? {
            Held::Mine(run) => return Ok(run),
            Held::Theirs { holder, run } if is_dead(&holder) => {
                store.renew_switch_run(run.id, &holder, Duration::ZERO).await?;
            }
            Held::Theirs { holder, run } if since.elapsed() > TTL + RENEW_EVERY => {
                return Err(ControlError::Busy { run: name(&run), holder });
            }
            Held::Theirs { .. } => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

/// Renews in the background until it is ended or dropped.
pub(crate) struct Hold {
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
            while ends.run_until_cancelled(tokio::time::sleep(RENEW_EVERY)).await.is_some() {
                match store.renew_switch_run(run, &holder, TTL).await {
                    Ok(true) => {}
                    Ok(false) => {
                        lost.send_replace(true);
                        return;
                    }
                    // The flag's version decides in the end; a store that is away for a moment takes nothing from anybody.
                    Err(error) => note(&error),
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

    pub async fn end(self) {
        self.end.cancel();
        // It was aborted, or has ended: both are its end.
        let _ = self.renewing.await;
    }
}

fn note(error: &StoreError) {
    tracing::debug!(%error, "the store does not say whether the change is still in hand");
}
