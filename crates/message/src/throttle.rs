//! Limits that were set while processes run, and why their work waits.

use chrono::{DateTime, Utc};
use sqlx::Row;

use crate::stream::utc;
use crate::{Store, StoreError};

/// Why the work of a process waits.
#[derive(Debug, Clone)]
pub struct Throttled {
    /// The direction.
    pub subject: String,
    pub reason: String,
    pub since: DateTime<Utc>,
}

impl Store {
    /// Sets a limit for all processes of the pair, until it is reset. Takes what is given: the caller knows names and values.
    pub async fn set_throttle_limit(&self, name: &str, value: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO throttle_limit (pair, name, value, changed_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE value = VALUES(value), changed_at = VALUES(changed_at)",
        )
        .bind(&*self.pair)
        .bind(name)
        .bind(value)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("set a limit"))?;
        Ok(())
    }

    /// From now on the configuration's limits count again.
    pub async fn reset_throttle_limits(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM throttle_limit WHERE pair = ?")
            .bind(&*self.pair)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("reset limits"))?;
        Ok(())
    }

    /// Names and values of the limits that were set.
    pub async fn throttle_limits(&self) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT name, value FROM throttle_limit WHERE pair = ? ORDER BY name")
            .bind(&*self.pair)
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::during("read limits"))
    }

    /// Tells why a process's work waits, or that it does not.
    pub async fn set_throttled(&self, subject: &str, reason: Option<&str>) -> Result<(), StoreError> {
        let query = match reason {
            Some(reason) => sqlx::query(
                "INSERT INTO throttled (pair, subject, reason, since) VALUES (?, ?, ?, UTC_TIMESTAMP(6))
                 ON DUPLICATE KEY UPDATE reason = VALUES(reason)",
            )
            .bind(&*self.pair)
            .bind(subject)
            .bind(reason),
            None => sqlx::query("DELETE FROM throttled WHERE pair = ? AND subject = ?").bind(&*self.pair).bind(subject),
        };
        query.execute(&self.pool).await.map_err(StoreError::during("tell why work waits"))?;
        Ok(())
    }

    /// Why work waits, by the directions.
    pub async fn throttled(&self) -> Result<Vec<Throttled>, StoreError> {
        let during = || StoreError::during("read why work waits");
        let rows = sqlx::query("SELECT subject, reason, since FROM throttled WHERE pair = ? ORDER BY subject")
            .bind(&*self.pair)
            .fetch_all(&self.pool)
            .await
            .map_err(during())?;
        let throttled = rows.iter().map(|row| {
            Ok(Throttled {
                subject: row.try_get("subject").map_err(during())?,
                reason: row.try_get("reason").map_err(during())?,
                since: utc(row.try_get("since").map_err(during())?),
            })
        });
        throttled.collect()
    }
}
