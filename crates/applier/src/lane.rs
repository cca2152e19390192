//! One lane of a batch: its transaction on the target, from checkpoint to commit.
//!
//! What cannot be judged by sight is judged while the transaction holds the locks of the rows that it writes: after the
//! writes, the lane waits until the opposite reader has captured everything that users had committed on the target by
//! then. If a captured change turns a verdict, the transaction is rolled back and done again with that knowledge. So no
//! change by a user can slip in between the look-up and the write. The wait is bounded; where it takes longer, the lane
//! lets its locks go and waits outside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use crossfade_catalog::{Purpose, connect};
use crossfade_config::ServerUrl;
use crossfade_message::Store;
use crossfade_rules::{LanePlan, Step, TableMapping};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;

use crate::checkpoint::{CheckpointOwner, CheckpointStep, LaneOutcome};
use crate::counters::Counters;
use crate::error::{ApplyError, Remedy, is_duplicate_key};
use crate::hold::Hold;
use crate::judged::{Judged, JudgedLane};
use crate::lookup::Lookup;
use crate::progress::{Progress, Waiting};
use crate::table::TargetTable;
use crate::{Probe, session};

/// Longest wait with row locks held, at the first attempt. Each further attempt may wait twice as long, so that a reader
/// that is always a little late cannot keep a lane from committing for ever.
const HOLD_UNDER_LOCK: Duration = Duration::from_millis(500);
const LONGEST_HOLD_UNDER_LOCK: Duration = Duration::from_secs(5);

/// How often a duplicate key is looked at again before it is taken for a true conflict of unique values.
const DUPLICATE_ATTEMPTS: u32 = 4;

/// What all lanes of a direction share.
pub(crate) struct Shared {
    pub store: Store,
    pub target: ServerUrl,
    pub owner: CheckpointOwner,
    pub mappings: Arc<[TableMapping]>,
    pub tables: Vec<TargetTable>,
    pub lookup: Mutex<Lookup>,
    pub hold: Hold,
    pub counters: Arc<Counters>,
    pub progress: Progress,
    pub probe: Probe,
}

/// One lane's connection. Kept from batch to batch.
pub(crate) struct Lane {
    conn: Option<Conn>,
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
struct Manner {
    care: Care,
    /// A delete that finds nothing keeps others from inserting the row before the commit.
    lock_gaps: bool,
    hold_limit: Duration,
}

enum Attempt {
    Committed,
    /// A row that is to be deleted is not there, and nothing keeps a user from inserting it before the commit.
    RowAbsent,
    /// A user's change that was not known when judging decides otherwise.
    VerdictTurned,
    /// The opposite reader did not get there in time.
    NotCaptured,
    CheckpointElsewhere,
}

impl Lane {
    pub fn new() -> Lane {
        Lane { conn: None, used_at: Instant::now() }
    }

    /// Applies a lane's part of a batch; returns when it is committed. Dropping the future rolls back what is open.
    ///
    /// `concurrent` is off while the opposite direction is declared off: nothing can then be concurrent.
    pub async fn run(
        &mut self,
        shared: &Shared,
        plan: &LanePlan,
        step: CheckpointStep,
        concurrent: bool,
    ) -> Result<(), ApplyError> {
        let lock_gaps = concurrent && expects_absent_rows(plan);
        let mut manner = Manner { care: Care::Optimistic, lock_gaps, hold_limit: HOLD_UNDER_LOCK };
        let mut duplicates = 0;
        let mut backoff = pauses();
        loop {
            let error = match self.attempt(shared, plan, step, concurrent, manner).await {
                Ok(Attempt::Committed) => return Ok(()),
                Ok(Attempt::VerdictTurned) => continue,
                Ok(Attempt::RowAbsent) => {
                    manner.lock_gaps = true;
                    continue;
                }
                Ok(Attempt::NotCaptured) => {
                    manner.hold_limit = (manner.hold_limit * 2).min(LONGEST_HOLD_UNDER_LOCK);
                    let _waiting = shared.progress.wait(Waiting::OppositeReader);
                    if shared.hold.captured_up_to_now().await.is_err() {
                        return Err(ApplyError::HoldEnded);
                    }
                    continue;
                }
                Ok(Attempt::CheckpointElsewhere) => match self.outcome(shared, step).await {
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
            if remedy == Remedy::Stop {
                return Err(error);
            }
            if remedy != Remedy::RetryAtOnce {
                self.conn = None;
            }
            let _waiting =
                (remedy != Remedy::RetryAtOnce).then(|| shared.progress.wait(Waiting::Retry(error.to_string())));
            if remedy == Remedy::RetryAtOnce {
                shared.counters.note_deadlock();
            } else {
                tracing::warn!(lane = step.lane, %error, "applying failed; trying again");
            }
            tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(5))).await;
            if remedy == Remedy::OutcomeUnknown
                && let Ok(LaneOutcome::Committed) = self.outcome(shared, step).await
            {
                return Ok(());
            }
        }
    }

    async fn outcome(&mut self, shared: &Shared, step: CheckpointStep) -> Result<LaneOutcome, ApplyError> {
        let conn = self.connection(shared).await?;
        shared.owner.outcome(conn, step).await
    }

    async fn connection(&mut self, shared: &Shared) -> Result<&mut Conn, ApplyError> {
        if self.used_at.elapsed() > session::USED_WITHIN {
            self.conn = None;
        }
        self.used_at = Instant::now();
        if self.conn.is_none() {
            let mut conn = connect(&shared.target, Purpose::Apply).await?;
            session::prepare(&mut conn).await?;
            self.conn = Some(conn);
        }
        match &mut self.conn {
            Some(conn) => Ok(conn),
            None => unreachable!("connected above"),
        }
    }

    async fn attempt(
        &mut self,
        shared: &Shared,
        plan: &LanePlan,
        step: CheckpointStep,
        concurrent: bool,
        manner: Manner,
    ) -> Result<Attempt, ApplyError> {
        let conn = self.connection(shared).await?;
        let mut lane = JudgedLane::new(plan, concurrent);
        if concurrent {
            let mut lookup = shared.lookup.lock().await;
            lane.judge(shared, &mut lookup, conn).await?;
        }
        shared.store.record_outcomes(&shared.owner.stream, &lane.outcomes(shared)).await?;
        if manner.lock_gaps {
            conn.query_drop(session::LOCKING_GAPS).await?;
        }
        conn.query_drop("BEGIN").await?;
        let attempt = write(shared, conn, &mut lane, step, manner).await;
        match attempt {
            Ok(Attempt::Committed) => {
                shared.counters.note_lane(&lane);
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

async fn write(
    shared: &Shared,
    conn: &mut Conn,
    lane: &mut JudgedLane<'_>,
    step: CheckpointStep,
    manner: Manner,
) -> Result<Attempt, ApplyError> {
    if !shared.owner.advance(conn, step).await? {
        return Ok(Attempt::CheckpointElsewhere);
    }
    lane.write(shared, conn, manner.care).await?;
    if lane.missed_rows() && !manner.lock_gaps {
        return Ok(Attempt::RowAbsent);
    }
    (shared.probe)("mid-lane");
    if lane.must_be_confirmed() {
        let captured = tokio::time::timeout(manner.hold_limit, shared.hold.captured_up_to_now()).await;
        match captured {
            Err(_) => return Ok(Attempt::NotCaptured),
            Ok(Err(_)) => return Err(ApplyError::HoldEnded),
            Ok(Ok(())) => {}
        }
        let mut lookup = shared.lookup.lock().await;
        lookup.refresh().await?;
        if lane.confirm(shared, &mut lookup, conn).await? == Judged::Otherwise {
            return Ok(Attempt::VerdictTurned);
        }
    }
    conn.query_drop("COMMIT").await?;
    Ok(Attempt::Committed)
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
