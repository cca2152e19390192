//! Parked messages: what the target refused, kept for people until it is applied or given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crossfade_model::{RowOp, StreamId, TableName};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, MySql, QueryBuilder};

use crate::connections::{in_time, statements};
use crate::outcome::{Images, STATEMENT_ROWS, bytes_of, chunks, cut};
use crate::{Store, StoreError};

/// The beginning of statements, as far as the pair's value. Rows are found, and so locked, by the primary key, as whoever records them
/// locks them.
const FAILURES: &str = "DELETE aside FROM failure AS aside FORCE INDEX (PRIMARY) WHERE pair = ";
/// By the index by status that index would be locked first, and rows of the other direction too: a deadlock with whoever records.
const HELD: &str = "DELETE aside FROM outcome AS aside FORCE INDEX (PRIMARY) WHERE status = 'held' AND pair = ";

/// A parked message.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub seq: u64,
    /// The table at the source.
    pub table: TableName,
    pub op: RowOp,
    /// The server's error number, or a word of crossfade's own.
    pub error_code: String,
    pub error_text: String,
    /// How often the target has refused it, or it was to be tried by itself when what it waited behind had gone; 0 for one that
    /// merely waits behind another.
    pub attempts: u32,
    /// `None`: it is tried with what it waits behind.
    pub retry_in: Option<Duration>,
}

impl Store {
    /// Parks messages, in one transaction. Of one that is parked already, what is new replaces what was.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if the stream has no such message.
    pub async fn record_failures(&self, stream: &StreamId, failures: &[Failure]) -> Result<(), StoreError> {
        let during = || StoreError::during("park messages");
        if failures.is_empty() {
            return Ok(());
        }
        let images = self.images_of(stream, failures.iter().map(|failure| failure.seq)).await?;
        let mut rows: Vec<_> = failures.iter().zip(&images).collect();
        // In one order, as outcomes are recorded.
        rows.sort_by_key(|(failure, _)| failure.seq);
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            for chunk in chunks(&rows) {
                insert_failures(&mut transaction, &self.pair, stream, chunk).await.map_err(during())?;
            }
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(())
        };
        in_time("park messages", bytes_of(&images), work).await
    }

    /// Tells of another attempt that changed nothing else, in one transaction. Messages that are not parked stay so.
    pub async fn note_attempts(&self, stream: &StreamId, failures: &[Failure]) -> Result<(), StoreError> {
        let during = || StoreError::during("note attempts with parked messages");
        if failures.is_empty() {
            return Ok(());
        }
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            for failure in failures {
                sqlx::query(
                    "UPDATE failure SET attempts = ?, error_code = ?, error_text = ?, last_failed_at = UTC_TIMESTAMP(6),
                       next_retry_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
                     WHERE pair = ? AND stream = ? AND seq = ?",
                )
                .bind(failure.attempts)
                .bind(code(failure))
                .bind(cut(&failure.error_text))
                .bind(micros(failure.retry_in))
                .bind(&*self.pair)
                .bind(stream.as_str())
                .bind(failure.seq)
                .execute(&mut *transaction)
                .await
                .map_err(during())?;
            }
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(())
        };
        in_time("note attempts with parked messages", statements(failures.len()), work).await
    }

    /// How often the target has refused each parked message of a stream.
    pub async fn attempts(&self, stream: &StreamId) -> Result<BTreeMap<u64, u32>, StoreError> {
        let rows: Vec<(u64, u32)> = sqlx::query_as("SELECT seq, attempts FROM failure WHERE pair = ? AND stream = ?")
            .bind(&*self.pair)
            .bind(stream.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::during("read parked messages"))?;
        Ok(rows.into_iter().collect())
    }

    /// Messages are not parked or held any more: those rows go. How a message ended otherwise stays.
    pub async fn clear_set_aside(&self, stream: &StreamId, seqs: &[u64]) -> Result<(), StoreError> {
        self.clear(&[FAILURES, HELD], stream, seqs).await
    }

    /// Messages are not refused any more, but held: their failures go.
    pub async fn clear_failures(&self, stream: &StreamId, seqs: &[u64]) -> Result<(), StoreError> {
        self.clear(&[FAILURES], stream, seqs).await
    }

    /// Messages are not held any more, but refused: that they were held goes.
    pub async fn clear_held(&self, stream: &StreamId, seqs: &[u64]) -> Result<(), StoreError> {
        self.clear(&[HELD], stream, seqs).await
    }

    /// Deletes rows of these messages, in one transaction.
    async fn clear(&self, deletes: &[&str], stream: &StreamId, seqs: &[u64]) -> Result<(), StoreError> {
        let during = || StoreError::during("clear messages that were set aside");
        if seqs.is_empty() {
            return Ok(());
        }
        debug_assert!(seqs.is_sorted(), "two that clear the same messages in another order meet in a deadlock");
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            for chunk in seqs.chunks(STATEMENT_ROWS) {
                for delete in deletes {
                    let mut query = QueryBuilder::<MySql>::new(*delete);
                    query.push_bind(&*self.pair).push(" AND stream = ").push_bind(stream.as_str());
                    let mut list = query.push(" AND seq IN (").separated(", ");
                    for seq in chunk {
                        list.push_bind(*seq);
                    }
                    query.push(")");
                    query.build().execute(&mut *transaction).await.map_err(during())?;
                }
            }
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(())
        };
        in_time("clear messages that were set aside", statements(seqs.len() / STATEMENT_ROWS), work).await
    }

    /// The messages of a stream that are parked or held, as the store has it. The target's checkpoint has the last word.
    pub async fn set_aside(&self, stream: &StreamId) -> Result<BTreeSet<u64>, StoreError> {
        let seqs: Vec<u64> = sqlx::query_scalar(
            "SELECT seq FROM failure WHERE pair = ? AND stream = ?
             UNION SELECT seq FROM outcome WHERE pair = ? AND stream = ? AND status = 'held'",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(&*self.pair)
        .bind(stream.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::during("read which messages are set aside"))?;
        Ok(seqs.into_iter().collect())
    }
}

async fn insert_failures(
    connection: &mut MySqlConnection,
    pair: &str,
    stream: &StreamId,
    failures: &[(&Failure, &Images)],
) -> Result<(), sqlx::Error> {
    let mut query = QueryBuilder::<MySql>::new(
        "INSERT INTO failure (pair, stream, seq, table_schema, table_name, op, row_key, before_image, after_image,
           error_code, error_text, attempts, first_failed_at, last_failed_at, next_retry_at) ",
    );
    query.push_values(failures, |mut row, (failure, images)| {
        row.push_bind(pair)
            .push_bind(stream.as_str())
            .push_bind(failure.seq)
            .push_bind(&*failure.table.schema)
            .push_bind(&*failure.table.table)
            .push_bind(failure.op.as_str())
            .push_bind(&images.row_key)
            .push_bind(&images.before)
            .push_bind(&images.after)
            .push_bind(code(failure))
            .push_bind(cut(&failure.error_text))
            .push_bind(failure.attempts)
            .push("UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ")
            .push_bind_unseparated(micros(failure.retry_in))
            .push_unseparated(" MICROSECOND");
    });
    query.push(
        " ON DUPLICATE KEY UPDATE attempts = VALUES(attempts), error_code = VALUES(error_code), error_text = VALUES(error_text),
           last_failed_at = VALUES(last_failed_at), next_retry_at = VALUES(next_retry_at)",
    );
    query.build().execute(connection).await?;
    Ok(())
}

/// The server's number fits; a word of crossfade's own is cut.
fn code(failure: &Failure) -> String {
    failure.error_code.chars().take(32).collect()
}

/// A time from now on by the store's clock; nothing where it is not known.
fn micros(after: Option<Duration>) -> Option<u64> {
    after.map(|after| u64::try_from(after.as_micros()).unwrap_or(u64::MAX))
}
