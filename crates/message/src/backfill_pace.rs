//! How the copying has got on, as its owner keeps it.

use crate::{Store, StoreError};

impl Store {
    /// Keeps how the copying has got on; what a process tells that has lost its lease is not heard.
    pub async fn keep_copy_history(&self, epoch: u64, history: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO backfill_pace (pair, epoch, history, changed_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE history = IF(epoch <= VALUES(epoch), VALUES(history), history),
               changed_at = IF(epoch <= VALUES(epoch), VALUES(changed_at), changed_at),
               epoch = GREATEST(epoch, VALUES(epoch))",
        )
        .bind(&*self.pair)
        .bind(epoch)
        .bind(history)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("tell how the copying gets on"))?;
        Ok(())
    }

    /// `None` before anything was copied.
    pub async fn copy_history(&self) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT history FROM backfill_pace WHERE pair = ?")
            .bind(&*self.pair)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::during("read how the copying gets on"))
    }
}
