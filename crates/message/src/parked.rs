//! Messages that the target refused, as people look for them. Read from their own rows: no block is unfolded.

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::{MessageId, StreamId, TableName};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::mysql::MySqlRow;
use sqlx::{MySql, QueryBuilder, Row};

use crate::read::stream_of;
use crate::stream::utc;
use crate::{Status, Store, StoreError};

/// Which failed messages to list. Everything that is `None` takes all.
#[derive(Debug, Clone, Default)]
pub struct FailureFilter {
    pub stream: Option<StreamId>,
    /// As the source names it.
    pub table: Option<TableName>,
    pub error_code: Option<String>,
    /// Set aside at this time or later.
    pub since: Option<DateTime<Utc>>,
}

/// What `messages list --status failed` shows. Images are JSON as the view has them, absent where they are very large.
#[derive(Debug, Clone, Serialize)]
pub struct ListedFailure {
    pub id: String,
    pub stream: String,
    pub seq: u64,
    pub table_schema: String,
    pub table_name: String,
    pub op: String,
    pub row_key: Option<Box<RawValue>>,
    pub before_image: Option<Box<RawValue>>,
    pub after_image: Option<Box<RawValue>>,
    /// `failed`.
    pub status: Status,
    /// The server's number, or a word of crossfade's own.
    pub error_code: String,
    /// What the target said, without the values that it quoted.
    pub reason: String,
    pub attempts: u32,
    pub first_failed_at: DateTime<Utc>,
    pub last_failed_at: DateTime<Utc>,
    pub next_retry_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Failed messages, the newest first; a stream's messages together.
    pub async fn list_failures(&self, filter: &FailureFilter, limit: usize) -> Result<Vec<ListedFailure>, StoreError> {
        let mut query = QueryBuilder::<MySql>::new("SELECT * FROM failure WHERE pair = ");
        query.push_bind(&*self.pair);
        if let Some(stream) = &filter.stream {
            query.push(" AND stream = ").push_bind(stream.as_str());
        }
        if let Some(table) = &filter.table {
            query.push(" AND table_schema = ").push_bind(&*table.schema);
            query.push(" AND table_name = ").push_bind(&*table.table);
        }
        if let Some(code) = &filter.error_code {
            query.push(" AND error_code = ").push_bind(code);
        }
        if let Some(since) = filter.since {
            query.push(" AND first_failed_at >= ").push_bind(since.naive_utc());
        }
        query.push(" ORDER BY stream, seq DESC LIMIT ").push_bind(limit as u64);
        let rows =
            query.build().fetch_all(&self.pool).await.map_err(StoreError::during("read messages that failed"))?;
        rows.iter().map(listed).collect()
    }

    /// The failure of one message; `None` where it has none now.
    pub async fn failure_of(&self, id: &MessageId) -> Result<Option<ListedFailure>, StoreError> {
        let row = sqlx::query("SELECT * FROM failure WHERE pair = ? AND stream = ? AND seq = ?")
            .bind(&*self.pair)
            .bind(id.stream.as_str())
            .bind(id.seq)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::during("read messages that failed"))?;
        row.as_ref().map(listed).transpose()
    }

    /// How a message ended, by its row in `outcome`, and why; `None` where it has none.
    pub async fn outcome_of(&self, id: &MessageId) -> Result<Option<(Status, String)>, StoreError> {
        let during = || StoreError::during("read outcomes");
        let row = sqlx::query("SELECT status, reason FROM outcome WHERE pair = ? AND stream = ? AND seq = ?")
            .bind(&*self.pair)
            .bind(id.stream.as_str())
            .bind(id.seq)
            .fetch_optional(&self.pool)
            .await
            .map_err(during())?;
        let Some(row) = row else { return Ok(None) };
        let status: String = row.try_get(0).map_err(during())?;
        let status = status.parse().map_err(|reason| StoreError::Unreadable { what: "outcome", reason })?;
        Ok(Some((status, row.try_get(1).map_err(during())?)))
    }
}

fn listed(row: &MySqlRow) -> Result<ListedFailure, StoreError> {
    let during = || StoreError::during("read messages that failed");
    let stream = stream_of(row.try_get("stream").map_err(during())?)?;
    let read = || -> Result<ListedFailure, sqlx::Error> {
        let raw = |column: &str| -> Result<Option<Box<RawValue>>, sqlx::Error> {
            let json: Option<String> = row.try_get(column)?;
            Ok(json.and_then(|json| RawValue::from_string(json).ok()))
        };
        let seq = row.try_get("seq")?;
        Ok(ListedFailure {
            id: MessageId { stream: stream.clone(), seq }.to_string(),
            stream: stream.to_string(),
            seq,
            table_schema: row.try_get("table_schema")?,
            table_name: row.try_get("table_name")?,
            op: row.try_get("op")?,
            row_key: raw("row_key")?,
            before_image: raw("before_image")?,
            after_image: raw("after_image")?,
            status: Status::Failed,
            error_code: row.try_get("error_code")?,
            reason: row.try_get("error_text")?,
            attempts: row.try_get("attempts")?,
            first_failed_at: utc(row.try_get::<NaiveDateTime, _>("first_failed_at")?),
            last_failed_at: utc(row.try_get::<NaiveDateTime, _>("last_failed_at")?),
            next_retry_at: row.try_get::<Option<NaiveDateTime>, _>("next_retry_at")?.map(utc),
        })
    };
    read().map_err(during())
}
