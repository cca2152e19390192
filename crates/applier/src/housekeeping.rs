//! What an applier does between batches: it tries again what is set aside, and purges.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crossfade_catalog::{Purpose, connect};

use crate::applier::Applier;
use crate::error::ApplyError;
use crate::lane::{Entry, Work};
use crate::{session, tombstone};

/// How often old tombstones are looked for.
pub(crate) const PURGE_EVERY: Duration = Duration::from_secs(60);

/// Groups of tied changes that are retried before the next batch has its turn.
const GROUPS_AT_A_TIME: usize = 50;

/// A process that has just started looks for old tombstones soon, so that one which never runs long purges too.
pub(crate) const FIRST_PURGE: Duration = Duration::from_secs(3);

impl Applier {
    /// What is set aside on the target is taken over; what the store still says beyond that has ended meanwhile.
    pub(crate) async fn take_over_parking(&mut self) -> Result<(), ApplyError> {
        let mut conn = connect(&self.options.target, Purpose::Apply).await?;
        session::answered(self.shared.read_parking(&mut conn)).await?;
        conn.disconnect().await?;
        self.forget_reasons().await
    }

    /// The store's reasons for what is not set aside any more go.
    pub(crate) async fn forget_reasons(&self) -> Result<(), ApplyError> {
        let stream = &self.options.stream;
        let parked = self.shared.parking.lock().await.seqs();
        let mut ended: Vec<u64> = self.shared.store.set_aside(stream).await?.into_iter().collect();
        ended.retain(|seq| !parked.contains(seq));
        Ok(self.shared.store.clear_set_aside(stream, &ended).await?)
    }

    /// What is to be done between batches.
    pub(crate) async fn keep_house(&mut self) -> Result<(), ApplyError> {
        self.retry_due().await?;
        if self.purged_at.elapsed() < PURGE_EVERY {
            return Ok(());
        }
        let conn = self.lanes[0].connection(&self.shared).await;
        let purged = match conn {
            Ok(conn) => session::answered(tombstone::purge(&self.shared, conn)).await,
            Err(error) => Err(error),
        };
        // Where one step was not enough, the next one has its turn after the next batch.
        if !matches!(purged, Ok(true)) {
            self.purged_at = Instant::now();
        }
        if let Err(error) = purged {
            self.lanes[0].disconnect();
            tracing::warn!(%error, "old tombstones could not be purged");
        }
        Ok(())
    }

    /// Tries what is set aside and due once more, group by group.
    async fn retry_due(&mut self) -> Result<(), ApplyError> {
        let can_judge = !self.shared.hold.is_stalled();
        let groups = self.shared.parking.lock().await.due_groups(Instant::now(), can_judge);
        if groups.is_empty() {
            return Ok(());
        }
        let tried = self.retry(groups).await;
        match tried {
            Err(ApplyError::Store(error)) if error.is_transient() => {
                self.wait_for_store(&error).await;
                Ok(())
            }
            tried => tried,
        }
    }

    async fn retry(&mut self, groups: Vec<BTreeSet<u64>>) -> Result<(), ApplyError> {
        let concurrent = self.options.wishes.borrow().opposite_declared;
        for group in groups.into_iter().take(GROUPS_AT_A_TIME) {
            let messages = self.shared.store.read_some(&self.options.stream, &group).await?;
            let batch = self.planning.plan(messages, Some(1)).await?;
            if concurrent {
                // Right after a start nothing of the opposite stream is known, and its beginning may be purged.
                let parking = self.shared.parking.lock().await;
                let mut lookup = self.shared.lookup.lock().await;
                lookup.advance_floor(parking.seen());
                drop(parking);
                lookup.refresh().await?;
            }
            let plan = batch.plan.lanes.into_iter().next().unwrap_or_default();
            let work = Work { plan, entry: Entry::Retry(group), seen: batch.seen, concurrent };
            self.lanes[0].run(&self.shared, &work).await?;
        }
        Ok(())
    }
}
