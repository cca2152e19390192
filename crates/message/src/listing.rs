//! Messages for people: found by what they are about, with where they stand.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use crossfade_model::{Message, MessageId, Origin, StreamId, TableName};
use crossfade_rules::moves::UNDONE;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Row;

use crate::block::{image_json, row_key_json};
use crate::partition::micros_to_time;
use crate::read::{BlockHead, stream_of};
use crate::stream::{to_json, utc};
use crate::{Status, Store, StoreError};

/// What `messages list` shows of a message. Images are JSON as the view has them.
#[derive(Debug, Clone, Serialize)]
pub struct ListedMessage {
    pub id: String,
    pub stream: String,
    pub seq: u64,
    pub table_schema: String,
    pub table_name: String,
    pub op: &'static str,
    pub row_key: Option<Box<RawValue>>,
    pub before_image: Option<Box<RawValue>>,
    pub after_image: Option<Box<RawValue>>,
    /// `user`; `returned` for a row that crossfade has given back to the side that ended it, and `ruled` for what it tells that
    /// side of how a conflict across rows has ended.
    pub origin: Origin,
    pub status: Status,
    /// Why it did not simply apply.
    pub reason: Option<String>,
    /// Id of the message that won.
    pub winner: Option<String>,
    pub source_clock: Option<i64>,
    pub target_clock: Option<i64>,
    pub seen: Box<RawValue>,
    pub effective_clock: Option<i64>,
    /// It undoes a change of a key under a policy that compares no clocks, or follows one that does: it has no clock, and goes
    /// before the side that is preferred. (So it is told of the greatest version that there can be, which nobody gets to.)
    pub goes_before_policy: bool,
    pub committed_at: DateTime<Utc>,
    pub captured_at: DateTime<Utc>,
    pub source_position: String,
    pub event_index: u32,
}

/// Which messages to list. Everything that is `None` or empty takes all.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
    pub stream: Option<StreamId>,
    pub table: Option<TableName>,
    /// Any of these.
    pub statuses: Vec<Status>,
    /// Committed at this time or later.
    pub since: Option<DateTime<Utc>>,
}

impl MessageFilter {
    /// What lost against a concurrent change.
    pub const CONFLICTS: [Status; 2] = [Status::ConflictLost, Status::Stale];

    fn takes(&self, message: &Message, status: Status) -> bool {
        self.table.as_ref().is_none_or(|table| *table == message.change.layout.name)
            && (self.statuses.is_empty() || self.statuses.contains(&status))
            && self.since.is_none_or(|since| message.committed_at_micros >= since.timestamp_micros())
    }

    /// Only messages with a row of their own can match, so that blocks without such a row need not be unfolded.
    fn only_recorded(&self) -> bool {
        let simple = [Status::Pending, Status::Applied];
        !self.statuses.is_empty() && self.statuses.iter().all(|status| !simple.contains(status))
    }
}

/// The row that says how a message ended.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    status: Status,
    reason: Option<String>,
    winner: Option<String>,
    source_clock: Option<i64>,
    target_clock: Option<i64>,
}

impl Store {
    /// The newest messages that match, newest first by stream.
    pub async fn list_messages(&self, filter: &MessageFilter, limit: usize) -> Result<Vec<ListedMessage>, StoreError> {
        let mut found = Vec::new();
        for state in self.stream_statuses().await? {
            let stream = stream_of(&state.stream)?;
            if filter.stream.as_ref().is_some_and(|wanted| *wanted != stream) {
                continue;
            }
            self.list_stream(&stream, state.settled_seq, filter, limit, &mut found).await?;
        }
        found.sort_by(|a, b| b.committed_at.cmp(&a.committed_at).then(b.seq.cmp(&a.seq)));
        found.truncate(limit);
        Ok(found)
    }

    async fn list_stream(
        &self,
        stream: &StreamId,
        settled_seq: u64,
        filter: &MessageFilter,
        limit: usize,
        found: &mut Vec<ListedMessage>,
    ) -> Result<(), StoreError> {
        let wanted = found.len().saturating_add(limit);
        let mut before_seq = u64::MAX;
        loop {
            let heads = self.heads_backwards(stream, before_seq, filter).await?;
            let Some(oldest) = heads.last() else { return Ok(()) };
            before_seq = oldest.first_seq;
            for head in heads {
                let endings = self.endings(stream, head.first_seq, head.last_seq).await?;
                for message in self.messages_of_block(&head).await?.iter().rev() {
                    let listed = listed(&head, message, endings.get(&message.seq), settled_seq);
                    if filter.takes(message, listed.status) {
                        found.push(listed);
                    }
                }
                if found.len() >= wanted {
                    return Ok(());
                }
            }
        }
    }

    /// One message; `None` if there is none of that number, or no more.
    pub async fn show_message(&self, id: &MessageId) -> Result<Option<ListedMessage>, StoreError> {
        let settled = self.stream_state(&id.stream).await?.settled_seq;
        let Some(head) = self.heads(&id.stream, id.seq, id.seq, 1).await?.pop() else { return Ok(None) };
        let endings = self.endings(&id.stream, id.seq, id.seq).await?;
        let messages = self.messages_of_block(&head).await?;
        let message = messages.iter().find(|message| message.seq == id.seq);
        Ok(message.map(|message| listed(&head, message, endings.get(&id.seq), settled)))
    }

    /// Heads of some blocks before a message that can hold a match, newest first.
    pub(crate) async fn heads_backwards(
        &self,
        stream: &StreamId,
        before_seq: u64,
        filter: &MessageFilter,
    ) -> Result<Vec<BlockHead>, StoreError> {
        let rows = sqlx::query(
            "SELECT stream, first_seq, last_seq, captured_at, raw_bytes, large_parts FROM message_block b
             WHERE pair = ? AND stream = ? AND last_seq < ? AND committed_to >= ?
               AND (? = 0
                 OR EXISTS (SELECT * FROM outcome o WHERE o.pair = b.pair AND o.stream = b.stream
                             AND o.seq BETWEEN b.first_seq AND b.last_seq)
                 OR EXISTS (SELECT * FROM failure f WHERE f.pair = b.pair AND f.stream = b.stream
                             AND f.seq BETWEEN b.first_seq AND b.last_seq))
             ORDER BY last_seq DESC LIMIT 200",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(before_seq)
        .bind(filter.since.map_or(micros_to_time(i64::MIN), |since| since.naive_utc()))
        .bind(filter.only_recorded())
        .fetch_all(&self.patient)
        .await
        .map_err(StoreError::during("find messages"))?;
        rows.iter().map(BlockHead::of_row).collect()
    }

    pub(crate) async fn endings(
        &self,
        stream: &StreamId,
        first: u64,
        last: u64,
    ) -> Result<HashMap<u64, Ending>, StoreError> {
        let during = || StoreError::during("read outcomes");
        // An open failure stands above an outcome, as in the view; so it comes last.
        let rows = sqlx::query(
            "SELECT seq, status, reason, winner, source_clock, target_clock FROM outcome
              WHERE pair = ? AND stream = ? AND seq BETWEEN ? AND ?
             UNION ALL
             SELECT seq, 'failed', error_text, NULL, NULL, NULL FROM failure
              WHERE pair = ? AND stream = ? AND seq BETWEEN ? AND ?",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(first)
        .bind(last)
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(first)
        .bind(last)
        .fetch_all(&self.patient)
        .await
        .map_err(during())?;
        let mut endings: HashMap<u64, Ending> = HashMap::new();
        for row in &rows {
            let status: String = row.try_get(1).map_err(during())?;
            let status = status.parse().map_err(|reason| StoreError::Unreadable { what: "outcome", reason })?;
            let ending = Ending {
                status,
                reason: row.try_get(2).map_err(during())?,
                winner: row.try_get(3).map_err(during())?,
                source_clock: row.try_get(4).map_err(during())?,
                target_clock: row.try_get(5).map_err(during())?,
            };
            let seq: u64 = row.try_get(0).map_err(during())?;
            if status == Status::Failed || !endings.contains_key(&seq) {
                endings.insert(seq, ending);
            }
        }
        Ok(endings)
    }
}

pub(crate) fn listed(head: &BlockHead, message: &Message, ending: Option<&Ending>, settled_seq: u64) -> ListedMessage {
    let change = &message.change;
    let image = |row: &Option<crossfade_model::Row>| row.as_ref().and_then(|row| raw(image_json(&change.layout, row)));
    let simple = if message.seq <= settled_seq { Status::Applied } else { Status::Pending };
    let goes_before_policy = message.effective == Some(UNDONE);
    ListedMessage {
        id: MessageId { stream: head.stream.clone(), seq: message.seq }.to_string(),
        stream: head.stream.to_string(),
        seq: message.seq,
        table_schema: change.layout.name.schema.to_string(),
        table_name: change.layout.name.table.to_string(),
        op: change.op.as_str(),
        row_key: row_key_json(change).and_then(raw),
        before_image: image(&change.before),
        after_image: image(&change.after),
        origin: message.origin,
        status: ending.map_or(simple, |ending| ending.status),
        reason: ending.and_then(|ending| ending.reason.clone()),
        winner: ending.and_then(|ending| ending.winner.clone()),
        source_clock: ending.and_then(|ending| ending.source_clock),
        target_clock: ending.and_then(|ending| ending.target_clock),
        seen: raw(to_json(&*message.seen)).unwrap_or_default(),
        effective_clock: message.effective.filter(|_| !goes_before_policy).map(|clock| clock.0),
        goes_before_policy,
        committed_at: utc(micros_to_time(message.committed_at_micros)),
        captured_at: utc(head.captured_at),
        source_position: message.source_position.to_string(),
        event_index: change.event_index,
    }
}

fn raw(json: String) -> Option<Box<RawValue>> {
    RawValue::from_string(json).ok()
}
