//! Processes that stand by for a lease. Each has a row of its own beside the leases, which runs out with it: what a dead
//! process leaves behind shows nowhere, and goes when the next one comes.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::lease::micros;
use crate::stream::utc;
use crate::{Store, StoreError};

/// What the subject of such a row begins with.
pub(crate) const STANDBY: &str = "standby/";

/// A process that waits until it may take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standby {
    /// The lease that it waits for.
    pub subject: String,
    pub holder: String,
    pub since: DateTime<Utc>,
}

impl Store {
    /// Tells that `holder` waits for the lease of `subject`; to be told again within `ttl`.
    pub async fn stand_by(
        &self,
        subject: &str,
        holder: &str,
        ttl: Duration,
        rules_hash: u64,
    ) -> Result<(), StoreError> {
        let during = || StoreError::during("tell that a process stands by");
        let told = sqlx::query(
            "INSERT INTO lease (pair, subject, holder, epoch, rules_hash, acquired_at, renewed_at, expires_at)
             VALUES (?, ?, ?, 0, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND)
             ON DUPLICATE KEY UPDATE acquired_at = IF(expires_at > UTC_TIMESTAMP(6), acquired_at, VALUES(acquired_at)),
               renewed_at = VALUES(renewed_at), expires_at = VALUES(expires_at)",
        )
        .bind(&*self.pair)
        .bind(row_of(subject, holder))
        .bind(holder)
        .bind(rules_hash)
        .bind(micros(ttl))
        .execute(&self.pool)
        .await
        .map_err(during())?;
        // A new row: what others have left goes.
        if told.rows_affected() == 1 {
            sqlx::query("DELETE FROM lease WHERE pair = ? AND subject LIKE ? AND expires_at < UTC_TIMESTAMP(6)")
                .bind(&*self.pair)
                .bind(format!("{STANDBY}%"))
                .execute(&self.pool)
                .await
                .map_err(during())?;
        }
        Ok(())
    }

    /// It waits no more. Without effect where it never did.
    pub async fn stand_down(&self, subject: &str, holder: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM lease WHERE pair = ? AND subject = ?")
            .bind(&*self.pair)
            .bind(row_of(subject, holder))
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("tell that a process does not stand by any more"))?;
        Ok(())
    }

    /// The processes that stand by now, the one that has waited longest first.
    pub async fn standbys(&self) -> Result<Vec<Standby>, StoreError> {
        let rows = sqlx::query(
            "SELECT subject, holder, acquired_at FROM lease
             WHERE pair = ? AND subject LIKE ? AND expires_at > UTC_TIMESTAMP(6) ORDER BY acquired_at, subject",
        )
        .bind(&*self.pair)
        .bind(format!("{STANDBY}%"))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::during("read who stands by"))?;
        let read = |row: &MySqlRow| -> Result<Standby, sqlx::Error> {
            let subject: String = row.try_get("subject")?;
            let rest = subject.strip_prefix(STANDBY).unwrap_or(&subject);
            Ok(Standby {
                subject: rest.rsplit_once('/').map_or(rest, |(subject, _)| subject).to_owned(),
                holder: row.try_get("holder")?,
                since: utc(row.try_get::<NaiveDateTime, _>("acquired_at")?),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(StoreError::during("read who stands by"))
    }
}

/// Holders' names may be longer than a subject can be.
fn row_of(subject: &str, holder: &str) -> String {
    let digest = Sha256::digest(holder.as_bytes());
    let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{STANDBY}{subject}/{short}")
}
