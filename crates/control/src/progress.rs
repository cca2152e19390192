//! How far a change has come: kept in the store before each step is begun.

use std::time::{Duration, Instant};

use crossfade_applier::Probe;
use crossfade_message::{Store, Wish};
use crossfade_model::Direction;
use humantime::format_duration;

use crate::hold::TTL;
use crate::memory::{Memory, StepTook};
use crate::waits::Waits;
use crate::{Change, ControlError, Step};

/// One that is under way, in the hands of its holder.
pub(crate) struct Progress<'p> {
    pub store: &'p Store,
    pub change: Change,
    pub run: u64,
    pub holder: &'p str,
    pub probe: &'p Probe,
    pub waits: &'p Waits,
    pub memory: Memory,
    began: Option<(Step, Instant)>,
}

impl<'p> Progress<'p> {
    pub fn new(
        (store, holder, probe): (&'p Store, &'p str, &'p Probe),
        (change, run, memory): (Change, u64, Memory),
        waits: &'p Waits,
    ) -> Progress<'p> {
        Progress { store, change, run, holder, probe, waits, memory, began: None }
    }

    /// Keeps what has been found so far and that the step is begun.
    pub async fn begin(&mut self, step: Step) -> Result<(), ControlError> {
        self.took();
        self.keep(step).await?;
        (self.probe)(step.failpoint());
        self.waits.note(format!("step `{}` was not done", step.as_str()));
        self.began = Some((step, Instant::now()));
        Ok(())
    }

    /// Keeps what has been found within a step.
    pub async fn keep(&self, step: Step) -> Result<(), ControlError> {
        let memory = self.memory.to_json();
        let kept = self.store.keep_switch_step(self.run, self.holder, TTL, step.as_str(), &memory).await?;
        if kept { Ok(()) } else { Err(self.taken_over()) }
    }

    /// The last step has ended.
    pub fn took(&mut self) {
        if let Some((step, since)) = self.began.take() {
            self.memory.steps.push(StepTook { step, ms: ms(since.elapsed()) });
        }
    }

    /// Wishes something of a direction, as long as nobody else has the change in hand. What was wished before is kept first.
    pub async fn wish(&mut self, step: Step, direction: Direction, wish: Wish) -> Result<(), ControlError> {
        let before = self.store.wish(direction).await?;
        if before == Some(wish) {
            return Ok(());
        }
        if self.memory.wishes.of(direction).is_none() {
            *self.memory.wishes.of_mut(direction) = Some(before.unwrap_or(Wish::OFF));
            self.keep(step).await?;
        }
        let set = self.store.set_wish_of_run(self.run, self.holder, direction, wish).await?;
        if set { Ok(()) } else { Err(self.taken_over()) }
    }

    pub fn taken_over(&self) -> ControlError {
        ControlError::TakenOver { run: format!("{} {}", self.change, self.run) }
    }
}

/// The flag has changed under a fence, or the fence was over.
pub(crate) fn late() -> ControlError {
    ControlError::Refused("somebody else has changed the flag, or users had been kept waiting for too long".to_owned())
}

pub(crate) async fn in_time<T>(
    limit: Duration,
    waits: &Waits,
    work: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    let late = |_| ControlError::NotInTime { waited_for: waits.shown(), limit: format_duration(limit).to_string() };
    tokio::time::timeout(limit, work).await.map_err(late)?
}

pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
