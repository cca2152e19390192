//! One batch: copied, proved, fenced, and decided; or undone.

use std::time::{Duration, Instant};

use crossfade_applier::with_causes;
use crossfade_message::{BatchStep, EntityBatch, Stepped};
use crossfade_model::{Direction, EntityKey, Side};
use crossfade_rules::{EntityState, answer_valid_for};
use humantime::format_duration;

use super::give::give_decided;
use super::{Early, EntitySight, Equality, FAILED_TOLD, Failed, Mover, Under, hold};
use crate::quiet::Others;
use crate::side::{connect_known, direction_to};
use crate::waits::Waits;
use crate::{ControlError, drain, quiet};

/// Users of these entities cannot write meanwhile, and nobody can undo it.
const GIVE_PATIENCE: Duration = Duration::from_secs(30);

/// A direction that is behind is waited for so many times as long as a fence may stand.
const CATCH_UP: u32 = 6;

/// Rows of which a change is still under way are looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Entities that are not like the others, each with the reason.
type Unlike = Vec<(EntityKey, String)>;

impl<S: EntitySight> Under<'_, S> {
    /// # Errors
    ///
    /// What nobody can help by trying again now. The batch is then as before, or decided and finished.
    pub(super) async fn batch(&self, batch: &EntityBatch) -> Result<Option<Early>, ControlError> {
        self.with(|report| report.batches += 1);
        let tried = tokio::select! {
            tried = self.try_batch(batch) => tried,
            () = self.mover.stop.cancelled() => Err(ControlError::Refused("it was broken off".to_owned())),
        };
        match tried {
            Ok(()) => Ok(None),
            Err(error @ ControlError::TakenOver { .. }) => Err(error),
            Err(error) => {
                let is_stopped = self.mover.stop.is_cancelled();
                self.settle(&with_causes(&error)).await?;
                // Nothing is wrong with the entities; who is at fault is told.
                match error {
                    _ if is_stopped => Ok(None),
                    behind @ ControlError::NotInTime { .. } => Ok(Some(Early::Behind(behind.to_string()))),
                    error => Err(error),
                }
            }
        }
    }

    async fn try_batch(&self, batch: &EntityBatch) -> Result<(), ControlError> {
        let Mover { store, entity, probe, .. } = self.mover;
        probe("entity-copying");
        self.show("copies").await?;
        let (left, rows) = self.copied(batch).await?;
        if left.is_empty() {
            return Ok(());
        }
        self.step(batch, &left, BatchStep::Prove).await?;
        let proved = Instant::now();
        probe("entity-verified");
        self.show("waits until answers have run out").await?;
        let lease = store.entity_lease(entity.lease).await?.max(entity.lease);
        tokio::time::sleep(lease.saturating_sub(proved.elapsed())).await;
        self.show("waits until what users write crosses soon enough").await?;
        self.until_caught_up(direction_to(batch.to), &left).await?;

        self.step(batch, &left, BatchStep::Fence(entity.fence_timeout)).await?;
        let fenced = Instant::now();
        probe("entity-fenced");
        self.show("fences, drains and compares").await?;
        let waits = Waits::default();
        let proving = self.fenced(batch, &left, fenced, &waits);
        let limit = entity.fence_timeout;
        let late = || format!("{}, and that took longer than {}", waits.shown(), format_duration(limit));
        let unlike = match tokio::time::timeout(limit.saturating_sub(fenced.elapsed()), proving).await {
            Ok(Ok(unlike)) => unlike,
            Ok(Err(error @ (ControlError::Store(_) | ControlError::TakenOver { .. }))) => return Err(error),
            Ok(Err(error)) => all(&left, &with_causes(&error)),
            Err(_) => all(&left, &late()),
        };
        self.undo(batch, &unlike).await?;
        let equal: Vec<EntityKey> = without(&left, &unlike);
        if equal.is_empty() {
            return self.tell(batch, 0, unlike.len()).await;
        }
        probe("entity-decide");
        match self.stepped(batch, &equal, BatchStep::Decide).await? {
            Stepped::Done => {}
            Stepped::TakenOver => return Err(self.taken_over()),
            // The fence's own end came first.
            Stepped::TooLate => {
                self.undo(batch, &all(&equal, &late())).await?;
                return self.tell(batch, 0, left.len()).await;
            }
        }
        probe("entity-decided");
        self.give(batch, fenced, rows).await?;
        probe("entity-lifted");
        self.tell(batch, equal.len(), unlike.len()).await
    }

    /// Makes the rows equal, and gives the entities of which they are. The others are as before, with the reason.
    async fn copied(&self, batch: &EntityBatch) -> Result<(Vec<EntityKey>, u64), ControlError> {
        let sight = self.mover.sight;
        let copied = sight.copy(&batch.keys, batch.to).await.map_err(ControlError::Rows)?;
        if copied.unlike.is_none() {
            return Ok((batch.keys.clone(), copied.rows));
        }
        let unlike = self.unlike(&batch.keys, async |keys: &[EntityKey]| sight.copy(keys, batch.to).await).await?;
        self.undo(batch, &unlike).await?;
        let left = without(&batch.keys, &unlike);
        if left.is_empty() {
            self.tell(batch, 0, unlike.len()).await?;
        }
        Ok((left, copied.rows))
    }

    /// Those of which rows differ, found by halves.
    async fn unlike(
        &self,
        keys: &[EntityKey],
        look: impl AsyncFn(&[EntityKey]) -> Result<Equality, crate::Cause>,
    ) -> Result<Unlike, ControlError> {
        let mut open: Vec<&[EntityKey]> = vec![keys];
        let mut found = Vec::new();
        while let Some(some) = open.pop() {
            let Some(reason) = look(some).await.map_err(ControlError::Rows)?.unlike else { continue };
            match some {
                [one] => found.push((one.clone(), reason)),
                some => {
                    let (first, second) = some.split_at(some.len() / 2);
                    open.extend([second, first]);
                }
            }
        }
        Ok(found)
    }

    /// A fence ends in vain where its drain takes longer than it may stand: nobody is kept from writing before the direction has
    /// needed at most half of that for what was written last.
    async fn until_caught_up(&self, direction: Direction, keys: &[EntityKey]) -> Result<(), ControlError> {
        let entity = self.mover.entity;
        let waits = Waits::default();
        let soon = async {
            loop {
                let asked = Instant::now();
                self.until_drained(direction, keys, &waits).await?;
                if asked.elapsed() <= entity.fence_timeout / 2 {
                    return Ok(());
                }
            }
        };
        let limit = entity.fence_timeout * CATCH_UP;
        tokio::time::timeout(limit, soon).await.unwrap_or_else(|_| {
            let waited_for =
                format!("{direction} has not caught up, and nobody was kept from writing: {}", waits.shown());
            Err(ControlError::NotInTime { waited_for, limit: format_duration(limit).to_string() })
        })
    }

    /// Waits until all has crossed that was committed before. Single entities are compared afterwards; of the rest all rows were
    /// compared before, and nothing may be set aside that came since.
    async fn until_drained(&self, direction: Direction, keys: &[EntityKey], waits: &Waits) -> Result<(), ControlError> {
        let Mover { settings, store, .. } = self.mover;
        let last_seq = drain::until_read_up_to_now(settings, store, direction, waits).await?;
        match keys.iter().any(EntityKey::is_rest) {
            true => drain::until_in_effect(settings, store, direction, last_seq, waits).await,
            false => drain::until_passed(settings, direction, last_seq, waits).await,
        }
    }

    /// What must be so before it is decided. Gives those of which rows are not equal now.
    async fn fenced(
        &self,
        batch: &EntityBatch,
        keys: &[EntityKey],
        fenced: Instant,
        waits: &Waits,
    ) -> Result<Unlike, ControlError> {
        let Mover { settings, store, entity, sight, probe, .. } = self.mover;
        let direction = direction_to(batch.to);
        let from = direction.source();
        waits.note("answers that were given before had not run out");
        let lease = store.entity_lease(entity.lease).await?.max(entity.lease);
        let short = answer_valid_for(EntityState::Verified, lease);
        tokio::time::sleep(short.saturating_sub(fenced.elapsed())).await;

        let (mut conn, facts) = connect_known(settings, from).await?;
        quiet::until_quiet((&mut conn, facts.dialect()), from, fenced, Others::WriteOn, waits).await?;
        // It was asked; how the connection ends does not matter.
        let _ = conn.disconnect().await;
        probe("entity-quiet");

        self.until_drained(direction, keys, waits).await?;
        probe("entity-drained");
        if keys.iter().any(EntityKey::is_rest) {
            return Ok(Vec::new());
        }

        loop {
            let seen = sight.compare(keys).await.map_err(ControlError::Rows)?;
            let Some(unlike) = seen.unlike else { return Ok(Vec::new()) };
            waits.note(unlike);
            let found = self.unlike(keys, async |keys: &[EntityKey]| sight.compare(keys).await).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What is decided, is finished.
    async fn give(&self, batch: &EntityBatch, fenced: Instant, rows: u64) -> Result<(), ControlError> {
        let Mover { settings, store, run, holder, .. } = self.mover;
        for open in store.open_batches(run).await? {
            if open.batch.id != batch.id {
                continue;
            }
            let pause = give_decided(settings, store, holder, &open, (Some(fenced), GIVE_PATIENCE)).await?;
            let count = open.decided.len() as u64;
            self.with(|report| {
                report.moved += count;
                report.rows += rows;
                if let Some(pause_ms) = pause {
                    report.pauses.note(pause_ms, count);
                }
            });
        }
        Ok(())
    }

    async fn undo(&self, batch: &EntityBatch, unlike: &Unlike) -> Result<(), ControlError> {
        let attempts = self.mover.entity.attempts;
        for (key, reason) in unlike {
            let undo = BatchStep::Undo { reason, counts: true, attempts };
            self.step(batch, std::slice::from_ref(key), undo).await?;
            self.with(|report| {
                report.undone += 1;
                report.reasons.retain(|known| known.entity != key.as_str());
                if report.reasons.len() < FAILED_TOLD {
                    report.reasons.push(Failed { entity: key.as_str().to_owned(), reason: reason.clone() });
                }
            });
        }
        Ok(())
    }

    async fn step(&self, batch: &EntityBatch, keys: &[EntityKey], step: BatchStep<'_>) -> Result<(), ControlError> {
        match self.stepped(batch, keys, step).await? {
            Stepped::Done => Ok(()),
            Stepped::TakenOver => Err(self.taken_over()),
            Stepped::TooLate => {
                Err(ControlError::Refused("entities of the batch are in another state than it left them in".to_owned()))
            }
        }
    }

    async fn stepped(
        &self,
        batch: &EntityBatch,
        keys: &[EntityKey],
        step: BatchStep<'_>,
    ) -> Result<Stepped, ControlError> {
        Ok(self.mover.store.step_entities(batch, self.mover.holder, keys, step).await?)
    }

    fn taken_over(&self) -> ControlError {
        ControlError::TakenOver { run: hold::name(self.mover.run) }
    }

    async fn tell(&self, batch: &EntityBatch, moved: usize, undone: usize) -> Result<(), ControlError> {
        let word = if batch.to == Side::New { "moved" } else { "returned" };
        let undone = if undone == 0 { String::new() } else { format!(", {undone} attempts undone") };
        let text = format!("{}: batch {}: {moved} {word}{undone}", hold::name(self.mover.run), batch.id);
        Ok(self.mover.store.journal("entity", &text).await?)
    }
}

/// Each for the same reason.
fn all(keys: &[EntityKey], reason: &str) -> Unlike {
    keys.iter().map(|key| (key.clone(), reason.to_owned())).collect()
}

fn without(keys: &[EntityKey], unlike: &Unlike) -> Vec<EntityKey> {
    keys.iter().filter(|key| unlike.iter().all(|(other, _)| other != *key)).cloned().collect()
}
