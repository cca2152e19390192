//! Whether the time left that was told was the time that it took.

use std::time::{Duration, Instant};

use serde_json::Value;

/// Told in whole seconds, a shorter time cannot be told within a quarter.
const LEAST_LEFT: Duration = Duration::from_secs(4);

/// What was told while the copying went on.
#[derive(Default)]
pub struct TimesTold(Vec<Told>);

struct Told {
    at: Instant,
    seconds_left: Option<u64>,
    rows: u64,
}

/// Lines of a course.
const COURSE: usize = 20;

/// How the told times compare with the real ones, from half of the whole time on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Honesty {
    /// Told to real; 1 is the truth.
    pub median: f64,
    /// The one that is furthest from 1.
    pub worst: f64,
    /// Of all that were told the share that was within a quarter.
    pub within_a_quarter: f64,
    pub told: usize,
    /// How often nothing was told.
    pub untold: usize,
}

impl TimesTold {
    /// Keeps what a `backfill status --json` has told just now.
    pub fn note(&mut self, status: &Value) {
        let (seconds_left, rows) = (status["seconds_left"].as_u64(), status["rows"].as_u64().unwrap_or(0));
        self.0.push(Told { at: Instant::now(), seconds_left, rows });
    }

    /// What was told, and what was so, a line for each of some moments.
    pub fn course(&self, begun: Instant, ended: Instant) -> String {
        let line = |told: &Told| {
            let (after, left) = ((told.at - begun).as_secs_f64(), (ended - told.at).as_secs_f64());
            let said = told.seconds_left.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
            format!("  after {after:.0} s: {} rows, {said} left told, {left:.0} s in truth", told.rows)
        };
        let step = (self.0.len() / COURSE).max(1);
        let before_end = self.0.iter().filter(|told| told.at <= ended);
        before_end.step_by(step).map(line).collect::<Vec<_>>().join("\n")
    }

    /// `None` where the copying was too short to tell anything. `left` says how long the rest took that began at a moment.
    pub fn judge(&self, begun: Instant, ended: Instant, left: impl Fn(Instant) -> Duration) -> Option<Honesty> {
        let half_way = begun + (ended - begun) / 2;
        let of_half = || self.0.iter().filter(|told| told.at >= half_way && told.at + LEAST_LEFT <= ended);
        let ratio = |told: &Told| Some(told.seconds_left? as f64 / left(told.at).as_secs_f64());
        let mut ratios: Vec<f64> = of_half().filter_map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let far = |ratio: &f64| ratio.max(1.0 / ratio.max(0.001));
        let median = *ratios.get(ratios.len() / 2)?;
        let worst = ratios.iter().copied().max_by(|one, other| far(one).total_cmp(&far(other)))?;
        let within = ratios.iter().filter(|ratio| (0.75..=1.25).contains(*ratio)).count();
        let within_a_quarter = within as f64 / ratios.len() as f64;
        Some(Honesty { median, worst, within_a_quarter, told: ratios.len(), untold: of_half().count() - ratios.len() })
    }
}

#[test]
fn told_and_real_times_are_compared_from_half_way_on() {
    let begun = Instant::now();
    let at = |seconds: u64| begun + Duration::from_secs(seconds);
    let all = [(10, Some(1)), (50, Some(50)), (60, Some(44)), (70, None), (80, Some(10)), (99, Some(9))];
    let told = TimesTold(all.map(|(second, seconds_left)| Told { at: at(second), seconds_left, rows: 0 }).into());
    let honesty = told.judge(begun, at(100), |then| at(100) - then).unwrap();
    assert_eq!((honesty.median, honesty.worst, honesty.told, honesty.untold), (1.0, 0.5, 3, 1));
    assert!((honesty.within_a_quarter - 2.0 / 3.0).abs() < 1e-9, "{honesty:?}");
    assert_eq!(told.judge(begun, at(10), |then| at(10) - then), None);
}
