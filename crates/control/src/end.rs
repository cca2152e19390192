//! The end of a migration: `finish` leaves old, `abort` leaves new before anybody has changed sides.
//!
//! Nobody is kept from writing. Applications are first told to write one side alone, and when every instance has said that it does,
//! what both sides have by then crosses, and the directions are declared off. Up to there all is undone where something fails;
//! killed between any two steps, the same command goes on.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use crossfade_applier::{Probe, with_causes};
use crossfade_config::Settings;
use crossfade_message::{Flag, Health, Store, StoreError, StreamStatus, SwitchRun, SwitchState, Wish};
use crossfade_model::{Direction, Phase, Position, Side};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::canary::{sung, until_proved};
use crate::error::Cause;
use crate::gate::{Gate, VerificationSeen, compared};
use crate::hold::{Hold, IsDead, take};
use crate::memory::{Memory, StepTook, name};
use crate::mirror::mirror_all;
use crate::progress::{Progress, in_time, late};
use crate::switch::PROVED_WITHIN;
use crate::waits::Waits;
use crate::{Change, ControlError, Sight, Step, acknowledge, drain, recover, removal};

/// For what must happen from when applications are told to write one side alone. Nobody is kept waiting for it.
const ENDED_WITHIN: Duration = Duration::from_secs(120);

/// A process ends within moments; the lease of one that has died on another machine runs out.
const LEFT_WITHIN: Duration = Duration::from_secs(60);
const REST_WITHIN: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What only the program as a whole can do.
pub trait EndSight: Sight {
    /// Compares all rows of both sides.
    fn compare(&self) -> impl Future<Output = Result<Compared, Cause>> + Send;

    /// Writes down what the migration came to; gives the files. Repeatable.
    fn report(&self) -> impl Future<Output = Result<Vec<String>, Cause>> + Send;
}

/// What a comparison has found.
#[derive(Debug, Clone)]
pub struct Compared {
    pub verification: u64,
    pub seen: VerificationSeen,
}

/// What is to be done, by whom.
pub struct End<'s, S> {
    pub settings: &'s Settings,
    pub store: &'s Store,
    /// [`Change::Finish`] or [`Change::Abort`].
    pub change: Change,
    /// Unique to this run of this process.
    pub holder: &'s str,
    pub is_dead: IsDead,
    pub sight: &'s S,
    pub probe: Probe,
    /// A person wants it undone.
    pub stop: CancellationToken,
}

/// What has become of it.
#[derive(Debug, Clone, Serialize)]
pub struct EndReport {
    pub run: u64,
    pub change: Change,
    pub state: SwitchState,
    pub phase: Phase,
    pub version: u64,
    /// Why it was undone.
    pub reason: Option<String>,
    /// It was begun by a tool that has died.
    pub resumed: bool,
    /// The last comparison.
    pub verification: Option<u64>,
    pub old_position: Option<String>,
    pub new_position: Option<String>,
    /// Files.
    pub report: Vec<String>,
    pub steps: Vec<StepTook>,
    /// As they were when it began.
    pub gates: Vec<Gate>,
}

/// One that is under way.
struct Ending<'u, S> {
    end: &'u End<'u, S>,
    progress: Progress<'u>,
    gates: Vec<Gate>,
    waits: &'u Waits,
}

impl<S: EndSight> End<'_, S> {
    /// Ends the migration, or undoes what was done. What a tool that has died has left behind is gone on with, where it is the same,
    /// and else brought to its end first. Repeatable.
    ///
    /// # Errors
    ///
    /// Where nobody can say what has become of it, or where undoing has failed too; and where an abort has begun to remove what is
    /// on old and could not end that. The same command goes on.
    pub async fn carry_out(&self) -> Result<EndReport, ControlError> {
        let before = sung(self.store).await?;
        loop {
            let run = take(self.store, self.change, self.holder, self.is_dead).await?;
            if run.kind == self.change.as_str() {
                return self.under_hold(run, before).await;
            }
            self.sight.tell(&format!("{} was left behind at step `{}`", name(&run), run.step));
            let reason = Some("its tool had died".to_owned());
            recover::settle(self.settings, self.store, &run, self.holder, reason, &self.probe).await?;
        }
    }

    async fn under_hold(&self, run: SwitchRun, sung: [u64; 2]) -> Result<EndReport, ControlError> {
        let (resumed, memory) = (!run.step.is_empty(), Memory::of(&run)?);
        if resumed {
            self.sight.tell(&format!("{} was left behind at step `{}`: it goes on", name(&run), run.step));
        }
        let memory = Memory { sung: memory.sung.or(Some(sung)), reason: None, ..memory };
        let hold = Hold::of(self.store, run.id, self.holder);
        let waits = Waits::default();
        let parts = (self.store, self.holder, &self.probe);
        let progress = Progress::new(parts, (self.change, run.id, memory), &waits);
        let mut ending = Ending { end: self, progress, gates: Vec::new(), waits: &waits };
        let ended = tokio::select! {
            ended = ending.all_steps(&run) => ended,
            () = self.stop.cancelled() => Err(ControlError::Refused("it was broken off".to_owned())),
            () = hold.lost() => Err(ControlError::TakenOver { run: name(&run) }),
        };
        ending.progress.took();
        let (memory, gates) = (ending.progress.memory, ending.gates);
        let reported = match ended {
            Ok(flag) => {
                (self.probe)("switch-end");
                let ended = recover::end(self.store, &run, self.holder, (SwitchState::Done, &memory, &flag)).await;
                ended.map(|()| (SwitchState::Done, flag, memory))
            }
            Err(error @ ControlError::TakenOver { .. }) => return Err(error),
            Err(error) => self.undo(&run, &error).await,
        };
        hold.end().await;
        let (state, flag, memory) = reported?;
        Ok(EndReport {
            run: run.id,
            change: self.change,
            state,
            phase: flag.phase,
            version: flag.version,
            reason: memory.reason,
            resumed,
            verification: memory.verification.map(|(id, _)| id),
            old_position: memory.old_position.map(|position| position.to_string()),
            new_position: memory.new_position.map(|position| position.to_string()),
            report: memory.report,
            steps: memory.steps,
            gates,
        })
    }

    async fn undo(&self, run: &SwitchRun, error: &ControlError) -> Result<(SwitchState, Flag, Memory), ControlError> {
        let reason = with_causes(error);
        let settled =
            recover::settle(self.settings, self.store, run, self.holder, Some(reason.clone()), &self.probe).await;
        match settled {
            Ok(recover::Settled { state, flag, memory, .. }) => Ok((state, flag, memory)),
            // It is told what keeps it from going on, not that it is not undone.
            Err(ControlError::Refused(kept)) => Err(ControlError::Refused(format!("{reason}; {kept}"))),
            Err(error) => Err(error),
        }
    }
}

impl<S: EndSight> Ending<'_, S> {
    /// Gives the flag as it is in the end.
    async fn all_steps(&mut self, run: &SwitchRun) -> Result<Flag, ControlError> {
        let End { store, change, .. } = self.end;
        if recover::is_leaving(run) {
            self.leave().await?;
            return Ok(store.flag().await?);
        }
        let flag = match self.flipped().await? {
            Some(flag) => flag,
            None => {
                self.look().await?;
                self.flip().await?
            }
        };
        in_time(ENDED_WITHIN, self.waits, self.let_all_cross(&flag)).await?;
        match change {
            Change::Finish => {
                self.take_mark().await?;
                self.until_at_rest().await?;
                self.progress.begin(Step::Report).await?;
                let written = self.end.sight.report().await;
                self.progress.memory.report = written.map_err(ControlError::Report)?;
            }
            _ => self.leave().await?,
        }
        Ok(flag)
    }

    /// The flag, where a tool that has died has changed it already.
    async fn flipped(&self) -> Result<Option<Flag>, ControlError> {
        let flag = self.end.store.flag().await?;
        let from = self.progress.memory.flipped_from;
        Ok(from.is_some_and(|from| flag.version > from && flag.phase == self.end.change.to()).then_some(flag))
    }

    /// All that must hold before anything is changed.
    async fn look(&mut self) -> Result<(), ControlError> {
        let End { settings, store, change, sight, .. } = self.end;
        self.progress.begin(Step::Gates).await?;
        self.gates = sight.gates(self.progress.run).await.map_err(ControlError::Gates)?;
        let closed: Vec<&str> = self.gates.iter().filter(|gate| !gate.is_open()).map(|gate| gate.name).collect();
        if !closed.is_empty() {
            return Err(ControlError::Refused(format!("gates are closed: {}", closed.join(", "))));
        }
        if *change != Change::Finish {
            return Ok(());
        }
        self.progress.begin(Step::Start).await?;
        if store.wish(Direction::Forward).await? != Some(Wish::RUN) {
            self.progress.wish(Step::Start, Direction::Forward, Wish::RUN).await?;
            store.journal("wish", "forward was started, so that what users wrote on old crosses").await?;
            sight.tell("forward is started again");
        }
        self.progress.begin(Step::Canary).await?;
        let before = self.progress.memory.sung.unwrap_or_default();
        in_time(PROVED_WITHIN, self.waits, until_proved(store, before, self.waits)).await?;
        self.progress.begin(Step::Compare).await?;
        let known = self.progress.memory.verification;
        let is_young =
            |at: DateTime<Utc>| (Utc::now() - at).to_std().unwrap_or_default() <= settings.cutover.verified_within;
        if known.is_some_and(|(_, at)| is_young(at)) {
            return Ok(());
        }
        sight.tell("all rows are compared for the last time");
        let Compared { verification, seen } = sight.compare().await.map_err(ControlError::Comparison)?;
        let gate = compared(seen, &settings.cutover);
        if let (false, Some(remedy)) = (gate.is_open(), &gate.remedy) {
            let text = format!("comparison {verification} keeps it from ending: {}; {remedy}", gate.why);
            return Err(ControlError::Refused(text));
        }
        self.progress.memory.verification = Some((verification, Utc::now()));
        Ok(())
    }

    /// Tells applications to write one side alone.
    async fn flip(&mut self) -> Result<Flag, ControlError> {
        let End { settings, store, change, sight, .. } = self.end;
        let flag = store.flag().await?;
        if !change.leads_from(flag.phase) || flag.fenced {
            return Err(late());
        }
        self.progress.memory.begun_in = Some(flag.phase);
        if flag.phase == change.to() {
            // Nobody writes the other side anyway.
            self.progress.begin(Step::Flip).await?;
            if let Err(error) = mirror_all(settings, store, &flag).await {
                tracing::warn!(error = %error, "a side has not been told of the flag; nothing has changed since it was");
            }
            return Ok(flag);
        }
        self.progress.memory.flipped_from = Some(flag.version);
        self.progress.begin(Step::Flip).await?;
        let flipped = store.change_flag(flag.version, change.to(), None).await?.ok_or_else(late)?;
        (self.progress.probe)("switch-flipped");
        mirror_all(settings, store, &flipped).await?;
        let (phase, version) = (flipped.phase, flipped.version);
        sight.tell(&format!("the phase is {phase} (flag version {version}): users write {} alone", phase.writes_to()));
        Ok(flipped)
    }

    /// Once nobody writes the other side, what is there crosses, and nothing crosses any more.
    async fn let_all_cross(&mut self, flag: &Flag) -> Result<(), ControlError> {
        let End { settings, store, change, .. } = self.end;
        self.progress.begin(Step::Acknowledge).await?;
        let acknowledging = acknowledge::until_all_acknowledged(store, flag.version, self.waits);
        let instances = in_time(settings.cutover.timeout, self.waits, acknowledging).await?;
        self.progress.memory.instances = instances.into_iter().map(|one| one.instance).collect();
        if *change == Change::Finish {
            self.end_direction(Direction::Forward, Step::EndForward, true).await?;
            return self.end_direction(Direction::Reverse, Step::EndReverse, true).await;
        }
        // What users of old wrote need not come to new any more. Only a flag that never changed has let nobody write there.
        let has_pilots = flag.version > 0;
        self.end_direction(Direction::Reverse, Step::EndReverse, has_pilots).await?;
        self.end_direction(Direction::Forward, Step::EndForward, false).await
    }

    async fn end_direction(&mut self, direction: Direction, step: Step, drains: bool) -> Result<(), ControlError> {
        let End { settings, store, sight, .. } = self.end;
        self.progress.begin(step).await?;
        // Off already: by a tool that has died, after it was drained.
        if store.wish(direction).await?.is_none_or(|wish| !wish.declared) {
            return Ok(());
        }
        if drains {
            let side = direction.source();
            self.waits.note(format!("the position of {side} was not read"));
            let position = sight.position(side, true).await;
            let position = position.map_err(|source| ControlError::Position { side, source })?;
            drain::until_drained(settings, store, direction, &position, self.waits).await?;
            *self.position_of(side) = Some(position);
            self.progress.keep(step).await?;
        }
        self.progress.wish(step, direction, Wish::OFF).await?;
        store.journal("wish", &format!("{direction} was declared off: the migration ends")).await?;
        Ok(())
    }

    fn position_of(&mut self, side: Side) -> &mut Option<Position> {
        match side {
            Side::Old => &mut self.progress.memory.old_position,
            Side::New => &mut self.progress.memory.new_position,
        }
    }

    /// Up to where each side has crossed.
    async fn take_mark(&mut self) -> Result<(), ControlError> {
        self.progress.begin(Step::Mark).await?;
        for side in [Side::Old, Side::New] {
            // A direction that was off from the beginning has crossed nowhere.
            if self.position_of(side).is_none() {
                let position = self.end.sight.position(side, true).await;
                *self.position_of(side) = Some(position.map_err(|source| ControlError::Position { side, source })?);
            }
        }
        let memory = &self.progress.memory;
        let (Some(old), Some(new)) = (&memory.old_position, &memory.new_position) else { return Ok(()) };
        let mark = format!("{}-{}", self.end.change, self.progress.run);
        match self.end.store.keep_mark(&mark, old, new, Some("nothing crosses after it")).await {
            Ok(()) | Err(StoreError::MarkExists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is reported does not move any more. A process that does not come to rest within moments is told of as it is.
    async fn until_at_rest(&self) -> Result<(), ControlError> {
        let since = Instant::now();
        loop {
            let leases = self.end.store.leases().await?;
            let is_alive = |subject: &str| {
                leases.iter().any(|one| one.live && one.subject == subject && !(self.end.is_dead)(&one.holder))
            };
            let statuses = self.end.store.stream_statuses().await?;
            let at_rest = |status: &StreamStatus| {
                let is_off = status.report.as_ref().is_some_and(|report| matches!(report.health, Health::Off { .. }));
                let direction = status.stream.split('/').next().unwrap_or_default();
                is_off || !is_alive(direction)
            };
            if statuses.iter().all(at_rest) || since.elapsed() >= REST_WITHIN {
                return Ok(());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Old is as it was before the migration. From here on nothing leads back.
    async fn leave(&mut self) -> Result<(), ControlError> {
        let End { settings, store, sight, .. } = self.end;
        self.progress.begin(Step::Leave).await?;
        until_none_runs(store, self.end.is_dead).await?;
        self.progress.begin(Step::Remove).await?;
        let removed = removal::of_node(settings, Side::Old).await?;
        sight.tell(&format!("old: {removed}"));
        Ok(())
    }
}

/// Waits until the processes of the pair have ended, which they do by themselves once the migration is over.
pub async fn until_none_runs(store: &Store, is_dead: IsDead) -> Result<(), ControlError> {
    let waits = Waits::default();
    let none_runs = async {
        loop {
            let leases = store.leases().await?;
            let alive: Vec<&str> = leases
                .iter()
                .filter(|lease| lease.live && !is_dead(&lease.holder))
                .map(|lease| lease.subject.as_str())
                .collect();
            if alive.is_empty() {
                return Ok(());
            }
            waits.note(format!("the process of {} still ran", alive.join(" and of ")));
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    in_time(LEFT_WITHIN, &waits, none_runs).await
}
