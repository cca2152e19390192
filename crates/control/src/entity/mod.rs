//! Entities change sides by themselves, while all others stay where they are.
//!
//! # What it promises
//!
//! - Nobody is told that an entity is on the other side unless every answer that said otherwise had run out, transactions that were
//!   under way had ended, everything that was committed by then had crossed, and its rows were equal on both sides.
//! - What decides is one compare-and-set in the store, of entities whose fence still stands. Before it a move is undone, also by
//!   the fence's own end; after it, it is finished, by whoever comes: nobody writes an entity's rows before both nodes know
//!   who has authority over them.
//! - What cannot be moved stays where it is, with the reason, and holds up nothing else.
//!
//! # How it fails
//!
//! With a [`ControlError`]. Dropping the future leaves what the same command, another one, or the sync processes bring to its end.

mod attempt;
mod gate;
mod give;
mod hold;
mod pause;
mod settle;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossfade_applier::Probe;
use crossfade_config::{EntitySettings, Settings};
use crossfade_message::{EntityRun, Store};
use crossfade_model::{EntityKey, Side};
use crossfade_rules::EntityState;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::ControlError;
use crate::error::Cause;
use crate::gate::Gate;
use crate::hold::IsDead;

pub use gate::{Looked, all_on, entity_gates};
pub use hold::{Taken, take_run};
pub use pause::Pauses;
pub use settle::finish_abandoned;

/// So many of those that failed are told with their reasons.
const FAILED_TOLD: usize = 20;

const COUNT_EVERY: Duration = Duration::from_secs(2);

/// What only the program as a whole can tell and do.
pub trait EntitySight {
    /// Looks at every gate that must be open while entities move.
    fn gates(&self) -> impl Future<Output = Result<Vec<Gate>, Cause>>;

    /// Makes the rows of these entities on `to` equal to those of the other side; tells what stays different.
    fn copy(&self, keys: &[EntityKey], to: Side) -> impl Future<Output = Result<Equality, Cause>>;

    /// Compares the rows of these entities.
    fn compare(&self, keys: &[EntityKey]) -> impl Future<Output = Result<Equality, Cause>>;

    /// Shows how far it is.
    fn show(&self, progress: &MoveProgress);
}

/// Whether rows are the same on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Equality {
    /// Rows that were looked at, of the side that has more.
    pub rows: u64,
    /// Why they are not known to be equal; `None` where they are.
    pub unlike: Option<String>,
}

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveProgress {
    pub moved: u64,
    pub failed: u64,
    /// Still to come.
    pub left: u64,
    /// What is done at the moment.
    pub doing: &'static str,
}

/// Who moves entities.
pub struct Mover<'m, S> {
    pub settings: &'m Settings,
    pub entity: &'m EntitySettings,
    pub store: &'m Store,
    /// Held by `holder`; all that it is about are requested.
    pub run: &'m EntityRun,
    pub resumed: bool,
    pub holder: &'m str,
    pub is_dead: IsDead,
    pub sight: &'m S,
    pub probe: Probe,
    /// A person wants it to end.
    pub stop: CancellationToken,
}

/// What has become of a run.
#[derive(Debug, Clone, Serialize)]
pub struct MoveReport {
    pub run: u64,
    pub to: Side,
    /// By this tool.
    pub moved: u64,
    pub failed: u64,
    /// The first of those, with their reasons.
    pub reasons: Vec<Failed>,
    /// Attempts of single entities that were undone.
    pub undone: u64,
    /// Requested and not begun, where it ended early.
    pub left: u64,
    pub batches: u64,
    pub rows: u64,
    pub pauses: Pauses,
    pub seconds: f64,
    /// A tool that has died had begun it.
    pub resumed: bool,
    /// Why it ended before all were moved.
    pub ended_early: Option<String>,
    /// As they were when it ended early for one of them.
    pub gates: Vec<Gate>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Failed {
    pub entity: String,
    pub reason: String,
}

/// One that is under way.
struct Under<'u, S> {
    mover: &'u Mover<'u, S>,
    report: Mutex<MoveReport>,
    begun: Instant,
    /// How many have failed and are left, as they were counted last, and when.
    counted: Mutex<Option<(Instant, [u64; 2])>>,
}

/// Why a run ends before all were moved.
enum Early {
    Gates(Vec<Gate>),
    /// The direction is; and how.
    Behind(String),
    Stopped,
}

impl<S: EntitySight> Mover<'_, S> {
    /// Moves all entities that the run has asked for, batch by batch; what a tool that has died has left behind comes first.
    /// Repeatable.
    ///
    /// # Errors
    ///
    /// Where nobody can say what has become of a batch, or where undoing has failed too. The same command goes on.
    pub async fn carry_out(&self) -> Result<MoveReport, ControlError> {
        let hold = hold::hold(self.store, self.run.id, self.holder);
        let report = Mutex::new(self.empty_report());
        let under = Under { mover: self, report, begun: Instant::now(), counted: Mutex::default() };
        let ended = tokio::select! {
            ended = under.all_batches() => ended,
            () = hold.lost() => Err(ControlError::TakenOver { run: hold::name(self.run) }),
        };
        let early = match ended {
            Err(error) => {
                hold.end().await;
                return Err(error);
            }
            Ok(early) => early,
        };
        let counts = self.store.run_counts(self.run.id).await;
        hold.end().await;
        let mut report = under.into_report();
        for (state, count) in counts? {
            match state {
                EntityState::Failed => report.failed = count,
                EntityState::Requested => report.left = count,
                _ => {}
            }
        }
        match early {
            None => {
                let ended = self.store.end_entity_run(self.run, self.holder).await?;
                ended.ok_or_else(|| ControlError::TakenOver { run: hold::name(self.run) })?;
            }
            Some(early) => {
                // The same command goes on with what is left, at once.
                self.store.renew_entity_run(self.run.id, self.holder, Duration::ZERO).await?;
                report.ended_early = Some(match early {
                    Early::Stopped => "it was broken off".to_owned(),
                    Early::Behind(how) => how,
                    Early::Gates(gates) => {
                        let closed = gates.iter().filter(|gate| !gate.is_open()).map(|gate| gate.name);
                        let closed = closed.collect::<Vec<_>>().join(", ");
                        report.gates = gates;
                        format!("gates are closed: {closed}")
                    }
                });
            }
        }
        self.tell(&report).await?;
        Ok(report)
    }

    fn empty_report(&self) -> MoveReport {
        MoveReport {
            run: self.run.id,
            to: self.run.to,
            moved: 0,
            failed: 0,
            reasons: Vec::new(),
            undone: 0,
            left: 0,
            batches: 0,
            rows: 0,
            pauses: Pauses::default(),
            seconds: 0.0,
            resumed: self.resumed,
            ended_early: None,
            gates: Vec::new(),
        }
    }

    async fn tell(&self, report: &MoveReport) -> Result<(), ControlError> {
        let end = match &report.ended_early {
            Some(reason) => format!("; {reason}, {} are left", report.left),
            None => String::new(),
        };
        let text = format!("{}: {} moved, {} failed{end}", hold::name(self.run), report.moved, report.failed);
        Ok(self.store.journal("entity", &text).await?)
    }
}

impl<S: EntitySight> Under<'_, S> {
    async fn all_batches(&self) -> Result<Option<Early>, ControlError> {
        let Mover { entity, store, run, holder, sight, stop, .. } = self.mover;
        self.settle("its tool had died").await?;
        loop {
            if stop.is_cancelled() {
                return Ok(Some(Early::Stopped));
            }
            self.show("looks at the gates").await?;
            let gates = sight.gates().await.map_err(ControlError::Gates)?;
            if gates.iter().any(|gate| !gate.is_open()) {
                return Ok(Some(Early::Gates(gates)));
            }
            let Some(batch) = store.next_batch(run, holder, entity.batch).await? else { return Ok(None) };
            if let Some(early) = self.batch(&batch).await? {
                return Ok(Some(early));
            }
            self.rest().await;
        }
    }

    /// Not faster than is allowed.
    async fn rest(&self) {
        let Some(per_second) = self.mover.entity.per_second else { return };
        let moved = self.with(|report| report.moved);
        let due = Duration::from_secs_f64(moved as f64 / f64::from(per_second));
        let rest = due.saturating_sub(self.begun.elapsed());
        self.mover.stop.run_until_cancelled(tokio::time::sleep(rest)).await;
    }

    async fn show(&self, doing: &'static str) -> Result<(), ControlError> {
        let [failed, left] = self.counts().await?;
        let moved = self.with(|report| report.moved);
        self.mover.sight.show(&MoveProgress { moved, failed, left, doing });
        Ok(())
    }

    /// Counting many takes a while.
    async fn counts(&self) -> Result<[u64; 2], ControlError> {
        let known = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counts)) = known.filter(|(at, _)| at.elapsed() < COUNT_EVERY) {
            return Ok(counts);
        }
        let counts = self.mover.store.run_counts(self.mover.run.id).await?;
        let of = |wanted| counts.iter().find(|(state, _)| *state == wanted).map_or(0, |(_, count)| *count);
        let counts = [of(EntityState::Failed), of(EntityState::Requested)];
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), counts));
        Ok(counts)
    }

    fn with<T>(&self, change: impl FnOnce(&mut MoveReport) -> T) -> T {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn into_report(self) -> MoveReport {
        let seconds = self.begun.elapsed().as_secs_f64();
        let report = self.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        MoveReport { seconds, ..report }
    }
}
