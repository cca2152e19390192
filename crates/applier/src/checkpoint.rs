//! The checkpoint rows on the target: origin tag, exactly-once record, and fence in one.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_catalog::{Purpose, Servers};
use crossfade_model::{FIRST_SIDE_LANE, LaneProgress, StreamId, StreamProgress};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::error::ApplyError;

/// The row that lists what is set aside; it is no lane's.
pub(crate) const PARKED_LANE: u16 = u16::MAX;

/// The row by which repairs are tagged; it is no lane's, and says nothing.
const REPAIR_LANE: u16 = u16::MAX - 1;

/// Adds a row of which nothing is applied; what becomes of one that is there follows.
const ADD_ROW: &str = "INSERT INTO crossfade.checkpoint \
    (pair, stream, lane, seq, batch_first, batch_last, lanes, plan_hash, epoch, writes, updated_at) \
    VALUES (?, ?, ?, 0, 0, 0, ?, 0, ?, 1, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE";

/// Identifies the checkpoint rows of one stream, and who may write them.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointOwner {
    pub pair: String,
    pub stream: StreamId,
    pub epoch: u64,
}

/// What a lane's transaction writes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckpointStep {
    pub lane: u16,
    /// The lane's seq that the batch was planned from.
    pub from_seq: u64,
    pub batch_first: u64,
    pub batch_last: u64,
    pub lanes: u16,
    /// Of everything that the plan depends on beside the messages.
    pub plan_hash: u64,
}

/// A stream's checkpoint rows as they stand on the target, untouched.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub progress: StreamProgress,
    /// Of the youngest process that has written there; 0 for none.
    pub epoch: u64,
}

impl Standing {
    /// Reads what a stream has applied on the target, and writes nothing. Nothing is waited for: a transaction under way is as
    /// if it were not.
    pub async fn read(target: &Servers, pair: &str, stream: &StreamId) -> Result<Standing, ApplyError> {
        let mut conn = target.connect(Purpose::Apply).await?;
        let rows: Vec<Row> = conn
            .exec(
                "SELECT lane, seq, batch_first, batch_last, lanes, epoch, parked FROM crossfade.checkpoint \
                 WHERE pair = ? AND stream = ?",
                (pair, stream.as_str()),
            )
            .await?;
        // It has answered what was asked; how it says good-bye is of no interest.
        let _ = conn.disconnect().await;
        let mut standing = Standing::default();
        for row in rows {
            let (lane, seq, batch_first, batch_last, lanes, epoch, parked) =
                mysql_async::from_row_opt(row).map_err(|_| ApplyError::CheckpointUnreadable)?;
            let parked: Option<String> = parked;
            standing.epoch = standing.epoch.max(epoch);
            if lane == PARKED_LANE {
                let parked = parked.map(|list| serde_json::from_str(&list)).transpose();
                standing.progress.parked = parked.map_err(|_| ApplyError::CheckpointUnreadable)?.unwrap_or_default();
            } else if lane < FIRST_SIDE_LANE {
                standing.progress.lanes.insert(lane, LaneProgress { seq, batch_first, batch_last, lanes });
            }
        }
        Ok(standing)
    }

    /// The last message of the youngest batch that any lane has applied.
    pub fn youngest(&self) -> u64 {
        self.progress.lanes.values().map(|lane| lane.batch_last).max().unwrap_or(0)
    }
}

/// A stream's checkpoint rows as they were taken over.
pub(crate) struct TakenOver {
    pub progress: StreamProgress,
    /// What the youngest batch was planned by; 0 before the first.
    pub plan_hash: u64,
}

impl CheckpointOwner {
    /// Claims every lane row for this epoch and reads them afterwards, so that a transaction of an older epoch has
    /// either committed before (and is seen here) or can never commit.
    ///
    /// Repeatable. Fails when a row already belongs to a younger epoch.
    pub async fn take_over(&self, conn: &mut Conn, lanes: u16) -> Result<TakenOver, ApplyError> {
        for lane in (0..lanes).chain([PARKED_LANE]) {
            let row = (&self.pair, self.stream.as_str(), lane, lanes, self.epoch);
            conn.exec_drop(format!("{ADD_ROW} writes = writes + 1"), row).await?;
        }
        conn.exec_drop(
            "UPDATE crossfade.checkpoint SET epoch = ?, writes = writes + 1 WHERE pair = ? AND stream = ? AND epoch <= ?",
            (self.epoch, &self.pair, self.stream.as_str(), self.epoch),
        )
        .await?;
        let rows = self.read(conn).await?;
        if let Some(found) = rows.values().map(|row| row.epoch).find(|epoch| *epoch != self.epoch) {
            return Err(ApplyError::Fenced { mine: self.epoch, found });
        }
        let youngest = rows.values().max_by_key(|row| row.progress.batch_last);
        let plan_hash = youngest.map_or(0, |row| row.plan_hash);
        let parked = self.parked(conn).await?;
        let lanes = rows.into_iter().map(|(lane, row)| (lane, row.progress)).collect();
        Ok(TakenOver { plan_hash, progress: StreamProgress { lanes, parked } })
    }

    /// What is set aside. Waits for a transaction that is changing it.
    pub async fn parked(&self, conn: &mut Conn) -> Result<BTreeSet<u64>, ApplyError> {
        let row: Option<(Option<String>, u64)> = conn
            .exec_first(
                "SELECT parked, epoch FROM crossfade.checkpoint WHERE pair = ? AND stream = ? AND lane = ? FOR UPDATE",
                (&self.pair, self.stream.as_str(), PARKED_LANE),
            )
            .await?;
        let Some((parked, epoch)) = row else {
            return Err(ApplyError::CheckpointMissing { stream: self.stream.clone(), lane: PARKED_LANE });
        };
        if epoch != self.epoch {
            return Err(ApplyError::Fenced { mine: self.epoch, found: epoch });
        }
        let parsed = parked.map(|list| serde_json::from_str(&list)).transpose();
        Ok(parsed.map_err(|_| ApplyError::CheckpointUnreadable)?.unwrap_or_default())
    }

    /// Begins a transaction that retries messages that are set aside. `false`: the row is not there for this epoch, or the
    /// messages are not set aside any more, since an attempt whose end was not told has committed after all.
    pub async fn begin_retry(&self, conn: &mut Conn, seqs: &BTreeSet<u64>) -> Result<bool, ApplyError> {
        Ok(self.tag(conn).await? && seqs.is_subset(&self.parked(conn).await?))
    }

    /// Tags a transaction that is no lane's. `false`: the row is not there for this epoch.
    pub async fn tag(&self, conn: &mut Conn) -> Result<bool, ApplyError> {
        self.update_parked(conn, None).await
    }

    /// Makes the row that tags and fences what one worker writes beside the lanes; repeatable. Rows of younger processes stay
    /// theirs, and are then not found.
    pub async fn open_side_lane(&self, conn: &mut Conn, lane: u16) -> Result<(), ApplyError> {
        let row = (&self.pair, self.stream.as_str(), lane, 0, self.epoch);
        let known = "epoch = GREATEST(epoch, VALUES(epoch)), writes = writes + 1";
        Ok(conn.exec_drop(format!("{ADD_ROW} {known}"), row).await?)
    }

    /// Tags a transaction beside the lanes, and waits for one of the same worker whose end is not known.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Fenced`] where another process has taken over.
    pub async fn tag_side_lane(&self, conn: &mut Conn, lane: u16) -> Result<(), ApplyError> {
        conn.exec_drop(
            "UPDATE crossfade.checkpoint SET writes = writes + 1, updated_at = UTC_TIMESTAMP(6) \
             WHERE pair = ? AND stream = ? AND lane = ? AND epoch = ?",
            (&self.pair, self.stream.as_str(), lane, self.epoch),
        )
        .await?;
        if conn.affected_rows() == 1 {
            return Ok(());
        }
        let found: Option<u64> = conn
            .exec_first(
                "SELECT epoch FROM crossfade.checkpoint WHERE pair = ? AND stream = ? AND lane = ?",
                (&self.pair, self.stream.as_str(), lane),
            )
            .await?;
        Err(match found {
            Some(found) => ApplyError::Fenced { mine: self.epoch, found },
            None => ApplyError::CheckpointMissing { stream: self.stream.clone(), lane },
        })
    }

    /// Writes what is set aside from now on, inside the open transaction.
    ///
    /// # Errors
    ///
    /// [`ApplyError::CheckpointMissing`] where the row is not there for this epoch.
    pub async fn set_parked(&self, conn: &mut Conn, parked: &BTreeSet<u64>) -> Result<(), ApplyError> {
        let numbers: Vec<String> = parked.iter().map(u64::to_string).collect();
        if !self.update_parked(conn, Some(format!("[{}]", numbers.join(",")))).await? {
            return Err(ApplyError::CheckpointMissing { stream: self.stream.clone(), lane: PARKED_LANE });
        }
        Ok(())
    }

    async fn update_parked(&self, conn: &mut Conn, parked: Option<String>) -> Result<bool, ApplyError> {
        conn.exec_drop(
            "UPDATE crossfade.checkpoint SET parked = COALESCE(?, parked), writes = writes + 1, \
             updated_at = UTC_TIMESTAMP(6) WHERE pair = ? AND stream = ? AND lane = ? AND epoch = ?",
            (parked, &self.pair, self.stream.as_str(), PARKED_LANE, self.epoch),
        )
        .await?;
        Ok(conn.affected_rows() == 1)
    }

    async fn read(&self, conn: &mut Conn) -> Result<BTreeMap<u16, CheckpointRow>, ApplyError> {
        let rows: Vec<Row> = conn
            .exec(
                "SELECT lane, seq, batch_first, batch_last, lanes, epoch, plan_hash FROM crossfade.checkpoint \
                 WHERE pair = ? AND stream = ? AND lane < ? FOR UPDATE",
                (&self.pair, self.stream.as_str(), FIRST_SIDE_LANE),
            )
            .await?;
        rows.into_iter().map(parse).collect()
    }

    /// Writes the lane's checkpoint inside the open transaction. `false`: the row is not as planned; nothing written.
    pub async fn advance(&self, conn: &mut Conn, step: CheckpointStep) -> Result<bool, ApplyError> {
        conn.exec_drop(
            "UPDATE crossfade.checkpoint SET seq = ?, batch_first = ?, batch_last = ?, lanes = ?, plan_hash = ?, \
             writes = writes + 1, updated_at = UTC_TIMESTAMP(6) WHERE pair = ? AND stream = ? AND lane = ? AND epoch = ? AND seq = ?",
            (
                step.batch_last,
                step.batch_first,
                step.batch_last,
                step.lanes,
                step.plan_hash,
                &self.pair,
                self.stream.as_str(),
                step.lane,
                self.epoch,
                step.from_seq,
            ),
        )
        .await?;
        Ok(conn.affected_rows() == 1)
    }

    /// What became of a transaction whose end is unknown or whose checkpoint did not match. Waits for the row's lock,
    /// so a COMMIT that is still on its way has arrived, or never will.
    pub async fn outcome(&self, conn: &mut Conn, step: CheckpointStep) -> Result<LaneOutcome, ApplyError> {
        let rows = self.read(conn).await?;
        let Some(row) = rows.get(&step.lane) else {
            return Err(ApplyError::CheckpointMissing { stream: self.stream.clone(), lane: step.lane });
        };
        if row.epoch != self.epoch {
            return Err(ApplyError::Fenced { mine: self.epoch, found: row.epoch });
        }
        match row.progress.seq {
            seq if seq == step.batch_last => Ok(LaneOutcome::Committed),
            seq if seq == step.from_seq => Ok(LaneOutcome::NotCommitted),
            found => Err(ApplyError::CheckpointUnexpected {
                stream: self.stream.clone(),
                lane: step.lane,
                found,
                planned_from: step.from_seq,
            }),
        }
    }
}

/// Writes the repair's row of a stream, which belongs to no process: the first change of every transaction of a repair.
pub(crate) async fn tag_repair(conn: &mut Conn, pair: &str, stream: &StreamId) -> Result<(), mysql_async::Error> {
    let known = "writes = writes + 1, updated_at = UTC_TIMESTAMP(6)";
    conn.exec_drop(format!("{ADD_ROW} {known}"), (pair, stream.as_str(), REPAIR_LANE, 0, 0)).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneOutcome {
    Committed,
    NotCommitted,
}

struct CheckpointRow {
    progress: LaneProgress,
    epoch: u64,
    plan_hash: u64,
}

fn parse(row: Row) -> Result<(u16, CheckpointRow), ApplyError> {
    let (lane, seq, batch_first, batch_last, lanes, epoch, plan_hash) =
        mysql_async::from_row_opt(row).map_err(|_| ApplyError::CheckpointUnreadable)?;
    Ok((lane, CheckpointRow { progress: LaneProgress { seq, batch_first, batch_last, lanes }, epoch, plan_hash }))
}
