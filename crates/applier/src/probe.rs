//! A load of synthetic rows, to see what a target takes beside what its source writes.
//!
//! The rows are in schema `crossfade`, of which no reader captures anything: nothing of them comes back, whoever runs meanwhile.

use std::ops::Range;
use std::time::{Duration, Instant};

use crossfade_catalog::{Dialect, Purpose, ServerFacts, Servers, binlog_bytes};
use crossfade_rules::trouble::Remedy;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Value};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::ApplyError;
use crate::session;

/// Rows that a transaction inserts, and those that it deletes; it updates twice as many.
const ROWS: u64 = 50;

/// Rows that a lane keeps, so that the table stays small however long it takes.
const KEPT_ROWS: u64 = 5_000;

const PAYLOAD_BYTES: usize = 160;

/// One at a time on a server.
const LOCK: &str = "crossfade.probe";
/// The server may not have noticed yet that the one before was killed.
const LOCK_WAIT_SECONDS: u32 = 3;

const CLEAR: &str = "DROP TABLE IF EXISTS crossfade.probe, crossfade.probe_lane";

/// As tables that are synced, and the row that each transaction of a lane updates first.
const CREATE: [&str; 3] = [
    "CREATE DATABASE IF NOT EXISTS crossfade DEFAULT CHARACTER SET utf8mb4",
    "CREATE TABLE crossfade.probe (
       lane SMALLINT UNSIGNED NOT NULL, id BIGINT UNSIGNED NOT NULL, v INT UNSIGNED NOT NULL, payload VARBINARY(255) NOT NULL,
       PRIMARY KEY (lane, id), KEY by_v (lane, v)) ENGINE=InnoDB",
    "CREATE TABLE crossfade.probe_lane (
       lane SMALLINT UNSIGNED NOT NULL PRIMARY KEY, writes BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB",
];

/// What a target took, and what its source wrote in the same time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProbeLoad {
    pub seconds: f64,
    pub lanes: u16,
    /// Rows inserted, updated and deleted on the target.
    pub target_changes_per_second: f64,
    /// What its binlog grew by, of everybody's writes; `None` where the account may not ask.
    pub target_binlog_bytes_per_second: Option<f64>,
    /// Of all schemas, and of everybody.
    pub source_changes_per_second: f64,
    pub source_binlog_bytes_per_second: Option<f64>,
    /// How many times what the source wrote the target took: the smaller one by changes and by bytes. `None` where the source
    /// wrote next to nothing.
    pub headroom: Option<f64>,
}

/// Writes for some time, or until `stop`, as the applier would: a lane's row first, rows locked by key, several rows a
/// statement. Clears away what it has created, and what one that was killed has left.
///
/// # Errors
///
/// [`ApplyError::ProbeRuns`], and what the servers say.
pub async fn probe_load(
    source: &Servers,
    target: &Servers,
    lanes: u16,
    time: Duration,
    stop: &CancellationToken,
) -> Result<ProbeLoad, ApplyError> {
    let mut keeper = target.connect(Purpose::Catalog).await?;
    let is_locked: Option<i64> = keeper.exec_first("SELECT GET_LOCK(?, ?)", (LOCK, LOCK_WAIT_SECONDS)).await?;
    if is_locked != Some(1) {
        return Err(ApplyError::ProbeRuns);
    }
    keeper.query_drop(CLEAR).await?;
    let measured = async {
        for statement in CREATE {
            keeper.query_drop(statement).await?;
        }
        measure(&mut keeper, source, target, lanes, time, stop).await
    }
    .await;
    let cleared = keeper.query_drop(CLEAR).await;
    // It ends the lock, too.
    let _ = keeper.disconnect().await;
    let measured = measured?;
    cleared?;
    Ok(measured)
}

async fn measure(
    keeper: &mut Conn,
    source: &Servers,
    target: &Servers,
    lanes: u16,
    time: Duration,
    stop: &CancellationToken,
) -> Result<ProbeLoad, ApplyError> {
    let mut source = source.connect(Purpose::Catalog).await?;
    let source_dialect = ServerFacts::read(&mut source).await?.dialect();
    let target_dialect = ServerFacts::read(keeper).await?.dialect();
    let mut conns = Vec::new();
    for lane in 0..lanes {
        conns.push((lane, prepared(target, lane).await?));
    }
    let before = (Counted::of(&mut source, source_dialect).await?, Counted::of(keeper, target_dialect).await?);
    let begun = Instant::now();
    let mut tasks: JoinSet<Result<u64, ApplyError>> = JoinSet::new();
    for (lane, conn) in conns {
        tasks.spawn(write(conn, lane, begun + time, stop.clone()));
    }
    let mut changes = 0;
    while let Some(ended) = tasks.join_next().await {
        changes += ended.map_err(|_| ApplyError::ProbeEnded)??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = (Counted::of(&mut source, source_dialect).await?, Counted::of(keeper, target_dialect).await?);
    let a_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
    let bytes = |before: Counted, after: Counted| Some(a_second(before.binlog_bytes?, after.binlog_bytes?));
    let mut load = ProbeLoad {
        seconds,
        lanes,
        target_changes_per_second: changes as f64 / seconds,
        target_binlog_bytes_per_second: bytes(before.1, after.1),
        source_changes_per_second: a_second(before.0.changes, after.0.changes),
        source_binlog_bytes_per_second: bytes(before.0, after.0),
        headroom: None,
    };
    load.headroom = headroom(&load);
    Ok(load)
}

/// A source that writes less than a row a second says nothing.
fn headroom(load: &ProbeLoad) -> Option<f64> {
    if load.source_changes_per_second < 1.0 {
        return None;
    }
    let by_changes = load.target_changes_per_second / load.source_changes_per_second;
    let by_bytes = match (load.target_binlog_bytes_per_second, load.source_binlog_bytes_per_second) {
        (Some(target), Some(source)) if source > 0.0 => target / source,
        _ => by_changes,
    };
    Some(by_changes.min(by_bytes))
}

/// What a server counts of its writes.
#[derive(Debug, Clone, Copy)]
struct Counted {
    changes: u64,
    binlog_bytes: Option<u64>,
}

impl Counted {
    async fn of(conn: &mut Conn, dialect: Dialect) -> Result<Counted, ApplyError> {
        let counters: Vec<(String, u64)> = conn
            .query(
                "SHOW GLOBAL STATUS WHERE Variable_name IN
                  ('Innodb_rows_inserted', 'Innodb_rows_updated', 'Innodb_rows_deleted',
                   'Handler_write', 'Handler_update', 'Handler_delete')",
            )
            .await?;
        // MariaDB 10.11 has only the latter, which count temporary tables on MySQL as well.
        let counts = |in_tables: bool| -> Vec<u64> {
            let is_wanted = |name: &str| name.to_ascii_lowercase().starts_with("innodb") == in_tables;
            counters.iter().filter(|(name, _)| is_wanted(name)).map(|(_, count)| *count).collect()
        };
        let changes = if counts(true).is_empty() { counts(false) } else { counts(true) }.into_iter().sum();
        Ok(Counted { changes, binlog_bytes: binlog_bytes(conn, dialect).await })
    }
}

async fn prepared(target: &Servers, lane: u16) -> Result<Conn, ApplyError> {
    let mut conn = target.connect(Purpose::Apply).await?;
    session::prepare(&mut conn).await?;
    conn.exec_drop("INSERT INTO crossfade.probe_lane (lane, writes) VALUES (?, 0)", (lane,)).await?;
    Ok(conn)
}

/// One lane, transaction after transaction. Returns how many rows it has changed.
async fn write(mut conn: Conn, lane: u16, until: Instant, stop: CancellationToken) -> Result<u64, ApplyError> {
    let (mut kept, mut changes) = (0..0, 0);
    while Instant::now() < until && !stop.is_cancelled() {
        match transaction(&mut conn, lane, kept.clone()).await {
            Ok((now, changed)) => {
                kept = now;
                changes += changed;
            }
            // Lanes meet now and then, as those of the applier do.
            Err(error) if error.remedy() == Remedy::RetryAtOnce => conn.query_drop("ROLLBACK").await?,
            Err(error) => return Err(error),
        }
    }
    Ok(changes)
}

/// Returns which rows are there now, of those that were there, and how many were changed.
async fn transaction(conn: &mut Conn, lane: u16, kept: Range<u64>) -> Result<(Range<u64>, u64), ApplyError> {
    let payload = vec![(kept.end % 251) as u8; PAYLOAD_BYTES];
    conn.query_drop("BEGIN").await?;
    conn.exec_drop("UPDATE crossfade.probe_lane SET writes = writes + 1 WHERE lane = ?", (lane,)).await?;
    let mut changes = update(conn, lane, kept.start..kept.end.min(kept.start + 2 * ROWS), &payload).await?;
    let mut now = kept.start..kept.end + ROWS;
    changes += insert(conn, lane, kept.end..now.end, &payload).await?;
    if now.end - now.start > KEPT_ROWS {
        let oldest = "DELETE FROM crossfade.probe WHERE lane = ? AND id >= ? AND id < ?";
        conn.exec_drop(oldest, (lane, now.start, now.start + ROWS)).await?;
        changes += conn.affected_rows();
        now.start += ROWS;
    }
    conn.query_drop("COMMIT").await?;
    Ok((now, changes))
}

async fn update(conn: &mut Conn, lane: u16, ids: Range<u64>, payload: &[u8]) -> Result<u64, ApplyError> {
    if ids.is_empty() {
        return Ok(0);
    }
    let places = vec!["?"; (ids.end - ids.start) as usize].join(", ");
    let keys: Vec<Value> = std::iter::once(Value::from(lane)).chain(ids.map(Value::from)).collect();
    let locked = format!("SELECT id FROM crossfade.probe WHERE lane = ? AND id IN ({places}) FOR UPDATE");
    let _: Vec<u64> = conn.exec(locked, Params::Positional(keys.clone())).await?;
    let changed = format!("UPDATE crossfade.probe SET v = v + 1, payload = ? WHERE lane = ? AND id IN ({places})");
    let values = std::iter::once(Value::from(payload)).chain(keys).collect();
    conn.exec_drop(changed, Params::Positional(values)).await?;
    Ok(conn.affected_rows())
}

async fn insert(conn: &mut Conn, lane: u16, ids: Range<u64>, payload: &[u8]) -> Result<u64, ApplyError> {
    let places = vec!["(?, ?, ?, ?)"; (ids.end - ids.start) as usize].join(", ");
    let row = |id: u64| [Value::from(lane), Value::from(id), Value::from(id % 1_000), Value::from(payload)];
    let values: Vec<Value> = ids.flat_map(row).collect();
    let statement = format!("INSERT INTO crossfade.probe (lane, id, v, payload) VALUES {places}");
    conn.exec_drop(statement, Params::Positional(values)).await?;
    Ok(conn.affected_rows())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_one_of_changes_and_bytes_counts() {
        let mut load = ProbeLoad {
            seconds: 5.0,
            lanes: 4,
            target_changes_per_second: 9_000.0,
            target_binlog_bytes_per_second: Some(2_000_000.0),
            source_changes_per_second: 300.0,
            source_binlog_bytes_per_second: Some(1_000_000.0),
            headroom: None,
        };
        assert_eq!(headroom(&load), Some(2.0));
        load.source_binlog_bytes_per_second = None;
        assert_eq!(headroom(&load), Some(30.0));
        load.source_changes_per_second = 0.2;
        assert_eq!(headroom(&load), None);
    }
}
