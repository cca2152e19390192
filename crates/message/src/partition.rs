//! Day partitions of the tables that hold messages.
//!
//! They are added at the end, some days ahead, and dropped whole. A day that has no partition is refused by the server, so
//! nothing can fall into a partition that is never dropped.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime};
use sqlx::{AssertSqlSafe, Row};

use crate::error::server_error;
use crate::{Store, StoreError};

pub(crate) const PARTITIONED: [&str; 2] = ["message_block", "message_large"];

/// A process that cannot run DDL itself, or runs for long, still finds room for so many days.
const DAYS_AHEAD: u64 = 7;

/// `ER_NO_PARTITION_FOR_GIVEN_VALUE`.
const NO_PARTITION: u16 = 1526;
/// `ER_SAME_NAME_PARTITION` and `ER_RANGE_NOT_INCREASING_ERROR`: somebody else has added it.
const ADDED_ALREADY: [u16; 2] = [1517, 1493];

pub(crate) fn is_missing_partition(error: &sqlx::Error) -> bool {
    server_error(error) == Some(NO_PARTITION)
}

/// A partition that holds the days before `end` and from the end of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DayPartition {
    pub name: String,
    /// Exclusive.
    pub end: NaiveDate,
}

impl Store {
    /// Adds the partitions of today and the next days, where they are missing. Safe to call at any time, by anybody.
    pub async fn add_partitions(&self) -> Result<(), StoreError> {
        let during = || StoreError::during("prepare the next days");
        let today: NaiveDate =
            sqlx::query_scalar("SELECT UTC_DATE()").fetch_one(&self.patient).await.map_err(during())?;
        for table in PARTITIONED {
            let newest_end = self.partitions(table).await?.last().map(|partition| partition.end);
            for day in (0..=DAYS_AHEAD).filter_map(|ahead| today.checked_add_days(Days::new(ahead))) {
                let Some(end) = day.checked_add_days(Days::new(1)) else { continue };
                if newest_end.is_some_and(|newest| end <= newest) {
                    continue;
                }
                let statement = format!(
                    "ALTER TABLE {table} ADD PARTITION (PARTITION p{} VALUES LESS THAN ('{end}'))",
                    day.format("%Y%m%d")
                );
                match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.patient).await {
                    Err(error) if server_error(&error).is_some_and(|code| ADDED_ALREADY.contains(&code)) => {}
                    done => {
                        done.map_err(during())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// In the order of their days.
    pub(crate) async fn partitions(&self, table: &str) -> Result<Vec<DayPartition>, StoreError> {
        let during = || StoreError::during("list its days");
        let rows = sqlx::query(
            "SELECT CAST(partition_name AS CHAR), CAST(partition_description AS CHAR) FROM information_schema.partitions
             WHERE table_schema = 'crossfade' AND table_name = ? AND partition_name IS NOT NULL
             ORDER BY partition_ordinal_position",
        )
        .bind(table)
        .fetch_all(&self.patient)
        .await
        .map_err(during())?;
        rows.iter()
            .map(|row| {
                let name: String = row.try_get(0).map_err(during())?;
                let text: String = row.try_get(1).map_err(during())?;
                let end = text.trim_matches('\'').parse().map_err(|_| StoreError::Unreadable {
                    what: "day partition",
                    reason: format!("`{name}` ends at {text}, which is no date"),
                })?;
                Ok(DayPartition { name, end })
            })
            .collect()
    }
}

/// Outside the years that DATETIME has, the nearest it can say.
pub(crate) fn micros_to_time(micros: i64) -> NaiveDateTime {
    // 0001-01-01 and 9999-12-31 23:59:59.999999.
    let micros = micros.clamp(-62_135_596_800_000_000, 253_402_300_799_999_999);
    DateTime::from_timestamp_micros(micros).unwrap_or_default().naive_utc()
}
