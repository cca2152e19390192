//! Streams: how far each source is read and settled, what its process says of itself, and what it is wished to do.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::{Direction, ResumePoint, Seen, StreamId};
use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlRow;
use sqlx::{Connection, Row};

use crate::connections::in_time;
use crate::outcome::cut;
use crate::{Epoch, Health, Store, StoreError};

/// What a batch starts from. A capture succeeds only while the store still says the same.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamState {
    pub stream: StreamId,
    pub epoch: Epoch,
    pub position: ResumePoint,
    pub seen: Seen,
    /// 0 before the first message.
    pub last_seq: u64,
    pub settled_seq: u64,
}

impl StreamState {
    pub fn next_seq(&self) -> u64 {
        self.last_seq + 1
    }
}

/// What `status` shows of a stream.
#[derive(Debug, Clone)]
pub struct StreamStatus {
    pub stream: String,
    pub position: ResumePoint,
    pub epoch: Epoch,
    pub last_seq: u64,
    pub settled_seq: u64,
    pub captured_at: Option<DateTime<Utc>>,
    pub settled_at: Option<DateTime<Utc>>,
    pub open_failures: u64,
    pub held: u64,
    /// `None` until a process has reported.
    pub report: Option<StreamReport>,
    pub reported_at: Option<DateTime<Utc>>,
    /// The state holds since then, whatever reasons it has had.
    pub since: Option<DateTime<Utc>>,
}

/// What a process says of its stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamReport {
    pub health: Health,
    pub counters: StreamCounters,
}

/// Since the stream was created, unless said otherwise. A process that starts goes on from what the store has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamCounters {
    pub captured: u64,
    pub applied: u64,
    /// Rows of origin sync that were recognised and not captured.
    pub echoes: u64,
    /// Changes that won against a concurrent one, and changes that lost, overtaken ones included.
    pub conflicts_won: u64,
    pub conflicts_lost: u64,
    /// The same by the table's name at the source; tables without a conflict have no entry.
    pub conflicts: BTreeMap<String, ConflictCounts>,
    /// Written rows whose locked row on the target proved that nothing was concurrent; rows that were not written, since what
    /// was captured by then had won; and those that were written once the opposite reader had told what users of the target
    /// did.
    pub judged_by_sight: u64,
    pub judged_by_look_up: u64,
    pub judged_by_waiting: u64,
    pub waits: WaitCounts,
    /// Slowest change from commit on the source to commit on the target.
    pub slowest_ms: u64,
    /// Age of the oldest change that is not applied; of the time of the report.
    pub lag_ms: u64,
    /// Everything that the source had at the time of the report is captured and applied.
    pub caught_up: bool,
    pub rows_per_second: u64,
    /// Until the source may purge what is not read yet; `None` where it keeps that for ever, or where that is only the file
    /// that is written now and reading does not rest.
    pub unread_kept_s: Option<u64>,
    /// The lease epoch of the process that looks for changes by users of its target before it writes; 0 while the
    /// opposite direction is declared off. The opposite process waits for it before it says that it runs.
    pub looks_for_concurrent_epoch: u64,
    pub tag: TagProof,
}

/// How changes ended that met a concurrent one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConflictCounts {
    pub won: u64,
    pub lost: u64,
    /// Lost too, and overtaken by a later change of the same side anyway.
    pub stale: u64,
    /// Of those that lost or were stale, those that were made where the other side had authority over the row.
    #[serde(skip_serializing_if = "is_none")]
    pub authority: u64,
}

/// Pairs without entities have none, and are not told of it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl ConflictCounts {
    pub fn add(&mut self, more: ConflictCounts) {
        self.won += more.won;
        self.lost += more.lost;
        self.stale += more.stale;
        self.authority += more.authority;
    }
}

/// How long lanes waited until the opposite reader had told what users of the target did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitCounts {
    pub count: u64,
    pub total_micros: u64,
    pub longest_micros: u64,
    /// Waits that took no longer than this; each counts those of the one before.
    pub within_10_ms: u64,
    pub within_100_ms: u64,
    pub within_1_s: u64,
}

impl WaitCounts {
    pub fn note(&mut self, took: std::time::Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let within = |limit_ms: u64| u64::from(micros <= limit_ms * 1_000);
        self.add(WaitCounts {
            count: 1,
            total_micros: micros,
            longest_micros: micros,
            within_10_ms: within(10),
            within_100_ms: within(100),
            within_1_s: within(1_000),
        });
    }

    pub fn add(&mut self, more: WaitCounts) {
        self.count += more.count;
        self.total_micros = self.total_micros.saturating_add(more.total_micros);
        self.longest_micros = self.longest_micros.max(more.longest_micros);
        self.within_10_ms += more.within_10_ms;
        self.within_100_ms += more.within_100_ms;
        self.within_1_s += more.within_1_s;
    }
}

/// Whether the tag of what a process writes is known to arrive where the opposite process reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TagProof {
    /// When it was proved last.
    pub proved_at: Option<DateTime<Utc>>,
    /// Why it is not proved now.
    pub open: Option<String>,
}

/// What a direction is wished to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Off until the direction is first started. While off, nobody waits for it.
    pub declared: bool,
    pub capture: bool,
    pub apply: bool,
}

impl Wish {
    pub const RUN: Wish = Wish { declared: true, capture: true, apply: true };
    pub const OFF: Wish = Wish { declared: false, capture: false, apply: false };
    /// Messages go on being captured, so that nothing is missed, and are not applied.
    pub const CAPTURE_ONLY: Wish = Wish { declared: true, capture: true, apply: false };
}

impl Store {
    /// Makes the stream known, to be read from `start`. A stream that is known already stays as it is.
    pub async fn create_stream(&self, stream: &StreamId, start: &ResumePoint) -> Result<StreamState, StoreError> {
        sqlx::query(
            "INSERT INTO stream (pair, stream, epoch, position, seen, last_seq, settled_seq, created_at)
             VALUES (?, ?, 0, ?, '{}', 0, 0, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE stream = VALUES(stream)",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(to_json(start))
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("create a stream"))?;
        self.stream_state(stream).await
    }

    /// # Errors
    ///
    /// [`StoreError::UnknownStream`].
    pub async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        let row = sqlx::query(
            "SELECT epoch, position, seen, last_seq, settled_seq FROM stream WHERE pair = ? AND stream = ?",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::during("read a stream"))?
        .ok_or_else(|| StoreError::UnknownStream(stream.clone()))?;
        state_of_row(stream, &row)
    }

    /// Takes the stream over for the lease of `epoch`: from now on, captures of older epochs fail.
    ///
    /// # Errors
    ///
    /// [`StoreError::Overtaken`] if a younger lease has the stream already.
    pub async fn adopt_stream(&self, stream: &StreamId, epoch: Epoch) -> Result<StreamState, StoreError> {
        sqlx::query("UPDATE stream SET epoch = ? WHERE pair = ? AND stream = ? AND epoch < ?")
            .bind(epoch.0)
            .bind(&*self.pair)
            .bind(stream.as_str())
            .bind(epoch.0)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("take a stream over"))?;
        let state = self.stream_state(stream).await?;
        if state.epoch == epoch {
            Ok(state)
        } else {
            Err(StoreError::Overtaken { subject: stream.to_string(), mine: epoch.0, current: state.epoch.0 })
        }
    }

    /// Everything up to and including `seq` is applied, or has an outcome or failure row. Going back is not possible;
    /// a lower `seq` than is settled changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::SettledBeyond`] the stream's last message.
    pub async fn settle(&self, stream: &StreamId, seq: u64) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE stream SET settled_seq = ?, settled_at = UTC_TIMESTAMP(6)
             WHERE pair = ? AND stream = ? AND settled_seq < ? AND last_seq >= ?",
        )
        .bind(seq)
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(seq)
        .bind(seq)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("settle messages"))?;
        if done.rows_affected() == 0 {
            let state = self.stream_state(stream).await?;
            if state.last_seq < seq {
                return Err(StoreError::SettledBeyond { stream: stream.clone(), settled: seq, last: state.last_seq });
            }
        }
        Ok(())
    }

    /// How far `stream` has read the heartbeats that `writer` writes to its source; 0 for not at all.
    pub async fn heartbeat_passed(&self, stream: &StreamId, writer: &str) -> Result<u64, StoreError> {
        let counter: Option<u64> =
            sqlx::query_scalar("SELECT counter FROM heartbeat_seen WHERE pair = ? AND stream = ? AND writer = ?")
                .bind(&*self.pair)
                .bind(stream.as_str())
                .bind(writer)
                .fetch_optional(&self.pool)
                .await
                .map_err(StoreError::during("read a heartbeat"))?;
        Ok(counter.unwrap_or(0))
    }

    /// Publishes what the process with the direction's lease of `epoch` says of its stream; one that was replaced says nothing any
    /// more. An unchanged report writes nothing, so that an idle pair stays idle; that the process lives is told by its lease.
    pub async fn report(&self, stream: &StreamId, epoch: Epoch, report: &StreamReport) -> Result<(), StoreError> {
        // Changed where it can be: an account that may not insert any more then still tells so, as long as it may renew its lease.
        // Assignments run from left to right and see what those before them have set (MySQL manual, "UPDATE Statement"), so
        // `since` is decided before the state changes. It stays where the reason alone is another: what is retried is retried
        // since its first failure.
        let (state, reason, counters) = (report.health.word(), report.health.reason(), to_json(&report.counters));
        let during = || StoreError::during("publish a report");
        let changed = sqlx::query(
            "UPDATE stream_report SET
               since = IF(state = ?, since, UTC_TIMESTAMP(6)),
               reported_at = IF(state = ? AND reason <=> ? AND counters = ?, reported_at, UTC_TIMESTAMP(6)),
               state = ?, reason = ?, counters = ?
             WHERE pair = ? AND stream = ?
               AND NOT EXISTS (SELECT 1 FROM lease WHERE pair = ? AND subject = ? AND epoch > ?)",
        )
        .bind(state)
        .bind(state)
        .bind(reason)
        .bind(&counters)
        .bind(state)
        .bind(reason)
        .bind(&counters)
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(&*self.pair)
        .bind(stream.direction().as_str())
        .bind(epoch.0)
        .execute(&self.pool)
        .await
        .map_err(during())?;
        if changed.rows_affected() > 0 {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO stream_report (pair, stream, state, reason, since, counters, reported_at)
             SELECT ?, ?, ?, ?, UTC_TIMESTAMP(6), ?, UTC_TIMESTAMP(6) FROM DUAL
             WHERE NOT EXISTS (SELECT 1 FROM lease WHERE pair = ? AND subject = ? AND epoch > ?)
             ON DUPLICATE KEY UPDATE state = VALUES(state), reason = VALUES(reason), counters = VALUES(counters)",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(state)
        .bind(reason)
        .bind(&counters)
        .bind(&*self.pair)
        .bind(stream.direction().as_str())
        .bind(epoch.0)
        .execute(&self.pool)
        .await
        .map_err(during())?;
        Ok(())
    }

    /// All streams of the pair, in the order of their names.
    pub async fn stream_statuses(&self) -> Result<Vec<StreamStatus>, StoreError> {
        let rows = sqlx::query(
            "SELECT s.stream, s.position, s.epoch, s.last_seq, s.settled_seq, s.captured_at, s.settled_at,
                    r.state, r.reason, r.counters, r.reported_at, r.since,
                    (SELECT COUNT(*) FROM failure f WHERE f.pair = s.pair AND f.stream = s.stream) AS open_failures,
                    (SELECT COUNT(*) FROM outcome o
                      WHERE o.pair = s.pair AND o.stream = s.stream AND o.status = 'held') AS held
             FROM stream s LEFT JOIN stream_report r ON r.pair = s.pair AND r.stream = s.stream
             WHERE s.pair = ? ORDER BY s.stream",
        )
        .bind(&*self.pair)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::during("read the streams"))?;
        rows.iter().map(status_of_row).collect()
    }

    /// The wish of a direction; `None` until somebody has wished, which the first start of its process does.
    pub async fn wish(&self, direction: Direction) -> Result<Option<Wish>, StoreError> {
        let row = sqlx::query("SELECT declared, capture, apply FROM direction WHERE pair = ? AND direction = ?")
            .bind(&*self.pair)
            .bind(direction.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::during("read a wish"))?;
        let read = |row: MySqlRow| -> Result<Wish, sqlx::Error> {
            Ok(Wish { declared: row.try_get(0)?, capture: row.try_get(1)?, apply: row.try_get(2)? })
        };
        row.map(read).transpose().map_err(StoreError::during("read a wish"))
    }

    pub async fn set_wish(&self, direction: Direction, wish: Wish) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO direction (pair, direction, declared, capture, apply, changed_at)
             VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE declared = VALUES(declared), capture = VALUES(capture), apply = VALUES(apply),
               reason = NULL, changed_at = VALUES(changed_at)",
        )
        .bind(&*self.pair)
        .bind(direction.as_str())
        .bind(wish.declared)
        .bind(wish.capture)
        .bind(wish.apply)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep a wish"))?;
        Ok(())
    }
}

impl Store {
    /// Stops both directions as a breaker does: nothing is applied any more, and capture goes on, until a person starts
    /// them. The reason stays with their wishes, and goes into the journal.
    ///
    /// `false` if nothing was to be stopped, because another process has stopped them already.
    pub async fn stop_both(&self, reason: &str) -> Result<bool, StoreError> {
        let during = || StoreError::during("stop both directions");
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            let stopped = sqlx::query(
                "UPDATE direction SET apply = FALSE, reason = ?, changed_at = UTC_TIMESTAMP(6) WHERE pair = ? AND apply",
            )
            .bind(cut(reason))
            .bind(&*self.pair)
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
            if stopped.rows_affected() > 0 {
                sqlx::query(
                    "INSERT INTO journal (pair, kind, text, written_at) VALUES (?, 'breaker', ?, UTC_TIMESTAMP(6))",
                )
                .bind(&*self.pair)
                .bind(cut(reason))
                .execute(&mut *transaction)
                .await
                .map_err(during())?;
            }
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(stopped.rows_affected() > 0)
        };
        in_time("stop both directions", 0, work).await
    }

    /// Stops one direction as a circuit does that opens: nothing of it is applied any more, and capture goes on, until a
    /// person starts it. The reason stays with its wish, and goes into the journal; a direction that rests already keeps its
    /// own.
    pub async fn stop_direction(&self, direction: Direction, reason: &str) -> Result<(), StoreError> {
        let during = || StoreError::during("stop a direction");
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            let stopped = sqlx::query(
                "UPDATE direction SET apply = FALSE, reason = ?, changed_at = UTC_TIMESTAMP(6)
                 WHERE pair = ? AND direction = ? AND apply",
            )
            .bind(cut(reason))
            .bind(&*self.pair)
            .bind(direction.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
            if stopped.rows_affected() > 0 {
                sqlx::query(
                    "INSERT INTO journal (pair, kind, text, written_at) VALUES (?, 'circuit', ?, UTC_TIMESTAMP(6))",
                )
                .bind(&*self.pair)
                .bind(cut(&format!("{direction} stops: {reason}")))
                .execute(&mut *transaction)
                .await
                .map_err(during())?;
            }
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(())
        };
        in_time("stop a direction", 0, work).await
    }

    /// Why crossfade itself has stopped a direction; `None` where it runs, or where a person stopped it.
    pub async fn stop_reason(&self, direction: Direction) -> Result<Option<String>, StoreError> {
        let reason: Option<Option<String>> =
            sqlx::query_scalar("SELECT reason FROM direction WHERE pair = ? AND direction = ?")
                .bind(&*self.pair)
                .bind(direction.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(StoreError::during("read a wish"))?;
        Ok(reason.flatten())
    }
}

/// Plain data without maps keyed by anything but strings and numbers: nothing in it can fail to be written.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(crate) fn from_json<'a, T: Deserialize<'a>>(what: &'static str, text: &'a str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable { what, reason: error.to_string() })
}

pub(crate) fn utc(time: NaiveDateTime) -> DateTime<Utc> {
    time.and_utc()
}

fn state_of_row(stream: &StreamId, row: &MySqlRow) -> Result<StreamState, StoreError> {
    let during = || StoreError::during("read a stream");
    let position: String = row.try_get("position").map_err(during())?;
    let seen: String = row.try_get("seen").map_err(during())?;
    Ok(StreamState {
        stream: stream.clone(),
        epoch: Epoch(row.try_get("epoch").map_err(during())?),
        position: from_json("position of a stream", &position)?,
        seen: from_json("seen of a stream", &seen)?,
        last_seq: row.try_get("last_seq").map_err(during())?,
        settled_seq: row.try_get("settled_seq").map_err(during())?,
    })
}

fn status_of_row(row: &MySqlRow) -> Result<StreamStatus, StoreError> {
    let during = || StoreError::during("read the streams");
    let position: String = row.try_get("position").map_err(during())?;
    let time = |column: &str| -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(row.try_get::<Option<NaiveDateTime>, _>(column).map_err(during())?.map(utc))
    };
    let state: Option<String> = row.try_get("state").map_err(during())?;
    let report = match state {
        None => None,
        Some(state) => {
            let counters: String = row.try_get("counters").map_err(during())?;
            let reason = row.try_get("reason").map_err(during())?;
            Some(StreamReport {
                health: Health::of(&state, reason),
                counters: from_json("report of a stream", &counters)?,
            })
        }
    };
    Ok(StreamStatus {
        stream: row.try_get("stream").map_err(during())?,
        position: from_json("position of a stream", &position)?,
        epoch: Epoch(row.try_get("epoch").map_err(during())?),
        last_seq: row.try_get("last_seq").map_err(during())?,
        settled_seq: row.try_get("settled_seq").map_err(during())?,
        captured_at: time("captured_at")?,
        settled_at: time("settled_at")?,
        open_failures: row.try_get::<i64, _>("open_failures").map_err(during())?.unsigned_abs(),
        held: row.try_get::<i64, _>("held").map_err(during())?.unsigned_abs(),
        report,
        reported_at: time("reported_at")?,
        since: time("since")?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::WaitCounts;

    #[test]
    fn waits_are_counted_by_how_long_they_took() {
        let mut waits = WaitCounts::default();
        for micros in [9_999, 10_000, 10_001, 1_000_000, 2_000_000] {
            waits.note(Duration::from_micros(micros));
        }
        let mut twice = waits;
        twice.add(waits);
        let expected = WaitCounts {
            count: 10,
            total_micros: 6_060_000,
            longest_micros: 2_000_000,
            within_10_ms: 4,
            within_100_ms: 6,
            within_1_s: 8,
        };
        assert_eq!(twice, expected);
    }
}
