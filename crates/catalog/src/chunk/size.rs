//! How many rows the next chunk has.

use std::time::Duration;

/// The first chunk; what comes after follows from how long it took.
const FIRST_ROWS: u64 = 1_000;
const MOST_ROWS: u64 = 250_000;

/// A chunk that had luck does not make the next one more than so many times larger.
const GROWTH: u64 = 3;
/// One that had none does not make it more than so many times smaller.
const SHRINKAGE: u64 = 8;

/// Sizes chunks to a time and to a number of bytes. Time is passed in.
#[derive(Debug, Clone)]
pub struct ChunkSize {
    target: Duration,
    budget_bytes: u64,
    rows: u64,
}

impl ChunkSize {
    /// `target` is the time that a chunk is to take; `budget_bytes` bounds what its rows hold together.
    pub fn new(target: Duration, budget_bytes: u64) -> ChunkSize {
        ChunkSize { target: target.max(Duration::from_millis(1)), budget_bytes: budget_bytes.max(1), rows: FIRST_ROWS }
    }

    /// So many rows the next chunk may have, at least one.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// As many rows as fit the budget, before any are known.
    pub fn expect_row_bytes(&mut self, row_bytes: u64) {
        self.rows = self.rows.min(self.fitting(row_bytes));
    }

    /// What came of a chunk.
    pub fn note(&mut self, rows: u64, bytes: u64, elapsed: Duration) {
        if rows == 0 {
            return;
        }
        let micros = elapsed.as_micros().max(1);
        let in_time = u128::from(rows) * self.target.as_micros() / micros;
        let in_time = u64::try_from(in_time).unwrap_or(MOST_ROWS);
        let near = in_time.clamp((self.rows / SHRINKAGE).max(1), self.rows.saturating_mul(GROWTH));
        self.rows = near.min(self.fitting(bytes / rows)).clamp(1, MOST_ROWS);
    }

    fn fitting(&self, row_bytes: u64) -> u64 {
        (self.budget_bytes / row_bytes.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_chunks_come_to_take_the_time_that_they_may() {
        let mut size = ChunkSize::new(Duration::from_millis(500), 64 << 20);
        let micros_per_row = 50;
        for _ in 0..20 {
            size.note(size.rows(), size.rows() * 100, Duration::from_micros(size.rows() * micros_per_row));
        }
        assert_eq!(size.rows(), 10_000);
        // The server has become ten times slower.
        for _ in 0..3 {
            size.note(size.rows(), size.rows() * 100, Duration::from_micros(size.rows() * micros_per_row * 10));
        }
        assert_eq!(size.rows(), 1_000);
    }

    #[test]
    fn p8_the_rows_of_a_chunk_fit_its_budget() {
        let mut size = ChunkSize::new(Duration::from_millis(500), 1 << 20);
        size.expect_row_bytes(1 << 16);
        assert_eq!(size.rows(), 16);
        size.note(16, 16 << 18, Duration::from_millis(1));
        assert_eq!(size.rows(), 4);
        size.note(4, 4 << 30, Duration::from_millis(1));
        assert_eq!(size.rows(), 1);
        size.note(1, u64::MAX, Duration::MAX);
        assert_eq!(size.rows(), 1);
        size.note(0, 0, Duration::ZERO);
        assert_eq!(size.rows(), 1);
    }
}
