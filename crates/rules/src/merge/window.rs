//! Which of the target's changes each merged change has not seen.

use std::sync::Arc;

use crossfade_model::Seen;

use super::{Concurrent, Part};
use crate::OppositeChange;
use crate::concurrent::{ConcurrentIndex, Judging, Known, Unknown, was_seen};

/// The key of the merged changes.
#[derive(Debug, Clone, Copy)]
pub struct KeyHashes {
    pub folded: u64,
    pub exact: u64,
}

/// The target's changes of a key that the first of the merged changes has not seen, oldest first, and for each merged
/// change how many of the last of them it has not seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    pub opposite: Vec<Concurrent>,
    pub unseen: Vec<usize>,
}

impl Window {
    /// Looks the target's changes up. `stream` is the opposite one.
    ///
    /// # Errors
    /// What is not known. Asked again with the answer, this comes further.
    pub fn look_up(
        index: &ConcurrentIndex,
        key: KeyHashes,
        stream: &str,
        parts: &[Part],
        known: &impl Known,
    ) -> Result<Window, Unknown> {
        let Some(first) = parts.first() else { return Ok(Window::default()) };
        let judging = Judging { folded: key.folded, exact: key.exact, seen: first.seen.streams.get(stream) };
        let unseen = index.unseen(judging, known)?;
        let opposite = unseen.into_iter().filter_map(Concurrent::of).collect();
        Window::over(opposite, stream, parts, known)
    }

    /// Over the target's changes of the key, from one that all changes have seen up to the last.
    ///
    /// # Errors
    /// As [`Window::look_up`].
    pub fn over(
        opposite: Vec<Concurrent>,
        stream: &str,
        parts: &[Part],
        known: &impl Known,
    ) -> Result<Window, Unknown> {
        let mut unseen: Vec<usize> = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| (&parts[before].seen, unseen[before]));
            unseen.push(match before {
                Some((seen, count)) if Arc::ptr_eq(seen, &part.seen) => count,
                _ => count_unseen(&opposite, stream, &part.seen, known)?,
            });
        }
        Ok(Window { opposite, unseen })
    }

    /// The changes together with how much each has not seen.
    pub fn of<'p>(&self, parts: &'p [Part]) -> Vec<(&'p Part, usize)> {
        parts.iter().zip(self.unseen.iter().copied()).collect()
    }
}

/// Changes of one row take effect in their order, so what has been seen of them is a beginning.
fn count_unseen(opposite: &[Concurrent], stream: &str, seen: &Seen, known: &impl Known) -> Result<usize, Unknown> {
    let seen = seen.streams.get(stream);
    let (mut low, mut high) = (0, opposite.len());
    while low < high {
        let middle = low.midpoint(high);
        if was_seen(seen, opposite[middle].seq, known)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(opposite.len() - low)
}

impl Concurrent {
    /// `None` for a change whose effect on columns was not kept.
    fn of(change: &OppositeChange) -> Option<Concurrent> {
        let effect = (**change.effect.as_ref()?).clone();
        let OppositeChange { seq, effective, returned, .. } = *change;
        Some(Concurrent { seq, effective, effect, returned })
    }
}

impl From<&Part> for Concurrent {
    fn from(part: &Part) -> Concurrent {
        Concurrent { seq: part.seq, effective: part.effective, effect: part.effect(), returned: part.returned }
    }
}
