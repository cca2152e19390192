//! Effective clocks of captured changes, and the hashes of the keys that they touch.
//!
//! A change's effective clock is the maximum of its own clock, of the clock in its before image, and of the effective
//! clocks of earlier changes of the same row. It is fixed at capture and kept with the message, so both directions
//! compare the same number.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_model::{Clock, Message, RowChange, TableLayout, TableName, Value};

use crate::clock::{clock_of, effective, own_of_change};
use crate::key::{exact_hash, folded_hash};
use crate::mapping::TableMapping;

/// Rows that are remembered: at least this many, at most twice as many.
const REMEMBERED_ROWS: usize = 200_000;

/// What capture knows of the clocks of one stream's changes.
#[derive(Debug, Clone)]
pub struct EffectiveClocks {
    mappings: HashMap<TableName, TableMapping>,
    places: HashMap<usize, Place>,
    young: HashMap<u64, Option<Clock>>,
    aged: HashMap<u64, Option<Clock>>,
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
    /// `mappings` are those of the stream's direction.
    pub fn new(mappings: &[TableMapping]) -> EffectiveClocks {
        EffectiveClocks {
            mappings: mappings.iter().map(|mapping| (mapping.source.clone(), mapping.clone())).collect(),
            places: HashMap::new(),
            young: HashMap::new(),
            aged: HashMap::new(),
        }
    }

    /// Takes over what was captured before this process began.
    pub fn remember(&mut self, messages: &[Message]) {
        for message in messages {
            let Some((_, exact)) = self.hashes(&message.change) else { continue };
            exact.into_iter().for_each(|hash| self.keep(hash, message.effective));
        }
    }

    /// Judges changes in the order of the source's commits.
    pub fn judge(&mut self, change: &RowChange, committed_at_micros: i64) -> Judged {
        let Some((folded, exact)) = self.hashes(change) else {
            return Judged { effective: None, key_hashes: [0; 2] };
        };
        let place = &self.places[&layout_address(&change.layout)];
        let Some(column) = self.mappings.get(&place.table).and_then(|mapping| mapping.clock.as_ref()) else {
            return Judged { effective: None, key_hashes: folded };
        };
        let own = own_of_change(column, change, committed_at_micros);
        let before =
            place.clock.and_then(|index| change.before.as_ref()?.get(index)).and_then(|value| clock_of(column, value));
        let known = exact.map(|hash| self.known(hash));
        let effective = effective(own, [before, known[0], known[1]]);
        exact.into_iter().for_each(|hash| self.keep(hash, effective));
        Judged { effective, key_hashes: folded }
    }

    fn known(&self, hash: u64) -> Option<Clock> {
        self.young.get(&hash).or_else(|| self.aged.get(&hash)).copied().flatten()
    }

    fn keep(&mut self, hash: u64, clock: Option<Clock>) {
        if clock.is_none() {
            return;
        }
        self.young.insert(hash, clock);
        if self.young.len() >= REMEMBERED_ROWS {
            self.aged = std::mem::take(&mut self.young);
        }
    }

    /// Folded and exact hashes of the key before and after; `None` for a table that is not mapped or has no key.
    fn hashes(&mut self, change: &RowChange) -> Option<([u64; 2], [u64; 2])> {
        let address = layout_address(&change.layout);
        if !self.places.contains_key(&address) {
            let place = self.place(&change.layout)?;
            if self.places.len() > 4_096 {
                self.places.clear();
            }
            self.places.insert(address, place);
        }
        let place = &self.places[&address];
        let identity = &self.mappings.get(&place.table)?.identity;
        if place.key.is_empty() {
            return None;
        }
        let first = change.before.as_ref().or(change.after.as_ref())?;
        let last = change.last_image();
        let hash = |image: &[Value]| {
            let key: Vec<&Value> = place.key.iter().filter_map(|index| image.get(*index)).collect();
            (folded_hash(identity, &key), exact_hash(identity, &key))
        };
        let before = hash(first);
        let key_changed = place.key.iter().any(|index| first.get(*index) != last.get(*index));
        let after = if key_changed { hash(last) } else { before };
        Some(([before.0, after.0], [before.1, after.1]))
    }

    fn place(&self, layout: &Arc<TableLayout>) -> Option<Place> {
        let mapping = self.mappings.get(&layout.name)?;
        let index_of = |name: &str| layout.columns.iter().position(|column| column.eq_ignore_ascii_case(name));
        let key =
            mapping.row_key.iter().map(|index| index_of(&mapping.columns[*index].source)).collect::<Option<_>>()?;
        let clock = mapping.clock.as_ref().and_then(|clock| index_of(&clock.source));
        Some(Place { _layout: layout.clone(), table: layout.name.clone(), key, clock })
    }
}

fn layout_address(layout: &Arc<TableLayout>) -> usize {
    Arc::as_ptr(layout) as usize
}
