//! Purging: whole days of messages that nobody needs any more.

use chrono::{Days, NaiveDate};
use crossfade_model::{Seen, StreamId};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Row};

use crate::partition::{DayPartition, PARTITIONED};
use crate::read::stream_of;
use crate::stream::from_json;
use crate::{Store, StoreError};

/// What a purge did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Purged {
    /// Last day of each partition that was dropped.
    pub dropped: Vec<NaiveDate>,
    pub kept: Vec<KeptDay>,
    /// Outcome rows whose messages are gone.
    pub outcomes: u64,
}

/// A day that is older than the retention and stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptDay {
    pub day: NaiveDate,
    pub reason: String,
}

impl Store {
    /// Drops the days that ended more than `retention_days` ago and that no pair of the store needs: every message is
    /// settled, none is held or parked, and none could still be needed to judge a change of the other direction. Days
    /// are looked at from the oldest; behind one that stays, the others stay too.
    pub async fn purge(&self, retention_days: u32, dry_run: bool) -> Result<Purged, StoreError> {
        let during = || StoreError::during("purge messages");
        let today: NaiveDate =
            sqlx::query_scalar("SELECT UTC_DATE()").fetch_one(&self.patient).await.map_err(during())?;
        let oldest_kept = today.checked_sub_days(Days::new(u64::from(retention_days))).unwrap_or(NaiveDate::MIN);
        let mut purged = Purged::default();
        // The first partition holds no days; it keeps the table from having none.
        for partition in self.partitions(PARTITIONED[0]).await?.into_iter().skip(1) {
            let Some(last_day) = partition.end.pred_opt().filter(|day| *day < oldest_kept) else { break };
            if let Some(reason) = self.needed_for(&partition).await? {
                purged.kept.push(KeptDay { day: last_day, reason });
                break;
            }
            if !dry_run {
                self.drop_partition(&partition).await?;
            }
            purged.dropped.push(last_day);
        }
        if !dry_run {
            purged.outcomes = self.drop_outcomes().await?;
        }
        Ok(purged)
    }

    /// Why a partition must stay; of the first stream that needs it.
    async fn needed_for(&self, partition: &DayPartition) -> Result<Option<String>, StoreError> {
        let during = || StoreError::during("tell what a day is needed for");
        let query = format!(
            "SELECT b.pair, b.stream, MAX(b.last_seq) AS last_seq, MIN(b.first_seq) AS first_seq,
                    (SELECT s.settled_seq FROM stream s WHERE s.pair = b.pair AND s.stream = b.stream) AS settled_seq
             FROM message_block PARTITION ({}) b GROUP BY b.pair, b.stream",
            partition.name
        );
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&self.patient).await.map_err(during())?;
        for row in rows {
            let pair: String = row.try_get("pair").map_err(during())?;
            let stream = stream_of(row.try_get("stream").map_err(during())?)?;
            let (first, last): (u64, u64) =
                (row.try_get("first_seq").map_err(during())?, row.try_get("last_seq").map_err(during())?);
            let settled: Option<u64> = row.try_get("settled_seq").map_err(during())?;
            let Some(settled) = settled else {
                return Ok(Some(format!("pair {pair} has messages of stream {stream}, which the store does not know")));
            };
            if settled < last {
                return Ok(Some(format!("messages {} to {last} of {pair} {stream} are not settled", settled + 1)));
            }
            let waiting: i64 = sqlx::query_scalar(
                "SELECT (SELECT COUNT(*) FROM failure WHERE pair = ? AND stream = ? AND seq BETWEEN ? AND ?)
                      + (SELECT COUNT(*) FROM outcome WHERE pair = ? AND stream = ? AND seq BETWEEN ? AND ?
                           AND status = 'held')",
            )
            .bind(&pair)
            .bind(stream.as_str())
            .bind(first)
            .bind(last)
            .bind(&pair)
            .bind(stream.as_str())
            .bind(first)
            .bind(last)
            .fetch_one(&self.patient)
            .await
            .map_err(during())?;
            if waiting > 0 {
                return Ok(Some(format!("{waiting} messages of {pair} {stream} are parked or held")));
            }
            if let Some(reason) = self.needed_to_judge(&pair, &stream, last).await? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// A change of an opposite stream that is not settled is judged against all messages of this stream that its writer had
    /// not seen. A direction that is declared off keeps nothing: nobody has waited for it either.
    async fn needed_to_judge(&self, pair: &str, stream: &StreamId, last: u64) -> Result<Option<String>, StoreError> {
        let judging = self.least_seen(pair, stream).await?.into_iter().find(|(_, least)| *least < last);
        Ok(judging.map(|(opposite, least)| {
            format!(
                "changes of {pair} {opposite} may have to be judged against messages {} to {last} of {stream}",
                least + 1
            )
        }))
    }

    /// Up to which message of `stream` every change of an opposite stream that is still to be judged, or to come, has seen.
    pub async fn seen_by_all(&self, stream: &StreamId) -> Result<u64, StoreError> {
        let least = self.least_seen(&self.pair, stream).await?;
        Ok(least.into_iter().map(|(_, least)| least).min().unwrap_or(u64::MAX))
    }

    /// Per opposite stream whose direction is not declared off, up to which message of `stream` its changes have seen.
    async fn least_seen(&self, pair: &str, stream: &StreamId) -> Result<Vec<(String, u64)>, StoreError> {
        let during = || StoreError::during("tell what changes have seen");
        // The oldest message that is not settled, or is set aside, has seen the least; where there is none, the next one
        // will have seen at least what its stream has.
        let rows = sqlx::query(
            "SELECT s.stream, s.seen, s.settled_seq,
                    (SELECT MIN(f.seq) FROM failure f WHERE f.pair = s.pair AND f.stream = s.stream) AS failed_seq,
                    (SELECT MIN(o.seq) FROM outcome o
                      WHERE o.pair = s.pair AND o.stream = s.stream AND o.status = 'held') AS held_seq
             FROM stream s LEFT JOIN direction d ON d.pair = s.pair AND d.direction = ?
             WHERE s.pair = ? AND s.stream LIKE ? AND COALESCE(d.declared, TRUE)",
        )
        .bind(stream.direction().opposite().as_str())
        .bind(pair)
        .bind(format!("{}/%", stream.direction().opposite()))
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let mut least = Vec::new();
        for row in rows {
            let opposite: String = row.try_get("stream").map_err(during())?;
            let settled: u64 = row.try_get("settled_seq").map_err(during())?;
            let failed: Option<u64> = row.try_get("failed_seq").map_err(during())?;
            let held: Option<u64> = row.try_get("held_seq").map_err(during())?;
            let pending = [Some(settled + 1), failed, held].into_iter().flatten().min().unwrap_or(u64::MAX);
            let seen: Vec<Seen> = match self.seen_of_block(pair, &opposite, pending).await? {
                Some(pending) => from_json("seen of a block", &pending)?,
                None => vec![from_json("seen of a stream", &row.try_get::<String, _>("seen").map_err(during())?)?],
            };
            let through =
                |seen: &Seen| seen.streams.get(stream.as_str()).map_or(0, |progress| progress.in_effect_through());
            least.push((opposite, seen.iter().map(through).min().unwrap_or(0)));
        }
        Ok(least)
    }

    /// What the changes of the block have seen that a message is in, or of the next one. The number is bound, so that the block
    /// is found by its key: a number that a subquery gives would be compared with every block's.
    async fn seen_of_block(&self, pair: &str, stream: &str, seq: u64) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT seen FROM message_block WHERE pair = ? AND stream = ? AND last_seq >= ? ORDER BY last_seq LIMIT 1",
        )
        .bind(pair)
        .bind(stream)
        .bind(seq)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::during("tell what changes have seen"))
    }

    async fn drop_partition(&self, partition: &DayPartition) -> Result<(), StoreError> {
        // Large values first: a block without them would be unreadable only if it were still there.
        for table in PARTITIONED.iter().rev() {
            let exists = self.partitions(table).await?.iter().any(|other| other.name == partition.name);
            if exists {
                let statement = format!("ALTER TABLE {table} DROP PARTITION {}", partition.name);
                sqlx::raw_sql(AssertSqlSafe(statement))
                    .execute(&self.patient)
                    .await
                    .map_err(StoreError::during("drop a day"))?;
            }
        }
        Ok(())
    }

    /// Removes this pair's outcomes whose messages are gone, some thousand at a time.
    async fn drop_outcomes(&self) -> Result<u64, StoreError> {
        let during = || StoreError::during("remove old outcomes");
        let mut removed = 0;
        for state in self.stream_statuses().await? {
            let first: Option<u64> =
                sqlx::query_scalar("SELECT MIN(first_seq) FROM message_block WHERE pair = ? AND stream = ?")
                    .bind(&*self.pair)
                    .bind(&state.stream)
                    .fetch_one(&self.patient)
                    .await
                    .map_err(during())?;
            let first = first.unwrap_or(state.last_seq + 1);
            self.drop_requests(&state.stream, first).await?;
            loop {
                let done = sqlx::query("DELETE FROM outcome WHERE pair = ? AND stream = ? AND seq < ? LIMIT 5000")
                    .bind(&*self.pair)
                    .bind(&state.stream)
                    .bind(first)
                    .execute(&self.patient)
                    .await
                    .map_err(during())?;
                removed += done.rows_affected();
                if done.rows_affected() < 5000 {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Removes what was asked for messages that are gone.
    async fn drop_requests(&self, stream: &str, before_seq: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM request WHERE pair = ? AND stream = ? AND seq < ? AND ended_at IS NOT NULL")
            .bind(&*self.pair)
            .bind(stream)
            .bind(before_seq)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("remove old requests"))?;
        Ok(())
    }
}
