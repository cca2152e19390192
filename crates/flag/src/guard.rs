//! Leave to write.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::follow::Shared;
use crate::state::Leave;
use crate::{Phase, Side};

/// Leave to write by one version of the flag, from [`FlagClient::begin_write`](crate::FlagClient::begin_write) until it is dropped.
///
/// Hold it until the outcome of COMMIT or ROLLBACK is known, and no longer. While it lives no later version is acknowledged, so a
/// cutover waits for it, and gives up in the end.
#[derive(Debug)]
#[must_use = "the leave ends where the guard is dropped"]
pub struct WriteGuard {
    shared: Arc<Shared>,
    leave: Leave,
}

impl WriteGuard {
    pub(crate) fn new(shared: Arc<Shared>, leave: Leave) -> WriteGuard {
        WriteGuard { shared, leave }
    }

    /// The side to write, for an application that writes one side and leaves the other one to crossfade.
    pub fn side(&self) -> Side {
        self.phase().writes_to()
    }

    /// For an application that writes both sides itself: whether it writes old.
    pub fn is_write_old(&self) -> bool {
        self.phase().is_write_old()
    }

    /// For an application that writes both sides itself: whether it writes new.
    pub fn is_write_new(&self) -> bool {
        self.phase().is_write_new()
    }

    pub fn phase(&self) -> Phase {
        self.leave.flag.phase
    }

    /// The version of the flag by which is written.
    pub fn version(&self) -> u64 {
        self.leave.flag.version
    }

    /// Whether a cutover still waits for this write. Ask right before COMMIT, and roll back where it does not.
    ///
    /// It ends where the server has not been heard for nearly `ttl`, and never comes back for this guard. A flag that has moved on
    /// meanwhile does not end it: it waits.
    pub fn is_still_valid(&self) -> bool {
        self.remaining().is_some()
    }

    /// How long it is valid at least, if the server is not heard again; `None` where it is not valid any more.
    pub fn remaining(&self) -> Option<Duration> {
        let now = Instant::now();
        let until = self.shared.state().valid_until(&self.leave, now)?;
        Some(until.saturating_duration_since(now))
    }

    /// Ends when the guard is not valid any more, which is never as long as the server is heard: for what comes *before* COMMIT,
    /// beside the work in `select!`. Whoever gives up a COMMIT that is under way does not know what came of it. Safe to cancel.
    pub async fn expired(&self) {
        let mut changes = self.shared.changes();
        loop {
            changes.borrow_and_update();
            let until = self.shared.state().valid_until(&self.leave, Instant::now());
            let Some(until) = until else { return };
            Shared::wait(&mut changes, Some(until)).await;
        }
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        let is_awaited = self.shared.state().give_back(&self.leave);
        if is_awaited {
            self.shared.change(|_| ());
        }
    }
}
