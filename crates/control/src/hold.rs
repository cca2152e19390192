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
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(1);
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(200);

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

/// Renews in the background, from the first moment on, until it is ended or dropped.
pub(crate) struct Hold {
    end: CancellationToken,
    renewing: JoinHandle<()>,
    is_lost: watch::Receiver<bool>,
}

impl Hold {
    pub fn of(store: &Store, run: u64, holder: &str) -> Hold {
        let (store, holder) = (store.clone(), holder.to_owned());
        Hold::renewed_by(move || {
            let (store, holder) = (store.clone(), holder.clone());
            async move { store.renew_switch_run(run, &holder, TTL).await }
        })
    }

    /// `renew` says whether it is still in hand.
    pub fn renewed_by<R>(renew: impl Fn() -> R + Send + 'static) -> Hold
    where
        R: Future<Output = Result<bool, StoreError>> + Send,
    {
        let (lost, is_lost) = watch::channel(false);
        let end = CancellationToken::new();
        let ends = end.clone();
        let renewing = tokio::spawn(async move {
            loop {
                match renew().await {
                    Ok(true) => {}
                    Ok(false) => {
                        lost.send_replace(true);
                        return;
                    }
                    // Each step says whose it is; a store that is away for a moment takes nothing from anybody.
                    Err(error) => tracing::debug!(%error, "the store does not say whether it is still in hand"),
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
