//! One direction's applier: batches from the feed, planned, carried out by lanes, settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossfade_catalog::{Flavor, Purpose, Servers};
use crossfade_config::TablePattern;
use crossfade_message::{Store, StoreError};
use crossfade_model::{FamilyPolicy, Side, StreamId, StreamProgress, TableShape};
use crossfade_rules::mapping::{child_links, plan_hash};
use crossfade_rules::{Planner, Remedy, TableMapping};
use crossfade_throttle::{Reason, Throttle};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::breaker::{Breaker, BreakerOptions, Streams};
use crate::checkpoint::{CheckpointOwner, CheckpointStep, TakenOver};
use crate::chunk::ChunkWriter;
use crate::circuit::CircuitLimits;
use crate::counters::Counters;
use crate::entity::Entities;
use crate::error::{ApplyError, with_causes};
use crate::feed::{BatchBounds, Feed};
use crate::hold::{Hold, HoldWorker, timed_without_waits};
use crate::housekeeping::{FIRST_PURGE, PURGE_EVERY};
use crate::lane::{Entry, Lane, Shared, Work, pauses};
use crate::lookup::Lookup;
use crate::parking::Parking;
use crate::planning::{BatchToCome, PlannedBatch, Planning};
use crate::progress::{Progress, ProgressView, Waiting, WaitingGuard};
use crate::requests::LOOK_EVERY;
use crate::rest::Rests;
use crate::table::PacketLimit;
use crate::target::{layout, target_tables};
use crate::uncopied::Uncopied;
use crate::{Probe, opposite_stream};

/// `settled_seq` follows the checkpoint lazily; it is written at most this often.
const SETTLE_EVERY: Duration = Duration::from_millis(250);

/// Between two attempts to read messages from a store that is away.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// What the applier needs to know.
pub struct ApplierOptions {
    pub pair: String,
    pub stream: StreamId,
    /// Of the direction's lease.
    pub epoch: u64,
    /// Written to is always the primary among them.
    pub target: Servers,
    pub target_flavor: Flavor,
    pub store: Store,
    pub mappings: Arc<[TableMapping]>,
    /// As many as `mappings`: the target's definitions.
    pub target_shapes: Vec<Arc<TableShape>>,
    /// Tables of the source that the configuration leaves out in so many words.
    pub left_out: Arc<[TablePattern]>,
    /// Mappings of the opposite direction.
    pub opposite_mappings: Arc<[TableMapping]>,
    pub prefer: Side,
    pub family: FamilyPolicy,
    /// Over which one side at a time has authority.
    pub entities: Entities,
    /// Tables that a backfill has yet to copy.
    pub uncopied: Uncopied,
    /// Asked before each batch.
    pub throttle: Throttle,
    pub lanes: u16,
    pub bounds: BatchBounds,
    /// Memory for what users of the target did and changes on their way have not seen.
    pub index_bytes: usize,
    pub feed: Arc<Feed>,
    pub wishes: watch::Receiver<Wishes>,
    pub counters: Arc<Counters>,
    pub breaker: BreakerOptions,
    pub circuit: CircuitLimits,
    /// Where the target cannot take changes until somebody mends it, applying rests; else that is the applier's end.
    pub rests: bool,
    pub probe: Probe,
    /// Ends the applier between batches; a batch under way is finished or rolled back.
    pub stop: CancellationToken,
}

/// What operators want, as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    pub apply: bool,
    /// The opposite direction has been started at least once and is not declared off.
    pub opposite_declared: bool,
}

pub struct Applier {
    pub(crate) options: ApplierOptions,
    pub(crate) shared: Arc<Shared>,
    pub(crate) planning: Planning,
    pub(crate) breaker: Breaker,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) checkpoints: StreamProgress,
    /// What the youngest batch of before this process was planned by.
    pub(crate) planned_by: u64,
    /// What this process plans by.
    plan_hash: u64,
    settled_seq: u64,
    settled_at: Instant,
    pub(crate) purged_at: Instant,
    /// When requests were looked for last.
    pub(crate) requests_at: Instant,
    /// What is the matter, from when it is noticed until something has been applied again.
    pub(crate) trouble: Option<WaitingGuard>,
    pub(crate) rests: Rests,
}

impl Applier {
    /// Takes the stream's checkpoint rows over and reads them. Returns the applier, a view of its progress, and the
    /// worker of its waits, which must run beside it.
    pub async fn open(
        options: ApplierOptions,
    ) -> Result<(Applier, watch::Receiver<ProgressView>, impl Future<Output = Result<(), ApplyError>>), ApplyError>
    {
        let owner =
            CheckpointOwner { pair: options.pair.clone(), stream: options.stream.clone(), epoch: options.epoch };
        let taken_over = take_over(&owner, &options).await?;
        let hold_worker = HoldWorker {
            store: options.store.clone(),
            target: options.target.clone(),
            pair: options.pair.clone(),
            writer: options.stream.clone(),
            opposite: opposite_stream(&options.stream),
            wishes: options.wishes.clone(),
            stop: options.stop.clone(),
        };
        let (hold, hold_worker) = Hold::new(hold_worker, options.counters.clone());
        let (progress, view) = Progress::new();
        let lookup = Lookup::new(
            options.store.clone(),
            options.stream.clone(),
            options.mappings.clone(),
            options.opposite_mappings.clone(),
            options.prefer,
            options.index_bytes,
        );
        let planner = Arc::new(Planner::new(&options.mappings));
        let packet = PacketLimit::new();
        let shapes = &options.target_shapes;
        let tables = target_tables(&options.mappings, shapes, options.target_flavor, &packet);
        let shared = Shared {
            planner: planner.clone(),
            children: child_links(&options.mappings),
            family: options.family,
            entities: options.entities.clone(),
            uncopied: options.uncopied.clone(),
            parking: Mutex::new(Parking::new(options.circuit)),
            reasons_in_doubt: AtomicBool::default(),
            store: options.store.clone(),
            target: options.target.clone(),
            owner,
            layouts: options.mappings.iter().zip(&tables).map(|(mapping, table)| layout(mapping, table)).collect(),
            tables,
            packet,
            mappings: options.mappings.clone(),
            lookup: Mutex::new(lookup),
            hold,
            counters: options.counters.clone(),
            progress,
            probe: options.probe.clone(),
        };
        let applier = Applier {
            planning: Planning::new(&options, planner),
            breaker: Breaker::new(options.breaker.clone()),
            lanes: (0..options.lanes).map(|_| Lane::new()).collect(),
            shared: Arc::new(shared),
            checkpoints: taken_over.progress,
            planned_by: taken_over.plan_hash,
            plan_hash: plan_hash(&options.mappings),
            settled_seq: 0,
            settled_at: Instant::now(),
            requests_at: Instant::now(),
            purged_at: Instant::now().checked_sub(PURGE_EVERY - FIRST_PURGE).unwrap_or_else(Instant::now),
            trouble: None,
            rests: Rests::default(),
            options,
        };
        Ok((applier, view, hold_worker))
    }

    /// A way to write chunks beside the stream, for a worker of its own; workers are numbered from 0, and have few numbers.
    pub fn chunk_writer(&self, worker: u16) -> ChunkWriter {
        ChunkWriter::new(self.shared.clone(), worker)
    }

    /// Applies until stopped, or until an error after which this process must not go on.
    pub async fn run(mut self) -> Result<(), ApplyError> {
        loop {
            match self.run_until_stopped().await {
                // The wait's worker ends with the process too, and may be the first to notice.
                Err(ApplyError::HoldEnded) if self.options.stop.is_cancelled() => {}
                Err(error) if self.options.rests && error.may_be_over_later() => self.rest(error).await?,
                ended => ended?,
            }
            if self.options.stop.is_cancelled() {
                break;
            }
        }
        self.shared.progress.applied(self.checkpoints.applied_through());
        self.settle(true).await
    }

    async fn run_until_stopped(&mut self) -> Result<(), ApplyError> {
        self.check_against_stream().await?;
        self.take_over_parking().await?;
        if self.checkpoints.partial_batch().is_some() && self.rest_until_wished().await {
            self.shared.parking.lock().await.begin_anew(Instant::now());
        }
        // Before what is half done: the rest of that may have to be set aside too.
        if self.shared.parking.lock().await.is_short_of_room() {
            self.retry_all().await?;
        }
        if self.options.stop.is_cancelled() {
            return Ok(());
        }
        self.finish_partial_batch().await?;
        let stop = self.options.stop.clone();
        let mut ahead = None;
        loop {
            let applied = self.checkpoints.applied_through();
            self.shared.progress.applied(applied);
            let to_come = ahead.take().unwrap_or_else(|| self.planning.begin(applied + 1));
            let batch = tokio::select! {
                () = stop.cancelled() => break,
                batch = self.next_batch(to_come) => batch?,
            };
            let goes_round = tokio::select! {
                () = stop.cancelled() => break,
                goes_round = self.goes_round(&batch) => goes_round?,
            };
            if goes_round {
                continue;
            }
            let following = batch.last + 1;
            let planning = self.planning.clone();
            let look_ahead = async {
                planning.worth_beginning(following).await;
                ahead = Some(planning.begin(following));
                std::future::pending().await
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = look_ahead => {}
                applied = self.run_batch(batch, &[]) => applied?,
            }
            self.gets_through();
            self.settle(false).await?;
            tokio::select! {
                () = stop.cancelled() => break,
                kept = self.keep_house() => kept?,
            }
        }
        Ok(())
    }

    async fn until_target_can_bear_more(&self) {
        let mut waits = None;
        let tell = |reason: &Reason| waits = Some(self.shared.progress.wait(Waiting::Throttle(reason.to_string())));
        let side = self.options.stream.direction().target();
        self.options.throttle.until_changes_may_pass(side, tell).await;
    }

    /// A row of the batch goes round: somebody was told, and the batch waits until a person starts the direction again.
    async fn goes_round(&mut self, batch: &PlannedBatch) -> Result<bool, ApplyError> {
        let ApplierOptions { store, stream: own, mappings, opposite_mappings, wishes, .. } = &self.options;
        if !wishes.borrow().opposite_declared {
            return Ok(false);
        }
        match self.breaker.trips(&batch.plan, &Streams { store, own, mappings, opposite_mappings }).await {
            // The row comes again.
            Err(error) if error.is_transient() => Ok(false),
            tripped => Ok(tripped?),
        }
    }

    pub(crate) async fn check_against_stream(&mut self) -> Result<(), ApplyError> {
        let state = self.shared.store.stream_state(&self.options.stream).await?;
        self.settled_seq = state.settled_seq;
        let checkpoint = self.checkpoints.lanes.values().map(|lane| lane.batch_last).max().unwrap_or(0);
        if checkpoint > state.last_seq {
            let (stream, last_seq) = (self.options.stream.clone(), state.last_seq);
            return Err(ApplyError::CheckpointBeyondStream { stream, checkpoint, last_seq });
        }
        if state.settled_seq > checkpoint {
            let (stream, settled) = (self.options.stream.clone(), state.settled_seq);
            return Err(ApplyError::CheckpointBehindSettled { stream, checkpoint, settled });
        }
        Ok(())
    }

    /// A batch of which only some lanes had committed when the process ended is planned again, identically, and its
    /// other lanes run.
    async fn finish_partial_batch(&mut self) -> Result<(), ApplyError> {
        let Some((batch, done)) = self.checkpoints.partial_batch() else { return Ok(()) };
        if self.planned_by != self.plan_hash {
            let (first, last) = (batch.batch_first, batch.batch_last);
            return Err(ApplyError::PlanChanged { stream: self.options.stream.clone(), first, last });
        }
        tracing::info!(first = batch.batch_first, last = batch.batch_last, ?done, "finishing an interrupted batch");
        let messages = self.shared.store.read_range(&self.options.stream, batch.batch_first, batch.batch_last).await?;
        let planned = self.planning.plan(messages, Some(batch.lanes)).await?;
        while self.lanes.len() < usize::from(batch.lanes) {
            self.lanes.push(Lane::new());
        }
        self.run_batch(planned, &done).await
    }

    /// Waits until applying is wished; returns whether it was not.
    async fn rest_until_wished(&mut self) -> bool {
        let mut wishes = self.options.wishes.clone();
        if wishes.borrow_and_update().apply {
            return false;
        }
        self.shared.progress.rests(true);
        tokio::select! {
            () = self.options.stop.cancelled() => {}
            // What follows the wishes ends with the process.
            _ = wishes.wait_for(|wishes| wishes.apply) => {}
        }
        self.shared.progress.rests(false);
        true
    }

    /// The batch that is to come, once it is there and wished to be applied.
    async fn next_batch(&mut self, mut to_come: BatchToCome) -> Result<PlannedBatch, ApplyError> {
        let mut wishes = self.options.wishes.clone();
        let applied = self.checkpoints.applied_through();
        let mut has_rested = false;
        let mut planned = None;
        loop {
            let wished = *wishes.borrow_and_update();
            self.shared.progress.looks_for_concurrent(wished.opposite_declared);
            self.shared.progress.rests(!wished.apply);
            if !wished.apply {
                self.breaker.clear();
                has_rested = true;
                until_changed(&mut wishes).await;
                continue;
            }
            if std::mem::take(&mut has_rested) {
                self.shared.parking.lock().await.begin_anew(Instant::now());
                self.retry_all().await?;
                self.gets_through();
            }
            if let Some(batch) = planned.take() {
                tokio::select! {
                    () = self.until_target_can_bear_more() => return Ok(batch),
                    () = until_changed(&mut wishes) => planned = Some(batch),
                }
                continue;
            }
            let settle_later = self.settle_later(applied);
            let purge_due = self.purged_at + PURGE_EVERY;
            let retry_due = self.shared.parking.lock().await.next_due(Instant::now(), !self.shared.hold.is_stalled());
            let look_due = purge_due.min(self.requests_at + LOOK_EVERY);
            let due = Some(retry_due.map_or(look_due, |retry| retry.min(look_due)));
            tokio::select! {
                ended = &mut to_come => match ended.map_err(|_| ApplyError::PlanningEnded)? {
                    Err(ApplyError::Store(error)) if error.is_transient() => {
                        self.wait_for_store(&error).await;
                        to_come = self.planning.begin(applied + 1);
                    }
                    ended => planned = Some(ended?),
                },
                () = until_changed(&mut wishes) => {}
                () = settle_later => self.settle(true).await?,
                () = sleep_until(due) => self.keep_house().await?,
            }
        }
    }

    /// Something has been applied, so what was the matter is over.
    pub(crate) fn gets_through(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(stream = %self.options.stream, "applying again");
        }
    }

    /// The store's absence is told until something has been applied again.
    pub(crate) async fn wait_for_store(&mut self, error: &StoreError) {
        let error = with_causes(error);
        tracing::warn!(error, "messages cannot be read; trying again");
        self.trouble = Some(self.shared.progress.wait(Waiting::Retry(error)));
        tokio::time::sleep(STORE_PAUSE).await;
    }

    /// Ends when an idle applier should write what it has settled; never where that is written already.
    fn settle_later(&self, applied: u64) -> impl Future<Output = ()> + 'static {
        let is_due = applied > self.settled_seq || self.shared.reasons_in_doubt.load(Relaxed);
        let due = is_due.then(|| self.settled_at + SETTLE_EVERY);
        sleep_until(due)
    }

    /// Carries a batch out, but for the lanes that are `done`.
    async fn run_batch(&mut self, batch: PlannedBatch, done: &[u16]) -> Result<(), ApplyError> {
        let concurrent = self.options.wishes.borrow().opposite_declared;
        if concurrent {
            let parking = self.shared.parking.lock().await;
            let mut lookup = self.shared.lookup.lock().await;
            lookup.advance_floor(std::iter::once(&*batch.seen).chain(parking.seen()));
            drop(parking);
            match lookup.refresh().await {
                // What a lane cannot judge without the store, it confirms before its commit, and waits for the store there.
                Err(error) if error.remedy() == Remedy::RetryLater => {
                    tracing::warn!(error = with_causes(&error), "the store is away")
                }
                refreshed => refreshed?,
            }
        }
        self.keep_left_out(&batch.left_out).await?;
        let (batch_last, committed_at_micros) = (batch.last, batch.committed_at_micros);
        self.run_lanes(batch, done, concurrent).await?;
        (self.shared.probe)("after-target-commit");
        self.shared.counters.note_batch(micros_since(committed_at_micros));
        self.shared.progress.applied(batch_last);
        Ok(())
    }

    /// Each lane runs as a task of its own, so that one binds values while another waits for the server.
    async fn run_lanes(&mut self, batch: PlannedBatch, done: &[u16], concurrent: bool) -> Result<(), ApplyError> {
        let PlannedBatch { plan, mut questions, first: batch_first, last: batch_last, lanes, seen, .. } = batch;
        let open_lanes = Arc::new(AtomicUsize::new(usize::from(lanes) - done.len()));
        let mut tasks = JoinSet::new();
        for (number, plan) in (0..lanes).zip(plan.lanes) {
            if done.contains(&number) {
                continue;
            }
            let mut lane = std::mem::replace(&mut self.lanes[usize::from(number)], Lane::new());
            let from_seq = self.checkpoints.lanes.get(&number).map_or(0, |row| row.seq);
            let plan_hash = self.plan_hash;
            let step = CheckpointStep { lane: number, from_seq, batch_first, batch_last, lanes, plan_hash };
            let (shared, open_lanes) = (self.shared.clone(), open_lanes.clone());
            let entry = Entry::Batch(step);
            let questions = if number == 0 { std::mem::take(&mut questions) } else { Vec::new() };
            let work = Work { plan, entry, seen: seen.clone(), concurrent, edited: Vec::new(), questions };
            tasks.spawn(async move {
                let (ran, took) = timed_without_waits(lane.run(&shared, &work)).await;
                if ran.is_ok() && open_lanes.fetch_sub(1, Relaxed) > 1 {
                    (shared.probe)("between-lanes");
                }
                ran.map(|()| (number, lane, took))
            });
        }
        let mut longest = Duration::ZERO;
        while let Some(ran) = tasks.join_next().await {
            let (number, lane, took) = ran.map_err(|_| ApplyError::LaneEnded)??;
            self.lanes[usize::from(number)] = lane;
            longest = longest.max(took);
        }
        let rows = (batch_last - batch_first + 1) as usize;
        if done.is_empty() {
            self.planning.note_batch(rows, longest);
        }
        tracing::debug!(rows, lanes, took = ?longest, "a batch is applied");
        for lane in 0..lanes {
            let row = crossfade_model::LaneProgress { seq: batch_last, batch_first, batch_last, lanes };
            self.checkpoints.lanes.insert(lane, row);
        }
        Ok(())
    }

    pub(crate) async fn settle(&mut self, now: bool) -> Result<(), ApplyError> {
        let applied = self.checkpoints.applied_through();
        let is_settled = applied <= self.settled_seq && !self.shared.reasons_in_doubt.load(Relaxed);
        if is_settled || (!now && self.settled_at.elapsed() < SETTLE_EVERY) {
            return Ok(());
        }
        (self.shared.probe)("before-settle");
        if self.shared.reasons_in_doubt.swap(false, Relaxed)
            && let Err(error) = self.forget_reasons().await
        {
            self.shared.reasons_in_doubt.store(true, Relaxed);
            tracing::warn!(
                error = with_causes(&error),
                "the store cannot be told which messages are not set aside any more; trying again"
            );
        }
        match self.shared.store.settle(&self.options.stream, applied).await {
            Ok(()) => self.settled_seq = applied,
            // The checkpoint is the truth; settling follows when the store is back, by another process where this one ends.
            Err(error) if error.is_transient() || (self.options.stop.is_cancelled() && error.may_be_over_later()) => {
                tracing::warn!(error = with_causes(&error), "settling waits for the store")
            }
            Err(error) => return Err(error.into()),
        }
        self.settled_at = Instant::now();
        Ok(())
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Never ends when the sender is gone, which lives as long as the process.
async fn until_changed(wishes: &mut watch::Receiver<Wishes>) {
    if wishes.changed().await.is_err() {
        std::future::pending().await
    }
}

/// A former holder may still have locks on the checkpoint rows, until the server drops its session.
pub(crate) async fn take_over(owner: &CheckpointOwner, options: &ApplierOptions) -> Result<TakenOver, ApplyError> {
    let attempt = async || {
        let mut conn = options.target.connect(Purpose::Apply).await?;
        crate::session::prepare(&mut conn).await?;
        crate::session::answered(owner.take_over(&mut conn, options.lanes)).await
    };
    let mut pauses = pauses();
    loop {
        match attempt().await {
            Err(error) if error.remedy() != Remedy::Stop => {
                tracing::warn!(error = with_causes(&error), "the checkpoints could not be taken over; trying again");
                tokio::select! {
                    () = options.stop.cancelled() => return Err(error),
                    () = tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(5))) => {}
                }
            }
            other => return other,
        }
    }
}

fn micros_since(micros: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(u64::try_from(micros).unwrap_or(0))
}
