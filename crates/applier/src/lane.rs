//! One lane of a batch: its transaction on the target, from checkpoint to commit.
//!
//! What cannot be judged by sight is judged while the transaction holds the locks of the rows that it writes: after the
//! writes, the lane waits until the opposite reader has captured everything that users had committed on the target by
//! then. If a captured change turns a verdict, the transaction is rolled back and done again with that knowledge. So no
//! change by a user can slip in between the look-up and the write. The wait is bounded; where it takes longer, the lane
//! lets its locks go and waits outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use crossfade_catalog::{Purpose, Servers};
use crossfade_message::Store;
use crossfade_model::{FamilyPolicy, Row, Seen, TableLayout};
use crossfade_rules::key::exact_hash;
use crossfade_rules::mapping::ChildLink;
use crossfade_rules::plan::Dependences;
use crossfade_rules::{LanePlan, MappedChange, Planner, Remedy, Step, TableMapping};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;

use crate::Probe;
use crate::checkpoint::{CheckpointOwner, CheckpointStep, LaneOutcome};
use crate::circuit::Tripped;
use crate::counters::Counters;
use crate::edited::{self, EditedMessage};
use crate::entity::{self, Entities, Standings};
use crate::error::{ApplyError, is_duplicate_key, with_causes};
use crate::family::{self, Rulings};
use crate::hold::Hold;
use crate::judged::{Judged, JudgedLane};
use crate::lookup::Lookup;
use crate::mapped::Mapper;
use crate::parking::{self, Aside, AsideMessages, Cause, Parking};
use crate::progress::{Progress, Waiting, WaitingGuard};
use crate::question::{self, Answered};
use crate::session::{self, SessionId};
use crate::table::{PacketLimit, TargetTable};
use crate::uncopied::Uncopied;
use crate::writing::Written;

/// Longest wait with row locks held, at the first attempt. Each further attempt may wait twice as long, so that a reader
/// that is always a little late cannot keep a lane from committing for ever; for one that is always later than the longest,
/// [`Hold::enough_under_locks`] is enough.
const HOLD_UNDER_LOCK: Duration = Duration::from_millis(500);
const LONGEST_HOLD_UNDER_LOCK: Duration = Duration::from_secs(5);

/// How often a duplicate key is looked at again before it is taken for a true conflict of unique values.
const DUPLICATE_ATTEMPTS: u32 = 4;

/// Deadlocks and lock waits in a row after which they are told: one alone is nothing.
const COLLISIONS_UNTOLD: u32 = 2;

/// What all lanes of a direction share.
pub(crate) struct Shared {
    pub store: Store,
    pub target: Servers,
    pub owner: CheckpointOwner,
    pub mappings: Arc<[TableMapping]>,
    pub tables: Vec<TargetTable>,
    pub packet: PacketLimit,
    /// The target's columns, as messages name them.
    pub layouts: Vec<Arc<TableLayout>>,
    pub planner: Arc<Planner>,
    /// Per table the tables that refer to it.
    pub children: Vec<Vec<ChildLink>>,
    pub family: FamilyPolicy,
    pub entities: Entities,
    pub uncopied: Uncopied,
    pub lookup: Mutex<Lookup>,
    pub parking: Mutex<Parking>,
    /// The store may hold reasons of messages that are not set aside.
    pub reasons_in_doubt: AtomicBool,
    pub hold: Hold,
    pub counters: Arc<Counters>,
    pub progress: Progress,
    pub probe: Probe,
}

/// One lane's connection. Kept from batch to batch.
pub(crate) struct Lane {
    conn: Option<Conn>,
    /// Of the target's servers, when the connection was made.
    moves: u64,
    used_at: Instant,
}

/// How inserts find out whether their row exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// By the duplicate key error.
    Optimistic,
    /// By locking and looking first.
    Locked,
}

/// How an attempt goes about its work. What one attempt runs into makes the next more careful.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub care: Care,
    /// A delete that finds nothing keeps others from inserting the row before the commit.
    pub lock_gaps: bool,
    pub hold_limit: Duration,
    /// Rows that the target refuses are found and set aside.
    pub isolate: bool,
    /// What is not judged by sight is set aside, since the opposite reader does not answer.
    pub sighted_only: bool,
    /// Sight tells nothing for now.
    pub blind: bool,
    /// Rows that others refer to are put into their places before anything else is written.
    pub parents_first: bool,
    /// Where a verdict turns, all is judged and written again under the locks of what was written: however often users write rows
    /// that are there, none of them comes between a second time.
    pub keeps_locks: bool,
}

impl Manner {
    /// How long the opposite reader may be waited for; `None`: not at all.
    pub fn may_hold(self) -> Option<Duration> {
        (!self.sighted_only).then_some(self.hold_limit)
    }
}

/// A lane's task.
pub(crate) struct Work {
    pub plan: LanePlan,
    pub entry: Entry,
    /// What had been seen by the first message of the batch.
    pub seen: Arc<Seen>,
    /// Off while the opposite direction is declared off: nothing can then be concurrent.
    pub concurrent: bool,
    /// Messages of a retry whose images a person has corrected.
    pub edited: Vec<EditedMessage>,
    /// Which the lane answers after its own changes, or sets aside.
    pub questions: Vec<MappedChange>,
}

/// What the transaction begins with.
pub(crate) enum Entry {
    /// The lane's part of a batch.
    Batch(CheckpointStep),
    /// Another attempt with messages that are set aside.
    Retry(BTreeSet<u64>),
}

/// What attempts have found out, for those that come after them.
#[derive(Default)]
struct Known {
    rulings: Rulings,
    /// Messages that are set aside whatever is judged.
    waiting: BTreeMap<u64, Cause>,
    standings: Option<Standings>,
}

enum Attempt {
    Committed,
    /// A row that is to be deleted is not there, and nothing keeps a user from inserting it before the commit.
    RowAbsent,
    /// A user's change that was not known when judging decides otherwise.
    VerdictTurned,
    /// A parent and its children are in conflict.
    Ruled(Rulings),
    /// Parts of these messages, or what they need, were set aside while others had been written.
    HalfAside(BTreeMap<u64, Cause>),
    /// A child's parent is not there, and may be among what comes after it.
    ParentMissing,
    /// The opposite reader did not get there in time.
    NotCaptured,
    CheckpointElsewhere,
}

impl Lane {
    pub fn new() -> Lane {
        Lane { conn: None, moves: 0, used_at: Instant::now() }
    }

    /// Carries its work out; returns when it is committed. Dropping the future rolls back what is open.
    pub async fn run(&mut self, shared: &Shared, work: &Work) -> Result<(), ApplyError> {
        let lock_gaps = work.concurrent && expects_absent_rows(&work.plan);
        let mut manner = Manner {
            care: Care::Optimistic,
            lock_gaps,
            hold_limit: HOLD_UNDER_LOCK,
            isolate: false,
            sighted_only: false,
            blind: false,
            parents_first: false,
            keeps_locks: false,
        };
        let (mut duplicates, mut collisions) = (0, 0);
        // Said until an attempt gets through, and so also while one is under way.
        let mut _trouble: Option<WaitingGuard> = None;
        let mut known = Known::default();
        let mut backoff = pauses();
        loop {
            manner.sighted_only = work.concurrent && shared.hold.is_stalled() && shared.has_room_for(work).await;
            if work.concurrent && shared.hold.awaits_what_went_back() && !shared.hold.is_stalled() {
                // Without locks, and what it tells lets this lane see again.
                shared.hold.captured_within(HOLD_UNDER_LOCK).await?;
            }
            manner.blind = shared.hold.awaits_what_went_back();
            let sent_back = shared.hold.sent_back();
            let attempt = self.attempt(shared, work, manner, &mut known).await;
            // What this lane has waited for meanwhile was before its commit.
            if shared.hold.sent_back() != sent_back {
                shared.hold.note_sent_back();
            }
            if attempt.is_ok() {
                (_trouble, collisions) = (None, 0);
            }
            let error = match attempt {
                Ok(Attempt::Committed) => return Ok(()),
                Ok(Attempt::VerdictTurned) => {
                    manner.keeps_locks = true;
                    continue;
                }
                Ok(Attempt::HalfAside(more)) => {
                    known.waiting.extend(more);
                    continue;
                }
                Ok(Attempt::Ruled(more)) => {
                    known.rulings.extend(more);
                    continue;
                }
                Ok(Attempt::RowAbsent) => {
                    manner.lock_gaps = true;
                    continue;
                }
                Ok(Attempt::ParentMissing) => {
                    manner.parents_first = true;
                    continue;
                }
                Ok(Attempt::NotCaptured) => {
                    let more = (manner.hold_limit * 2).min(LONGEST_HOLD_UNDER_LOCK);
                    wait_outside(shared).await?;
                    manner.hold_limit = more.max(shared.hold.enough_under_locks());
                    continue;
                }
                Ok(Attempt::CheckpointElsewhere) => match self.outcome(shared, work).await {
                    Ok(LaneOutcome::Committed) => return Ok(()),
                    Ok(LaneOutcome::NotCommitted) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if let ApplyError::Row { source, .. } = &error
                && is_duplicate_key(source.driver_error())
                && duplicates < DUPLICATE_ATTEMPTS
            {
                manner.care = Care::Locked;
                duplicates += 1;
                shared.counters.note_duplicate_key();
                continue;
            }
            let remedy = error.remedy();
            match remedy {
                Remedy::Stop => return Err(error),
                Remedy::Park => {
                    (manner.isolate, manner.care) = (true, Care::Locked);
                    continue;
                }
                Remedy::RetryAtOnce => {
                    shared.counters.note_deadlock();
                    collisions += 1;
                }
                Remedy::RetryLater | Remedy::OutcomeUnknown => {
                    self.conn = None;
                    tracing::warn!(error = with_causes(&error), "applying failed; trying again");
                }
            }
            if remedy != Remedy::RetryAtOnce || collisions > COLLISIONS_UNTOLD {
                _trouble = Some(shared.progress.wait(Waiting::Retry(with_causes(&error))));
            }
            tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(5))).await;
            if remedy == Remedy::OutcomeUnknown
                && self.known_outcome(shared, work, &mut backoff).await? == LaneOutcome::Committed
            {
                return Ok(());
            }
        }
    }

    /// Asks until it is told what became of a transaction: before that nothing of it may be judged or written again.
    async fn known_outcome(
        &mut self,
        shared: &Shared,
        work: &Work,
        backoff: &mut impl Iterator<Item = Duration>,
    ) -> Result<LaneOutcome, ApplyError> {
        loop {
            match self.outcome(shared, work).await {
                Err(error) if error.remedy() != Remedy::Stop => {
                    self.conn = None;
                    let error = with_causes(&error);
                    tracing::warn!(error, "the target does not tell whether a transaction was committed; asking again");
                }
                outcome => return outcome,
            }
            tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(5))).await;
        }
    }

    /// What became of a transaction whose end was not told. What is set aside is then read from the target again.
    async fn outcome(&mut self, shared: &Shared, work: &Work) -> Result<LaneOutcome, ApplyError> {
        let conn = self.connection(shared).await?;
        let asking = async {
            let outcome = match &work.entry {
                Entry::Batch(step) => shared.owner.outcome(conn, *step).await?,
                // What is still set aside is due again by itself.
                Entry::Retry(_) => LaneOutcome::Committed,
            };
            shared.read_parking(conn).await?;
            Ok(outcome)
        };
        let outcome: Result<LaneOutcome, ApplyError> = session::answered(asking).await;
        if outcome.is_err() {
            // It may be the connection that is at fault.
            self.conn = None;
        }
        outcome
    }

    pub async fn connection(&mut self, shared: &Shared) -> Result<&mut Conn, ApplyError> {
        if self.used_at.elapsed() > session::USED_WITHIN {
            self.conn = None;
        }
        self.used_at = Instant::now();
        if let Some(conn) = &mut self.conn
            && !shared.target.still_takes_writes(conn, self.moves).await
        {
            self.conn = None;
        }
        if self.conn.is_none() {
            self.moves = shared.target.moves();
            let mut conn = shared.target.connect(Purpose::Apply).await?;
            session::prepare(&mut conn).await?;
            shared.packet.set(session::answered(session::packet_bytes(&mut conn)).await?);
            self.conn = Some(conn);
        }
        match &mut self.conn {
            Some(conn) => Ok(conn),
            None => unreachable!("connected above"),
        }
    }

    /// The connection has just answered.
    pub fn used(&mut self) {
        self.used_at = Instant::now();
    }

    /// The next work begins with a connection of its own; what is open on this one is rolled back.
    pub fn forget_connection(&mut self) {
        self.conn = None;
    }

    async fn attempt(
        &mut self,
        shared: &Shared,
        work: &Work,
        manner: Manner,
        known: &mut Known,
    ) -> Result<Attempt, ApplyError> {
        let session = self.session(shared).await?;
        let conn = self.conn.as_mut().ok_or(ApplyError::SessionGone)?;
        let judged = tokio::select! {
            judged = Box::pin(judge_all(shared, conn, work, known)) => judged,
            gone = gone(shared, session) => Err(gone),
        };
        let mut lane = self.forget_if_gone(judged)?;
        // Judging waits for other lanes, and the store for many outcomes: a session that was silent for so long may be gone.
        let session = self.session(shared).await?;
        let attempt = tokio::select! {
            attempt = Box::pin(self.write(shared, work, manner, known, &mut lane)) => attempt,
            gone = gone(shared, session) => Err(gone),
        };
        self.forget_if_gone(attempt)
    }

    async fn session(&mut self, shared: &Shared) -> Result<SessionId, ApplyError> {
        let id = self.connection(shared).await?.id();
        Ok(SessionId { id, moves: self.moves })
    }

    fn forget_if_gone<T>(&mut self, done: Result<T, ApplyError>) -> Result<T, ApplyError> {
        if matches!(done, Err(ApplyError::SessionGone)) {
            self.conn = None;
        }
        done
    }

    /// The transaction in which the lane's verdicts are carried out.
    async fn write<'w>(
        &mut self,
        shared: &Shared,
        work: &'w Work,
        manner: Manner,
        known: &mut Known,
        lane: &mut JudgedLane<'w>,
    ) -> Result<Attempt, ApplyError> {
        let conn = self.conn.as_mut().ok_or(ApplyError::SessionGone)?;
        if manner.lock_gaps {
            conn.query_drop(session::LOCKING_GAPS).await?;
        }
        conn.query_drop("BEGIN").await?;
        let attempt = write(shared, conn, lane, work, (manner, known)).await;
        match attempt {
            Ok(Attempt::Committed) => {
                lane.count_conflicts(shared);
                shared.counters.note_lane(lane);
                self.used_at = Instant::now();
            }
            // A rollback that fails leaves a connection that is not used again.
            Ok(_) => conn.query_drop("ROLLBACK").await?,
            Err(ref error) if error.remedy() == Remedy::OutcomeUnknown => {}
            Err(_) => {
                if conn.query_drop("ROLLBACK").await.is_err() {
                    self.conn = None;
                }
            }
        }
        attempt
    }
}

/// Ends when the target knows nothing of a session any more.
async fn gone(shared: &Shared, session: SessionId) -> ApplyError {
    let mut stuck = None;
    let unreachable = |error: Option<&ApplyError>| {
        stuck = error.map(|error| shared.progress.wait(Waiting::Retry(with_causes(error))));
    };
    session::until_gone(&shared.target, session, unreachable).await;
    ApplyError::SessionGone
}

/// Waits without locks for the opposite reader; gives up after a while.
async fn wait_outside(shared: &Shared) -> Result<(), ApplyError> {
    let _waiting = shared.progress.wait(Waiting::OppositeReader);
    shared.hold.captured_within(shared.hold.patience()).await.map(drop)
}

/// The lane's changes with their verdicts, by what is captured now. The session may be in mid-transaction.
async fn judge_all<'w>(
    shared: &Shared,
    conn: &mut Conn,
    work: &'w Work,
    known: &mut Known,
) -> Result<JudgedLane<'w>, ApplyError> {
    let mut lane = JudgedLane::new(&work.plan, work.concurrent);
    if !shared.entities.tables.is_empty() {
        let standings = match &mut known.standings {
            Some(standings) => standings,
            none => none.insert(entity::standings(shared, conn, &lane).await?),
        };
        lane.stand(standings);
    }
    if work.concurrent {
        let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
        lane.judge(shared, &mut lookup, conn).await?;
    }
    lane.lose_late(shared);
    lane.rule(&known.rulings);
    lane.rule(&lane.lost_moves(shared));
    lane.rule(&lane.lost_parents(shared));
    match &work.entry {
        Entry::Batch(_) => {
            let parking = session::while_alive(conn, shared.parking.lock()).await?;
            lane.hold_back(&shared.planner, parking.dependences(), &known.waiting);
            if lane.takes_along(shared) {
                lane.earlier = parking.dependences().clone();
            }
        }
        // All that these depend on is retried with them, as far as their own images tell.
        Entry::Retry(seqs) => {
            lane.hold_back(&shared.planner, &Dependences::default(), &known.waiting);
            if lane.takes_along(shared) {
                let parking = session::while_alive(conn, shared.parking.lock()).await?;
                lane.earlier = parking.dependences_before(seqs);
            }
        }
    }
    let outcomes = lane.outcomes(shared);
    session::while_alive(conn, shared.store.record_outcomes(&shared.owner.stream, &outcomes)).await??;
    Ok(lane)
}

async fn write<'w>(
    shared: &Shared,
    conn: &mut Conn,
    lane: &mut JudgedLane<'w>,
    work: &'w Work,
    (manner, known): (Manner, &mut Known),
) -> Result<Attempt, ApplyError> {
    let is_begun = match &work.entry {
        Entry::Batch(step) => shared.owner.advance(conn, *step).await?,
        Entry::Retry(seqs) => shared.owner.begin_retry(conn, seqs).await?,
    };
    if !is_begun {
        return Ok(Attempt::CheckpointElsewhere);
    }
    if !manner.keeps_locks {
        return Box::pin(carry_out(shared, conn, lane, work, manner)).await;
    }
    // A rollback to it keeps row locks (MySQL manual, "SAVEPOINT"), but only since something was written before it: a server rolls
    // an engine back as a whole that had no part in the transaction yet. So each round has one more row locked that had turned.
    conn.query_drop("SAVEPOINT begun").await?;
    loop {
        match Box::pin(carry_out(shared, conn, lane, work, manner)).await? {
            Attempt::VerdictTurned => {
                conn.query_drop("ROLLBACK TO SAVEPOINT begun").await?;
                *lane = Box::pin(judge_all(shared, conn, work, known)).await?;
            }
            ended => return Ok(ended),
        }
    }
}

/// Writes what is judged, confirms it, and commits.
async fn carry_out(
    shared: &Shared,
    conn: &mut Conn,
    lane: &mut JudgedLane<'_>,
    work: &Work,
    manner: Manner,
) -> Result<Attempt, ApplyError> {
    match lane.write(shared, conn, manner).await? {
        Written::AsJudged { .. } => {
            let half = lane.half_aside();
            if !half.is_empty() {
                return Ok(Attempt::HalfAside(half));
            }
        }
        Written::Ruled(rulings) => return Ok(Attempt::Ruled(rulings)),
        Written::NotCaptured => return Ok(Attempt::NotCaptured),
        Written::ParentMissing => return Ok(Attempt::ParentMissing),
        Written::Ahead(ahead) => return Ok(Attempt::HalfAside(ahead)),
    }
    let mut unanswered = Vec::new();
    if work.concurrent {
        match question::answer(shared, conn, &work.questions, manner).await? {
            Answered::All => {}
            Answered::Later(asides) => unanswered = asides,
            Answered::NotCaptured => return Ok(Attempt::NotCaptured),
        }
    }
    lane.tally.messages += work.questions.len() as u64;
    if lane.missed_rows() && !manner.lock_gaps {
        return Ok(Attempt::RowAbsent);
    }
    (shared.probe)("mid-lane");
    if lane.must_be_confirmed() {
        if !shared.hold.captured_under_locks(conn, manner.hold_limit).await?.is_enough() {
            return Ok(Attempt::NotCaptured);
        }
        let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
        lookup.refresh().await?;
        if lane.confirm(shared, &mut lookup, conn).await? == Judged::Otherwise {
            return Ok(Attempt::VerdictTurned);
        }
    }
    let mut outcomes = lane.merged_outcomes(shared);
    outcomes.extend(lane.late_outcomes(shared));
    session::while_alive(conn, shared.store.record_outcomes(&shared.owner.stream, &outcomes)).await??;
    commit(shared, conn, (lane, unanswered), work).await
}

/// Commits, together with what is set aside, and the questions that are.
async fn commit(
    shared: &Shared,
    conn: &mut Conn,
    (lane, unanswered): (&mut JudgedLane<'_>, Vec<Aside>),
    work: &Work,
) -> Result<Attempt, ApplyError> {
    let retried = match &work.entry {
        Entry::Batch(_) => None,
        Entry::Retry(seqs) => Some(seqs),
    };
    let mut asides = lane.asides(shared);
    asides.extend(unanswered);
    if asides.is_empty() && retried.is_none() {
        conn.query_drop("COMMIT").await?;
        return Ok(Attempt::Committed);
    }
    let refused: Vec<u64> = asides.iter().filter_map(Aside::refused_at).collect();
    let mut asides = parking::by_message(asides);
    let stream = &shared.owner.stream;
    let applied: BTreeSet<u64> =
        retried.into_iter().flatten().filter(|seq| !asides.contains_key(seq)).copied().collect();
    let mut parking = shared.parking.lock().await;
    let now = Instant::now();
    parking.reckon(&mut asides, now);
    if retried.is_some() && applied.is_empty() && parking.are_known(&asides) {
        // Nothing has changed, and nothing is written on the target.
        lane.tally.messages -= asides.len() as u64;
        conn.query_drop("ROLLBACK").await?;
        parking.nudge(&asides, now);
        parking.renew(asides, now);
        return Ok(Attempt::Committed);
    }
    if let Entry::Batch(step) = &work.entry
        && let Err(tripped) = parking.admits(&asides, &refused, step.batch_last)
    {
        // Where nothing is refused, other lanes have taken the room meanwhile; the opposite reader can be waited for.
        if refused.is_empty() && asides.values().any(|message| message.cause == Cause::Held) {
            return Ok(Attempt::NotCaptured);
        }
        let held = parking.counts().held;
        return Err(match tripped {
            Tripped::Parked { .. } if held > 0 => ApplyError::NoRoom { stream: stream.clone(), held },
            tripped => ApplyError::CircuitOpen { stream: stream.clone(), tripped },
        });
    }
    edited::settle(shared, conn, lane, &work.edited, &asides).await?;
    set_aside(shared, conn, &parking, &asides, &applied, now).await?;
    conn.query_drop("COMMIT").await?;
    lane.tally.messages -= asides.len() as u64;
    parking.nudge(&asides, now);
    parking.enter(asides, &work.seen, applied, now);
    shared.progress.set_aside(parking.counts());
    Ok(Attempt::Committed)
}

/// Tells the store why these are set aside, and then the target that they are, and that those which were `applied` are not.
async fn set_aside(
    shared: &Shared,
    conn: &mut Conn,
    parking: &Parking,
    asides: &AsideMessages,
    applied: &BTreeSet<u64>,
    now: Instant,
) -> Result<(), ApplyError> {
    let stream = &shared.owner.stream;
    // Not what is remembered: another lane may have set something aside and not yet been told that it was committed.
    let mut parked = shared.owner.parked(conn).await?;
    parked.retain(|seq| !applied.contains(seq));
    parked.extend(asides.keys());
    // Reasons of what is not set aside in the end are taken back later.
    shared.reasons_in_doubt.store(true, Relaxed);
    shared.store.clear_set_aside(stream, &parking.kept_elsewhere(asides)).await?;
    parking::record(&shared.store, stream, asides, now).await?;
    shared.owner.set_parked(conn, &parked).await
}

impl Shared {
    /// Stands for the row's key.
    pub fn exact_key(&self, table: usize, row: &Row) -> u64 {
        exact_hash(&self.mappings[table].identity, &self.tables[table].key_of(row))
    }

    async fn has_room_for(&self, work: &Work) -> bool {
        let messages = usize::try_from(work.plan.messages).unwrap_or(usize::MAX);
        self.parking.lock().await.has_room_for(messages.saturating_add(work.questions.len()))
    }

    /// Takes over what the target says is set aside.
    pub async fn read_parking(&self, conn: &mut Conn) -> Result<(), ApplyError> {
        let mut parking = self.parking.lock().await;
        let parked = self.owner.parked(conn).await?;
        if family::has_sent_back(self, conn).await? {
            self.hold.note_sent_back();
        }
        let messages = self.store.read_some(&self.owner.stream, &parked).await?;
        if let Some(missing) = parked.iter().find(|seq| messages.binary_search_by_key(*seq, |m| m.seq).is_err()) {
            return Err(ApplyError::MessageMissing { stream: self.owner.stream.clone(), seq: *missing });
        }
        let changes = Mapper::new(self.mappings.clone()).map(messages.clone())?;
        let attempts =
            if parked.is_empty() { BTreeMap::new() } else { self.store.attempts(&self.owner.stream).await? };
        parking.fill(&messages, &changes, &attempts, &self.planner, Instant::now());
        self.progress.set_aside(parking.counts());
        Ok(())
    }
}

/// Rows that came and went inside the batch, which the target has usually never had.
fn expects_absent_rows(plan: &LanePlan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Net { rows, .. } if rows.iter().any(|row| row.transient)))
}

/// Pauses between attempts.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(5))
        .with_max_delay(Duration::from_secs(5))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}
