//! What operators wish of the two directions, followed while a process runs.

use std::sync::Arc;
use std::time::Duration;

use crossfade_applier::Wishes;
use crossfade_message::{Store, StoreError, Wish};
use crossfade_model::Direction;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const POLL_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct Watched {
    capture: watch::Receiver<bool>,
    applier: watch::Receiver<Wishes>,
    /// Ends with the last of those who watch.
    _following: Arc<AbortOnDropHandle<()>>,
}

impl Watched {
    /// Follows the wishes of both directions until `running` ends, or nobody watches any more.
    pub async fn start(store: Store, direction: Direction, running: CancellationToken) -> Result<Watched, StoreError> {
        let (first_capture, first) = read(&store, direction).await?;
        let (capture_sender, capture) = watch::channel(first_capture);
        let (sender, applier) = watch::channel(first);
        let following = AbortOnDropHandle::new(tokio::spawn(async move {
            while !running.is_cancelled() {
                tokio::time::sleep(POLL_EVERY).await;
                match read(&store, direction).await {
                    Ok((wish, wishes)) => {
                        capture_sender.send_if_modified(|known| std::mem::replace(known, wish) != wish);
                        sender.send_if_modified(|known| std::mem::replace(known, wishes) != wishes);
                    }
                    Err(error) => tracing::debug!(%error, "wishes cannot be read"),
                }
            }
        }));
        Ok(Watched { capture, applier, _following: Arc::new(following) })
    }

    pub fn for_applier(&self) -> watch::Receiver<Wishes> {
        self.applier.clone()
    }

    pub fn applies(&self) -> bool {
        self.applier.borrow().apply
    }

    pub fn captures(&self) -> bool {
        *self.capture.borrow()
    }

    /// Waits until applying is no longer wished.
    pub async fn until_rests(&self) {
        let mut applier = self.applier.clone();
        // What follows the wishes ends with the process.
        let _ = applier.wait_for(|wishes| !wishes.apply).await;
    }

    /// Waits until applying is wished.
    pub async fn until_applies(&self) {
        let mut applier = self.applier.clone();
        // As above.
        let _ = applier.wait_for(|wishes| wishes.apply).await;
    }

    /// Waits until capture is wished, or no longer wished. `false` when the process ends first.
    pub async fn wait_for_capture(&self, wished: bool, running: &CancellationToken) -> bool {
        let mut capture = self.capture.clone();
        tokio::select! {
            () = running.cancelled() => false,
            changed = capture.wait_for(|captures| *captures == wished) => changed.is_ok(),
        }
    }
}

async fn read(store: &Store, direction: Direction) -> Result<(bool, Wishes), StoreError> {
    let own = store.wish(direction).await?.unwrap_or(Wish::RUN);
    let opposite = store.wish(direction.opposite()).await?.unwrap_or(Wish::OFF);
    Ok((own.capture, Wishes { apply: own.apply, opposite_declared: opposite.declared }))
}
