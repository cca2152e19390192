//! What can happen next: users write, readers capture, lanes commit, what was set aside is tried again, a process dies.

use std::sync::Arc;

use crossfade_model::{Clock, RowOp};
use crossfade_rules::decide::WriteReason;
use crossfade_rules::moves::{KeyedChange, lost_moves};
use crossfade_rules::{ConcurrentIndex, Dependences, Loss, Verdict};

use crate::message::{HalfBatch, Image, KEYS, Message, Progress, SeqSet};
use crate::product::{Ending, Product, Unit};
use crate::setting::{Flaw, Setting};
use crate::tally::{Tally, count};
use crate::world::{Fault, World};

/// A user changes a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    pub op: RowOp,
    pub from: u8,
    pub to: u8,
    pub after: Option<Image>,
}

/// What becomes of a row that cannot simply be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aside {
    /// Rows tied to what is set aside wait with it.
    Nothing,
    /// And the target refuses changes of this key for now.
    BadKey(u8),
    /// A change takes the place of what was set aside of its row.
    Supersede,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    User {
        side: usize,
        change: Change,
    },
    Capture {
        side: usize,
    },
    /// A lane of the batch that ends with `last` commits on the other side.
    Commit {
        side: usize,
        last: u8,
        lanes: u16,
        lane: u16,
        aside: Aside,
    },
    /// The first messages of a key that are set aside are tried again, up to `last`.
    Retry {
        side: usize,
        key: u8,
        last: u8,
    },
    Crash {
        side: usize,
    },
}

/// What can happen and how.
pub struct Steps {
    pub setting: Setting,
    pub product: Product,
    pub tally: Arc<Tally>,
}

/// What the look-up and the locked row say.
#[derive(Clone, Copy)]
struct Judged {
    arrives: bool,
    /// The row leaves its old key.
    leaves: bool,
    /// The row is what the change's writer had before him, and no two of its versions are alike.
    sighted: bool,
    /// It is lost with a change of the key.
    lost: bool,
    /// The row is still under its old key, and nothing on its way says so.
    stays: bool,
    /// Nothing on its way says what is under the key that it has reached.
    reached: bool,
}

impl Steps {
    pub fn new(setting: Setting) -> Steps {
        Steps { setting, product: Product::new(setting), tally: Arc::default() }
    }

    pub fn possible(&self, world: &World, actions: &mut Vec<Action>) {
        for side in 0..2 {
            self.user_actions(world, side, actions);
            if !world.all_captured(side) {
                actions.push(Action::Capture { side });
            }
            self.commits(world, side, actions);
            self.retries(world, side, actions);
            if world.crashes_left > 0 && !world.is_quiet() && !self.is_fresh(world, side) {
                actions.push(Action::Crash { side });
            }
        }
    }

    /// A process that has nothing in memory need not die.
    fn is_fresh(&self, world: &World, side: usize) -> bool {
        world.floor[side] == 0 && world.progress[side].half.is_none()
    }

    fn user_actions(&self, world: &World, side: usize, actions: &mut Vec<Action>) {
        if world.changes(side) >= usize::from(self.setting.operations[side]) {
            return;
        }
        let local = self.local_ticks(world, side);
        let content = 1 + side as u8 * 8 + world.last(side);
        let mut add = |op, from, to, after| actions.push(Action::User { side, change: Change { op, from, to, after } });
        for key in 0..KEYS as u8 {
            let before = world.rows[side][usize::from(key)];
            let clocks = self.setting.clock_choices(local, before.map(|row| row.clock));
            let op = if before.is_some() { RowOp::Update } else { RowOp::Insert };
            let row = if self.setting.moves { before.map_or(content, |before| before.row) } else { 0 };
            for clock in clocks.iter().copied() {
                let after = Some(Image { content, clock, row });
                add(op, key, key, after);
                let other = 1 - key;
                if self.setting.moves && before.is_some() && world.rows[side][usize::from(other)].is_none() {
                    add(op, key, other, after);
                }
            }
            if before.is_some() {
                add(RowOp::Delete, key, key, None);
            } else if self.setting.same_again && key == 0 {
                add(op, key, key, Some(Image { content: 0, clock: self.setting.first_clock(), row: 0 }));
            }
        }
    }

    fn local_ticks(&self, world: &World, side: usize) -> u8 {
        self.setting.local_ticks(side, 1 + world.logs[0].len() + world.logs[1].len())
    }

    fn commits(&self, world: &World, side: usize, actions: &mut Vec<Action>) {
        let Progress { through, half, .. } = world.progress[side];
        let mut asides = vec![Aside::Nothing];
        if world.bad_rows_left > 0 {
            asides.extend((0..KEYS as u8).map(Aside::BadKey));
        }
        if !world.progress[side].parked.is_empty() {
            asides.push(Aside::Supersede);
        }
        let mut add = |last, lanes, lane| {
            actions.extend(asides.iter().map(|aside| Action::Commit { side, last, lanes, lane, aside: *aside }));
        };
        if let Some(HalfBatch { last, done }) = half {
            return add(last, 2, 1 - done);
        }
        for last in through + 1..=world.captured[side] {
            add(last, 1, 0);
            if self.setting.lanes > 1 && last > through + 1 {
                add(last, 2, 0);
                add(last, 2, 1);
            }
        }
    }

    fn retries(&self, world: &World, side: usize, actions: &mut Vec<Action>) {
        let Progress { half, parked, .. } = world.progress[side];
        if half.is_some() {
            return;
        }
        for key in 0..KEYS as u8 {
            let of_key = parked.iter().filter(|seq| world.message(side, *seq).touches(key));
            actions.extend(of_key.map(|last| Action::Retry { side, key, last }));
        }
    }

    /// The state after an action; `None` where it cannot happen now, or is the same as another one.
    pub fn next(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::User { side, change } => self.write(&mut next, side, change),
            Action::Capture { side } => {
                next.captured[side] += 1;
                if next.message(side, next.captured[side]).echo {
                    next.fail(Fault::Echo);
                }
            }
            Action::Commit { side, last, lanes, lane, aside } => {
                self.commit(&mut next, side, last, lanes, lane, aside)?;
            }
            Action::Retry { side, key, last } => self.retry(&mut next, side, key, last)?,
            Action::Crash { side } => {
                next.floor[side] = 0;
                next.crashes_left -= 1;
                count(&self.tally.crashed);
            }
        }
        next.forget();
        Some(next)
    }

    fn write(&self, world: &mut World, side: usize, change: Change) {
        let Change { op, from, to, after } = change;
        let message = Message {
            op,
            from,
            to,
            before: world.rows[side][usize::from(from)],
            after,
            effective: None,
            seen: world.progress[1 - side],
            saw: world.effect[1 - side],
            goes_back: false,
            echo: false,
        };
        let moves_too = |other: &Message| from != to && other.from != other.to && other.to == to;
        let mut unseen = (1..=world.last(1 - side)).filter(|seq| !message.saw.contains(*seq));
        world.is_contested |= unseen.any(|seq| moves_too(world.message(1 - side, seq)));
        world.rows[side][usize::from(from)] = None;
        world.rows[side][usize::from(to)] = after;
        self.log(world, side, message, None);
    }

    /// A change of a side as its capture will find it, with a clock that is at least so late.
    fn log(&self, world: &mut World, side: usize, mut message: Message, at_least: Option<Clock>) {
        let ticks = self.local_ticks(world, side);
        message.effective = self.product.effective(side, &world.logs[side], &message, ticks, world.dead_through(side));
        message.effective = message.effective.max(at_least);
        if message.seen.half.is_some() {
            count(&self.tally.seen_half);
        }
        for seq in 1..=world.last(1 - side) {
            if self.product.was_seen(1 - side, &world.logs[1 - side], &message.seen, seq) != message.saw.contains(seq) {
                world.fail(Fault::SeenIsWrong);
            }
        }
        for key in [message.from, message.to] {
            self.note_known(world, side, key);
        }
        world.logs[side].push(message);
    }

    /// A user's change is newer than every change of the row that took effect before it, and than what came before those.
    fn note_known(&self, world: &mut World, side: usize, key: u8) {
        let known = world.effect[1 - side].iter().filter(|seq| world.message(1 - side, *seq).touches(key));
        world.writers[side][usize::from(key)] = known.last();
    }

    fn commit(&self, world: &mut World, side: usize, last: u8, lanes: u16, lane: u16, aside: Aside) -> Option<()> {
        let before = world.progress[side];
        let first = before.through + 1;
        let batch = (first..=last).map(|seq| (seq, *world.message(side, seq))).collect();
        let planned = self.product.plan(side, batch, lanes);
        let units = &planned.lanes[usize::from(lane)];
        self.begin(world, side, units);
        let index = self.index(world, side, Some(first));
        let judged = self.judge(world, side, units, &index);
        let (set_aside, used) = self.sort_out(world, side, units, &judged, aside);
        let parked = world.progress[side].parked;
        let mut lost = Vec::new();
        for ((unit, judged), is_aside) in units.iter().zip(judged).zip(set_aside) {
            if is_aside {
                count(&self.tally.set_aside);
                world.progress[side].parked = world.progress[side].parked.union(unit.seqs);
                continue;
            }
            self.apply(world, side, unit, judged)?;
            lost.extend(judged.lost.then_some((unit, judged)));
            let ahead = self.ahead(world, side, parked, unit);
            if !ahead.is_empty() && !self.setting.has(Flaw::NobodyWaits) {
                count(&self.tally.superseded);
                world.progress[side].parked = world.progress[side].parked.without(ahead);
                world.effect[side] = world.effect[side].union(ahead);
            }
        }
        if let Aside::BadKey(_) = aside {
            world.bad_rows_left -= 1;
        }
        let progress = &mut world.progress[side];
        if lanes == 1 || progress.half.is_some() {
            (progress.through, progress.half) = (last, None);
        } else {
            progress.half = Some(HalfBatch { last, done: lane });
        }
        self.undo(world, side, &lost);
        used.then_some(())
    }

    /// Which units of a lane are set aside, and whether what `aside` asks for has come about.
    fn sort_out(
        &self,
        world: &World,
        side: usize,
        units: &[Unit],
        judged: &[Judged],
        aside: Aside,
    ) -> (Vec<bool>, bool) {
        let mut parked = world.progress[side].parked;
        let mut set_aside = vec![false; units.len()];
        let mut used = aside == Aside::Nothing;
        loop {
            let before = set_aside.clone();
            let open = units.iter().zip(judged).zip(&mut set_aside);
            for ((unit, judged), is_aside) in open.filter(|(_, is_aside)| !**is_aside) {
                // A message that is in two units is set aside whole.
                let is_half_aside = parked.meets(unit.seqs);
                let ahead = self.ahead(world, side, parked, unit);
                let waits = is_half_aside || !ahead.is_empty() && self.waits(world, side, parked, unit);
                let refused = matches!(aside, Aside::BadKey(key) if judged.writes(unit, key));
                let supersedes = aside == Aside::Supersede
                    && !parked.meets(unit.seqs)
                    && ahead.iter().all(|seq| covers(unit, world.message(side, seq)));
                used |= refused || waits && supersedes;
                if refused || waits && !supersedes {
                    *is_aside = true;
                    parked = parked.union(unit.seqs);
                }
            }
            if set_aside == before {
                return (set_aside, used);
            }
        }
    }

    /// Messages set aside that touch a key of the unit.
    fn ahead(&self, world: &World, side: usize, parked: SeqSet, unit: &Unit) -> SeqSet {
        let touches = |message: &Message| {
            let left = unit.departure.as_ref().is_some_and(|departure| message.touches(departure.key));
            left || message.touches(unit.arrival.key)
        };
        parked.without(unit.seqs).iter().filter(|seq| touches(world.message(side, *seq))).collect()
    }

    fn waits(&self, world: &World, side: usize, parked: SeqSet, unit: &Unit) -> bool {
        if self.setting.has(Flaw::NobodyWaits) {
            return false;
        }
        let mut dependences = Dependences::default();
        for seq in parked.iter() {
            dependences.add(&self.product.dependence(side, world.message(side, seq)));
        }
        dependences.holds_back(&unit.dependence)
    }

    fn retry(&self, world: &mut World, side: usize, key: u8, last: u8) -> Option<()> {
        let parked = world.progress[side].parked;
        let chosen: SeqSet =
            parked.iter().filter(|seq| *seq <= last && world.message(side, *seq).touches(key)).collect();
        // What comes before one of them waits no longer than it.
        let is_ahead = |seq: u8| chosen.iter().any(|of| seq < of && tied(world, side, seq, of));
        if parked.without(chosen).iter().any(is_ahead) {
            return None;
        }
        let batch = chosen.iter().map(|seq| (seq, *world.message(side, seq))).collect();
        let planned = self.product.plan(side, batch, 1);
        self.begin(world, side, &planned.lanes[0]);
        let index = self.index(world, side, None);
        let units = &planned.lanes[0];
        let mut lost = Vec::new();
        for (unit, mut judged) in units.iter().zip(self.judge(world, side, units, &index)) {
            if self.setting.has(Flaw::RetriedBlindly) {
                (judged.arrives, judged.leaves) = (true, unit.departure.is_some());
            }
            self.apply(world, side, unit, judged)?;
            lost.extend(judged.lost.then_some((unit, judged)));
            if self.setting.has(Flaw::Untagged) && judged.arrives {
                let message = *world.message(side, unit.arrival.last);
                world.logs[1 - side].push(Message { echo: true, ..message });
            }
        }
        world.progress[side].parked = parked.without(chosen);
        self.undo(world, side, &lost);
        count(&self.tally.retried);
        Some(())
    }

    /// A moved row's message may be in two units of a lane, but none of them has had its effect before.
    fn begin(&self, world: &mut World, side: usize, units: &[Unit]) {
        if units.iter().any(|unit| world.effect[side].meets(unit.seqs)) {
            world.fail(Fault::Twice);
        }
    }

    /// What the direction knows of the target's users, after it has forgotten what everything still to come has seen.
    /// `first` is the batch's first message; `None` between two batches.
    fn index(&self, world: &mut World, side: usize, first: Option<u8>) -> ConcurrentIndex {
        let parked = world.progress[side].parked.iter().filter(|_| !self.setting.has(Flaw::ForgottenTooEarly));
        if let Some(first) = first {
            let seen = std::iter::once(first).chain(parked).map(|seq| world.message(side, seq).seen.stream_progress());
            let seen: Vec<_> = seen.collect();
            let through = ConcurrentIndex::default().keep_unseen_by(seen.iter().map(Some));
            world.floor[side] = world.floor[side].max(through as u8);
        }
        self.product.index(world.captured_log(1 - side), world.floor[side])
    }

    fn judge(&self, world: &World, side: usize, units: &[Unit], index: &ConcurrentIndex) -> Vec<Judged> {
        let captured = world.captured_log(1 - side);
        let keyed: Vec<KeyedChange<u8>> =
            units.iter().map(|unit| self.keyed_change(side, unit, index, captured)).collect();
        let lost = self.lost(units, &keyed);
        let judged = units.iter().zip(keyed).zip(lost).map(|((unit, keyed), lost)| {
            let is_written = |verdict: Verdict| lost.is_none() && matches!(verdict, Verdict::Write(_));
            let stays = unit.departure.is_some() && matches!(keyed.departure, Verdict::Write(_));
            let reached = matches!(keyed.arrival, Verdict::Write(_));
            let found = world.rows[1 - side][usize::from(unit.arrival.key)];
            let shows = |found: Image| self.product.shows_untouched(unit.arrival.key, found);
            let is_telling = unit.sightable && !self.awaits_what_went_back(world, 1 - side);
            let sighted = is_telling && found == unit.before && found.is_some_and(shows);
            let leaves = unit.departure.is_some() && is_written(keyed.departure);
            Judged { arrives: is_written(keyed.arrival), leaves, sighted, lost: lost.is_some(), stays, reached }
        });
        judged.collect()
    }

    /// What goes back may leave a row as it was: until it is captured, nothing is told by sight.
    fn awaits_what_went_back(&self, world: &World, side: usize) -> bool {
        let captured = usize::from(world.captured[side]);
        !self.setting.has(Flaw::SightOfWhatWentBack)
            && world.logs[side][captured..].iter().any(|message| message.goes_back)
    }

    fn keyed_change(&self, side: usize, unit: &Unit, index: &ConcurrentIndex, captured: &[Message]) -> KeyedChange<u8> {
        let judge = |ending: &Ending| {
            let verdict = self.product.judge(side, ending, index, captured);
            if matches!(verdict, Verdict::Write(WriteReason::Won { .. })) {
                count(&self.tally.won);
            }
            verdict
        };
        let arrival = judge(&unit.arrival);
        let left = unit.departure.as_ref();
        KeyedChange {
            before: unit.before.map(|_| left.map_or(unit.arrival.key, |left| left.key)),
            after: unit.after.map(|_| unit.arrival.key),
            departure: left.map_or(arrival, judge),
            arrival,
            ruled: None,
        }
    }

    /// Of changes that keep their order all together, of each net change by itself.
    fn lost(&self, units: &[Unit], keyed: &[KeyedChange<u8>]) -> Vec<Option<Loss>> {
        if self.setting.has(Flaw::MovesByHalves) {
            return vec![None; units.len()];
        }
        let mut lost = Vec::with_capacity(units.len());
        let mut open = keyed;
        for units in units.chunk_by(|unit, next| unit.in_order && next.in_order) {
            let (together, rest) = open.split_at(units.len());
            lost.extend(lost_moves(together));
            open = rest;
        }
        lost
    }

    /// What lost with a change of the key is put back where it was made, by changes that have seen it.
    fn undo(&self, world: &mut World, side: usize, lost: &[(&Unit, Judged)]) {
        if self.setting.has(Flaw::NothingGoesBack) {
            return;
        }
        let there = world.rows[1 - side];
        let (mut known, mut ends, mut rows) = ([false; KEYS], Vec::new(), Vec::new());
        for (unit, judged) in lost {
            let key = usize::from(unit.arrival.key);
            let is_told = if there[key].is_some() { judged.reached } else { unit.after.is_some() };
            if is_told && !std::mem::replace(&mut known[key], true) {
                let at_least = self.undo_clock(world, side, unit);
                ends.extend(unit.after.map(|reached| (unit.arrival.key, Some(reached), None, at_least)));
                rows.extend(there[key].map(|row| (unit.arrival.key, None, Some(row), at_least)));
            }
        }
        for (unit, _) in lost.iter().filter(|(_, judged)| judged.stays) {
            let Some(left) = &unit.departure else { continue };
            let row = there[usize::from(left.key)];
            if row.is_some() && !std::mem::replace(&mut known[usize::from(left.key)], true) {
                rows.push((left.key, None, row, self.undo_clock(world, side, unit)));
            }
        }
        for (key, before, after, at_least) in ends.into_iter().chain(rows) {
            let message = Message {
                op: if after.is_some() { RowOp::Insert } else { RowOp::Delete },
                from: key,
                to: key,
                before,
                after,
                effective: None,
                seen: world.progress[side],
                saw: world.effect[side],
                goes_back: true,
                echo: false,
            };
            self.log(world, 1 - side, message, at_least);
        }
    }

    fn undo_clock(&self, world: &World, side: usize, unit: &Unit) -> Option<Clock> {
        let at_least = self.product.undo_clock(side, &unit.arrival, self.local_ticks(world, 1 - side));
        Some(at_least).filter(|_| !self.setting.has(Flaw::GoesBackUnmarked))
    }

    fn apply(&self, world: &mut World, side: usize, unit: &Unit, judged: Judged) -> Option<()> {
        let Judged { arrives, leaves, sighted, lost, .. } = judged;
        if (arrives || leaves || lost)
            && !sighted
            && !world.all_captured(1 - side)
            && !self.setting.has(Flaw::HoldRemoved)
        {
            count(&self.tally.waited);
            return None;
        }
        world.effect[side] = world.effect[side].union(unit.seqs);
        if let Some(departure) = unit.departure.as_ref().filter(|_| leaves) {
            self.put(world, side, departure, None);
        }
        if arrives {
            let there = world.rows[1 - side][usize::from(unit.arrival.key)];
            let is_change = unit.before.is_some() && unit.departure.is_none();
            let is_other = there.zip(unit.after).is_some_and(|(there, after)| there.row != after.row);
            world.is_contested |= is_change && is_other;
            self.put(world, side, &unit.arrival, unit.after);
        }
        let tally = &self.tally;
        count(if arrives { &tally.written } else { &tally.lost });
        if sighted {
            count(&tally.sighted);
        }
        Some(())
    }

    fn put(&self, world: &mut World, side: usize, ending: &Ending, image: Option<Image>) {
        let key = usize::from(ending.key);
        if world.writers[1 - side][key].is_some_and(|newer| newer > ending.last) {
            world.fail(Fault::OlderOverNewer);
        }
        world.writers[1 - side][key] = Some(ending.last);
        world.rows[1 - side][key] = image;
    }
}

impl Judged {
    /// Something would be written under this key.
    fn writes(self, unit: &Unit, key: u8) -> bool {
        let leaves = |left: &Ending| self.leaves && left.key == key;
        self.arrives && unit.arrival.key == key || unit.departure.as_ref().is_some_and(leaves)
    }
}

fn tied(world: &World, side: usize, seq: u8, other: u8) -> bool {
    world.message(side, seq).shares_key(world.message(side, other))
}

/// The unit decides what becomes of every key that the message touches.
fn covers(unit: &Unit, message: &Message) -> bool {
    let decides = |key: u8| unit.arrival.key == key || unit.departure.as_ref().is_some_and(|left| left.key == key);
    decides(message.from) && decides(message.to)
}
