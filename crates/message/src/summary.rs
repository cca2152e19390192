//! What a migration came to: counts of what the store has kept.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::RowOp;
use serde::Serialize;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::read::stream_of;
use crate::stream::utc;
use crate::{MessageFilter, Store, StoreError};

/// Changes that were captured of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ChangeCount {
    pub stream: String,
    /// As the stream's source names it.
    pub table: String,
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
}

/// Changes by table, of the messages that are still kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ChangeCounts {
    pub tables: Vec<ChangeCount>,
    pub counted: u64,
    /// Messages were captured that are not counted: they were purged, or there are too many.
    pub not_counted: u64,
}

/// Messages of a table that did not simply apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutcomeCount {
    pub stream: String,
    pub table: String,
    /// As in the view `message`.
    pub status: String,
    pub messages: u64,
}

/// A message that a person gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiscardedMessage {
    pub id: String,
    pub table: String,
    pub reason: String,
    pub discarded_at: DateTime<Utc>,
}

impl Store {
    /// Counts the changes of each table, the newest `most` of each stream. Unfolds every block.
    pub async fn count_changes(&self, most: u64) -> Result<ChangeCounts, StoreError> {
        let mut counts = ChangeCounts::default();
        for state in self.stream_statuses().await? {
            let stream = stream_of(&state.stream)?;
            let mut tables: BTreeMap<String, ChangeCount> = BTreeMap::new();
            let (mut before_seq, mut counted) = (u64::MAX, 0);
            while counted < most {
                let heads = self.heads_backwards(&stream, before_seq, &MessageFilter::default()).await?;
                let Some(oldest) = heads.last() else { break };
                before_seq = oldest.first_seq;
                for head in &heads {
                    for message in self.messages_of_block(head).await? {
                        let count = tables.entry(message.change.layout.name.to_string()).or_default();
                        match message.change.op {
                            RowOp::Insert => count.inserts += 1,
                            RowOp::Update => count.updates += 1,
                            RowOp::Delete => count.deletes += 1,
                        }
                        counted += 1;
                    }
                }
            }
            counts.counted += counted;
            counts.not_counted += state.last_seq.saturating_sub(counted);
            let named =
                tables.into_iter().map(|(table, count)| ChangeCount { stream: state.stream.clone(), table, ..count });
            counts.tables.extend(named);
        }
        Ok(counts)
    }

    /// How many messages of each table did not simply apply, and how they ended.
    pub async fn count_outcomes(&self) -> Result<Vec<OutcomeCount>, StoreError> {
        let during = || StoreError::during("count outcomes");
        let rows = sqlx::query(
            "SELECT stream, CONCAT(table_schema, '.', table_name) AS name, status, COUNT(*) AS messages FROM outcome
             WHERE pair = ? GROUP BY stream, table_schema, table_name, status ORDER BY stream, name, status",
        )
        .bind(&*self.pair)
        .fetch_all(&self.patient)
        .await
        .map_err(during())?;
        let read = |row: &MySqlRow| -> Result<OutcomeCount, sqlx::Error> {
            let messages: i64 = row.try_get("messages")?;
            Ok(OutcomeCount {
                stream: row.try_get("stream")?,
                table: row.try_get("name")?,
                status: row.try_get("status")?,
                messages: messages.unsigned_abs(),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(during())
    }

    /// What people gave up, the newest first.
    pub async fn discarded(&self, limit: u32) -> Result<Vec<DiscardedMessage>, StoreError> {
        let during = || StoreError::during("read what was given up");
        let rows = sqlx::query(
            "SELECT CONCAT(stream, ':', seq) AS id, CONCAT(table_schema, '.', table_name) AS name, reason, decided_at
             FROM outcome WHERE pair = ? AND status = 'discarded' ORDER BY decided_at DESC LIMIT ?",
        )
        .bind(&*self.pair)
        .bind(limit)
        .fetch_all(&self.patient)
        .await
        .map_err(during())?;
        let read = |row: &MySqlRow| -> Result<DiscardedMessage, sqlx::Error> {
            Ok(DiscardedMessage {
                id: row.try_get("id")?,
                table: row.try_get("name")?,
                reason: row.try_get("reason")?,
                discarded_at: utc(row.try_get::<NaiveDateTime, _>("decided_at")?),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(during())
    }
}
