//! Effective clocks of captured changes, and the hashes of the keys that they touch.
//!
//! A change's effective clock is the maximum of its own clock, of the clock in its before image, and of the effective
//! clocks of earlier changes of the same row. It is fixed at capture and kept with the message, so both directions
//! compare the same number.
//!
//! Under a policy that compares no clocks, what [undoes](UNDONE) a change of a key goes before that policy, and so does every
//! change that follows one of these in the row, for as long as some change of the other side may not have seen that one.
//!
//! What counts is that it never goes back from one change of a row to the next while some change of the other side may be
//! concurrent with both: else the first may win where the second loses, and the sides end unequal. So rows are told apart
//! by their folded keys, at least as coarsely as any server does; and what had to be forgotten too early stands for all
//! rows of its table that are not remembered. Rows that go before a policy are remembered apart, so that no other makes them
//! forgotten: to forget which they were turns the policy round for the whole table.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_model::{Clock, Message, RowChange, TableLayout, TableName, Value};
use rustc_hash::FxHashMap;

use crate::clock::{clock_of, effective, own};
use crate::key::folded_hash;
use crate::mapping::TableMapping;
use crate::moves::{UNDONE, goes_before_policy};

/// What capture knows of the clocks of one stream's changes.
#[derive(Debug, Clone)]
pub struct EffectiveClocks {
    mappings: HashMap<TableName, (usize, TableMapping)>,
    places: HashMap<usize, Place>,
    /// Rows with a clock.
    timed: Generations,
    /// Rows whose last change has [`UNDONE`].
    undone: Generations,
    /// Messages up to this one are concurrent with nothing that is still to be captured on the other side or to be judged
    /// there.
    settled: u64,
    /// Settled since the young generation of rows with a clock began.
    is_settled_lately: bool,
    /// The last message with [`UNDONE`].
    undone_through: u64,
}

/// Rows by their hashes, of which at least so many are remembered, and at most twice as many.
#[derive(Debug, Clone)]
struct Generations {
    rows: usize,
    young: FxHashMap<u64, Known>,
    aged: FxHashMap<u64, Known>,
    /// Per mapping what was forgotten before it was settled.
    lost: Vec<Option<Known>>,
}

/// The last change of a row.
#[derive(Debug, Clone, Copy)]
struct Known {
    seq: u64,
    clock: Option<Clock>,
    mapping: usize,
}

impl Generations {
    fn new(rows: usize, mappings: usize) -> Generations {
        Generations { rows, young: FxHashMap::default(), aged: FxHashMap::default(), lost: vec![None; mappings] }
    }

    /// The row, or what stands for it since it may be one of those that were forgotten.
    fn get(&self, mapping: usize, hash: u64) -> Option<Known> {
        let known = self.young.get(&hash).or_else(|| self.aged.get(&hash)).copied();
        known.or(self.lost[mapping])
    }

    /// Returns whether a generation has aged by this.
    fn keep(&mut self, hashes: [u64; 2], row: Known, settled: u64) -> bool {
        for hash in hashes {
            self.young.insert(hash, row);
        }
        let is_full = self.young.len() >= self.rows;
        if is_full {
            self.forget_aged(settled);
            self.aged = std::mem::take(&mut self.young);
        }
        is_full
    }

    fn forget_aged(&mut self, settled: u64) {
        for (hash, row) in &self.aged {
            if row.seq <= settled || self.young.contains_key(hash) {
                continue;
            }
            let Some(lost) = self.lost.get_mut(row.mapping) else { continue };
            let so_far = lost.unwrap_or(*row);
            *lost = Some(Known { seq: so_far.seq.max(row.seq), clock: so_far.clock.max(row.clock), ..*row });
        }
    }

    fn settle(&mut self, settled: u64) {
        for lost in &mut self.lost {
            *lost = lost.filter(|lost| lost.seq > settled);
        }
    }

    fn clear(&mut self) {
        self.young = FxHashMap::default();
        self.aged = FxHashMap::default();
    }
}

/// Where key and clock stand in a layout.
#[derive(Debug, Clone)]
struct Place {
    /// Keeps the layout's address, by which the place is found, from being used again.
    _layout: Arc<TableLayout>,
    table: TableName,
    key: Vec<usize>,
    clock: Option<usize>,
}

/// What capture needs to know of a change beside its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    pub effective: Option<Clock>,
    /// Folded hashes of the row key before and after.
    pub key_hashes: [u64; 2],
}

impl EffectiveClocks {
    /// `mappings` are those of the stream's direction. Remembers at least so many rows with a clock, and at most twice as many;
    /// and as many of those that go before a policy, which are few.
    pub fn with_memory(mappings: &[TableMapping], rows: usize) -> EffectiveClocks {
        let numbered = mappings.iter().enumerate();
        EffectiveClocks {
            mappings: numbered.map(|(index, mapping)| (mapping.source.clone(), (index, mapping.clone()))).collect(),
            places: HashMap::new(),
            timed: Generations::new(rows, mappings.len()),
            undone: Generations::new(rows, mappings.len()),
            settled: 0,
            is_settled_lately: false,
            undone_through: 0,
        }
    }

    /// Takes over what was captured before this process began.
    pub fn remember(&mut self, messages: &[Message]) {
        for message in messages {
            let Some((mapping, folded)) = self.hashes(&message.change) else { continue };
            let (seq, effective) = (message.seq, message.effective);
            let undone = self.goes_before_policy(&message.change, effective);
            self.keep(folded, Known { seq, clock: effective.filter(|_| !undone), mapping }, undone);
        }
    }

    /// Judges changes in the order of the source's commits; `seq` is the number that the change gets. Its clock is not to be
    /// less than one that is given.
    pub fn judge_at_least(
        &mut self,
        change: &RowChange,
        seq: u64,
        committed_at_micros: i64,
        at_least: Option<Clock>,
    ) -> Judged {
        let Some((mapping, key_hashes)) = self.hashes(change) else {
            return Judged { effective: None, key_hashes: [0; 2] };
        };
        let known = key_hashes.map(|hash| self.timed.get(mapping, hash));
        let puts_back = self.goes_before_policy(change, at_least);
        let undone = puts_back || key_hashes.into_iter().any(|hash| self.is_undone(mapping, hash));
        let place = &self.places[&layout_address(&change.layout)];
        let column = self.mappings.get(&place.table).and_then(|(_, mapping)| mapping.clock.as_ref());
        let clock = column.and_then(|column| {
            let (before, after) = (change.before.as_ref(), change.after.as_ref());
            let own = place.clock.and_then(|index| own(column, index, change.op, before, after, committed_at_micros));
            let before = place.clock.and_then(|index| before?.get(index)).and_then(|value| clock_of(column, value));
            let known = known.map(|known| known?.clock);
            effective(own, [before, known[0], known[1], at_least.filter(|_| !puts_back)])
        });
        self.keep(key_hashes, Known { seq, clock, mapping }, undone);
        Judged { effective: if undone { Some(UNDONE) } else { clock }, key_hashes }
    }

    fn goes_before_policy(&self, change: &RowChange, effective: Option<Clock>) -> bool {
        let mapping = self.mappings.get(&change.layout.name);
        mapping.is_some_and(|(_, mapping)| goes_before_policy(mapping.policy, effective))
    }

    /// Says that every change of the other side that may still be judged against this stream's messages has seen them up
    /// to `through`: they need not be remembered.
    pub fn settle(&mut self, through: u64) {
        self.settled = self.settled.max(through);
        self.is_settled_lately = true;
        self.timed.settle(self.settled);
        self.undone.settle(self.settled);
        if self.undone_through <= self.settled {
            // What is settled must not make others forgotten.
            self.undone.clear();
        }
    }

    /// A good time to [settle](EffectiveClocks::settle): before rows are forgotten, and so that a policy comes into its own again.
    pub fn is_to_be_settled(&self) -> bool {
        self.undone_through > self.settled || !self.is_settled_lately && self.timed.young.len() >= self.timed.rows / 2
    }

    fn is_undone(&self, mapping: usize, hash: u64) -> bool {
        self.undone.get(mapping, hash).is_some_and(|known| known.seq > self.settled)
    }

    fn keep(&mut self, hashes: [u64; 2], row: Known, undone: bool) {
        if undone {
            self.undone_through = row.seq;
            self.undone.keep(hashes, row, self.settled);
        }
        if row.clock.is_some() && self.timed.keep(hashes, row, self.settled) {
            self.is_settled_lately = false;
        }
    }

    /// The table's mapping, and the folded hashes of the key before and after; `None` for a table that is not mapped or
    /// has no key.
    fn hashes(&mut self, change: &RowChange) -> Option<(usize, [u64; 2])> {
        let address = layout_address(&change.layout);
        if !self.places.contains_key(&address) {
            let place = self.place(&change.layout)?;
            if self.places.len() > 4_096 {
                self.places.clear();
            }
            self.places.insert(address, place);
        }
        let place = &self.places[&address];
        let (mapping, TableMapping { identity, .. }) = self.mappings.get(&place.table)?;
        if place.key.is_empty() {
            return None;
        }
        let first = change.before.as_ref().or(change.after.as_ref())?;
        let last = change.last_image();
        let hash = |image: &[Value]| {
            let key: Vec<&Value> = place.key.iter().filter_map(|index| image.get(*index)).collect();
            folded_hash(identity, &key)
        };
        let before = hash(first);
        let key_changed = place.key.iter().any(|index| first.get(*index) != last.get(*index));
        Some((*mapping, [before, if key_changed { hash(last) } else { before }]))
    }

    fn place(&self, layout: &Arc<TableLayout>) -> Option<Place> {
        let (_, mapping) = self.mappings.get(&layout.name)?;
        let key = mapping
            .row_key
            .iter()
            .map(|index| layout.column(&mapping.columns[*index].source))
            .collect::<Option<_>>()?;
        let clock = mapping.clock.as_ref().and_then(|clock| layout.column(&clock.source));
        Some(Place { _layout: layout.clone(), table: layout.name.clone(), key, clock })
    }
}

fn layout_address(layout: &Arc<TableLayout>) -> usize {
    Arc::as_ptr(layout) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_the_forgotten_has_the_latest_of_them() {
        let mut generations = Generations::new(8, 1);
        // The latest is among those that are forgotten first.
        for seq in [5, 16, 1, 9, 12, 3, 14, 7, 2, 15, 4, 11, 6, 13, 8, 10] {
            let row = Known { seq, clock: Some(Clock(100 - seq as i64)), mapping: 0 };
            generations.keep([seq, seq], row, 0);
        }
        generations.forget_aged(0);
        let lost = generations.lost[0].map(|lost| (lost.seq, lost.clock));
        assert_eq!(lost, Some((16, Some(Clock(99)))));
    }
}
