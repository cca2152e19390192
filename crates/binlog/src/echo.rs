//! Which rows crossfade itself wrote, for those who want to know.
//!
//! Usually such rows are counted and not decoded. While a chunk of a table is being copied, what the opposite direction writes
//! to that table counts, too: then the rows' keys are handed on with their transaction.

use std::fmt;
use std::sync::Arc;

use crossfade_model::RowChange;

/// A row that a change touched: the number of its table, and a hash of its key, by the count of whoever watches.
pub type EchoKey = (usize, u64);

/// Appends the rows of a change that are to be handed on.
type Keys = dyn Fn(&RowChange, &mut Vec<EchoKey>) + Send + Sync;

/// Somebody who wants to know, some of the time. Whoever begins to watch knows of every transaction that is committed at the
/// source after that. Cheap to clone.
#[derive(Clone)]
pub struct EchoWatch {
    watches: Arc<dyn Fn() -> bool + Send + Sync>,
    keys: Arc<Keys>,
}

impl EchoWatch {
    /// `watches` is asked for each event of rows; `keys` appends those of a change that are to be handed on.
    pub fn new(
        watches: impl Fn() -> bool + Send + Sync + 'static,
        keys: impl Fn(&RowChange, &mut Vec<EchoKey>) + Send + Sync + 'static,
    ) -> EchoWatch {
        EchoWatch { watches: Arc::new(watches), keys: Arc::new(keys) }
    }

    pub(crate) fn watches(&self) -> bool {
        (self.watches)()
    }

    pub(crate) fn note(&self, change: &RowChange, keys: &mut Vec<EchoKey>) {
        (self.keys)(change, keys);
    }
}

impl fmt::Debug for EchoWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EchoWatch").field("watches", &self.watches()).finish()
    }
}
