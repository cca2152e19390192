//! How often what was met: a run that could meet something and has not proves less than it says.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::setting::{Clocks, Setting};

#[derive(Debug, Default)]
pub struct Tally {
    pub written: AtomicU64,
    pub won: AtomicU64,
    pub lost: AtomicU64,
    pub sighted: AtomicU64,
    /// A lane could not commit before the opposite reader was there.
    pub waited: AtomicU64,
    pub set_aside: AtomicU64,
    pub retried: AtomicU64,
    pub superseded: AtomicU64,
    pub crashed: AtomicU64,
    /// Changes whose writer had half a batch before him.
    pub seen_half: AtomicU64,
}

impl Tally {
    pub fn assert_met_everything(&self, setting: &Setting) {
        let parks = setting.bad_rows > 0;
        let expected = [
            (&self.written, true),
            (&self.won, true),
            (&self.lost, true),
            (&self.sighted, setting.clocks == Clocks::Micros),
            (&self.waited, true),
            (&self.set_aside, parks),
            (&self.retried, parks),
            (&self.superseded, parks),
            (&self.crashed, setting.crashes > 0),
            (&self.seen_half, setting.lanes > 1),
        ];
        for (index, (counter, expected)) in expected.into_iter().enumerate() {
            assert_eq!(counter.load(Relaxed) > 0, expected, "counter {index}: {self}");
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let Tally { written, won, lost, sighted, waited, set_aside, retried, superseded, crashed, seen_half } = self;
        write!(f, "written {} (won {}, by sight {}), lost {}, ", of(written), of(won), of(sighted), of(lost))?;
        write!(f, "waited {}, set aside {}, retried {}, ", of(waited), of(set_aside), of(retried))?;
        write!(f, "superseded {}, crashed {}, half a batch seen {}", of(superseded), of(crashed), of(seen_half))
    }
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
