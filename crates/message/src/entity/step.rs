//! The steps of a batch: each a compare-and-set of its entities' states.

use std::time::Duration;

use crossfade_model::{EntityKey, Side};
use crossfade_rules::EntityStep;
use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, QueryBuilder};

use super::run::{EntityBatch, is_held, states, tell};
use super::{KEYS, among, cut, number_of, repeated};
use crate::connections::{in_time, statements};
use crate::lease::micros;
use crate::{Store, StoreError};

/// What is done to entities of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BatchStep<'s> {
    /// Their rows are equal on both sides. Answers are good for a short time only from now on.
    Prove,
    /// Nobody writes their rows for so long at most.
    Fence(Duration),
    /// The batch's side has authority over them, if they are all fenced. Nobody writes their rows until [`BatchStep::Lift`].
    Decide,
    /// Both nodes know: users write them again, by a new version. `pause_ms`: for so long they did not.
    Lift { pause_ms: Option<u64> },
    /// They are as before again, in a new version where they were fenced. `counts`: it was an attempt; those that have had as many
    /// as are allowed have failed.
    Undo { reason: &'s str, counts: bool, attempts: u32 },
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    Done,
    /// Not all of them are in the state that the step leads on from, or their fence was over; nothing was done.
    TooLate,
    /// Somebody else has the run; nothing was done.
    TakenOver,
}

const STEP: &str = "keep how far entities are";

impl Store {
    /// Takes a step with these entities of a batch: all of them or none. Repeatable.
    pub async fn step_entities(
        &self,
        batch: &EntityBatch,
        holder: &str,
        keys: &[EntityKey],
        step: BatchStep<'_>,
    ) -> Result<Stepped, StoreError> {
        let most = statements(keys.len().div_ceil(KEYS) * 2 + 3);
        repeated(|| in_time(STEP, most, self.try_step(batch, holder, keys, step))).await
    }

    async fn try_step(
        &self,
        batch: &EntityBatch,
        holder: &str,
        keys: &[EntityKey],
        step: BatchStep<'_>,
    ) -> Result<Stepped, StoreError> {
        let during = || StoreError::during(STEP);
        let mut transaction = self.patient.begin().await.map_err(during())?;
        // What is decided is finished by anybody.
        let is_anybodys = matches!(step, BatchStep::Lift { .. });
        if !is_anybodys && !is_held(&mut transaction, batch.run, holder).await? {
            return Ok(Stepped::TakenOver);
        }
        if matches!(step, BatchStep::Decide) {
            let is_rest = keys.iter().any(EntityKey::is_rest);
            if is_pair_changing(&mut transaction, &self.pair).await?
                || is_rest && is_one_of_the_rest_at_work(&mut transaction, &self.pair).await?
            {
                return Ok(Stepped::TooLate);
            }
        }
        let mut changed = 0;
        for keys in keys.chunks(KEYS) {
            let mut update = QueryBuilder::<MySql>::new("UPDATE entity SET changed_at = UTC_TIMESTAMP(6), ");
            set(&mut update, batch.to, step);
            update.push(" AND batch = ").push_bind(batch.id).push(" AND pair = ").push_bind(&*self.pair);
            among(&mut update, keys);
            changed += update.build().execute(&mut *transaction).await.map_err(during())?.rows_affected();
        }
        let is_partly_fine = matches!(step, BatchStep::Undo { .. } | BatchStep::Lift { .. });
        if changed != keys.len() as u64 && !is_partly_fine {
            transaction.rollback().await.map_err(during())?;
            return Ok(Stepped::TooLate);
        }
        // Neither of the two is another state.
        if !matches!(step, BatchStep::Lift { .. } | BatchStep::Fence(_)) {
            tell(&mut transaction, &self.pair, keys).await.map_err(during())?;
        }
        transaction.commit().await.map_err(during())?;
        Ok(Stepped::Done)
    }
}

/// Whether a cutover, a rollback or an end of the whole pair is under way. It looks at its gates after it has begun, and they are
/// closed while entities are at work: so of the two at least one sees the other.
async fn is_pair_changing(connection: &mut MySqlConnection, pair: &str) -> Result<bool, StoreError> {
    let open: Option<i64> = sqlx::query_scalar("SELECT 1 FROM switch_run WHERE pair = ? AND state = 'open' LIMIT 1")
        .bind(pair)
        .fetch_optional(connection)
        .await
        .map_err(StoreError::during(STEP))?;
    Ok(open.is_some())
}

/// Whether a batch has entities that go with the rest, and would be moved a second time.
async fn is_one_of_the_rest_at_work(connection: &mut MySqlConnection, pair: &str) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM entity WHERE pair = ? AND entity <> '' AND side IS NULL AND state IN ('copying', 'verified')
         LIMIT 1 FOR UPDATE",
    )
    .bind(pair)
    .fetch_optional(connection)
    .await
    .map_err(StoreError::during(STEP))?;
    Ok(found.is_some())
}

/// What changes, and the beginning of the condition. Assignments follow each other from left to right (MySQL manual, "UPDATE
/// Statement"; MariaDB documentation, "UPDATE").
fn set(update: &mut QueryBuilder<MySql>, to: Side, step: BatchStep<'_>) {
    match step {
        BatchStep::Prove => {
            update.push("state = 'verified' WHERE ").push(states(EntityStep::Prove));
        }
        BatchStep::Fence(limit) => {
            update.push("version = version + 1, fenced_until = UTC_TIMESTAMP(6) + INTERVAL ").push_bind(micros(limit));
            update.push(" MICROSECOND WHERE fenced_until IS NULL AND ").push(states(EntityStep::Decide(to)));
        }
        BatchStep::Decide => {
            let state = if to == Side::New { "'moved'" } else { "'returned'" };
            update
                .push("version = version + 1, fenced_until = NULL, given = FALSE, reason = NULL, state = ")
                .push(state);
            update.push(", side = ").push_bind(number_of(to));
            update.push(" WHERE fenced_until > UTC_TIMESTAMP(6) AND ").push(states(EntityStep::Decide(to)));
        }
        BatchStep::Lift { pause_ms } => {
            update.push("version = version + 1, given = TRUE, pause_ms = COALESCE(").push_bind(pause_ms);
            update.push(", pause_ms) WHERE given = FALSE");
        }
        BatchStep::Undo { reason, counts, attempts } => {
            update.push("version = version + IF(fenced_until IS NULL, 0, 1), fenced_until = NULL, reason = ");
            update.push_bind(cut(reason));
            if counts {
                update.push(", attempts = attempts + 1, state = IF(attempts >= ").push_bind(attempts);
                update.push(", 'failed', 'requested')");
            } else {
                update.push(", state = 'requested'");
            }
            update.push(" WHERE ").push(states(EntityStep::Undo));
        }
    }
}
