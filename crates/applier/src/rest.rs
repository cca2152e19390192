//! Where more than a row is wrong, the direction rests: nothing is applied, and nothing is lost. The process goes on reading
//! its source, so that what is missed meanwhile is no more than what is not applied, and the opposite direction is told
//! what it asks for.
//!
//! What somebody mends on the target (a privilege, a table, a full disk), or on the store's server, is noticed by trying again every now and then. A
//! circuit that has opened is closed by a person alone: the direction is wished to rest, as by `crossfade stop`, which
//! also outlives this process. So nothing ever flaps between running and stopped.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::applier::{Applier, take_over};
use crate::error::{ApplyError, with_causes};
use crate::lane::Lane;
use crate::progress::Waiting;

/// Between attempts with a target that nobody has mended yet.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Resting that began this long after the last one is another one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Between two attempts to reach a store that is away.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// This process obeys its own wish within half a second; a person who starts it again meanwhile is not waited for.
const OBEYED_WITHIN: Duration = Duration::from_secs(2);

/// How often the direction has rested in a row.
#[derive(Default)]
pub(crate) struct Rests {
    in_a_row: usize,
    ended_at: Option<Instant>,
}

impl Rests {
    fn pause(&mut self) -> Duration {
        let is_another = self.ended_at.is_none_or(|ended| ended.elapsed() > FORGOTTEN_AFTER);
        self.in_a_row = if is_another { 0 } else { self.in_a_row + 1 };
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter()
            .build();
        pauses.nth(self.in_a_row.min(16)).unwrap_or(LONGEST_PAUSE)
    }
}

impl Applier {
    /// Rests because of `error`, which may be over later; returns when it is worth another attempt, or when asked to stop. The target's checkpoints
    /// have then been read again: some lanes of a batch may have committed.
    pub(crate) async fn rest(&mut self, mut error: ApplyError) -> Result<(), ApplyError> {
        loop {
            let (what, hint) = (with_causes(&error), error.hint().unwrap_or_default());
            let reason = if hint.is_empty() { what.clone() } else { format!("{what}; {hint}") };
            let waiting = if error.passes_by_itself() {
                tracing::warn!(error = what, "applying failed; beginning again");
                Waiting::Retry(what)
            } else {
                tracing::error!(hint, "{what}; nothing is applied meanwhile");
                Waiting::Stopped(reason.clone())
            };
            self.trouble = Some(self.shared.progress.wait(waiting));
            if matches!(&error, ApplyError::Store(error) if error.is_to_be_mended()) {
                self.shared.store.begin_sessions_anew();
            }
            let (stop, pause) = (self.options.stop.clone(), self.rests.pause());
            let rested = async {
                match &error {
                    ApplyError::CircuitOpen { .. } => return self.wish_to_rest(&reason).await,
                    // Those who wait for the opposite reader leave room as soon as he has got there.
                    ApplyError::NoRoom { .. } => {
                        self.shared.hold.captured_within(pause).await?;
                    }
                    _ => tokio::time::sleep(pause).await,
                }
                Ok(())
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                rested = rested => rested?,
            }
            self.rests.ended_at = Some(Instant::now());
            match take_over(&self.shared.owner, &self.options).await {
                Ok(taken_over) => {
                    self.checkpoints = taken_over.progress;
                    self.planned_by = taken_over.plan_hash;
                    self.lanes = (0..self.lanes.len()).map(|_| Lane::new()).collect();
                    // The same batch comes again.
                    self.breaker.clear();
                    return Ok(());
                }
                Err(_) if stop.is_cancelled() => return Ok(()),
                Err(again) if again.may_be_over_later() => error = again,
                Err(other) => return Err(other),
            }
        }
    }

    async fn wish_to_rest(&self, reason: &str) -> Result<(), ApplyError> {
        let direction = self.options.stream.direction();
        loop {
            match self.shared.store.stop_direction(direction, reason).await {
                Ok(()) => break,
                Err(error) if error.may_be_over_later() => {
                    tracing::warn!(error = with_causes(&error), "the store is away; nothing is applied meanwhile");
                    self.shared.store.begin_sessions_anew();
                    tokio::time::sleep(STORE_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut wishes = self.options.wishes.clone();
        // What follows the wishes ends with the process.
        let _ = tokio::time::timeout(OBEYED_WITHIN, wishes.wait_for(|wishes| !wishes.apply)).await;
        Ok(())
    }
}
