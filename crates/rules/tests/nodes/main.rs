//! P4 and P5 by model checking where a side has two nodes: rows move from one to the other, by one user or by two, their
//! streams lag independently onto one old side, and the old side's changes go to the node that the row belongs to. The model
//! calls the product's own rules: `admit`, the index of concurrent changes, `decide`, effective clocks.
//!
//! What it leaves out: changes of a row on the old side while it moves, of which `World::is_crossed` tells.

mod step;
mod world;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Path};
use step::{Action, Clocks, EQUAL, Flaw, SETTLES, Setting, Steps};
use world::World;

const LIMIT: Duration = Duration::from_secs(600);

fn prove(clocks: Clocks, operations: [u8; 2]) {
    let setting = Setting { clocks, operations, flaw: None };
    let begun = Instant::now();
    let checker = Steps::new(setting)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .timeout(LIMIT)
        .spawn_dfs()
        .join();
    let tally = &checker.model().tally;
    let [moved, waited, passed, conflicts, rehomed] =
        [&tally.moved, &tally.waited, &tally.passed, &tally.conflicts, &tally.rehomed]
            .map(|counter| counter.load(Relaxed));
    println!(
        "{clocks:?}: {operations:?} changes on old and on the nodes: {} states, {} steps, depth {}, {:.1} s; moved {moved}, \
         waited {waited}, passed {passed}, conflicts {conflicts}, rehomed {rehomed}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64(),
    );
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        panic!("{setting:?} violates {property}\n{}", story(path));
    }
    assert!(begun.elapsed() < LIMIT, "the time did not suffice");
    assert!([moved, waited, passed].iter().all(|met| *met > 0), "something was not met");
    assert!(operations[0] == 0 || conflicts > 0 && rehomed > 0, "something was not met");
}

/// A way through the states, for people.
fn story(path: Path<World, Action>) -> String {
    let line = |(world, action): (World, Option<Action>)| {
        let rows = world
            .rows
            .map(|row| row.map_or("-".to_owned(), |row| format!("{}@{} of {}", row.content, row.clock, row.home)));
        format!("  old [{}], nodes [{}] [{}]; {action:?}\n", rows[0], rows[1], rows[2])
    };
    path.into_vec().into_iter().map(line).collect()
}

#[test]
fn p4_rows_that_move_between_nodes_under_skewed_clocks() {
    prove(Clocks::Skewed, [0, 7]);
    prove(Clocks::Skewed, [1, 5]);
    prove(Clocks::Skewed, [2, 4]);
}

#[test]
fn p4_rows_that_move_between_nodes_under_clocks_that_run_backwards() {
    prove(Clocks::Backwards, [1, 4]);
    prove(Clocks::Backwards, [2, 3]);
}

#[test]
fn p4_rows_that_move_between_nodes_without_a_clock() {
    prove(Clocks::Absent, [1, 5]);
    prove(Clocks::Absent, [2, 4]);
}

/// The checker can fail: a shortest way to what must not be.
fn refute(flaw: Flaw, clocks: Clocks, operations: [u8; 2], violated: &'static str) {
    let setting = Setting { clocks, operations, flaw: Some(flaw) };
    let checker = Steps::new(setting).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path = checker.discovery(violated).unwrap_or_else(|| panic!("{flaw:?}: nothing found"));
    println!("{flaw:?}: not {violated}, after {} states:\n{}", checker.unique_state_count(), story(path));
}

#[test]
fn whose_row_it_is_must_not_be_ignored() {
    refute(Flaw::HolderIgnored, Clocks::Skewed, [0, 2], EQUAL);
}

#[test]
fn what_has_lost_must_not_wait() {
    refute(Flaw::LosersWait, Clocks::Backwards, [1, 3], SETTLES);
}
