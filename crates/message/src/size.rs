//! How big the store is, and how fast it grows.

use serde::Serialize;
use sqlx::Row;

use crate::{Store, StoreError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StoreSize {
    /// Data and indexes of all tables of the schema, of all pairs, as the server estimates them.
    pub bytes: u64,
    /// Payloads, filters and large values of this pair's messages.
    pub message_bytes: u64,
    pub messages: u64,
    pub blocks: u64,
    /// What the last 24 hours have added for this pair; what a younger store has added so far, taken for a whole day, once
    /// it has lived for an hour.
    pub growth_bytes_per_day: u64,
}

impl Store {
    pub async fn size(&self) -> Result<StoreSize, StoreError> {
        let during = || StoreError::during("measure itself");
        let bytes: u64 = sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS UNSIGNED) FROM information_schema.tables
             WHERE table_schema = 'crossfade' AND table_type = 'BASE TABLE'",
        )
        .fetch_one(&self.patient)
        .await
        .map_err(during())?;
        let row = sqlx::query(
            "SELECT CAST(COALESCE(SUM(stored_bytes), 0) AS UNSIGNED),
                    CAST(COALESCE(SUM(last_seq - first_seq + 1), 0) AS UNSIGNED),
                    COUNT(*),
                    CAST(COALESCE(SUM(IF(captured_at >= UTC_TIMESTAMP(6) - INTERVAL 1 DAY, stored_bytes, 0)), 0) AS UNSIGNED),
                    COALESCE(TIMESTAMPDIFF(SECOND, MIN(captured_at), UTC_TIMESTAMP(6)), 0)
             FROM message_block WHERE pair = ?",
        )
        .bind(&*self.pair)
        .fetch_one(&self.patient)
        .await
        .map_err(during())?;
        let last_day: u64 = row.try_get(3).map_err(during())?;
        let age_seconds: i64 = row.try_get(4).map_err(during())?;
        Ok(StoreSize {
            bytes,
            message_bytes: row.try_get(0).map_err(during())?,
            messages: row.try_get(1).map_err(during())?,
            blocks: row.try_get::<i64, _>(2).map_err(during())?.unsigned_abs(),
            growth_bytes_per_day: growth_per_day(last_day, age_seconds),
        })
    }
}

fn growth_per_day(last_day_bytes: u64, age_seconds: i64) -> u64 {
    const DAY: u128 = 86_400;
    let age = u128::from(age_seconds.clamp(3600, 86_400).unsigned_abs());
    u64::try_from(u128::from(last_day_bytes) * DAY / age).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_store_is_taken_for_a_whole_day_but_not_from_a_minute() {
        assert_eq!(growth_per_day(1000, 10 * 86_400), 1000);
        assert_eq!(growth_per_day(1000, 43_200), 2000);
        assert_eq!(growth_per_day(1000, 60), 24_000);
    }
}
