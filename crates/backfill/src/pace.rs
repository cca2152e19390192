//! How large a table's next chunk is to be, and how fast it goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossfade_model::{Row, Value};

const FIRST_ROWS: u64 = 500;
/// Each chunk costs two marks and a wait, whatever its size.
const FEWEST_ROWS: u64 = 200;
const MOST_ROWS: u64 = 50_000;

/// The rate is that of the last so many seconds.
const RATE_OVER: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Pace {
    target: Duration,
    rows: u64,
    /// By the bytes that a chunk may have.
    fitting: u64,
    begun: Instant,
    done: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Chunks are to take `target`, to be read and written. Those that are written already had `usual` rows, 0 where there are
    /// none: a copy that goes on need not find out anew.
    pub fn new(target: Duration, usual: u64) -> Pace {
        let rows = usual.clamp(FIRST_ROWS, MOST_ROWS);
        Pace { target, rows, fitting: MOST_ROWS, begun: Instant::now(), done: VecDeque::new() }
    }

    pub fn rows(&self) -> u64 {
        self.rows.min(self.fitting)
    }

    /// A chunk of so many rows took so long, waits not counted. The next one is at most twice as large.
    pub fn took(&mut self, rows: u64, took: Duration) {
        if rows == 0 {
            return;
        }
        let wanted = rows as f64 * self.target.as_secs_f64() / took.as_secs_f64().max(0.001);
        let wanted = (wanted as u64).clamp(self.rows / 2, self.rows.saturating_mul(2));
        self.rows = wanted.clamp(FEWEST_ROWS, MOST_ROWS);
    }

    /// So many rows were too many for the memory that a chunk may take.
    pub fn too_large(&mut self, rows: u64) {
        self.fitting = (rows / 4).max(1);
    }

    /// The next chunk is to fit as well: rows were as large as these.
    pub fn fits(&mut self, rows: &[Row], most_bytes: usize) {
        let of_row = |row: &Row| row.iter().map(Value::heap_bytes).sum::<usize>() + row.len() * size_of::<Value>();
        let bytes = rows.iter().map(of_row).sum::<usize>().max(1);
        // Half of the bound leaves room for rows that are larger.
        let fitting = (rows.len().max(1) as u128 * most_bytes as u128 / bytes as u128 / 2).max(1);
        self.fitting = u64::try_from(fitting).unwrap_or(u64::MAX);
    }

    /// So many rows more are done.
    pub fn done(&mut self, rows: u64) {
        let now = Instant::now();
        self.done.push_back((now, rows));
        while self.done.len() > 1 && self.done.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            if let Some((at, _)) = self.done.pop_front() {
                self.begun = at;
            }
        }
    }

    /// Rows a second, of late.
    pub fn rate(&self) -> f64 {
        let rows: u64 = self.done.iter().map(|(_, rows)| rows).sum();
        rows as f64 / self.begun.elapsed().as_secs_f64().max(0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_and_shrink_towards_the_time_that_they_are_to_take() {
        let mut pace = Pace::new(Duration::from_millis(500), 0);
        pace.took(500, Duration::from_millis(10));
        assert_eq!(pace.rows(), 1_000, "at most twice as large");
        pace.took(1_000, Duration::from_millis(400));
        assert_eq!(pace.rows(), 1_250);
        pace.took(1_250, Duration::from_secs(60));
        assert_eq!(pace.rows(), 625, "at least half as large");
        for _ in 0..20 {
            pace.took(pace.rows(), Duration::from_secs(60));
        }
        assert_eq!(pace.rows(), FEWEST_ROWS);
        for _ in 0..20 {
            pace.took(pace.rows(), Duration::ZERO);
        }
        assert_eq!(pace.rows(), MOST_ROWS);
        assert_eq!(Pace::new(Duration::from_millis(500), 4_000).rows(), 4_000, "it goes on with what was usual");
    }
}
