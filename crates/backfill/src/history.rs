//! How the copying has got on so far: what the time left is reckoned from.
//!
//! It outlives the process that copies, so the time that crashes, take-overs and waits have cost counts as well. Time in which
//! nothing was to be copied does not.

use serde::{Deserialize, Serialize};

/// Samples that are kept; where there are more, every second one goes.
const MOST_SAMPLES: usize = 64;

const FIRST_SAMPLE_EVERY_MS: u64 = 1_000;

/// A process that was away for longer was stopped: the time above this is no part of the work.
const LONGEST_GAP_MS: u64 = 60_000;

/// How old what is known may be before the rest of its age counts as time in which nothing was copied.
const FRESH_MS: u64 = 3_000;

/// The pace is that of the last third of the time so far, since tables differ, but of so long at least.
const SHORTEST_SPAN_MS: u64 = 15_000;

/// From this share of the rate that is set, copying counts as held back by it: the number of rows that are left decides then, and
/// not what they cost.
const RATE_REACHED_FROM: f64 = 0.9;

/// With less than this there is nothing to reckon from.
const LEAST_SPAN_MS: u64 = 2_000;

/// What was done by when. The owner keeps it as JSON in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When it was noted last, in microseconds of UTC.
    noted_at_micros: i64,
    works: bool,
    /// What was left to be done then; `None` where a table's size is not known.
    left: Option<Left>,
    /// How many rows a second might be copied then, where that was bounded.
    most_rows_per_second: Option<u32>,
    /// [What rows cost](crate::order::costs_id) as they are counted here; 0 where an older program has kept it.
    #[serde(default)]
    costs_id: u64,
    latest: Sample,
    samples: Vec<Sample>,
    sample_every_ms: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    /// Time so far in which something was to be copied.
    worked_ms: u64,
    done: Done,
}

/// What is done so far, of all tables together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Rows that were read.
    pub rows: u64,
    /// The same rows by what each of them [costs](crate::order::row_cost).
    pub cost: u64,
    /// Changes that were applied.
    pub applied: u64,
}

/// What is left to be done, of all tables together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub rows: u64,
    /// What these rows [cost](crate::order::row_cost).
    pub cost: u64,
}

/// How fast the copying goes on the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    pub rows_per_second: f64,
    pub applied_per_second: f64,
    /// Until all rows are copied; `None` where nobody knows.
    pub seconds_left: Option<f64>,
}

impl History {
    /// By what the store keeps. What cannot be read is begun anew.
    pub fn parse(kept: Option<&str>) -> History {
        kept.and_then(|kept| serde_json::from_str(kept).ok()).unwrap_or_default()
    }

    /// As the store keeps it.
    pub fn to_json(&self) -> String {
        // Numbers only, so there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// So many rows a second may be copied from now on, where that is bounded. Another bound than before begins the reckoning anew:
    /// the pace is another, too.
    pub fn bound(&mut self, most_rows_per_second: Option<u32>) {
        if self.most_rows_per_second != most_rows_per_second {
            self.most_rows_per_second = most_rows_per_second;
            self.begin_anew();
        }
    }

    /// Rows cost so much from now on. Other costs than before begin the reckoning anew: what is done would be counted in both.
    pub fn count_by(&mut self, costs_id: u64) {
        if self.costs_id != costs_id {
            self.costs_id = costs_id;
            self.begin_anew();
        }
    }

    fn begin_anew(&mut self) {
        // What was applied stays so.
        let done = Done { applied: self.latest.done.applied, ..Done::default() };
        *self = History {
            works: self.works,
            most_rows_per_second: self.most_rows_per_second,
            costs_id: self.costs_id,
            latest: Sample { worked_ms: 0, done },
            ..History::default()
        };
    }

    /// So much is done by now, and so much left; `works`: something was to be copied since the last note. Tells
    /// whether that was so at the last note.
    pub fn note(&mut self, now_micros: i64, works: bool, mut done: Done, left: Option<Left>) -> bool {
        let worked_before = std::mem::replace(&mut self.works, works);
        if done.rows < self.latest.done.rows {
            // A table is copied again.
            self.begin_anew();
        }
        self.left = left;
        // A process that has just begun does not know yet.
        done.applied = done.applied.max(self.latest.done.applied);
        let worked = if works && !self.samples.is_empty() { self.gap_ms(now_micros) } else { 0 };
        self.latest = Sample { worked_ms: self.latest.worked_ms + worked, done };
        self.noted_at_micros = now_micros;
        let due = self.samples.last().map_or(0, |last| last.worked_ms + self.sample_every_ms);
        if self.latest.worked_ms < due {
            return worked_before;
        }
        self.sample_every_ms = self.sample_every_ms.max(FIRST_SAMPLE_EVERY_MS);
        self.samples.push(self.latest);
        if self.samples.len() > MOST_SAMPLES {
            let mut place = 0;
            self.samples.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.sample_every_ms *= 2;
        }
        worked_before
    }

    /// `None` where too little is known.
    pub fn speed(&self, now_micros: i64) -> Option<Speed> {
        let silent_ms = self.gap_ms(now_micros).saturating_sub(FRESH_MS);
        let worked_ms = self.latest.worked_ms + silent_ms;
        let from_ms = worked_ms.saturating_sub(SHORTEST_SPAN_MS.max(worked_ms / 3));
        let from = self.samples.iter().rfind(|sample| sample.worked_ms <= from_ms).or(self.samples.first())?;
        let span_ms = worked_ms - from.worked_ms;
        if span_ms < LEAST_SPAN_MS {
            return None;
        }
        let per_second = |number: fn(Done) -> u64| {
            let done = number(self.latest.done).saturating_sub(number(from.done));
            done as f64 * 1_000.0 / span_ms as f64
        };
        let rows_per_second = per_second(|done| done.rows);
        let since_noted = self.gap_ms(now_micros).min(FRESH_MS) as f64 / 1_000.0;
        let seconds_left =
            self.left.and_then(|left| self.seconds_for(left, rows_per_second, per_second(|done| done.cost)));
        Some(Speed {
            rows_per_second,
            applied_per_second: per_second(|done| done.applied),
            seconds_left: seconds_left.map(|seconds| (seconds - since_noted).max(0.0)),
        })
    }

    /// `None` while nothing is copied: then a rate that is set tells nothing either.
    fn seconds_for(&self, left: Left, rows_per_second: f64, cost_per_second: f64) -> Option<f64> {
        if cost_per_second <= 0.0 {
            return None;
        }
        let by_cost = left.cost as f64 / cost_per_second;
        let Some(rate) = self.most_rows_per_second.map(f64::from) else { return Some(by_cost) };
        let by_rate = left.rows as f64 / rate.max(1.0);
        let reaches_rate = rows_per_second >= rate * RATE_REACHED_FROM;
        Some(if reaches_rate { by_rate } else { by_cost.max(by_rate) })
    }

    fn gap_ms(&self, now_micros: i64) -> u64 {
        let gap = now_micros.saturating_sub(self.noted_at_micros) / 1_000;
        u64::try_from(gap).unwrap_or(0).min(LONGEST_GAP_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Notes once a second, from a beginning on.
    fn noted(history: &mut History, from: i64, seconds: i64, works: bool, rows_per_second: u64) {
        let rows = history.latest.done.rows;
        for second in 1..=seconds {
            history.note((from + second) * SECOND, works, done(rows + second.unsigned_abs() * rows_per_second), None);
        }
    }

    fn left(history: &History, at: i64) -> Option<f64> {
        history.speed(at * SECOND).and_then(|speed| speed.seconds_left)
    }

    fn done(rows: u64) -> Done {
        Done { rows, cost: rows * 3, applied: rows / 10 }
    }

    fn rate(history: &History, at: i64) -> f64 {
        history.speed(at * SECOND).map_or(f64::NAN, |speed| speed.rows_per_second)
    }

    #[test]
    fn the_last_third_of_the_time_counts() {
        let mut history = History::default();
        history.note(0, true, done(0), None);
        assert_eq!(history.speed(SECOND), None);
        noted(&mut history, 0, 500, true, 100);
        assert!((rate(&history, 500) - 100.0).abs() < 1.0, "{}", rate(&history, 500));
        noted(&mut history, 500, 500, true, 300);
        assert!((rate(&history, 1_000) - 300.0).abs() < 10.0, "{}", rate(&history, 1_000));
        assert!(history.samples.len() <= MOST_SAMPLES, "{}", history.samples.len());
        assert_eq!(History::parse(Some(&history.to_json())), history);
    }

    #[test]
    fn time_that_a_dead_process_has_cost_counts_and_a_pause_does_not() {
        let mut history = History::default();
        history.note(0, true, done(0), None);
        noted(&mut history, 0, 60, true, 100);
        // Nothing is heard of it: 1,200 rows in the last 24 of 72 s.
        assert!((rate(&history, 75) - 50.0).abs() < 1.0, "{}", rate(&history, 75));
        noted(&mut history, 75, 1, true, 0);
        // 1,000 rows in 26 of 76 s.
        assert!((rate(&history, 76) - 38.5).abs() < 1.0, "{}", rate(&history, 76));
        let before = rate(&history, 76);
        noted(&mut history, 76, 1_000, false, 0);
        assert!((rate(&history, 1_076) - before).abs() < 1.0, "{}", rate(&history, 1_076));
    }

    #[test]
    fn a_table_that_begins_anew_begins_the_history_anew() {
        let mut history = History::default();
        history.note(0, true, done(0), None);
        noted(&mut history, 0, 30, true, 100);
        history.note(31 * SECOND, true, done(10), None);
        assert_eq!((history.speed(31 * SECOND), history.samples.len()), (None, 1));
    }

    #[test]
    fn the_time_left_is_reckoned_by_costs_and_goes_down_between_notes() {
        let mut history = History::default();
        history.note(0, true, done(0), None);
        noted(&mut history, 0, 30, true, 100);
        assert_eq!(left(&history, 30), None, "a table's size is not known");
        // 300 of cost a second so far, whatever number of rows that will be.
        history.note(31 * SECOND, true, done(3_100), Some(Left { rows: 1_500, cost: 6_000 }));
        assert!(left(&history, 31).is_some_and(|left| (left - 20.0).abs() < 0.1), "{:?}", left(&history, 31));
        assert!(left(&history, 33).is_some_and(|left| (left - 18.0).abs() < 0.1), "{:?}", left(&history, 33));
        assert!(left(&history, 45).is_some_and(|left| left > 40.0), "{:?}: nothing is heard of it", left(&history, 45));
    }

    #[test]
    fn where_rows_are_bounded_their_number_tells_the_time_left() {
        let mut history = History::default();
        history.bound(Some(100));
        history.note(0, true, done(0), None);
        noted(&mut history, 0, 30, true, 97);
        // By their costs these rows would take half as long again.
        history.note(31 * SECOND, true, done(3_010), Some(Left { rows: 2_000, cost: 9_000 }));
        assert!(left(&history, 31).is_some_and(|left| (left - 20.0).abs() < 0.1), "{:?}", left(&history, 31));
        // Twice as many may pass, and do.
        history.bound(Some(200));
        assert_eq!(left(&history, 31), None, "the pace is not known yet");
        history.note(31 * SECOND, true, done(3_010), None);
        noted(&mut history, 31, 2, true, 199);
        history.note(34 * SECOND, true, done(3_607), Some(Left { rows: 2_000, cost: 9_000 }));
        assert!(left(&history, 34).is_some_and(|left| (left - 10.0).abs() < 0.1), "{:?}", left(&history, 34));
    }

    #[test]
    fn where_rows_cost_otherwise_than_an_older_program_counted_them_the_reckoning_begins_anew() {
        let mut history = History::default();
        history.count_by(3);
        history.note(0, true, done(0), None);
        noted(&mut history, 0, 60, true, 100);
        let mut history = History::parse(Some(&history.to_json()));
        history.count_by(3);
        assert!(history.speed(60 * SECOND).is_some(), "a process that was replaced by its like");
        history.count_by(5);
        let at_five = |rows: u64| Done { cost: rows * 5, ..done(rows) };
        for second in 61..=90 {
            let rows = second * 100;
            history.note(second as i64 * SECOND, true, at_five(rows), Some(Left { rows: 1_000, cost: 5_000 }));
            let told = left(&history, second as i64);
            assert!(told.is_none_or(|told| (told - 10.0).abs() < 0.1), "{told:?} after {second} s");
        }
        assert!(left(&history, 90).is_some());
    }

    #[test]
    fn what_was_applied_is_known_however_often_the_reckoning_begins_anew() {
        let (mut history, applied) = (History::default(), 1_000_000);
        history.note(0, true, Done { applied, ..done(100) }, None);
        history.bound(Some(100));
        // Another process, which has applied nothing yet; and then a table that is copied again.
        for rows in [100, 1] {
            history.note(SECOND, true, done(rows), None);
            history.note(4 * SECOND, true, Done { applied: applied + 30, ..done(rows + 300) }, None);
            let speed = history.speed(4 * SECOND).unwrap();
            assert!(speed.applied_per_second <= 10.0, "{speed:?}");
        }
    }

    #[test]
    fn where_the_bound_is_not_reached_the_pace_tells_but_no_sooner_than_rows_may_pass() {
        let mut history = History::default();
        history.bound(Some(150));
        history.note(0, true, done(0), None);
        noted(&mut history, 0, 30, true, 97);
        for (rows, seconds) in [(2_000, 30.8), (6_000, 40.0)] {
            history.note(31 * SECOND, true, done(3_010), Some(Left { rows, cost: 9_000 }));
            let told = left(&history, 31);
            assert!(told.is_some_and(|told| (told - seconds).abs() < 0.5), "{told:?} for {rows} rows");
        }
    }
}
