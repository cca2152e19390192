//! What an applier does between batches: it tries again what is set aside, and purges.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crossfade_catalog::Purpose;
use crossfade_message::Edit;

use crate::applier::Applier;
use crate::edited;
use crate::error::{ApplyError, with_causes};
use crate::lane::{Entry, Work};
use crate::{question, session, tombstone};

/// How often old tombstones are looked for.
pub(crate) const PURGE_EVERY: Duration = Duration::from_secs(60);

/// Groups of tied changes that are retried before the next batch has its turn.
const GROUPS_AT_A_TIME: usize = 50;

/// A process that has just started looks for old tombstones soon, so that one which never runs long purges too.
pub(crate) const FIRST_PURGE: Duration = Duration::from_secs(3);

impl Applier {
    /// What is set aside on the target is taken over; what the store still says beyond that has ended meanwhile.
    pub(crate) async fn take_over_parking(&mut self) -> Result<(), ApplyError> {
        self.give_up_left_out().await?;
        let mut conn = self.options.target.connect(Purpose::Apply).await?;
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
        if self.serve_in_time().await? {
            self.retry_due().await?;
        }
        if self.purged_at.elapsed() < PURGE_EVERY {
            return Ok(());
        }
        let purged = self.purge_tombstones().await;
        // Where one step was not enough, the next one has its turn after the next batch.
        if !matches!(purged, Ok(true)) {
            self.purged_at = Instant::now();
        }
        if let Err(error) = purged {
            self.lanes[0].forget_connection();
            tracing::warn!(error = with_causes(&error), "old tombstones could not be purged");
        }
        Ok(())
    }

    async fn purge_tombstones(&mut self) -> Result<bool, ApplyError> {
        // The store first: a session that says nothing meanwhile may be dropped.
        let through = self.shared.store.seen_by_all(&self.shared.owner.stream).await?;
        let conn = self.lanes[0].connection(&self.shared).await?;
        session::answered(tombstone::purge(&self.shared.owner, conn, through)).await
    }

    /// Tries what is set aside and due once more, group by group.
    async fn retry_due(&mut self) -> Result<(), ApplyError> {
        let can_judge = !self.shared.hold.is_stalled();
        let groups = self.shared.parking.lock().await.due_groups(Instant::now(), can_judge);
        if groups.is_empty() {
            return Ok(());
        }
        match self.retry_groups(groups).await {
            Err(ApplyError::Store(error)) if error.is_transient() => {
                self.wait_for_store(&error).await;
                Ok(())
            }
            tried => tried,
        }
    }

    /// Tries everything that is set aside, before anything new has its turn. Ends early when asked to stop or to rest.
    pub(crate) async fn retry_all(&mut self) -> Result<(), ApplyError> {
        // What is refused once more is due again later than this.
        let until = Instant::now();
        loop {
            let can_judge = !self.shared.hold.is_stalled();
            let due = self.shared.parking.lock().await.due_groups(until, can_judge);
            if due.is_empty() || self.options.stop.is_cancelled() || !self.options.wishes.borrow().apply {
                return Ok(());
            }
            match self.retry_groups(due).await {
                Err(ApplyError::Store(error)) if error.is_transient() => self.wait_for_store(&error).await,
                tried => tried?,
            }
        }
    }

    async fn retry_groups(&mut self, groups: Vec<BTreeSet<u64>>) -> Result<(), ApplyError> {
        for group in groups.iter().take(GROUPS_AT_A_TIME) {
            self.retry_group(group).await?;
        }
        self.tell_attempts().await
    }

    /// Attempts that changed nothing are told to the store together.
    pub(crate) async fn tell_attempts(&self) -> Result<(), ApplyError> {
        let untold = self.shared.parking.lock().await.untold(Instant::now());
        self.shared.store.note_attempts(&self.options.stream, &untold).await?;
        self.shared.parking.lock().await.told(&untold);
        Ok(())
    }

    /// Tries messages that are tied to each other once more. One whose image was corrected is tried first with those
    /// alone that it waits behind: folded with later changes of its row, its image would count for nothing.
    pub(crate) async fn retry_group(&mut self, group: &BTreeSet<u64>) -> Result<(), ApplyError> {
        let edits = self.shared.store.edits(&self.options.stream, group).await?;
        for seq in edits.keys() {
            let earlier: BTreeSet<u64> = self.still_aside(group).await.range(..=seq).copied().collect();
            if earlier.contains(seq) {
                self.retry_in_order(earlier, &edits, group).await?;
            }
        }
        let rest = self.still_aside(group).await;
        // What was just tried as it stands is not tried again.
        if rest.is_empty() || edits.keys().next_back() == rest.last() {
            return Ok(());
        }
        self.retry_in_order(rest, &edits, group).await
    }

    /// What comes after a question is tried when that is answered, and all that is tried with it has ended.
    async fn retry_in_order(
        &mut self,
        mut rest: BTreeSet<u64>,
        edits: &BTreeMap<u64, Edit>,
        whole: &BTreeSet<u64>,
    ) -> Result<(), ApplyError> {
        while !rest.is_empty() {
            let later = self.retry(&rest, edits, whole).await?;
            let tried = rest.difference(&later).copied().collect();
            if !self.still_aside(&tried).await.is_empty() {
                break;
            }
            rest = later;
        }
        Ok(())
    }

    async fn still_aside(&self, group: &BTreeSet<u64>) -> BTreeSet<u64> {
        self.shared.parking.lock().await.seqs().intersection(group).copied().collect()
    }

    /// `whole` is the group that `part` is of. Returns what of the part comes after the first questions, and was not tried.
    async fn retry(
        &mut self,
        part: &BTreeSet<u64>,
        edits: &BTreeMap<u64, Edit>,
        whole: &BTreeSet<u64>,
    ) -> Result<BTreeSet<u64>, ApplyError> {
        let concurrent = self.options.wishes.borrow().opposite_declared;
        let (store, stream) = (&self.shared.store, &self.options.stream);
        let mut messages = store.read_some(stream, part).await?;
        question::leave_what_follows(&mut messages);
        let tried: BTreeSet<u64> = messages.iter().map(|message| message.seq).collect();
        let later = part.difference(&tried).copied().collect();
        let waiting: BTreeSet<u64> = match edits.is_empty() {
            true => BTreeSet::new(),
            false => self.still_aside(whole).await.difference(&tried).copied().collect(),
        };
        let waiting = store.read_some(stream, &waiting).await?;
        let edited = edited::stand_in(&mut messages, edits, &waiting, &self.options.mappings)?;
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
        let (entry, questions) = (Entry::Retry(tried), batch.questions);
        let work = Work { plan, entry, seen: batch.seen, concurrent, edited, questions };
        self.lanes[0].run(&self.shared, &work).await?;
        self.gets_through();
        Ok(later)
    }
}
