//! Users change sides, step by step.
//!
//! The flip is a compare-and-set of the version that the flag has while users write nowhere. Whoever undoes the fence, and the
//! fence's own end, make another version; so a flip cannot follow once anybody has let users write again.

use std::time::{Duration, Instant};

use crossfade_applier::{Probe, with_causes};
use crossfade_catalog::Purpose;
use crossfade_config::{Fence, Settings};
use crossfade_message::{Flag, Store, StoreError, SwitchRun, SwitchState, Wish};
use crossfade_model::{Direction, Phase, Position, Side};
use humantime::format_duration;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::canary::{sung, until_proved};
use crate::error::Cause;
use crate::gate::Gate;
use crate::hold::{Hold, IsDead, take};
use crate::memory::{Memory, StepTook, name, of_group};
use crate::mirror::mirror_both;
use crate::progress::{Progress, in_time, late, ms};
use crate::quiet::Others;
use crate::refuse::Refused;
use crate::side::{connect, connect_known};
use crate::waits::Waits;
use crate::{
    Change, ControlError, CountedTable, Step, account, acknowledge, count, drain, quiet, recover, refuse, steps,
};

/// A canary is sent and read within a second where all is well.
pub(crate) const PROVED_WITHIN: Duration = Duration::from_secs(30);

/// What only the program as a whole can tell.
pub trait Sight: Sync {
    /// Looks at every gate of the change, of which the given run is the asker's own.
    fn gates(&self, run: u64) -> impl Future<Output = Result<Vec<Gate>, Cause>> + Send;

    /// A position of the side's binlog as it is read, behind everything that was committed there before. `writes`: the side takes
    /// writes of the account.
    fn position(&self, side: Side, writes: bool) -> impl Future<Output = Result<Position, Cause>> + Send;

    /// Tells a person what is going on.
    fn tell(&self, text: &str);
}

/// What is to be done, by whom.
pub struct Switch<'s, S> {
    pub settings: &'s Settings,
    /// Of the group whose users change sides.
    pub store: &'s Store,
    pub change: Change,
    /// Unique to this run of this process.
    pub holder: &'s str,
    pub is_dead: IsDead,
    pub tables: &'s [CountedTable],
    pub sight: &'s S,
    pub probe: Probe,
    /// A person wants it undone.
    pub stop: CancellationToken,
}

/// What has become of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub run: u64,
    pub change: Change,
    /// The group of tables whose users change sides; none for all that are in no group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub state: SwitchState,
    pub phase: Phase,
    pub version: u64,
    /// Users wrote nowhere for so long; unknown where its tool died in between.
    pub pause_ms: Option<u64>,
    /// Why it was undone.
    pub reason: Option<String>,
    /// It was begun by a tool that has died.
    pub resumed: bool,
    pub position: Option<String>,
    pub instances: Vec<String>,
    pub counted: Vec<String>,
    pub steps: Vec<StepTook>,
    /// As they were when it began.
    pub gates: Vec<Gate>,
}

/// One that is under way.
struct Under<'u, S> {
    switch: &'u Switch<'u, S>,
    progress: Progress<'u>,
    gates: Vec<Gate>,
    /// Canaries from before it was begun.
    sung: [u64; 2],
    waits: &'u Waits,
}

impl<S: Sight> Switch<'_, S> {
    /// Carries the change out, or undoes it. What a tool that has died has left behind is finished, or undone, first. Repeatable.
    ///
    /// # Errors
    ///
    /// Where nobody can say what has become of it, or where undoing has failed too: the fence then ends by itself, and the sync
    /// processes let the side take writes again.
    pub async fn carry_out(&self) -> Result<Report, ControlError> {
        let before = sung(self.store).await?;
        let run = loop {
            let run = take(self.store, self.change, self.holder, self.is_dead).await?;
            if run.step.is_empty() && run.kind == self.change.as_str() {
                break run;
            }
            self.sight.tell(&format!("{} was left behind at step `{}`", name(&run), run.step));
            let settled = self.settle(&run, Some("its tool had died".to_owned()), true).await?;
            let is_same = settled.change == self.change && settled.group.as_deref() == self.store.group();
            if settled.state == SwitchState::Done && is_same {
                return Ok(settled);
            }
        };
        self.under_hold(run, before).await
    }

    async fn under_hold(&self, run: SwitchRun, sung: [u64; 2]) -> Result<Report, ControlError> {
        let hold = Hold::of(self.store, run.id, self.holder);
        let waits = Waits::default();
        let parts = (self.store, self.holder, &self.probe);
        let memory = Memory { group: self.store.group().map(str::to_owned), ..Memory::default() };
        let progress = Progress::new(parts, (self.change, run.id, memory), &waits);
        let mut under = Under { switch: self, progress, gates: Vec::new(), sung, waits: &waits };
        let ended = tokio::select! {
            ended = under.all_steps() => ended,
            () = self.stop.cancelled() => Err(ControlError::Refused("it was broken off".to_owned())),
            () = hold.lost() => Err(ControlError::TakenOver { run: name(&run) }),
        };
        let gates = std::mem::take(&mut under.gates);
        if let Err(error @ ControlError::TakenOver { .. }) = ended {
            return Err(error);
        }
        let reason = ended.err().map(|error| with_causes(&error));
        let settled = self.settle(&run, reason, false).await;
        hold.end().await;
        Ok(Report { gates, ..settled? })
    }

    /// Brings what is under way to its end: forward where the flag has changed, else back.
    async fn settle(&self, run: &SwitchRun, reason: Option<String>, resumed: bool) -> Result<Report, ControlError> {
        let settled = recover::settle(self.settings, self.store, run, self.holder, reason, &self.probe).await?;
        let recover::Settled { change, state, flag, memory } = settled;
        Ok(Report {
            run: run.id,
            change,
            group: memory.group,
            state,
            phase: flag.phase,
            version: flag.version,
            pause_ms: memory.pause_ms,
            reason: memory.reason,
            resumed,
            position: memory.position,
            instances: memory.instances,
            counted: memory.counted,
            steps: memory.steps,
            gates: Vec::new(),
        })
    }
}

impl<S: Sight> Under<'_, S> {
    /// Up to the flip, with what must follow it at once. Nothing of what is left then can fail but for a while.
    async fn all_steps(&mut self) -> Result<(), ControlError> {
        let Switch { settings, sight, change, .. } = self.switch;
        self.progress.begin(Step::Gates).await?;
        self.gates = sight.gates(self.progress.run).await.map_err(ControlError::Gates)?;
        let closed: Vec<&str> = self.gates.iter().filter(|gate| !gate.is_open()).map(|gate| gate.name).collect();
        if !closed.is_empty() {
            return Err(ControlError::Refused(format!("gates are closed: {}", closed.join(", "))));
        }
        if steps(*change, settings.cutover.fence).contains(&Step::Start) {
            self.progress.begin(Step::Start).await?;
            self.start_forward().await?;
        }
        self.progress.begin(Step::Canary).await?;
        let proving = until_proved(self.switch.store, self.sung, self.waits);
        in_time(PROVED_WITHIN, self.waits, proving).await?;
        let flag = self.switch.store.flag().await?;
        if flag.phase != change.from() || flag.fenced {
            return Err(late());
        }
        self.progress.memory.fenced_from = Some(flag.version);
        self.progress.begin(Step::Fence).await?;
        let fence = Instant::now();
        let limit = settings.cutover.timeout;
        let waits = self.waits;
        in_time(limit, waits, self.fenced_steps(flag, fence)).await
    }

    async fn start_forward(&mut self) -> Result<(), ControlError> {
        let store = self.switch.store;
        if store.wish(Direction::Forward).await?.is_some_and(|wish| wish != Wish::RUN) {
            self.progress.wish(Step::Start, Direction::Forward, Wish::RUN).await?;
            store.journal("wish", "forward was started, since users go back").await?;
            self.switch.sight.tell("forward is started again");
        }
        Ok(())
    }

    async fn fenced_steps(&mut self, flag: Flag, fence: Instant) -> Result<(), ControlError> {
        let Switch { settings, store, change, tables, sight, .. } = self.switch;
        let (Some(from), Some(direction)) = (change.fences(), change.drains()) else {
            return Err(ControlError::Refused("nobody changes sides by it".to_owned()));
        };
        let limit = settings.cutover.timeout;
        let fenced = store.change_flag(flag.version, change.from(), Some(limit)).await?.ok_or_else(late)?;
        mirror_both(settings, store, &fenced).await?;
        sight.tell(&format!("users{} write nowhere, for {} at most", of_group(store.group()), format_duration(limit)));

        self.progress.begin(Step::Acknowledge).await?;
        let instances = acknowledge::until_acknowledged(store, fenced.version, self.waits).await?;
        self.progress.memory.instances = instances.into_iter().map(|one| one.instance).collect();

        if settings.cutover.fence != Fence::Flag {
            self.refuse(from, fence).await?;
        }

        self.progress.begin(Step::Quiet).await?;
        let (mut from_conn, facts) = connect_known(settings, from).await?;
        let others = match settings.groups().is_empty() {
            true => Others::Stopped { end_after: settings.cutover.end_transactions_after },
            false => Others::WriteOn,
        };
        quiet::until_quiet((&mut from_conn, facts.dialect()), from, fence, others, self.waits).await?;

        self.progress.begin(Step::Drain).await?;
        let writes = settings.cutover.fence != Fence::ReadOnly;
        let position = sight.position(from, writes).await;
        let position = position.map_err(|source| ControlError::Position { side: from, source })?;
        self.progress.memory.position = Some(position.to_string());
        drain::until_drained(settings, store, direction, &position, self.waits).await?;

        self.progress.begin(Step::Count).await?;
        let to = from.opposite();
        let mut to_conn = connect(settings, to, Purpose::Catalog).await?;
        self.waits.note(format!("{to} did not raise its AUTO_INCREMENT values"));
        self.progress.memory.counted = count::raise((&mut from_conn, from), (&mut to_conn, to), tables).await?;

        self.progress.begin(Step::Mark).await?;
        self.take_mark(from, &position).await?;

        self.progress.begin(Step::Flip).await?;
        if self.progress.memory.refuses.is_some() {
            let accounts = self.progress.memory.refused_accounts();
            if !refuse::still_refuses((&mut from_conn, facts.dialect()), from, Refused::of(&accounts)).await? {
                let text = format!("{from} takes writes again: somebody else has changed what it refuses");
                return Err(ControlError::Refused(text));
            }
        }
        let flipped = store.change_flag(fenced.version, change.to(), None).await?.ok_or_else(late)?;
        (self.switch.probe)("switch-flipped");
        let pause = ms(fence.elapsed());
        self.progress.memory.pause_ms = Some(pause);
        sight.tell(&format!(
            "users{} write to {to} (flag version {}), after a pause of {pause} ms",
            of_group(store.group()),
            flipped.version
        ));
        // What is left is done by whoever brings it to its end.
        self.progress.begin(Step::Mirror).await
    }

    /// Has the side refuse what is configured. Whoever undoes that ends the session that does it first, and one that is late finds
    /// that the change is not its own any more.
    async fn refuse(&mut self, from: Side, fence: Instant) -> Result<(), ControlError> {
        let Switch { settings, store, holder, probe, .. } = self.switch;
        let cutover = &settings.cutover;
        self.progress.memory.refuses = Some(from);
        self.progress.memory.accounts = cutover.accounts.iter().map(ToString::to_string).collect();
        self.progress.begin(Step::Refuse).await?;
        let mut conn = connect(settings, from, Purpose::Catalog).await?;
        refuse::guard(&mut conn, from, &settings.pair).await?;
        if !store.renew_switch_run(self.progress.run, holder, crate::hold::TTL).await? {
            return Err(self.progress.taken_over());
        }
        probe("switch-refusing");
        match Refused::of(&cutover.accounts) {
            Refused::Writes => {
                self.waits.note(format!("{from} had not been set read-only"));
                let limit = cutover.timeout.saturating_sub(fence.elapsed());
                refuse::refuse_writes(&mut conn, from, limit).await?;
            }
            Refused::Accounts(accounts) => {
                self.waits.note(format!("{} had not been locked on {from}", account::listed(accounts)));
                account::lock(&mut conn, from, accounts).await?;
                let mut newer = connect(settings, from, Purpose::Catalog).await?;
                let ends = (fence, cutover.end_transactions_after);
                account::until_gone(&mut newer, from, accounts, ends, self.waits).await?;
                let _ = newer.disconnect().await;
            }
        }
        // Ends the guard, too.
        let _ = conn.disconnect().await;
        Ok(())
    }

    /// Of both sides: behind everything that users wrote where they leave, and where the other one is now.
    async fn take_mark(&self, from: Side, position: &Position) -> Result<(), ControlError> {
        let Switch { store, change, sight, .. } = self.switch;
        let side = from.opposite();
        self.waits.note(format!("the position of {side} was not read"));
        let other = sight.position(side, true).await.map_err(|source| ControlError::Position { side, source })?;
        let (old, new) = if from == Side::Old { (position, &other) } else { (&other, position) };
        let mark = format!("{change}-{}", self.progress.run);
        match store.keep_mark(&mark, old, new, Some("users wrote nowhere")).await {
            Ok(()) | Err(StoreError::MarkExists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
