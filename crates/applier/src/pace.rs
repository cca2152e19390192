//! How many rows a batch may have, so that its transactions end soon: they keep rows from users meanwhile, and what is not
//! committed when the process ends was in vain.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Batches that take longer are followed by smaller ones, and others by larger ones.
const LONGEST: Duration = Duration::from_secs(1);

/// Where smaller batches are slower by the row, what takes long are not the rows but the journeys to the server: then batches may
/// take as long as they do, but no longer than this.
const LONGEST_FAR_AWAY: Duration = Duration::from_secs(5);

/// So much slower by the row.
const MUCH_SLOWER: f64 = 0.7;

/// Nothing is known yet: a process that was killed for what its batches were should not begin with a larger one. A smaller one
/// tells nothing.
const FEWEST_ROWS: usize = 1_000;

pub(crate) struct Pace(Mutex<Bounds>);

struct Bounds {
    rows: usize,
    most_rows: usize,
    longest: Duration,
    /// The batch for which the bound was made smaller last.
    too_long: Option<Batch>,
}

#[derive(Clone, Copy)]
struct Batch {
    rows: usize,
    took: Duration,
}

impl Batch {
    fn rows_per_second(self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64().max(0.001)
    }
}

impl Pace {
    /// Batches never have more than `most_rows`.
    pub fn new(most_rows: usize) -> Pace {
        let rows = FEWEST_ROWS.min(most_rows);
        Pace(Mutex::new(Bounds { rows, most_rows, longest: LONGEST, too_long: None }))
    }

    /// The bound of the next batch.
    pub fn rows(&self) -> usize {
        self.bounds().rows
    }

    /// A batch of so many rows took so long, not counting its waits for the opposite reader, which more rows do not make longer.
    pub fn note(&self, rows: usize, took: Duration) {
        self.bounds().note(Batch { rows, took });
    }

    fn bounds(&self) -> MutexGuard<'_, Bounds> {
        // Each change leaves them whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bounds {
    fn note(&mut self, batch: Batch) {
        let is_full = batch.rows >= self.rows;
        if let Some(before) = self.too_long.filter(|before| is_full && batch.rows < before.rows) {
            self.too_long = None;
            if batch.rows_per_second() < before.rows_per_second() * MUCH_SLOWER {
                self.longest = (before.took * 5 / 4).min(LONGEST_FAR_AWAY);
                self.rows = before.rows.min(self.most_rows);
                return;
            }
        }
        let fewest = FEWEST_ROWS.min(self.most_rows);
        if batch.took > self.longest && batch.rows > fewest {
            let in_time = batch.rows as f64 * self.longest.div_duration_f64(batch.took);
            self.rows = self.rows.min((in_time as usize).max(self.rows / 2)).max(fewest);
            self.too_long = Some(batch);
        } else if batch.took < self.longest && is_full {
            let more = if batch.took < self.longest / 2 { self.rows * 2 } else { self.rows * 5 / 4 };
            self.rows = more.min(self.most_rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 8_000;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at_most() -> Pace {
        let pace = Pace::new(MOST);
        (0..3).for_each(|_| pace.note(pace.rows(), millis(100)));
        assert_eq!(pace.rows(), MOST);
        pace
    }

    /// The bound after some batches, each as large as it may be, that take what `took` says for their rows.
    fn settled(pace: &Pace, took: impl Fn(usize) -> Duration) -> usize {
        (0..30).for_each(|_| pace.note(pace.rows(), took(pace.rows())));
        pace.rows()
    }

    #[test]
    fn quick_batches_are_followed_by_larger_ones() {
        let pace = Pace::new(MOST);
        for expected in [1_000, 2_000, 4_000, 8_000, 8_000] {
            assert_eq!(pace.rows(), expected);
            pace.note(pace.rows(), millis(100));
        }
    }

    #[test]
    fn a_small_batch_tells_nothing_of_larger_ones() {
        let pace = Pace::new(MOST);
        pace.note(10, millis(1));
        assert_eq!(pace.rows(), FEWEST_ROWS);
        // A few rows that hang somewhere are not the fault of their number.
        let pace = at_most();
        pace.note(3, millis(60_000));
        assert_eq!(pace.rows(), MOST);
    }

    #[test]
    fn slow_batches_are_followed_by_what_is_done_in_time() {
        let pace = at_most();
        let of_rows = |rows: usize| Duration::from_micros(500 * rows as u64);
        let rows = settled(&pace, of_rows);
        assert!((1_500..=2_500).contains(&rows), "{rows}");
        let quick = |rows: usize| Duration::from_micros(10 * rows as u64);
        assert_eq!(settled(&pace, quick), MOST, "it is quick again");
    }

    #[test]
    fn what_takes_long_by_itself_makes_no_batch_small() {
        let far_away = |rows: usize| Duration::from_micros(2_000_000 + 10 * rows as u64);
        assert_eq!(settled(&at_most(), far_away), MOST);
    }

    #[test]
    fn one_that_hung_is_made_up_for() {
        let pace = at_most();
        pace.note(MOST, millis(60_000));
        assert_eq!(pace.rows(), MOST / 2);
        assert_eq!(settled(&pace, |_| millis(300)), MOST);
    }

    #[test]
    fn a_bound_below_the_fewest_holds() {
        let pace = Pace::new(50);
        assert_eq!(pace.rows(), 50);
        assert_eq!(settled(&pace, |_| millis(60_000)), 50);
        assert_eq!(settled(&pace, |_| millis(1)), 50);
    }
}
