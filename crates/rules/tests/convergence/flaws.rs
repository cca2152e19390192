//! The checker can fail: with one part of the rules broken, it finds how the sides come apart.

use std::time::Duration;

use crate::model::{CAUSAL, EQUAL, NO_DOUBLES, NO_ECHO, refute, story};
use crate::setting::{Clocks, Flaw, Setting};

/// A shortest way to a violation, which must be among those named; and none without the flaw.
fn counterexample(flaw: Flaw, setting: Setting, properties: &[&str]) -> String {
    let outcome = refute(setting.with(flaw));
    let (property, path) = outcome.violated.first().unwrap_or_else(|| panic!("{flaw:?}: nothing found"));
    assert!(properties.contains(property), "{flaw:?}: found against {property}");
    let story = story(path);
    let steps = path.clone().into_vec().len() - 1;
    println!("{flaw:?}: not {property}, after {} states, in {steps} steps:\n{story}", outcome.states);
    let sound = crate::model::explore(setting, 2, Duration::from_secs(60));
    assert!(sound.whole, "{setting:?} without the flaw: {:?}", sound.violated);
    story
}

/// Nothing but changes, capture and lanes, for the shortest stories.
fn plain(operations: [u8; 2]) -> Setting {
    Setting { crashes: 0, bad_rows: 0, ..Setting::new(Clocks::Seconds, operations) }
}

#[test]
fn without_seen_what_was_known_counts_as_concurrent() {
    counterexample(Flaw::SeenIgnored, plain([2, 1]), &[EQUAL]);
}

#[test]
fn without_hold_a_change_overwrites_what_it_did_not_wait_for() {
    counterexample(Flaw::HoldRemoved, plain([1, 1]), &[EQUAL]);
}

#[test]
fn without_tombstones_a_delete_is_undone_on_one_side() {
    let story = counterexample(Flaw::TombstonesDropped, plain([1, 1]), &[EQUAL]);
    assert!(story.contains("delete"), "{story}");
}

#[test]
fn what_was_set_aside_must_not_count_as_seen() {
    let story = counterexample(Flaw::ParkedTakenForSeen, Setting::new(Clocks::Seconds, [1, 1]), &[EQUAL]);
    assert!(story.contains("again"), "{story}");
}

#[test]
fn what_a_message_set_aside_is_judged_by_must_not_be_forgotten() {
    let story = counterexample(Flaw::ForgottenTooEarly, Setting::new(Clocks::Backwards, [2, 1]), &[EQUAL]);
    assert!(story.contains("again"), "{story}");
}

#[test]
fn effective_clocks_are_needed_where_clocks_go_back() {
    for setting in [Setting::new(Clocks::Backwards, [2, 1]), Setting::new(Clocks::Version, [1, 2])] {
        counterexample(Flaw::OwnClocks, setting, &[EQUAL]);
    }
}

#[test]
fn a_retry_must_judge_again() {
    let story = counterexample(Flaw::RetriedBlindly, Setting::new(Clocks::Micros, [1, 1]), &[EQUAL]);
    assert!(story.contains("again"), "{story}");
}

#[test]
fn later_changes_of_a_row_must_wait_for_one_that_is_set_aside() {
    counterexample(Flaw::NobodyWaits, Setting::new(Clocks::Micros, [2, 1]), &[CAUSAL, EQUAL]);
}

fn moving(operations: [u8; 2]) -> Setting {
    Setting { moves: true, ..plain(operations) }
}

#[test]
fn a_change_of_the_key_that_wins_by_halves_doubles_its_row() {
    let story = counterexample(Flaw::MovesByHalves, moving([1, 1]), &[NO_DOUBLES]);
    println!("{story}");
}

#[test]
fn a_lost_change_of_the_key_must_be_undone_where_it_was_made() {
    counterexample(Flaw::NothingGoesBack, moving([1, 1]), &[EQUAL]);
}

#[test]
fn who_goes_on_with_a_row_whose_move_has_lost_must_lose_too() {
    counterexample(Flaw::GoesBackUnmarked, moving([1, 3]), &[NO_DOUBLES]);
}

#[test]
fn what_went_back_must_be_captured_before_rows_are_judged_by_sight() {
    let setting = Setting { moves: true, crashes: 0, bad_rows: 0, ..Setting::new(Clocks::Micros, [2, 2]) };
    counterexample(Flaw::SightOfWhatWentBack, setting, &[EQUAL]);
}

#[test]
fn what_is_written_without_the_tag_comes_back() {
    counterexample(Flaw::Untagged, Setting::new(Clocks::Micros, [1, 1]), &[NO_ECHO]);
}

/// A version starts again when its row is inserted again, and then the row may look untouched.
#[test]
fn a_row_with_a_version_must_not_be_judged_by_sight() {
    let setting = Setting { same_again: true, ..Setting::new(Clocks::Version, [1, 2]) };
    let story = counterexample(Flaw::SightOfVersions, setting, &[EQUAL]);
    assert!(story.contains("insert"), "{story}");
}

#[test]
fn a_row_without_a_clock_must_not_be_judged_by_sight() {
    let setting = Setting { same_again: true, ..Setting::new(Clocks::Null, [1, 2]) };
    counterexample(Flaw::SightOfNull, setting, &[EQUAL]);
}

#[test]
fn a_clock_must_not_be_forgotten_before_it_is_settled() {
    let setting = Setting { forgetful: true, bad_rows: 0, ..Setting::new(Clocks::Version, [1, 3]) };
    counterexample(Flaw::ClocksForgotten, setting, &[EQUAL]);
}
