//! The read-write flag, and the application instances that follow it.
//!
//! Each change is a compare-and-set of the flag's version, so of two who change it at once one learns that he was late. A fence
//! says that users write nowhere for a moment. It has an end by the store's clock: whoever reads the flag after that lifts it by a
//! new version, and what would have followed under the fence finds that version and does not happen.
//!
//! A group of tables has a flag and instances of its own: see [`Store::of_group`]. It is on the side that it has been moved to while
//! both sides are written; before and after that its phase is the pair's. Its version rises with each change of either.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::{Phase, Side};
use serde::Serialize;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::lease::micros;
use crate::stream::utc;
use crate::{Store, StoreError};

/// What applications are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Flag {
    /// 0 before it was ever changed.
    pub version: u64,
    pub phase: Phase,
    /// Users write nowhere.
    pub fenced: bool,
}

/// An instance of an application that follows the flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlagInstance {
    pub instance: String,
    /// Nothing is written by an earlier version any more.
    pub version: u64,
    pub expires_at: DateTime<Utc>,
    /// By the store's clock, as all of it: until it is not waited for any more, if it is not heard again.
    pub expires_in_ms: u64,
}

const READ: &str = "read the flag";
const CHANGE: &str = "change the flag";

impl Store {
    /// Lifts a fence that is over.
    pub async fn flag(&self) -> Result<Flag, StoreError> {
        let lifted = "UPDATE flag_state SET version = version + 1, fenced_until = NULL, changed_at = UTC_TIMESTAMP(6)
             WHERE pair = ? AND fenced_until <= UTC_TIMESTAMP(6)";
        let row = self.flag_row().await?;
        let Some((flag, is_over)) = row else { return Ok(Flag { version: 0, phase: Phase::OldOnly, fenced: false }) };
        if !is_over {
            return Ok(flag);
        }
        let lifting = sqlx::query(lifted).bind(&*self.flag_key).execute(&self.pool).await;
        if lifting.map_err(StoreError::during(CHANGE))?.rows_affected() > 0 {
            let of = self.group().map_or(String::new(), |group| format!(" of {group}"));
            let text = format!("the fence{of} was over before the flag was changed; users write as before");
            self.journal("flag", &text).await?;
        }
        let row = self.flag_row().await?;
        Ok(row.map_or(flag, |(flag, _)| flag))
    }

    /// The flag, and whether its fence is over and not lifted.
    async fn flag_row(&self) -> Result<Option<(Flag, bool)>, StoreError> {
        let rows = sqlx::query(
            "SELECT pair, version, flag, fenced_until IS NOT NULL AS fenced,
               COALESCE(fenced_until <= UTC_TIMESTAMP(6), FALSE) AS is_over FROM flag_state WHERE pair IN (?, ?)",
        )
        .bind(&*self.pair)
        .bind(&*self.flag_key)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::during(READ))?;
        let (mut whole, mut own) = (None, None);
        for row in &rows {
            let (key, flag, is_over) = one_flag(row)?;
            let place = if key == *self.pair { &mut whole } else { &mut own };
            *place = Some((flag, is_over));
        }
        if self.group().is_none() || (whole.is_none() && own.is_none()) {
            return Ok(whole);
        }
        let (whole, _) = whole.unwrap_or((Flag { version: 0, phase: Phase::OldOnly, fenced: false }, false));
        let unmoved = (Flag { version: 0, phase: Phase::WriteBoth, fenced: false }, false);
        let (own, is_over) = own.unwrap_or(unmoved);
        let phase = match whole.phase {
            Phase::OldOnly | Phase::NewOnly => whole.phase,
            Phase::WriteBoth | Phase::ReadNew => own.phase,
        };
        Ok(Some((Flag { version: whole.version + own.version, phase, fenced: own.fenced }, is_over)))
    }

    /// Changes the flag if it still has the version `from`; `fence`: users write nowhere for so long at most. `None`: it has
    /// another version, or its fence was over, and nothing happened.
    pub async fn change_flag(
        &self,
        from: u64,
        phase: Phase,
        fence: Option<Duration>,
    ) -> Result<Option<Flag>, StoreError> {
        let during = || StoreError::during(CHANGE);
        let is_group = self.group().is_some();
        if from == 0 || is_group {
            // Of two who make the row, the second one changes nothing.
            sqlx::query(
                "INSERT INTO flag_state (pair, version, flag, changed_at) VALUES (?, 0, ?, UTC_TIMESTAMP(6))
                 ON DUPLICATE KEY UPDATE pair = VALUES(pair)",
            )
            .bind(&*self.flag_key)
            .bind(if is_group { Phase::WriteBoth } else { Phase::OldOnly }.flag())
            .execute(&self.pool)
            .await
            .map_err(during())?;
        }
        let change =
            "UPDATE flag_state AS own LEFT JOIN flag_state AS whole ON whole.pair = ? AND whole.pair <> own.pair
             SET own.version = own.version + 1, own.flag = ?,
               own.fenced_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, own.changed_at = UTC_TIMESTAMP(6)
             WHERE own.pair = ? AND own.version + COALESCE(whole.version, 0) = ?
               AND (own.fenced_until IS NULL OR own.fenced_until > UTC_TIMESTAMP(6))";
        let changed = sqlx::query(change)
            .bind(&*self.pair)
            .bind(phase.flag())
            .bind(fence.map(micros))
            .bind(&*self.flag_key)
            .bind(from)
            .execute(&self.pool)
            .await
            .map_err(during())?;
        let flag = Flag { version: from + 1, phase, fenced: fence.is_some() };
        Ok((changed.rows_affected() > 0).then_some(flag))
    }

    /// Takes over a flag that the store does not know any more, since it was restored to an older state: the phase as it was told,
    /// without a fence, in the version after it. `None`: the store has a version as late.
    pub async fn adopt_flag(&self, later: &Flag) -> Result<Option<Flag>, StoreError> {
        let (whole, phase) = match self.group() {
            None => (0, later.phase),
            // The rest of it is the pair's, whose flag comes first.
            Some(_) => (self.of_group(None).flag().await?.version, moved_to(later.phase)),
        };
        let adopted = sqlx::query(
            "INSERT INTO flag_state (pair, version, flag, changed_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE
               flag = IF(version < VALUES(version), VALUES(flag), flag),
               fenced_until = IF(version < VALUES(version), NULL, fenced_until),
               changed_at = IF(version < VALUES(version), VALUES(changed_at), changed_at),
               version = GREATEST(version, VALUES(version))",
        )
        .bind(&*self.flag_key)
        .bind((later.version + 1).saturating_sub(whole))
        .bind(phase.flag())
        .execute(&self.pool)
        .await
        .map_err(StoreError::during(CHANGE))?;
        let now = self.flag().await?;
        let is_later = now.version > later.version && now.phase == later.phase && !now.fenced;
        Ok((adopted.rows_affected() > 0 && is_later).then_some(now))
    }

    /// An instance tells that it writes by `version`, or a later one, and no earlier one any more; it stops by itself if it is
    /// not heard for `ttl`. Makes it known where it was not. A version that goes back is what it was told: the store may be
    /// restored.
    pub async fn acknowledge_flag(&self, instance: &str, version: u64, ttl: Duration) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO flag_instance (pair, instance, version, expires_at, registered_at)
             VALUES (?, ?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE version = VALUES(version), expires_at = VALUES(expires_at)",
        )
        .bind(&*self.flag_key)
        .bind(instance)
        .bind(version)
        .bind(micros(ttl))
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep what an instance has acknowledged"))?;
        Ok(())
    }

    /// An instance has ended, and writes no more. Without effect where it is not known.
    pub async fn forget_instance(&self, instance: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM flag_instance WHERE pair = ? AND instance = ?")
            .bind(&*self.flag_key)
            .bind(instance)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("forget an instance"))?;
        Ok(())
    }

    /// The instances whose time is not over, by name.
    pub async fn flag_instances(&self) -> Result<Vec<FlagInstance>, StoreError> {
        let during = || StoreError::during("read who follows the flag");
        let rows = sqlx::query(
            "SELECT instance, version, expires_at,
               CAST(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), expires_at) DIV 1000 AS UNSIGNED) AS expires_in_ms
             FROM flag_instance WHERE pair = ? AND expires_at > UTC_TIMESTAMP(6) ORDER BY instance",
        )
        .bind(&*self.flag_key)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let read = |row: &MySqlRow| -> Result<FlagInstance, sqlx::Error> {
            Ok(FlagInstance {
                instance: row.try_get("instance")?,
                version: row.try_get("version")?,
                expires_at: utc(row.try_get::<NaiveDateTime, _>("expires_at")?),
                expires_in_ms: row.try_get("expires_in_ms")?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(during())
    }
}

/// A row of the table: its key, and whether its fence is over.
fn one_flag(row: &MySqlRow) -> Result<(String, Flag, bool), StoreError> {
    let read = |row: &MySqlRow| -> Result<(String, u64, u8, i64, i64), sqlx::Error> {
        let (fenced, is_over) = (row.try_get("fenced")?, row.try_get("is_over")?);
        Ok((row.try_get("pair")?, row.try_get("version")?, row.try_get("flag")?, fenced, is_over))
    };
    let (key, version, value, fenced, is_over) = read(row).map_err(StoreError::during(READ))?;
    let unknown = || StoreError::Unreadable { what: "flag", reason: format!("{value} is none of its values") };
    let phase = Phase::from_flag(value).ok_or_else(unknown)?;
    Ok((key, Flag { version, phase, fenced: fenced != 0 }, is_over != 0))
}

/// Where a group has been moved to that has this phase.
fn moved_to(phase: Phase) -> Phase {
    if phase.writes_to() == Side::New { Phase::ReadNew } else { Phase::WriteBoth }
}
