//! Leases: of all processes that could run a direction, one does.
//!
//! The store server's clock decides when a lease is over. Each take-over raises the epoch, and whatever a process writes
//! names its epoch, so that one that wakes up late changes nothing.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, Row};

use crate::connections::in_time;
use crate::{Store, StoreError, stream::utc};

/// The rules of a holder that does not know them yet: it waits for the servers by whose tables they are made, and writes
/// nothing but its lease and what it waits for.
pub const RULES_UNKNOWN: u64 = 0;

/// Counts the take-overs of a lease, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Who holds what, for people.
#[derive(Debug, Clone, Serialize)]
pub struct LeaseStatus {
    pub subject: String,
    pub holder: String,
    pub epoch: Epoch,
    pub rules_hash: u64,
    pub renewed_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    /// Held and not over, by the store's clock.
    pub live: bool,
}

impl Store {
    /// Takes the lease of `subject` (a direction's or a stream's name) for `ttl`, if nobody else holds it. `holder` must be
    /// unique to the process; a holder that comes back (after its answer was lost) gets a new epoch.
    ///
    /// # Errors
    ///
    /// [`StoreError::RulesDiffer`] if any live lease of the pair is held under other rules. [`RULES_UNKNOWN`] differ from none.
    pub async fn lease_acquire(
        &self,
        subject: &str,
        holder: &str,
        ttl: Duration,
        rules_hash: u64,
    ) -> Result<Option<Epoch>, StoreError> {
        let during = || StoreError::during("take a lease");
        // Beforehand and by itself, so that inside the transaction all rows exist and are locked in one order.
        sqlx::query(
            "INSERT INTO lease (pair, subject, holder, epoch, rules_hash, acquired_at, renewed_at, expires_at)
             VALUES (?, ?, '', 0, 0, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE subject = VALUES(subject)",
        )
        .bind(&*self.pair)
        .bind(subject)
        .execute(&self.pool)
        .await
        .map_err(during())?;
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            let leases = leases(&mut transaction, &self.pair, true).await.map_err(during())?;
            let is_mine = |lease: &&LeaseStatus| lease.subject == subject;
            for other in leases.iter().filter(|lease| lease.live && lease.holder != holder) {
                let is_known = rules_hash != RULES_UNKNOWN && other.rules_hash != RULES_UNKNOWN;
                if is_known && other.rules_hash != rules_hash {
                    return Err(StoreError::RulesDiffer {
                        subject: subject.to_owned(),
                        mine: rules_hash,
                        other_subject: other.subject.clone(),
                        other: other.rules_hash,
                        other_holder: other.holder.clone(),
                    });
                }
            }
            let free = leases.iter().find(is_mine).filter(|current| !current.live || current.holder == holder);
            let Some(current) = free else {
                transaction.rollback().await.map_err(during())?;
                connection.keep();
                return Ok(None);
            };
            let epoch = current.epoch.0 + 1;
            sqlx::query(
                "UPDATE lease SET holder = ?, epoch = ?, rules_hash = ?, acquired_at = UTC_TIMESTAMP(6),
                   renewed_at = UTC_TIMESTAMP(6), expires_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
                 WHERE pair = ? AND subject = ?",
            )
            .bind(holder)
            .bind(epoch)
            .bind(rules_hash)
            .bind(micros(ttl))
            .bind(&*self.pair)
            .bind(subject)
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(Some(Epoch(epoch)))
        };
        in_time("take a lease", 0, work).await
    }

    /// Holds the lease for another `ttl` from now. `false` when it has gone to somebody else; then stop at once. A lease
    /// that ran out and that nobody took is held again.
    pub async fn lease_renew(&self, subject: &str, epoch: Epoch, ttl: Duration) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE lease SET renewed_at = UTC_TIMESTAMP(6), expires_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
             WHERE pair = ? AND subject = ? AND epoch = ? AND holder <> ''",
        )
        .bind(micros(ttl))
        .bind(&*self.pair)
        .bind(subject)
        .bind(epoch.0)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("renew a lease"))?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends the lease of a holder that is known to be dead, so that nobody need wait for it to run out. Should the holder
    /// live after all, it finds at its next renewal that it has lost the lease, and until then the epoch fences it.
    pub async fn lease_break(&self, subject: &str, holder: &str) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE lease SET holder = '', expires_at = UTC_TIMESTAMP(6) WHERE pair = ? AND subject = ? AND holder = ?",
        )
        .bind(&*self.pair)
        .bind(subject)
        .bind(holder)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("break a lease"))?;
        Ok(())
    }

    /// Gives the lease up, so that a process standing by need not wait for its end. Nothing happens if it has gone to
    /// somebody else.
    pub async fn lease_release(&self, subject: &str, epoch: Epoch) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE lease SET holder = '', expires_at = UTC_TIMESTAMP(6) WHERE pair = ? AND subject = ? AND epoch = ?",
        )
        .bind(&*self.pair)
        .bind(subject)
        .bind(epoch.0)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("release a lease"))?;
        Ok(())
    }

    /// All leases of the pair, in the order of their subjects.
    pub async fn leases(&self) -> Result<Vec<LeaseStatus>, StoreError> {
        let during = || StoreError::during("read the leases");
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let leases = leases(&mut connection, &self.pair, false).await.map_err(during())?;
            connection.keep();
            Ok(leases)
        };
        in_time("read the leases", 0, work).await
    }
}

async fn leases(connection: &mut MySqlConnection, pair: &str, lock: bool) -> Result<Vec<LeaseStatus>, sqlx::Error> {
    // A lease that has run out may be locked while its new holder writes it; locked rows are then waited for.
    const READ: &str = "SELECT subject, holder, epoch, rules_hash, renewed_at, expires_at,
        holder <> '' AND expires_at > UTC_TIMESTAMP(6) AS live
        FROM lease WHERE pair = ? AND subject NOT LIKE 'standby/%' ORDER BY subject";
    const LOCK: &str = "SELECT subject, holder, epoch, rules_hash, renewed_at, expires_at,
        holder <> '' AND expires_at > UTC_TIMESTAMP(6) AS live
        FROM lease WHERE pair = ? AND subject NOT LIKE 'standby/%' ORDER BY subject FOR UPDATE";
    let rows = sqlx::query(if lock { LOCK } else { READ }).bind(pair).fetch_all(connection).await?;
    rows.iter().map(lease_of_row).collect()
}

fn lease_of_row(row: &MySqlRow) -> Result<LeaseStatus, sqlx::Error> {
    Ok(LeaseStatus {
        subject: row.try_get("subject")?,
        holder: row.try_get("holder")?,
        epoch: Epoch(row.try_get("epoch")?),
        rules_hash: row.try_get("rules_hash")?,
        renewed_at: utc(row.try_get::<NaiveDateTime, _>("renewed_at")?),
        expires_at: utc(row.try_get::<NaiveDateTime, _>("expires_at")?),
        live: row.try_get::<i64, _>("live")? != 0,
    })
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
