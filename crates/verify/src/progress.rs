//! How far a comparison is, for whoever watches.

use std::sync::{Arc, Mutex, PoisonError};

/// Shared between the comparison and its watcher. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<ProgressView>>);

/// Rows are those of the old side, and estimates of the server where they are still to come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressView {
    pub rows_done: u64,
    pub rows_expected: u64,
    pub tables_done: usize,
    pub tables: usize,
    /// The tables that are being compared.
    pub at_work: Vec<String>,
    /// Rows that are known to be missing or different.
    pub mismatches: u64,
}

impl Progress {
    pub fn view(&self) -> ProgressView {
        self.with(|view| view.clone())
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut ProgressView) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
