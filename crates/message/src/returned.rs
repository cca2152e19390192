//! Rows that go back to the side that deleted them, until the stream that is to capture them has read its mark.

use crossfade_model::{Message, StreamId};
use sqlx::Connection;

use crate::block::{self, PackedBlock};
use crate::connections::in_time;
use crate::{Store, StoreError};

impl Store {
    /// Keeps changes under a token, before the mark with that token is committed on the source of `stream`. Of each message
    /// only the change counts, its origin, and the clock, which is the least that it gets; numbers go up from 1.
    pub async fn keep_returned(&self, stream: &StreamId, token: u64, rows: &[Message]) -> Result<(), StoreError> {
        let during = || StoreError::during("keep rows that return");
        let blocks = block::encode(rows, &[])?;
        let bytes = blocks.iter().map(|block| block.payload.len() as u64 + block.large.len() as u64).sum();
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            sqlx::query(
                "DELETE FROM returned_rows WHERE pair = ? AND kept_at < UTC_TIMESTAMP(6) - INTERVAL 30 DAY LIMIT 1000",
            )
            .bind(&*self.pair)
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
            for (part, block) in blocks.iter().enumerate() {
                sqlx::query(
                    "INSERT INTO returned_rows (pair, stream, token, part, block, kept_at) VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))",
                )
                .bind(&*self.pair)
                .bind(stream.as_str())
                .bind(token)
                .bind(part as u32)
                .bind(PackedBlock::of(block).to_bytes())
                .execute(&mut *transaction)
                .await
                .map_err(during())?;
            }
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(())
        };
        in_time("keep rows that return", bytes, work).await
    }

    /// The changes that were kept under a token, in their order.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unreadable`] if there are none: the mark says that there must be.
    pub async fn returned(&self, stream: &StreamId, token: u64) -> Result<Vec<Message>, StoreError> {
        let parts: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT block FROM returned_rows WHERE pair = ? AND stream = ? AND token = ? ORDER BY part",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(token)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::during("read rows that return"))?;
        let unreadable = |reason: String| StoreError::Unreadable { what: "rows that return", reason };
        if parts.is_empty() {
            return Err(unreadable(format!("the store has none for the mark {token} of {stream}")));
        }
        let mut rows = Vec::new();
        for part in parts {
            rows.extend(PackedBlock::from_bytes(&part).and_then(|packed| packed.messages()).map_err(unreadable)?);
        }
        Ok(rows)
    }
}
