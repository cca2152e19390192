//! What is captured and not yet applied.

use crossfade_model::StreamId;
use sqlx::Row;

use crate::{Store, StoreError};

/// A block that is not applied to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogBlock {
    pub last_seq: u64,
    /// As the store keeps it.
    pub bytes: u64,
    /// When the source committed its last change, microseconds since the epoch.
    pub committed_to_micros: i64,
}

impl Store {
    /// The stream's blocks with messages after `seq`, in order. Small for each block, however large that is.
    pub async fn backlog(&self, stream: &StreamId, seq: u64) -> Result<Vec<BacklogBlock>, StoreError> {
        let during = || StoreError::during("measure a backlog");
        let rows = sqlx::query(
            "SELECT last_seq, stored_bytes, committed_to FROM message_block
             WHERE pair = ? AND stream = ? AND last_seq > ? ORDER BY last_seq",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(seq)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        rows.iter()
            .map(|row| {
                let committed_to: chrono::NaiveDateTime = row.try_get(2).map_err(during())?;
                Ok(BacklogBlock {
                    last_seq: row.try_get(0).map_err(during())?,
                    bytes: u64::from(row.try_get::<u32, _>(1).map_err(during())?),
                    committed_to_micros: committed_to.and_utc().timestamp_micros(),
                })
            })
            .collect()
    }
}
