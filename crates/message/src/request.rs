//! What people ask for messages that are set aside, and what became of it. The process that holds the direction's lease
//! carries it out.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::{Message, MessageId, StreamId};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, MySql, QueryBuilder, Row};

use crate::block::{self, PackedBlock};
use crate::connections::{in_time, statements};
use crate::outcome::{IMAGE_BYTES, STATEMENT_ROWS, cut};
use crate::stream::utc;
use crate::{Status, Store, StoreError, image_json};

/// Requests that ended longer ago than this go, but for those that tell what was written instead of a message.
const KEPT_DAYS: u32 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Another attempt, now, with all that the message waits behind.
    Retry,
    /// The same with other values.
    Edit,
    /// The message is given up.
    Discard,
}

impl RequestKind {
    pub fn as_str(self) -> &'static str {
        match self {
            RequestKind::Retry => "retry",
            RequestKind::Edit => "edit",
            RequestKind::Discard => "discard",
        }
    }

    fn parse(text: &str) -> Result<RequestKind, StoreError> {
        let all = [RequestKind::Retry, RequestKind::Edit, RequestKind::Discard];
        let unknown = || StoreError::Unreadable { what: "request", reason: format!("`{text}` is no kind of request") };
        all.into_iter().find(|kind| kind.as_str() == text).ok_or_else(unknown)
    }
}

/// A request that is to be made.
#[derive(Debug, Clone)]
pub struct NewRequest {
    pub id: MessageId,
    pub kind: RequestKind,
    /// Of a discard.
    pub reason: Option<String>,
    /// Of an edit: the message with the image that is to be applied.
    pub edited: Option<Message>,
}

/// A request that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub id: u64,
    pub seq: u64,
    pub kind: RequestKind,
    pub reason: Option<String>,
    /// The person and machine that asked.
    pub by: String,
}

/// How a message stood when a request for it had been carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestEnd {
    pub status: Status,
    /// The server's number, or a word of crossfade's own, where it failed.
    pub error_code: Option<String>,
    /// Why it did not simply apply.
    pub text: Option<String>,
    /// An edit whose image was not what was applied, because the message had ended before.
    pub came_too_late: bool,
}

/// What stands in for a message's image.
#[derive(Debug, Clone)]
pub struct Edit {
    /// The request's number.
    pub request: u64,
    pub by: String,
    pub message: Message,
}

/// An edit, for people.
#[derive(Debug, Clone, Serialize)]
pub struct ShownEdit {
    pub by: String,
    pub at: DateTime<Utc>,
    pub image: Option<Box<RawValue>>,
    /// Whether the message's last attempt wrote it.
    pub used: bool,
    #[serde(skip)]
    pub message: Option<Message>,
}

impl ShownEdit {
    /// One that nobody has asked for yet.
    pub fn proposed(message: &Message, by: &str) -> ShownEdit {
        ShownEdit {
            by: by.to_owned(),
            at: Utc::now(),
            image: image_of(message).and_then(|image| RawValue::from_string(image).ok()),
            used: false,
            message: Some(message.clone()),
        }
    }
}

impl Store {
    /// Makes requests, all or none; returns their numbers in order. They stay until they are carried out or withdrawn.
    pub async fn make_requests(&self, requests: &[NewRequest], by: &str) -> Result<Vec<u64>, StoreError> {
        let during = || StoreError::during("keep requests");
        let mut transaction = self.patient.begin().await.map_err(during())?;
        self.drop_old_requests(&mut transaction).await.map_err(during())?;
        let mut ids = Vec::with_capacity(requests.len());
        for request in requests {
            let edited = request.edited.as_ref().map(packed).transpose()?;
            let (image, block) = edited.unzip();
            let done = sqlx::query(
                "INSERT INTO request (pair, stream, seq, kind, reason, edited_image, edited_block, requested_by, requested_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
            )
            .bind(&*self.pair)
            .bind(request.id.stream.as_str())
            .bind(request.id.seq)
            .bind(request.kind.as_str())
            .bind(request.reason.as_deref().map(cut))
            .bind(image)
            .bind(block)
            .bind(by.chars().take(190).collect::<String>())
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
            ids.push(done.last_insert_id());
        }
        transaction.commit().await.map_err(during())?;
        Ok(ids)
    }

    async fn drop_old_requests(&self, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "DELETE FROM request WHERE pair = ? AND ended_at < UTC_TIMESTAMP(6) - INTERVAL ? DAY AND used_at IS NULL
             LIMIT 1000",
        )
        .bind(&*self.pair)
        .bind(KEPT_DAYS)
        .execute(connection)
        .await?;
        Ok(())
    }

    /// The oldest requests of a stream that have not ended, in the order in which they were made.
    pub async fn open_requests(&self, stream: &StreamId, limit: u32) -> Result<Vec<Request>, StoreError> {
        let during = || StoreError::during("read requests");
        let rows = sqlx::query(
            "SELECT id, seq, kind, reason, requested_by FROM request
             WHERE pair = ? AND stream = ? AND ended_at IS NULL ORDER BY id LIMIT ?",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let read = |row: &MySqlRow| -> Result<Request, StoreError> {
            Ok(Request {
                id: row.try_get("id").map_err(during())?,
                seq: row.try_get("seq").map_err(during())?,
                kind: RequestKind::parse(row.try_get("kind").map_err(during())?)?,
                reason: row.try_get("reason").map_err(during())?,
                by: row.try_get("requested_by").map_err(during())?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Says that requests are being carried out; returns those that were not withdrawn meanwhile.
    pub async fn begin_requests(&self, ids: &[u64]) -> Result<BTreeSet<u64>, StoreError> {
        let during = || StoreError::during("begin requests");
        let mut begun = BTreeSet::new();
        for chunk in ids.chunks(STATEMENT_ROWS) {
            let mut query = QueryBuilder::<MySql>::new(
                "UPDATE request SET begun_at = COALESCE(begun_at, UTC_TIMESTAMP(6)) WHERE id IN (",
            );
            push_list(&mut query, chunk);
            query.build().execute(&self.pool).await.map_err(during())?;
            let mut query = QueryBuilder::<MySql>::new("SELECT id FROM request WHERE ended_at IS NULL AND id IN (");
            push_list(&mut query, chunk);
            let there: Vec<u64> = query.build_query_scalar().fetch_all(&self.pool).await.map_err(during())?;
            begun.extend(there);
        }
        Ok(begun)
    }

    /// Ends requests and writes the journal, in one transaction.
    pub async fn end_requests(&self, ends: &[(u64, RequestEnd)], journal: &[(&str, String)]) -> Result<(), StoreError> {
        let during = || StoreError::during("end requests");
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            for (id, end) in ends {
                let code = if end.came_too_late { Some("too-late") } else { end.error_code.as_deref() };
                sqlx::query(
                    "UPDATE request SET ended_at = UTC_TIMESTAMP(6), result = ?, error_code = ?, text = ?
                     WHERE id = ? AND ended_at IS NULL",
                )
                .bind(end.status.as_str())
                .bind(code)
                .bind(end.text.as_deref().map(cut))
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(during())?;
            }
            for (kind, text) in journal {
                sqlx::query("INSERT INTO journal (pair, kind, text, written_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))")
                    .bind(&*self.pair)
                    .bind(*kind)
                    .bind(cut(text))
                    .execute(&mut *transaction)
                    .await
                    .map_err(during())?;
            }
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(())
        };
        in_time("end requests", statements(ends.len() + journal.len()), work).await
    }

    /// Which of these requests have ended, and how.
    pub async fn request_ends(&self, ids: &[u64]) -> Result<BTreeMap<u64, RequestEnd>, StoreError> {
        let during = || StoreError::during("read requests");
        let mut ends = BTreeMap::new();
        for chunk in ids.chunks(STATEMENT_ROWS) {
            let mut query = QueryBuilder::<MySql>::new(
                "SELECT id, result, error_code, text FROM request WHERE ended_at IS NOT NULL AND id IN (",
            );
            push_list(&mut query, chunk);
            for row in query.build().fetch_all(&self.pool).await.map_err(during())? {
                let result: String = row.try_get("result").map_err(during())?;
                let status = result.parse().map_err(|reason| StoreError::Unreadable { what: "request", reason })?;
                let code: Option<String> = row.try_get("error_code").map_err(during())?;
                let came_too_late = code.as_deref() == Some("too-late");
                let error_code = code.filter(|_| !came_too_late);
                let end =
                    RequestEnd { status, error_code, text: row.try_get("text").map_err(during())?, came_too_late };
                ends.insert(row.try_get("id").map_err(during())?, end);
            }
        }
        Ok(ends)
    }

    /// Takes requests back that nobody has begun to carry out; returns how many.
    pub async fn withdraw_requests(&self, ids: &[u64]) -> Result<u64, StoreError> {
        let mut withdrawn = 0;
        for chunk in ids.chunks(STATEMENT_ROWS) {
            let mut query = QueryBuilder::<MySql>::new(
                "DELETE FROM request WHERE begun_at IS NULL AND used_at IS NULL AND id IN (",
            );
            push_list(&mut query, chunk);
            let done = query.build().execute(&self.pool).await.map_err(StoreError::during("withdraw requests"))?;
            withdrawn += done.rows_affected();
        }
        Ok(withdrawn)
    }

    /// For messages of a stream, what is to be applied instead: the last edit of each that was begun. Others can still be taken
    /// back.
    pub async fn edits(&self, stream: &StreamId, seqs: &BTreeSet<u64>) -> Result<BTreeMap<u64, Edit>, StoreError> {
        let during = || StoreError::during("read edited messages");
        let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return Ok(BTreeMap::new()) };
        let rows = sqlx::query(
            "SELECT id, seq, requested_by, edited_block FROM request
             WHERE pair = ? AND stream = ? AND kind = 'edit' AND begun_at IS NOT NULL AND seq BETWEEN ? AND ? ORDER BY id",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(first)
        .bind(last)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let mut edits = BTreeMap::new();
        for row in &rows {
            let seq: u64 = row.try_get("seq").map_err(during())?;
            if let Some(message) = edited_of(row)?.filter(|_| seqs.contains(&seq)) {
                let (request, by) =
                    (row.try_get("id").map_err(during())?, row.try_get("requested_by").map_err(during())?);
                edits.insert(seq, Edit { request, by, message });
            }
        }
        Ok(edits)
    }

    /// Says that the images of these edits are what the attempt under way writes.
    pub async fn note_edits_used(&self, requests: &[u64]) -> Result<(), StoreError> {
        if requests.is_empty() {
            return Ok(());
        }
        let mut query = QueryBuilder::<MySql>::new("UPDATE request SET used_at = UTC_TIMESTAMP(6) WHERE id IN (");
        push_list(&mut query, requests);
        query.build().execute(&self.pool).await.map_err(StoreError::during("note edited messages"))?;
        Ok(())
    }

    /// Whether the last image that was written for a message is that of this edit.
    pub async fn is_edit_used(&self, request: u64) -> Result<bool, StoreError> {
        let used: Option<i64> = sqlx::query_scalar("SELECT used_at IS NOT NULL FROM request WHERE id = ?")
            .bind(request)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::during("read edited messages"))?;
        Ok(used == Some(1))
    }

    /// All edits of a message, oldest first.
    pub async fn edits_of(&self, id: &MessageId) -> Result<Vec<ShownEdit>, StoreError> {
        let during = || StoreError::during("read edited messages");
        let rows = sqlx::query(
            "SELECT requested_by, requested_at, edited_image, edited_block, used_at IS NOT NULL AS used FROM request
             WHERE pair = ? AND stream = ? AND kind = 'edit' AND seq = ? ORDER BY id",
        )
        .bind(&*self.pair)
        .bind(id.stream.as_str())
        .bind(id.seq)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let read = |row: &MySqlRow| -> Result<ShownEdit, StoreError> {
            let (kept, message): (Option<String>, _) =
                (row.try_get("edited_image").map_err(during())?, edited_of(row)?);
            Ok(ShownEdit {
                by: row.try_get("requested_by").map_err(during())?,
                at: utc(row.try_get::<NaiveDateTime, _>("requested_at").map_err(during())?),
                image: kept.or_else(|| image_of(message.as_ref()?)).and_then(|image| RawValue::from_string(image).ok()),
                used: row.try_get::<i64, _>("used").map_err(during())? != 0,
                message,
            })
        };
        rows.iter().map(read).collect()
    }
}

fn push_list(query: &mut QueryBuilder<MySql>, ids: &[u64]) {
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(*id);
    }
    // Nothing has this number; without it, an empty list would be no SQL.
    list.push_bind(0_u64);
    query.push(")");
}

fn image_of(message: &Message) -> Option<String> {
    message.change.after.as_ref().map(|row| image_json(&message.change.layout, row))
}

/// The image for people, and the message for the applier. An image above the bound is left out: the message has it, and both
/// together may be more than the server takes at once.
fn packed(message: &Message) -> Result<(Option<String>, Vec<u8>), StoreError> {
    let image = image_of(message).filter(|image| image.len() <= IMAGE_BYTES);
    let blocks = block::encode(std::slice::from_ref(message), &[])?;
    let block = blocks.first().map(|block| PackedBlock::of(block).to_bytes());
    Ok((image, block.unwrap_or_default()))
}

fn edited_of(row: &MySqlRow) -> Result<Option<Message>, StoreError> {
    let unreadable = |reason: String| StoreError::Unreadable { what: "edited message", reason };
    let block: Option<Vec<u8>> = row.try_get("edited_block").map_err(StoreError::during("read edited messages"))?;
    let Some(block) = block else { return Ok(None) };
    let messages = PackedBlock::from_bytes(&block).and_then(|packed| packed.messages()).map_err(unreadable)?;
    Ok(messages.into_iter().next())
}
