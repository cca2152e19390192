//! What is answered about an entity, and for how long that may be used.

use std::time::Duration;

use crossfade_model::{EntityKey, Side};
use crossfade_rules::{EntityState, answer_valid_for};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::side_of;
use crate::{Store, StoreError};

/// What an application is told that asks for an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityAnswer {
    /// Has authority over its rows: users read and write it there.
    pub side: Side,
    /// One more with each change of the answer.
    pub version: u64,
    /// Nobody writes its rows for the moment.
    pub fenced: bool,
    /// For so long after the question was asked nobody is told otherwise.
    pub valid_for: Duration,
}

const READ: &str = "read who has authority over an entity";

impl Store {
    /// Lifts a fence that is over. `lease` counts where nobody has said yet for how long answers are given.
    pub async fn entity_answer(&self, key: &EntityKey, lease: Duration) -> Result<EntityAnswer, StoreError> {
        loop {
            if let Some(answer) = self.answer_now(key, lease).await? {
                return Ok(answer);
            }
            self.lift_fences_that_are_over(key).await?;
        }
    }

    /// `None`: a fence is over, and not lifted.
    async fn answer_now(&self, key: &EntityKey, lease: Duration) -> Result<Option<EntityAnswer>, StoreError> {
        let during = || StoreError::during(READ);
        let row = sqlx::query(
            "SELECT own.state AS state, own.side AS side, CAST(COALESCE(own.version, 0) AS UNSIGNED) AS version,
               COALESCE(own.fenced_until IS NOT NULL OR NOT own.given, FALSE) AS fenced,
               COALESCE(own.fenced_until <= UTC_TIMESTAMP(6), FALSE) AS is_over,
               rest.state AS rest_state, rest.side AS rest_side, CAST(COALESCE(rest.version, 0) AS UNSIGNED) AS rest_version,
               COALESCE(rest.fenced_until IS NOT NULL OR NOT rest.given, FALSE) AS rest_fenced,
               COALESCE(rest.fenced_until <= UTC_TIMESTAMP(6), FALSE) AS rest_is_over,
               (SELECT lease_ms FROM entity_lease WHERE pair = ?) AS lease_ms
             FROM (SELECT 1 AS one) AS asked
             LEFT JOIN entity AS own ON own.pair = ? AND own.entity = ?
             LEFT JOIN entity AS rest ON rest.pair = ? AND rest.entity = ''",
        )
        .bind(&*self.pair)
        .bind(&*self.pair)
        .bind(key.as_str().as_bytes())
        .bind(&*self.pair)
        .fetch_one(&self.pool)
        .await
        .map_err(during())?;
        let lease_ms: Option<u64> = row.try_get("lease_ms").map_err(during())?;
        let Some(lease_ms) = lease_ms else {
            // Who fences must know for how long.
            self.note_entity_lease(lease).await?;
            return Ok(None);
        };
        read(&row, Duration::from_millis(lease_ms))
    }

    async fn note_entity_lease(&self, lease: Duration) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO entity_lease (pair, lease_ms) VALUES (?, ?) ON DUPLICATE KEY UPDATE pair = VALUES(pair)",
        )
        .bind(&*self.pair)
        .bind(millis(lease))
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep for how long answers are given"))?;
        Ok(())
    }

    async fn lift_fences_that_are_over(&self, key: &EntityKey) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE entity SET version = version + 1, fenced_until = NULL, changed_at = UTC_TIMESTAMP(6)
             WHERE pair = ? AND entity IN (?, '') AND fenced_until <= UTC_TIMESTAMP(6)",
        )
        .bind(&*self.pair)
        .bind(key.as_str().as_bytes())
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("lift a fence that is over"))?;
        Ok(())
    }

    /// For how long, from now on, answers that were given may still count; `lease` where nobody has said yet.
    pub async fn entity_lease(&self, lease: Duration) -> Result<Duration, StoreError> {
        self.note_entity_lease(lease).await?;
        let lease_ms: u64 = sqlx::query_scalar(
            "SELECT CAST(GREATEST(lease_ms, IF(former_until > UTC_TIMESTAMP(6),
               TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), former_until) DIV 1000 + 1, 0)) AS UNSIGNED)
             FROM entity_lease WHERE pair = ?",
        )
        .bind(&*self.pair)
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::during("read for how long answers are given"))?;
        Ok(Duration::from_millis(lease_ms))
    }

    /// From now on answers are given for `lease`. Those that were given for longer are waited for even so, also by others.
    pub async fn set_entity_lease(&self, lease: Duration) -> Result<(), StoreError> {
        self.note_entity_lease(lease).await?;
        // From left to right, each with the values before it as they have become (MySQL manual, "UPDATE Statement").
        sqlx::query(
            "UPDATE entity_lease SET
               former_until = IF(lease_ms > ?, GREATEST(COALESCE(former_until, UTC_TIMESTAMP(6)),
                 UTC_TIMESTAMP(6) + INTERVAL lease_ms * 1000 MICROSECOND), former_until),
               lease_ms = ?
             WHERE pair = ?",
        )
        .bind(millis(lease))
        .bind(millis(lease))
        .bind(&*self.pair)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep for how long answers are given"))?;
        Ok(())
    }

    /// The side of all entities that have none of their own.
    pub async fn rest_side(&self) -> Result<Side, StoreError> {
        let during = || StoreError::during(READ);
        let row = sqlx::query("SELECT side FROM entity WHERE pair = ? AND entity = ''")
            .bind(&*self.pair)
            .fetch_optional(&self.pool)
            .await
            .map_err(during())?;
        let side = row.as_ref().map(|row| side_of(row, "side")).transpose()?.flatten();
        Ok(side.unwrap_or(Side::Old))
    }
}

fn read(row: &MySqlRow, lease: Duration) -> Result<Option<EntityAnswer>, StoreError> {
    let during = || StoreError::during(READ);
    let is = |column: &str| row.try_get::<i64, _>(column).map(|found| found != 0).map_err(during());
    let number = |column: &str| row.try_get::<u64, _>(column).map_err(during());
    let state = |column: &str| -> Result<EntityState, StoreError> {
        let text: Option<String> = row.try_get(column).map_err(during())?;
        let Some(text) = text else { return Ok(EntityState::Identified) };
        let unknown = || StoreError::Unreadable { what: "entity", reason: format!("`{text}` is no state of one") };
        EntityState::parse(&text).ok_or_else(unknown)
    };
    if is("is_over")? || is("rest_is_over")? {
        return Ok(None);
    }
    let own_side = side_of(row, "side")?;
    let follows_rest = own_side.is_none();
    let fenced = is("fenced")? || (follows_rest && is("rest_fenced")?);
    let mut valid_for = answer_valid_for(state("state")?, lease);
    if follows_rest {
        valid_for = valid_for.min(answer_valid_for(state("rest_state")?, lease));
    }
    Ok(Some(EntityAnswer {
        side: own_side.or(side_of(row, "rest_side")?).unwrap_or(Side::Old),
        // Both only rise, and so does their sum.
        version: number("version")? + number("rest_version")?,
        fenced,
        valid_for: if fenced { Duration::ZERO } else { valid_for },
    }))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
