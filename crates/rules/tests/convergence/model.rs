//! The model as the checker sees it, and how its verdicts are shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use crate::setting::Setting;
use crate::step::{Action, Steps};
use crate::tally::Tally;
use crate::world::{Fault, World};

pub const EQUAL: &str = "equal once quiet";
pub const CAUSAL: &str = "causally older never over newer";
pub const NO_DOUBLES: &str = "no row under two keys once quiet";
pub const NO_ECHO: &str = "no echo";
pub const ONCE: &str = "every message takes effect once";
pub const SEEN: &str = "seen is what the writer had before him";
pub const SETTLES: &str = "everything settles, and nobody waits for ever";

impl Model for Steps {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.setting)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.fault.is_none() {
            self.possible(world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.next(world, action)
    }

    /// A state without a way on must be one in which everything is settled. Every step brings something nearer to its end,
    /// so no way goes on for ever.
    fn properties(&self) -> Vec<Property<Steps>> {
        vec![
            Property::always(EQUAL, |_, world: &World| !world.is_quiet() || world.rows[0] == world.rows[1]),
            Property::always(NO_DOUBLES, |steps: &Steps, world: &World| {
                let holds = world.has_rows_once(0) && world.has_rows_once(1);
                !steps.setting.moves || !world.is_quiet() || world.is_contested || holds
            }),
            Property::always(CAUSAL, |_, world: &World| world.fault != Some(Fault::OlderOverNewer)),
            Property::always(NO_ECHO, |_, world: &World| world.fault != Some(Fault::Echo)),
            Property::always(ONCE, |_, world: &World| {
                world.fault != Some(Fault::Twice) && (!world.is_quiet() || world.is_settled())
            }),
            Property::always(SEEN, |_, world: &World| world.fault != Some(Fault::SeenIsWrong)),
            Property::eventually(SETTLES, |steps: &Steps, world: &World| {
                let written = |side: usize| world.changes(side) >= usize::from(steps.setting.operations[side]);
                world.fault.is_some() || world.is_settled() && written(0) && written(1)
            }),
        ]
    }
}

/// What a run found.
pub struct Outcome {
    pub states: usize,
    pub transitions: usize,
    pub depth: usize,
    pub took: Duration,
    /// All states were looked at.
    pub whole: bool,
    /// The violated properties, each with a way to it.
    pub violated: Vec<(&'static str, Path<World, Action>)>,
    pub tally: Arc<Tally>,
}

/// Looks at every state, or at as many as the time allows.
pub fn explore(setting: Setting, threads: usize, limit: Duration) -> Outcome {
    let steps = Steps::new(setting);
    let tally = steps.tally.clone();
    let begun = Instant::now();
    let checker =
        steps.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).timeout(limit).spawn_dfs().join();
    outcome(&checker, begun.elapsed(), limit, tally)
}

/// Searches breadth first, so that the first violation found is a shortest one.
pub fn refute(setting: Setting) -> Outcome {
    let steps = Steps::new(setting);
    let tally = steps.tally.clone();
    let begun = Instant::now();
    let checker = steps.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    outcome(&checker, begun.elapsed(), Duration::MAX, tally)
}

fn outcome(checker: &impl Checker<Steps>, took: Duration, limit: Duration, tally: Arc<Tally>) -> Outcome {
    let mut violated: Vec<_> = checker.discoveries().into_iter().collect();
    violated.sort_by_key(|(name, _)| *name);
    Outcome {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        took,
        whole: took < limit && violated.is_empty(),
        violated,
        tally,
    }
}

/// A way through the states, for people.
pub fn story(path: &Path<World, Action>) -> String {
    let mut story = String::new();
    let mut previous: Option<(World, Action)> = None;
    for (world, action) in path.clone().into_vec() {
        if let Some((before, Some(action))) = previous.take().map(|(before, action)| (before, Some(action))) {
            story += &line(&before, action, &world);
        }
        if let Some(action) = action {
            previous = Some((world, action));
        }
    }
    story
}

fn line(before: &World, action: Action, after: &World) -> String {
    const SIDES: [&str; 2] = ["old", "new"];
    let what = match action {
        Action::User { side, .. } => {
            format!("user on {}: {:?}", SIDES[side], after.logs[side].last())
        }
        Action::Capture { side } => format!("{} captures {}", SIDES[side], after.captured[side]),
        Action::Commit { side, last, lanes, lane, aside } => {
            let first = before.progress[side].through + 1;
            format!("lane {lane} of {lanes} carries {first} to {last} over from {}, {aside:?}", SIDES[side])
        }
        Action::Retry { side, key, last } => format!("{} tries key {key} again up to {last}", SIDES[side]),
        Action::Crash { side } => format!("the process that reads {} dies", SIDES[side]),
    };
    let rows = after
        .rows
        .map(|rows| rows.map(|row| row.map_or("-".to_owned(), |row| format!("{}@{}", row.content, row.clock))));
    format!("  {what}\n      rows {rows:?} {:?}\n", after.fault)
}
