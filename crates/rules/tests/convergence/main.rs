//! P3, P4 and P6 by model checking: every way in which a few changes on both sides can interleave with capture, batches,
//! lanes, crashes, refused rows and retries. The model calls the product's own rules: clocks, planner, index of concurrent
//! changes, `decide`.
//!
//! `CROSSFADE_SOAK=1` looks at three changes a side, for as long as [`SOAK_LIMIT`] lets it, and tells how far it came.

mod flaws;
mod message;
mod model;
mod product;
mod setting;
mod step;
mod tally;
mod world;

use std::sync::Mutex;
use std::time::Duration;

use crossfade_model::Side;
use model::{Outcome, explore, story};
use setting::{Clocks, Setting};

/// For one kind of clock.
const SOAK_LIMIT: Duration = Duration::from_secs(200);
const LIMIT: Duration = Duration::from_secs(600);

fn is_soak() -> bool {
    std::env::var_os("CROSSFADE_SOAK").is_some()
}

/// One checker at a time: each uses all cores and much memory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn look_at(name: &str, setting: Setting, limit: Duration) -> Outcome {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let outcome = explore(setting, 2, limit);
    let Outcome { states, transitions, depth, took, whole, .. } = outcome;
    let extent = if whole { "all" } else { "not all" };
    println!(
        "{name}: {:?} changes a side, {} crashes, {} refused rows: {states} states ({extent}), {transitions} steps, depth {depth}, \
         {:.1} s; {}",
        setting.operations,
        setting.crashes,
        setting.bad_rows,
        took.as_secs_f64(),
        outcome.tally,
    );
    let found: Vec<String> =
        outcome.violated.iter().map(|(property, path)| format!("{property}\n{}", story(path))).collect();
    assert!(found.is_empty(), "{name}: {setting:?} violates {}", found.join("\n"));
    outcome
}

/// Looks at all interleavings under a setting, in the long form with three changes a side.
fn prove(name: &str, setting: Setting) {
    if is_soak() {
        // Without refused rows first, of which less is to be looked at.
        let longer = Setting { operations: [3, 3], bad_rows: 0, ..setting };
        if look_at(name, longer, SOAK_LIMIT).whole && setting.bad_rows > 0 {
            look_at(name, Setting { operations: [3, 3], ..setting }, SOAK_LIMIT);
        }
        return;
    }
    let outcome = look_at(name, setting, LIMIT);
    assert!(outcome.whole, "{name}: the time did not suffice");
    outcome.tally.assert_met_everything(&setting);
}

#[test]
fn p4_p6_p3_under_microseconds_and_skew() {
    prove("microseconds", Setting::new(Clocks::Micros, [2, 2]));
}

#[test]
fn p4_p6_p3_under_whole_seconds() {
    prove("seconds", Setting { skew_ticks: 0, ..Setting::new(Clocks::Seconds, [2, 2]) });
}

#[test]
fn p4_p6_p3_under_clocks_that_run_backwards() {
    let crashes = u8::from(is_soak());
    prove("backwards", Setting { bad_rows: 0, crashes, ..Setting::new(Clocks::Backwards, [2, 2]) });
    if !is_soak() {
        prove("backwards", Setting::new(Clocks::Backwards, [2, 1]));
        prove("backwards", Setting::new(Clocks::Backwards, [1, 2]));
    }
}

#[test]
fn p4_p6_p3_under_clocks_that_updates_leave_alone() {
    prove("untouched", Setting { skew_ticks: 5, prefer: Side::Old, ..Setting::new(Clocks::Untouched, [2, 2]) });
}

#[test]
fn p4_p6_p3_under_versions_that_start_again() {
    prove("version", Setting { same_again: true, ..Setting::new(Clocks::Version, [2, 2]) });
}

#[test]
fn p4_p6_p3_under_clocks_that_are_null() {
    prove("null", Setting { same_again: true, bad_rows: 0, ..Setting::new(Clocks::Null, [2, 2]) });
}

#[test]
fn p4_p6_p3_without_a_clock() {
    prove("no clock", Setting::new(Clocks::Absent, [2, 2]));
}

#[test]
fn p4_p6_p3_where_rows_change_their_keys() {
    let setting = |clocks| Setting { moves: true, bad_rows: 0, ..Setting::new(clocks, [2, 2]) };
    prove("keys and microseconds", setting(Clocks::Micros));
    prove("keys and seconds", setting(Clocks::Seconds));
    prove("keys and versions", setting(Clocks::Version));
    prove("keys and no clock", setting(Clocks::Absent));
    if !is_soak() {
        prove("keys and refused rows", Setting { bad_rows: 1, operations: [2, 1], ..setting(Clocks::Micros) });
        prove("keys and refused rows", Setting { bad_rows: 1, operations: [1, 2], ..setting(Clocks::Seconds) });
    }
}

#[test]
fn p4_p6_p3_where_capture_forgets_clocks() {
    for (name, clocks) in [("forgotten versions", Clocks::Version), ("forgotten seconds", Clocks::Backwards)] {
        let setting = Setting { forgetful: true, bad_rows: 0, ..Setting::new(clocks, [1, 3]) };
        prove(name, Setting { crashes: u8::from(clocks == Clocks::Version), ..setting });
    }
}
