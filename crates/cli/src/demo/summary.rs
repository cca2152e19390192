//! The short table at the end.

use std::fmt;
use std::time::Duration;

use crossfade_testkit::compare::Comparison;
use crossfade_testkit::quiet::Status;

use super::act::Written;
use super::crossing::{Crossed, Pause};
use super::display::grouped;

pub struct Summary {
    pub written: Written,
    pub crossed: Crossed,
    pub status: Status,
    pub comparison: Comparison,
    /// Users of whom new does not have what was acknowledged.
    pub lost: usize,
    pub caught_up_in: Duration,
    pub took: Duration,
}

impl Summary {
    /// Equal, nothing lost, and something happened: changes crossed both ways, echoes were recognised, rows were in conflict.
    pub fn is_good(&self) -> bool {
        self.comparison.is_equal() && self.lost == 0 && self.missing().is_none()
    }

    fn conflicts(&self) -> u64 {
        self.status.total("conflicts_won") + self.status.total("conflicts_lost")
    }

    /// Changes that a direction has captured and dealt with. The store counts them, so no kill makes it forget one.
    fn crossed(&self, direction: &str) -> u64 {
        self.status.number(direction, "settled_seq")
    }

    /// What should have happened and did not.
    fn missing(&self) -> Option<&'static str> {
        if self.crossed("forward") == 0 {
            Some("no change went forward")
        } else if self.crossed("reverse") == 0 {
            Some("no change went back")
        } else if self.status.total("echoes") == 0 {
            Some("no echo was recognised")
        } else if self.conflicts() == 0 {
            Some("no row was in conflict")
        } else {
            None
        }
    }

    fn result(&self) -> String {
        if !self.comparison.is_equal() {
            format!("DIFFERENT: {} rows", grouped(self.comparison.differences()))
        } else if self.lost > 0 {
            format!("LOST: new has not what was acknowledged of {} users", self.lost)
        } else if let Some(missing) = self.missing() {
            format!("equal, but {missing}")
        } else {
            "EQUAL: every row of every table, on both sides".to_owned()
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (&self.written.old, &self.written.new);
        let slowest = self.status.all("slowest_ms").into_iter().max().unwrap_or(0);
        let failures = self.status.total("open_failures");
        let acknowledged = &self.crossed.acknowledged;
        let told = |pause: &Pause| {
            format!("{} {} ms (longest write {} ms)", pause.change, pause.ms, pause.longest_write.as_millis())
        };
        let pauses: Vec<String> = self.crossed.pauses.iter().map(told).collect();
        let lines = [
            ("rows compared", grouped(self.comparison.rows_compared())),
            (
                "written on old",
                format!("{} changes in {} transactions", grouped(old.changes), grouped(old.transactions)),
            ),
            (
                "written on new",
                format!("{} changes in {} transactions", grouped(new.changes), grouped(new.transactions)),
            ),
            ("carried forward", format!("{} changes, old to new", grouped(self.crossed("forward")))),
            ("carried back", format!("{} changes, new to old", grouped(self.crossed("reverse")))),
            (
                "echoes recognised",
                format!("{} rows of crossfade's own, not sent back", grouped(self.status.total("echoes"))),
            ),
            (
                "conflicts",
                format!(
                    "{} changes won against a concurrent one of the same row, {} lost",
                    grouped(self.status.total("conflicts_won")),
                    grouped(self.status.total("conflicts_lost"))
                ),
            ),
            ("set aside", format!("{} changes that a side refused", grouped(failures))),
            ("killed with -9", format!("process {} (forward), in mid-work", self.written.killed_pid)),
            (
                "slowest change",
                format!("{:.2} s from commit to visible (forward was dead for a while)", slowest as f64 / 1000.0),
            ),
            ("caught up", format!("{:.1} s after the last write", self.caught_up_in.as_secs_f64())),
            (
                "writes by the flag",
                format!(
                    "{} acknowledged, {} on old and {} on new; new lacks {} of their users",
                    grouped(acknowledged.acknowledged()),
                    grouped(acknowledged.on_old),
                    grouped(acknowledged.on_new),
                    self.lost
                ),
            ),
            (
                "flowed back",
                format!("{} changes that users made on new, seen on old", grouped(self.crossed.flowed_back)),
            ),
            ("pauses", pauses.join(", ")),
            ("took", format!("{:.1} s", self.took.as_secs_f64())),
            ("result", self.result()),
        ];
        writeln!(f)?;
        for (name, value) in lines {
            writeln!(f, "  {name:<18} {value}")?;
        }
        if !self.comparison.is_equal() {
            write!(f, "\n{}", self.comparison)?;
        }
        Ok(())
    }
}
