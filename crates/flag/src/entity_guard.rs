//! Leave to write one entity.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::entity::{Fact, Inner};
use crate::{FlagError, Side};

/// Leave to write one entity on one side, from [`EntityClient::begin_write`](crate::EntityClient::begin_write), for as long as the
/// answer that it rests on may be used.
///
/// Nobody waits for a guard, only for that time. So ask [`EntityGuard::is_still_valid`] right before COMMIT, and let what takes
/// longer [extend](EntityGuard::extend) it. A fifth of the time is kept back for a COMMIT that is on its way when it ends.
#[must_use = "without the guard nobody knows whether the entity may still be written"]
pub struct EntityGuard {
    inner: Arc<Inner>,
    id: String,
    side: Side,
    version: u64,
    until: Mutex<Instant>,
}

impl std::fmt::Debug for EntityGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntityGuard").field("side", &self.side).field("version", &self.version).finish_non_exhaustive()
    }
}

impl EntityGuard {
    pub(crate) fn new(inner: Arc<Inner>, id: &str, fact: Fact) -> EntityGuard {
        let until = Mutex::new(fact.write_until());
        EntityGuard { inner, id: id.to_owned(), side: fact.side, version: fact.version, until }
    }

    /// The side to write the entity on.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The version of the answer by which is written.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the entity may still be written. Ask right before COMMIT, and roll back where it may not.
    pub fn is_still_valid(&self) -> bool {
        self.remaining().is_some()
    }

    /// How long it is valid, if it is not extended; `None` where it is not valid any more.
    pub fn remaining(&self) -> Option<Duration> {
        self.until().checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Ends when the guard is not valid any more: for what comes *before* COMMIT, beside the work in `select!`. Safe to cancel.
    pub async fn expired(&self) {
        while self.is_still_valid() {
            tokio::time::sleep_until(self.until()).await;
        }
    }

    /// Asks again, so that a write may take longer than one answer counts. Safe to cancel.
    ///
    /// # Errors
    ///
    /// [`FlagError::EntityUnknown`] where the server does not tell; [`FlagError::EntityChanged`] where the entity is fenced, or has
    /// moved. The guard stays as it was: roll back.
    pub async fn extend(&self) -> Result<(), FlagError> {
        let fact = self.inner.fact_anew(&self.id).await?;
        // A version that is the same has been it all the time: nobody else has written meanwhile.
        if fact.fenced || fact.version != self.version || fact.side != self.side {
            return Err(FlagError::EntityChanged { entity: self.id.clone(), version: fact.version });
        }
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = fact.write_until().max(*until);
        Ok(())
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
