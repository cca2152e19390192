//! How big the store is, and how fast it grows.

use serde::Serialize;

use crate::{Store, StoreError};

/// Blocks from whose bytes those of a message are told.
const SAMPLED_BLOCKS: u32 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StoreSize {
    /// Data and indexes of all tables of the schema, of all pairs, as the server estimates them.
    pub bytes: u64,
    /// Of this pair, and not purged.
    pub messages: u64,
    /// What this pair's messages add in a day: as many as since the beginning of yesterday, or of a younger store's life, of an
    /// hour at least; of the bytes that the newest of them have.
    pub growth_bytes_per_day: u64,
}

/// Messages of one stream.
#[derive(Debug, Default)]
struct StreamSize {
    messages: u64,
    /// Since the beginning of yesterday.
    recent: u64,
    recent_since_seconds: u64,
    message_bytes: f64,
}

impl Store {
    /// Reads a bounded number of blocks, however many there are.
    pub async fn size(&self) -> Result<StoreSize, StoreError> {
        let during = || StoreError::during("measure itself");
        let bytes: u64 = sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS UNSIGNED) FROM information_schema.tables
             WHERE table_schema = 'crossfade' AND table_type = 'BASE TABLE'",
        )
        .fetch_one(&self.patient)
        .await
        .map_err(during())?;
        let streams: Vec<(String, u64)> = sqlx::query_as("SELECT stream, last_seq FROM stream WHERE pair = ?")
            .bind(&*self.pair)
            .fetch_all(&self.patient)
            .await
            .map_err(during())?;
        let mut size = StoreSize { bytes, messages: 0, growth_bytes_per_day: 0 };
        for (stream, last_seq) in streams {
            let of_stream = self.stream_size(&stream, last_seq).await.map_err(during())?;
            size.messages += of_stream.messages;
            size.growth_bytes_per_day += of_stream.growth_bytes_per_day();
        }
        Ok(size)
    }

    async fn stream_size(&self, stream: &str, last_seq: u64) -> Result<StreamSize, sqlx::Error> {
        let oldest: Option<u64> = sqlx::query_scalar(
            "SELECT first_seq FROM message_block WHERE pair = ? AND stream = ? ORDER BY first_seq LIMIT 1",
        )
        .bind(&*self.pair)
        .bind(stream)
        .fetch_optional(&self.patient)
        .await?;
        let recent: Option<(u64, i64)> = sqlx::query_as(
            "SELECT first_seq, TIMESTAMPDIFF(SECOND, captured_at, UTC_TIMESTAMP(6)) FROM message_block
             WHERE pair = ? AND stream = ? AND day >= UTC_DATE() - INTERVAL 1 DAY ORDER BY first_seq LIMIT 1",
        )
        .bind(&*self.pair)
        .bind(stream)
        .fetch_optional(&self.patient)
        .await?;
        let (sampled, sampled_bytes): (u64, u64) = sqlx::query_as(
            "SELECT CAST(COALESCE(SUM(last_seq - first_seq + 1), 0) AS UNSIGNED),
                    CAST(COALESCE(SUM(stored_bytes), 0) AS UNSIGNED)
             FROM (SELECT first_seq, last_seq, stored_bytes FROM message_block
                   WHERE pair = ? AND stream = ? ORDER BY first_seq DESC LIMIT ?) newest",
        )
        .bind(&*self.pair)
        .bind(stream)
        .bind(SAMPLED_BLOCKS)
        .fetch_one(&self.patient)
        .await?;
        let since = |first: u64| (last_seq + 1).saturating_sub(first);
        Ok(StreamSize {
            messages: oldest.map_or(0, since),
            recent: recent.map_or(0, |(first, _)| since(first)),
            recent_since_seconds: recent.map_or(0, |(_, seconds)| u64::try_from(seconds).unwrap_or(0)),
            message_bytes: sampled_bytes as f64 / sampled.max(1) as f64,
        })
    }
}

impl StreamSize {
    fn growth_bytes_per_day(&self) -> u64 {
        const HOUR: u64 = 3_600;
        let days = self.recent_since_seconds.max(HOUR) as f64 / (24 * HOUR) as f64;
        (self.recent as f64 * self.message_bytes / days) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_store_is_taken_for_a_whole_day_but_not_from_a_minute() {
        let growth = |recent_since_seconds| {
            let size = StreamSize { messages: 5_000, recent: 100, recent_since_seconds, message_bytes: 10.0 };
            size.growth_bytes_per_day()
        };
        assert_eq!(growth(2 * 86_400), 500);
        assert_eq!(growth(43_200), 2_000);
        assert_eq!(growth(60), 24_000);
        assert_eq!(StreamSize::default().growth_bytes_per_day(), 0);
    }
}
