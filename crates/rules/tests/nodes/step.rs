//! What can happen next: users write on the old side and on both nodes, readers capture, streams apply, what was set aside
//! is tried again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossfade_model::{Clock, Direction, RowOp, Side, StreamId, StreamProgress};
use crossfade_rules::clock::effective;
use crossfade_rules::concurrent::{BatchId, Judging, Known};
use crossfade_rules::{
    Admission, ConcurrentIndex, Event, LastChange, OppositeChange, Plan, Policy, Verdict, admit, decide,
};
use stateright::{Model, Property};

use crate::world::{Author, Image, Message, NODES, OLD, Progress, World};

pub const EQUAL: &str = "equal once quiet";
pub const SETTLES: &str = "everything settles, and nobody waits for ever";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clocks {
    /// Always touched, and unlike each other: each place is ahead of the one before by some ticks.
    Skewed,
    /// Users may set them back.
    Backwards,
    /// None: the new side is preferred.
    Absent,
}

#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub clocks: Clocks,
    /// Changes on the old side, and on both nodes together.
    pub operations: [u8; 2],
    pub flaw: Option<Flaw>,
}

/// What is broken, to show that the checker notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Whose row it is does not matter.
    HolderIgnored,
    /// A change asks whose row it is before it is judged.
    LosersWait,
}

impl Setting {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}

/// How often what was met.
#[derive(Debug, Default)]
pub struct Tally {
    pub moved: AtomicU64,
    pub waited: AtomicU64,
    pub passed: AtomicU64,
    pub conflicts: AtomicU64,
    pub rehomed: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    User {
        place: usize,
        after: Option<Image>,
    },
    Capture {
        place: usize,
    },
    /// The old side's next change comes to a node.
    Forward {
        node: usize,
    },
    /// A node's next change comes to the old side.
    Reverse {
        node: usize,
    },
    Retry {
        node: usize,
    },
}

pub struct Steps {
    pub setting: Setting,
    pub tally: Tally,
    streams: [StreamId; 3],
}

/// Batches of one message and keys that are numbers leave nothing to ask.
struct Nothing;

impl Known for Nothing {
    fn plan(&self, _: BatchId) -> Option<&Plan> {
        None
    }

    fn same_row(&self, _: u64, _: u64) -> Option<bool> {
        None
    }
}

impl Steps {
    pub fn new(setting: Setting) -> Steps {
        let stream = |direction, node| StreamId::new(direction, node);
        let streams = [
            stream(Direction::Forward, "old"),
            stream(Direction::Reverse, "new-0"),
            stream(Direction::Reverse, "new-1"),
        ];
        Steps { setting, tally: Tally::default(), streams }
    }

    fn clock_choices(&self, world: &World, place: usize) -> Vec<u8> {
        let ticks = 20 + 2 * (world.last(OLD) + world.changes_of_nodes()) + 5 * place as u8;
        match self.setting.clocks {
            Clocks::Skewed => vec![ticks],
            Clocks::Backwards => vec![ticks, ticks - 15],
            Clocks::Absent => vec![0],
        }
    }

    fn user_actions(&self, world: &World, place: usize, actions: &mut Vec<Action>) {
        let row = world.rows[place];
        let content = 1 + 16 * place as u8 + world.last(place);
        let homes = if place == OLD { NODES.to_vec() } else { vec![place] };
        if place == OLD {
            if world.last(OLD) >= self.setting.operations[0] {
                return;
            }
        } else {
            let left = self.setting.operations[1] - world.changes_of_nodes();
            // A row that stands twice is to be deleted once more.
            let holders = world.holders().count();
            let reserved = u8::from(holders == 2 || holders == 1 && row.is_none());
            if holders == 2 && left > 0 {
                actions.push(Action::User { place, after: None });
            }
            if left <= reserved {
                return;
            }
        }
        for clock in self.clock_choices(world, place) {
            actions.extend(homes.iter().map(|home| {
                let after = Some(Image { content, clock, home: *home });
                Action::User { place, after }
            }));
        }
        if row.is_some() && (place == OLD || world.holders().count() == 1) {
            actions.push(Action::User { place, after: None });
        }
    }

    fn write(&self, world: &mut World, place: usize, after: Option<Image>) -> Option<()> {
        let before = world.rows[place];
        let ticks = 20 + 2 * (world.last(OLD) + world.changes_of_nodes()) + 5 * place as u8;
        let own = after.map_or(ticks.max(before.map_or(0, |row| row.clock)), |row| row.clock);
        let seen = match place {
            OLD => world.reverse,
            node => [world.forward[node - 1], Progress::default()],
        };
        let clock = |ticks: u8| (self.setting.clocks != Clocks::Absent).then_some(Clock(i64::from(ticks)));
        let earlier = world.logs[place].iter().map(|message| message.effective);
        let effective = effective(clock(own), earlier.chain([before.and_then(|row| clock(row.clock))]));
        let message = Message { before, after, effective, seen };
        if place == OLD {
            world.author = Author::User(world.last(OLD) + 1);
            if message.homes().any(|home| home != message.home()) {
                count(&self.tally.rehomed);
            }
        } else if before.is_none() && world.holders().next().is_some() {
            count(&self.tally.moved);
        }
        world.logs[place].push(message);
        world.rows[place] = after;
        (!world.is_crossed()).then_some(())
    }

    /// The old side's next change on one node: there it is a change of the row, its end, or nothing.
    fn forward(&self, world: &mut World, node: usize) -> Option<()> {
        let seq = world.forward[node - 1].through + 1;
        let message = *(seq <= world.captured[OLD]).then(|| world.message(OLD, seq))?;
        let other = NODES[2 - node];
        if message.home() == other && world.forward[other - 1].through < seq {
            // Where the row goes it comes first.
            return None;
        }
        world.forward[node - 1].through = seq;
        if message.homes().all(|home| home != node) {
            return Some(());
        }
        if !world.all_captured(node) {
            return None;
        }
        let seen = message.seen[node - 1].stream_progress();
        if self.wins(world, (Side::Old, node), message.effective, &seen) {
            world.rows[node] = message.after.filter(|after| after.home == node);
        }
        Some(())
    }

    /// A node's next change on the old side.
    fn reverse(&self, world: &mut World, node: usize) -> Option<()> {
        let seq = world.reverse[node - 1].through + 1;
        if seq > world.captured[node] {
            return None;
        }
        world.reverse[node - 1].through = seq;
        if !world.reverse[node - 1].is_aside() {
            world.reverse[node - 1].aside_from = seq;
            self.attempt(world, node)?;
        }
        Some(())
    }

    /// Tries all that waits of a node's stream as one change; `None` where it cannot be told yet what users of the old side
    /// did.
    fn attempt(&self, world: &mut World, node: usize) -> Option<bool> {
        if !world.all_captured(OLD) {
            return None;
        }
        let progress = world.reverse[node - 1];
        let message = *world.message(node, progress.through);
        let op = if message.after.is_some() { RowOp::Insert } else { RowOp::Delete };
        let seen = message.seen[0].stream_progress();
        let wins = self.wins(world, (Side::New, OLD), message.effective, &seen);
        match self.admit(world, node, op, &message) {
            // What loses against users of the old side need not wait for anybody.
            _ if !wins && !self.setting.has(Flaw::LosersWait) => {}
            Admission::Waits => {
                count(&self.tally.waited);
                return Some(false);
            }
            Admission::Passed => count(&self.tally.passed),
            Admission::Written if wins => (world.rows[OLD], world.author) = (message.after, Author::Node(node)),
            Admission::Written => {}
        }
        world.reverse[node - 1].aside_from = 0;
        Some(true)
    }

    fn admit(&self, world: &World, node: usize, op: RowOp, message: &Message) -> Admission {
        let row = world.rows[OLD].filter(|_| !self.setting.has(Flaw::HolderIgnored));
        let last = row.map(|row| match world.author {
            Author::Node(node) => LastChange::Node(&self.streams[node]),
            Author::User(seq) => {
                LastChange::Users { node: &self.streams[row.home], seen: message.seen[0].has_taken_effect(seq) }
            }
        });
        admit(&self.streams[node], op, last)
    }

    /// The row's last change at a place that the event has not seen, and who wins.
    fn wins(
        &self,
        world: &World,
        (side, target): (Side, usize),
        effective: Option<Clock>,
        seen: &StreamProgress,
    ) -> bool {
        let mut index = ConcurrentIndex::default();
        for (seq, message) in (1..).zip(&world.logs[target]) {
            // Of the old side's changes each node is told what concerns it.
            let (op, effective) = (message.op(), message.effective);
            index
                .add(0, OppositeChange { seq, exact: 0, effective, op, returned: false, effect: None, text_key: None });
        }
        let judging = Judging { folded: 0, exact: 0, seen: Some(seen) };
        let concurrent = index.last_unseen(judging, &Nothing).expect("nothing is open");
        if concurrent.is_some() {
            count(&self.tally.conflicts);
        }
        let policy = if self.setting.clocks == Clocks::Absent { Policy::PreferNew } else { Policy::Newest };
        let event = Event { side, effective, returned: false, authority: crossfade_rules::Authority::Shared };
        matches!(decide(&event, concurrent.as_ref(), policy, Side::New), Verdict::Write(_))
    }
}

impl Model for Steps {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(Image { content: 0, clock: 8, home: NODES[0] })]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for place in 0..3 {
            self.user_actions(world, place, actions);
            if !world.all_captured(place) {
                actions.push(Action::Capture { place });
            }
        }
        for node in NODES {
            actions.push(Action::Forward { node });
            actions.push(Action::Reverse { node });
            if world.reverse[node - 1].is_aside() {
                actions.push(Action::Retry { node });
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::User { place, after } => self.write(&mut next, place, after)?,
            Action::Capture { place } => next.captured[place] += 1,
            Action::Forward { node } => self.forward(&mut next, node)?,
            Action::Reverse { node } => self.reverse(&mut next, node)?,
            // An attempt that changes nothing is no step.
            Action::Retry { node } => self.attempt(&mut next, node)?.then_some(())?,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Steps>> {
        vec![
            Property::always(EQUAL, |_, world: &World| {
                !world.is_quiet() || world.holders().count() == 2 || world.is_equal()
            }),
            Property::eventually(SETTLES, |steps: &Steps, world: &World| {
                let written = [world.last(OLD), world.changes_of_nodes()];
                world.is_quiet() && world.is_equal() && written == steps.setting.operations
            }),
        ]
    }
}
