//! What an applier has done since it started, for `status` and the demo.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossfade_message::{ConflictCounts, WaitCounts};
use crossfade_model::TableName;

use crate::judged::JudgedLane;

#[derive(Debug, Default)]
pub struct Counters {
    applied: AtomicU64,
    conflicts_won: AtomicU64,
    conflicts_lost: AtomicU64,
    by_sight: AtomicU64,
    by_look_up: AtomicU64,
    by_waiting: AtomicU64,
    deadlocks: AtomicU64,
    duplicate_keys: AtomicU64,
    batches: AtomicU64,
    slowest_micros: AtomicU64,
    conflicts: Mutex<BTreeMap<TableName, ConflictCounts>>,
    waits: Mutex<WaitCounts>,
}

/// The counters at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Messages whose lane has committed, losers included.
    pub applied: u64,
    pub conflicts_won: u64,
    pub conflicts_lost: u64,
    /// Changes judged by the locked row alone.
    pub by_sight: u64,
    /// Changes that were not written, since one that was captured by then had won.
    pub by_look_up: u64,
    /// Changes confirmed by waiting for the opposite reader.
    pub by_waiting: u64,
    pub waits: WaitCounts,
    /// Transactions repeated after a deadlock or lock wait.
    pub deadlocks: u64,
    /// Transactions repeated because a row was there already.
    pub duplicate_keys: u64,
    pub batches: u64,
    /// Longest time from a change's commit at the source to its commit on the target, microseconds. Includes the
    /// difference of the two machines' clocks.
    pub slowest_micros: u64,
}

impl Counters {
    pub(crate) fn note_lane(&self, lane: &JudgedLane<'_>) {
        self.applied.fetch_add(lane.tally.messages, Relaxed);
        self.conflicts_won.fetch_add(lane.tally.won, Relaxed);
        self.conflicts_lost.fetch_add(lane.tally.lost, Relaxed);
        let judged = lane.ways();
        self.by_sight.fetch_add(judged.by_sight, Relaxed);
        self.by_look_up.fetch_add(judged.by_look_up, Relaxed);
        self.by_waiting.fetch_add(judged.by_waiting, Relaxed);
        if !lane.conflicts.is_empty() {
            let mut conflicts = self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
            for (table, counts) in &lane.conflicts {
                conflicts.entry(table.clone()).or_default().add(*counts);
            }
        }
    }

    /// Conflicts by the table's name at the source.
    pub fn conflicts(&self) -> BTreeMap<TableName, ConflictCounts> {
        self.conflicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note_wait(&self, took: Duration) {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).note(took);
    }

    pub(crate) fn note_batch(&self, delay_micros: u64) {
        self.batches.fetch_add(1, Relaxed);
        self.slowest_micros.fetch_max(delay_micros, Relaxed);
    }

    pub(crate) fn note_deadlock(&self) {
        self.deadlocks.fetch_add(1, Relaxed);
    }

    pub(crate) fn note_duplicate_key(&self) {
        self.duplicate_keys.fetch_add(1, Relaxed);
    }

    pub fn counted(&self) -> Counted {
        Counted {
            applied: self.applied.load(Relaxed),
            conflicts_won: self.conflicts_won.load(Relaxed),
            conflicts_lost: self.conflicts_lost.load(Relaxed),
            by_sight: self.by_sight.load(Relaxed),
            by_look_up: self.by_look_up.load(Relaxed),
            by_waiting: self.by_waiting.load(Relaxed),
            waits: *self.waits.lock().unwrap_or_else(PoisonError::into_inner),
            deadlocks: self.deadlocks.load(Relaxed),
            duplicate_keys: self.duplicate_keys.load(Relaxed),
            batches: self.batches.load(Relaxed),
            slowest_micros: self.slowest_micros.load(Relaxed),
        }
    }
}
