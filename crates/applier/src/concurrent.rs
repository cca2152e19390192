//! An index over the tail of the opposite stream's messages, by row key.
//!
//! It holds every message that some change still to be applied may not have seen, and nothing older.

use std::collections::VecDeque;

use crossfade_model::{Clock, RowOp, Value};
use rustc_hash::FxHashMap;

/// One key that one message of the opposite stream touches, as far as deciding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OppositeChange {
    pub seq: u64,
    /// Tells rows apart whose keys merely fold alike.
    pub exact: u64,
    pub effective: Option<Clock>,
    pub op: RowOp,
    /// The key itself where the server's collation has the last word.
    pub text_key: Option<Box<[Value]>>,
}

#[derive(Debug, Default)]
pub(crate) struct ConcurrentIndex {
    by_key: FxHashMap<u64, Vec<OppositeChange>>,
    /// Keys in the order of their messages, so that forgetting costs no search.
    order: VecDeque<(u64, u64)>,
    /// Messages up to this one, inclusive, are indexed or were forgotten.
    through: u64,
}

impl ConcurrentIndex {
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Goes on after `seq`; nothing up to it can matter any more.
    pub fn skip_to(&mut self, seq: u64) {
        self.forget_through(seq);
        self.through = self.through.max(seq);
    }

    /// Notes a message that touches no key of interest.
    pub fn pass(&mut self, seq: u64) {
        self.through = self.through.max(seq);
    }

    /// Messages come in order; one message may touch two keys.
    pub fn add(&mut self, folded: u64, change: OppositeChange) {
        self.through = self.through.max(change.seq);
        let changes = self.by_key.entry(folded).or_default();
        if changes.last().is_some_and(|last| last.seq == change.seq && last.exact == change.exact) {
            return;
        }
        self.order.push_back((change.seq, folded));
        changes.push(change);
    }

    /// Drops what every change still to come has seen.
    pub fn forget_through(&mut self, seq: u64) {
        while let Some((oldest, folded)) = self.order.front().copied()
            && oldest <= seq
        {
            self.order.pop_front();
            if let Some(changes) = self.by_key.get_mut(&folded) {
                changes.retain(|change| change.seq > seq);
                if changes.is_empty() {
                    self.by_key.remove(&folded);
                }
            }
        }
    }

    /// Changes of rows whose key folds like this one, oldest first.
    pub fn of_key(&self, folded: u64) -> &[OppositeChange] {
        self.by_key.get(&folded).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(seq: u64, exact: u64) -> OppositeChange {
        OppositeChange { seq, exact, effective: None, op: RowOp::Update, text_key: None }
    }

    #[test]
    fn forgets_what_is_seen_and_keeps_the_rest() {
        let mut index = ConcurrentIndex::default();
        index.add(1, change(1, 10));
        index.add(1, change(1, 10));
        index.add(2, change(1, 20));
        index.add(1, change(2, 10));
        assert_eq!(index.of_key(1).len(), 2, "one message touches one key once");
        index.forget_through(1);
        assert_eq!(index.of_key(1), &[change(2, 10)]);
        assert!(index.of_key(2).is_empty());
        index.skip_to(9);
        assert!(index.of_key(1).is_empty() && index.through() == 9);
    }
}
