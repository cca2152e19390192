//! What the writers did.

use std::sync::atomic::{AtomicU64, Ordering};

/// A moment's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions whose commit the server acknowledged, and which changed a row.
    pub transactions: u64,
    /// Rows they changed.
    pub changes: u64,
    /// Of these, rows of the hot set.
    pub hot_changes: u64,
    /// Transactions that were rolled back on purpose.
    pub rolled_back: u64,
    /// Attempts repeated after a deadlock or a lock wait.
    pub retries: u64,
    /// Transactions given up because the other side had been there first (a row was already there, or gone).
    pub lost_races: u64,
    /// Transactions whose connection broke: they may have been committed or not.
    pub uncertain: u64,
}

impl Counts {
    /// The numbers of two workloads together.
    pub fn plus(&self, other: &Counts) -> Counts {
        Counts {
            transactions: self.transactions + other.transactions,
            changes: self.changes + other.changes,
            hot_changes: self.hot_changes + other.hot_changes,
            rolled_back: self.rolled_back + other.rolled_back,
            retries: self.retries + other.retries,
            lost_races: self.lost_races + other.lost_races,
            uncertain: self.uncertain + other.uncertain,
        }
    }
}

#[derive(Debug, Default)]
pub struct Counters {
    pub transactions: AtomicU64,
    pub changes: AtomicU64,
    pub hot_changes: AtomicU64,
    pub rolled_back: AtomicU64,
    pub retries: AtomicU64,
    pub lost_races: AtomicU64,
    pub uncertain: AtomicU64,
    /// Transactions begun, for the limit.
    pub begun: AtomicU64,
    running: AtomicU64,
    resting: AtomicU64,
}

impl Counters {
    pub fn snapshot(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            transactions: read(&self.transactions),
            changes: read(&self.changes),
            hot_changes: read(&self.hot_changes),
            rolled_back: read(&self.rolled_back),
            retries: read(&self.retries),
            lost_races: read(&self.lost_races),
            uncertain: read(&self.uncertain),
        }
    }

    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    pub fn resting(&self) -> u64 {
        self.resting.load(Ordering::Acquire)
    }

    pub fn lie_down(&self) {
        self.resting.fetch_add(1, Ordering::Release);
    }

    pub fn get_up(&self) {
        self.resting.fetch_sub(1, Ordering::Release);
    }

    pub fn enter(&self) {
        add(&self.running, 1);
    }

    pub fn leave(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

pub fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
