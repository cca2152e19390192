//! What a run came to, in numbers.

use crossfade_testkit::hotset::Counts;
use crossfade_testkit::quiet::Status;

use crate::faults::Happened;

/// What a run came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub written: Counts,
    pub changes: [u64; 2],
    /// Rows that went back to the side that had deleted them.
    pub returned: u64,
    pub happened: Happened,
    pub won: u64,
    /// Overtaken ones included, which are also counted alone.
    pub lost: u64,
    pub stale: u64,
    pub by_sight: u64,
    pub by_look_up: u64,
    pub by_waiting: u64,
    pub waits: Waits,
    pub mended: u64,
    pub held: u64,
    pub rows_equal: u64,
}

/// How long lanes waited for the opposite reader.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waits {
    pub count: u64,
    pub total_micros: u64,
    pub within_10_ms: u64,
    pub within_100_ms: u64,
    pub within_1_s: u64,
    pub longest_micros: u64,
}

impl Waits {
    pub fn of(status: &Status) -> Waits {
        let of_streams =
            |field: &str| status.streams().iter().map(|stream| stream["waits"][field].as_u64().unwrap_or(0)).collect();
        let total = |field: &str| -> u64 {
            let numbers: Vec<u64> = of_streams(field);
            numbers.iter().sum()
        };
        Waits {
            count: total("count"),
            total_micros: total("total_micros"),
            within_10_ms: total("within_10_ms"),
            within_100_ms: total("within_100_ms"),
            within_1_s: total("within_1_s"),
            longest_micros: of_streams("longest_micros").into_iter().max().unwrap_or(0),
        }
    }

    fn plus(&self, other: &Waits) -> Waits {
        Waits {
            count: self.count + other.count,
            total_micros: self.total_micros + other.total_micros,
            within_10_ms: self.within_10_ms + other.within_10_ms,
            within_100_ms: self.within_100_ms + other.within_100_ms,
            within_1_s: self.within_1_s + other.within_1_s,
            longest_micros: self.longest_micros.max(other.longest_micros),
        }
    }

    fn mean_micros(&self) -> u64 {
        self.total_micros / self.count.max(1)
    }
}

/// A column's name, and its number of a run.
type Column = (&'static str, fn(&Outcome) -> u64);

/// What is printed of a run.
const COLUMNS: [Column; 28] = [
    ("transactions", |outcome| outcome.written.transactions),
    ("refused", |outcome| outcome.written.refused),
    ("rolled back", |outcome| outcome.written.rolled_back),
    ("uncertain", |outcome| outcome.written.uncertain),
    ("changes forward", |outcome| outcome.changes[0]),
    ("reverse", |outcome| outcome.changes[1]),
    ("returned", |outcome| outcome.returned),
    ("kills", |outcome| outcome.happened.kills),
    ("in mid-work", |outcome| outcome.happened.mid_work),
    ("server restarts", |outcome| outcome.happened.server_restarts),
    ("stops", |outcome| outcome.happened.stops),
    ("freezes", |outcome| outcome.happened.freezes),
    ("conflicts won", |outcome| outcome.won),
    ("lost", |outcome| outcome.lost),
    ("of these overtaken", |outcome| outcome.stale),
    ("by sight", |outcome| outcome.by_sight),
    ("by look-up", |outcome| outcome.by_look_up),
    ("by waiting", |outcome| outcome.by_waiting),
    ("waits", |outcome| outcome.waits.count),
    ("mean µs", |outcome| outcome.waits.mean_micros()),
    ("within 10 ms", |outcome| outcome.waits.within_10_ms),
    ("within 100 ms", |outcome| outcome.waits.within_100_ms),
    ("within 1 s", |outcome| outcome.waits.within_1_s),
    ("longest ms", |outcome| outcome.waits.longest_micros / 1_000),
    ("mended", |outcome| outcome.mended),
    ("held", |outcome| outcome.held),
    // A run that came to its end has neither.
    ("differences", |_| 0),
    ("echoes captured", |_| 0),
];

impl Outcome {
    /// The head of a table of runs.
    pub fn head() -> String {
        format!("seed | {}", COLUMNS.map(|(name, _)| name).join(" | "))
    }

    /// One line of the table.
    pub fn line(&self, seed: &str) -> String {
        format!("{seed} | {}", COLUMNS.map(|(_, number)| number(self).to_string()).join(" | "))
    }

    pub fn plus(&self, other: &Outcome) -> Outcome {
        let (a, b) = (&self.happened, &other.happened);
        Outcome {
            written: self.written.plus(&other.written),
            changes: [self.changes[0] + other.changes[0], self.changes[1] + other.changes[1]],
            returned: self.returned + other.returned,
            happened: Happened {
                kills: a.kills + b.kills,
                mid_work: a.mid_work + b.mid_work,
                server_restarts: a.server_restarts + b.server_restarts,
                stops: a.stops + b.stops,
                freezes: a.freezes + b.freezes,
            },
            won: self.won + other.won,
            lost: self.lost + other.lost,
            stale: self.stale + other.stale,
            by_sight: self.by_sight + other.by_sight,
            by_look_up: self.by_look_up + other.by_look_up,
            by_waiting: self.by_waiting + other.by_waiting,
            waits: self.waits.plus(&other.waits),
            mended: self.mended + other.mended,
            held: self.held + other.held,
            rows_equal: self.rows_equal + other.rows_equal,
        }
    }
}

/// Losers that had been overtaken, of all tables.
pub fn stale(status: &Status) -> u64 {
    let tables = status.streams().iter().filter_map(|stream| stream["conflicts"].as_object());
    tables.flat_map(|tables| tables.values()).filter_map(|counts| counts["stale"].as_u64()).sum()
}
