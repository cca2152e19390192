//! The end of batches that were taken up: by their own tool, by another one after its death, or by the sync processes.

use std::time::{Duration, Instant};

use crossfade_config::Settings;
use crossfade_message::{BatchStep, EntityRun, Stepped, Store};

use super::give::give_decided;
use super::{EntitySight, Under, hold};
use crate::ControlError;
use crate::hold::{IsDead, TTL};

/// Users of these entities cannot write meanwhile, and nobody can undo it: a node that is away may be back soon.
const PATIENCE: Duration = Duration::from_secs(30);

impl<S: EntitySight> Under<'_, S> {
    /// Brings all that was taken up to its end: forward where it is decided, else back.
    pub(super) async fn settle(&self, reason: &str) -> Result<(), ControlError> {
        let super::Mover { settings, store, run, holder, .. } = self.mover;
        let finished = settle(settings, store, run, holder, (reason, PATIENCE)).await?;
        self.with(|report| report.moved += finished);
        Ok(())
    }
}

/// Gives how many were decided.
async fn settle(
    settings: &Settings,
    store: &Store,
    run: &EntityRun,
    holder: &str,
    (reason, patience): (&str, Duration),
) -> Result<u64, ControlError> {
    let mut finished = 0;
    loop {
        let open = store.open_batches(run).await?;
        if open.is_empty() {
            return Ok(finished);
        }
        for open in open {
            give_decided(settings, store, holder, &open, (None::<Instant>, patience)).await?;
            // What was on its way to the store when that was read is there now: this waits for it. So it is read once more.
            let (decided, undone) = (open.decided.len(), &open.batch.keys);
            let undo = BatchStep::Undo { reason, counts: false, attempts: 0 };
            if store.step_entities(&open.batch, holder, undone, undo).await? == Stepped::TakenOver {
                return Err(ControlError::TakenOver { run: hold::name(run) });
            }
            let text = format!(
                "{}: batch {}: {decided} were decided and are finished, {} undone: {reason}",
                hold::name(run),
                open.batch.id,
                undone.len()
            );
            store.journal("entity", &text).await?;
            finished += decided as u64;
        }
    }
}

/// For the sync processes: what a tool that has died has decided is finished, and what it had taken up is undone, so that users can
/// write. The rest of the run is left to the same command. Gives what was done.
pub async fn finish_abandoned(
    settings: &Settings,
    store: &Store,
    holder: &str,
    is_dead: IsDead,
) -> Result<Option<String>, ControlError> {
    if !store.has_decided_entities().await? {
        return Ok(None);
    }
    let mut done = None;
    for (run, held_by) in store.open_entity_runs().await? {
        if held_by.as_ref().is_some_and(|holder| !is_dead(holder)) {
            continue;
        }
        // What a command has left undone for the next one to ask for keeps nobody from writing.
        if store.open_batches(&run).await?.is_empty() {
            continue;
        }
        if let Some(dead) = held_by {
            store.renew_entity_run(run.id, &dead, Duration::ZERO).await?;
        }
        let Some(run) = store.take_entity_run(run.id, holder, TTL).await? else { continue };
        settle(settings, store, &run, holder, ("its tool had died", Duration::ZERO)).await?;
        // Nobody is to wait for this process.
        store.renew_entity_run(run.id, holder, Duration::ZERO).await?;
        done = Some(format!(
            "the tool of {} has died; what it had in hand is at rest, and users can write it",
            hold::name(&run)
        ));
    }
    Ok(done)
}
