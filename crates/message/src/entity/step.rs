//! The steps of a batch: each a compare-and-set of its entities' states.

use std::time::Duration;

use crossfade_model::{EntityKey, Side};
use crossfade_rules::{EntityStep, Remedy};
use sqlx::{MySql, QueryBuilder};

use super::run::{EntityBatch, is_held, states, tell};
use super::{KEYS, among, cut, number_of};
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

/// Another tool at the same rows, and the like.
const MOST_REPEATS: u32 = 20;

impl Store {
    /// Takes a step with these entities of a batch: all of them or none. Repeatable.
    pub async fn step_entities(
        &self,
        batch: &EntityBatch,
        holder: &str,
        keys: &[EntityKey],
        step: BatchStep<'_>,
    ) -> Result<Stepped, StoreError> {
        let mut repeats = 0;
        loop {
            match in_time(STEP, statements(keys.len().div_ceil(KEYS) * 2 + 2), self.try_step(batch, holder, keys, step))
                .await
            {
                Err(error) if error.remedy() == Remedy::RetryAtOnce && repeats < MOST_REPEATS => repeats += 1,
                stepped => return stepped,
            }
        }
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
