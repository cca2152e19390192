//! How many rows a batch may have, so that its transactions end soon: they keep rows from users meanwhile, and what is not
//! committed when the process ends was in vain.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Batches that take longer are followed by smaller ones …
const LONGEST: Duration = Duration::from_secs(1);

/// … and those that take less, and were as large as they might be, by larger ones.
const SHORT: Duration = Duration::from_millis(500);

/// A smaller batch is none, however long it takes: what it costs does not come from its rows.
const FEWEST_ROWS: usize = 200;

/// Nothing is known yet: a process that was killed for what its batches were should not begin with such a one.
const FIRST_ROWS: usize = 1_000;

pub(crate) struct Pace {
    rows: AtomicUsize,
    most: usize,
}

impl Pace {
    pub fn new(most: usize) -> Pace {
        Pace { rows: AtomicUsize::new(FIRST_ROWS.min(most)), most }
    }

    /// The bound of the next batch.
    pub fn rows(&self) -> usize {
        self.rows.load(Relaxed)
    }

    /// A batch of so many rows took so long, not counting its waits for the opposite reader, which more rows do not make longer.
    pub fn note(&self, rows: usize, took: Duration) {
        let bound = self.rows();
        let next = if took > LONGEST {
            let in_time = (rows as f64 * LONGEST.div_duration_f64(took)) as usize;
            in_time.max(FEWEST_ROWS).min(bound)
        } else if took < SHORT && rows >= bound {
            (bound * 2).min(self.most)
        } else {
            bound
        };
        self.rows.store(next, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8_000;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn quick_batches_are_followed_by_larger_ones() {
        let pace = Pace::new(MOST);
        for expected in [1_000, 2_000, 4_000, 8_000, 8_000] {
            assert_eq!(pace.rows(), expected);
            pace.note(pace.rows(), millis(100));
        }
        assert_eq!(Pace::new(300).rows(), 300);
    }

    #[test]
    fn a_small_batch_tells_nothing_of_larger_ones() {
        let pace = Pace::new(MOST);
        pace.note(10, millis(1));
        assert_eq!(pace.rows(), FIRST_ROWS);
    }

    #[test]
    fn slow_batches_are_followed_by_what_is_done_in_time() {
        let pace = Pace::new(MOST);
        (0..3).for_each(|_| pace.note(pace.rows(), millis(100)));
        pace.note(8_000, millis(4_000));
        assert_eq!(pace.rows(), 2_000);
        pace.note(2_000, millis(900));
        assert_eq!(pace.rows(), 2_000, "it takes as long as it should");
        // A few rows that hang somewhere are not the fault of their number.
        pace.note(3, millis(60_000));
        assert_eq!(pace.rows(), FEWEST_ROWS);
        pace.note(8_000, millis(1_100));
        assert_eq!(pace.rows(), FEWEST_ROWS, "a batch that was planned before does not make it larger");
    }

    #[test]
    fn a_bound_below_the_fewest_holds() {
        let pace = Pace::new(50);
        pace.note(50, millis(60_000));
        assert_eq!(pace.rows(), 50);
    }
}
