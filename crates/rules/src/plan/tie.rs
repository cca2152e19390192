//! Which rows must stay together.
//!
//! Rows are tied when an image of one and an image of the other have equal keys under the folding, and when one refers
//! to a value of a parent that the batch changes. Tied rows form a component, and a component goes to one lane.
//!
//! Changes that a server makes to children by itself (ON DELETE CASCADE and the like) may be in no message. They free
//! keys and unique values, so what takes one in such a table afterwards is tied to the deletes before it.

use crossfade_model::Row;
use rustc_hash::FxHashMap;

use super::MappedChange;
use super::slot::{NONE, Slots};
use super::table::PlannedTable;
use super::token::{Tokens, same_values};
use crate::key::Fineness;

/// The components of a batch.
#[derive(Debug)]
pub(super) struct Ties {
    /// Per slot the first slot of its component.
    pub root: Vec<u32>,
    /// Slots whose component must be applied in source order.
    pub in_order: Vec<u32>,
    /// Per table the first change after which rows of it may have gone without a message.
    pub silent_from: Vec<Option<usize>>,
}

pub(super) fn tie(tables: &[PlannedTable], changes: &[MappedChange], slots: &Slots) -> Ties {
    let mut tying = Tying {
        tables,
        slots,
        tokens: Tokens::default(),
        by_value: FxHashMap::default(),
        forest: (0..slots.slots.len() as u32).collect(),
    };
    for (index, change) in changes.iter().enumerate() {
        tying.tie_keys(index, change);
    }
    for (index, change) in changes.iter().enumerate() {
        tying.tie_to_parents(index, change);
    }
    let mut disturbed = Disturbed::new(tables.len());
    if tables.iter().any(PlannedTable::cascades) {
        for (index, change) in changes.iter().enumerate() {
            tying.tie_to_cascades(index, change, &mut disturbed);
        }
    }
    let mut forest = tying.forest;
    for slot in 0..forest.len() as u32 {
        // The root is the smallest slot, so every parent on the way is final already.
        forest[slot as usize] = find(&mut forest, slot);
    }
    Ties { root: forest, in_order: disturbed.in_order, silent_from: disturbed.silent_from }
}

/// What a batch's cascades have touched so far.
struct Disturbed {
    /// Per table the slots whose delete may have removed or changed rows of it.
    by_delete: Vec<Vec<u32>>,
    /// Per table the slots whose change of key may have changed rows of it.
    by_update: Vec<Vec<u32>>,
    /// Per table all its slots so far.
    earlier: Vec<Vec<u32>>,
    in_order: Vec<u32>,
    silent_from: Vec<Option<usize>>,
}

impl Disturbed {
    fn new(tables: usize) -> Disturbed {
        Disturbed {
            by_delete: vec![Vec::new(); tables],
            by_update: vec![Vec::new(); tables],
            earlier: vec![Vec::new(); tables],
            in_order: Vec::new(),
            silent_from: vec![None; tables],
        }
    }
}

struct Tying<'a> {
    tables: &'a [PlannedTable],
    slots: &'a Slots,
    tokens: Tokens,
    /// Folded token of a key's values to a slot that has them. Row keys that fold like they are have their slot as
    /// class and are not repeated here.
    by_value: FxHashMap<u64, u32>,
    /// Union-find; a parent is never greater than its child.
    forest: Vec<u32>,
}

impl Tying<'_> {
    fn tie_keys(&mut self, index: usize, change: &MappedChange) {
        let [left, arrived] = self.slots.of_change(index);
        self.unite(left, arrived);
        for (key, planned) in self.tables[change.table].keys.iter().enumerate() {
            if self.is_slot_key(change.table, key) {
                continue;
            }
            let place = (change.table, key);
            for row in distinct_images(change, &planned.columns).into_iter().flatten() {
                if let Some(token) = self.tokens.of(Fineness::Folded, place, &planned.columns, row) {
                    let known = *self.by_value.entry(token).or_insert(left);
                    self.unite(known, left);
                }
            }
        }
    }

    fn tie_to_parents(&mut self, index: usize, change: &MappedChange) {
        for link in &self.tables[change.table].links {
            let place = (link.parent, link.key);
            for row in distinct_images(change, &link.columns).into_iter().flatten() {
                let Some(token) = self.tokens.of(Fineness::Folded, place, &link.columns, row) else { continue };
                let own = self.is_slot_key(link.parent, link.key);
                let parents = if own { &self.slots.by_key } else { &self.by_value };
                if let Some(parent) = parents.get(&token).copied() {
                    self.unite(parent, self.slots.of_change(index)[0]);
                }
            }
        }
    }

    fn tie_to_cascades(&mut self, index: usize, change: &MappedChange, disturbed: &mut Disturbed) {
        let (table, slot) = (&self.tables[change.table], self.slots.of_change(index)[0]);
        let takes = table.takes_value(change.before.as_ref(), change.after.as_ref());
        // A row without a key is found by all its values, which may have been changed silently.
        if takes || table.keyless {
            self.unite_all(&mut disturbed.by_delete[change.table], slot);
        }
        if !disturbed.by_update[change.table].is_empty() {
            self.unite_all(&mut disturbed.by_update[change.table], slot);
            disturbed.in_order.push(slot);
        }
        let disturbs: &[usize] = match (&change.before, &change.after) {
            (Some(_), None) => &table.deletes_disturb,
            (Some(_), Some(_)) if takes => &table.updates_disturb,
            _ => &[],
        };
        for child in disturbs {
            if change.after.is_none() {
                disturbed.by_delete[*child].push(slot);
                disturbed.silent_from[*child].get_or_insert(index);
            } else {
                disturbed.by_update[*child].push(slot);
            }
        }
        if !disturbs.is_empty() {
            for unsettled in &table.unsettles {
                if !disturbed.earlier[*unsettled].is_empty() {
                    self.unite_all(&mut disturbed.earlier[*unsettled], slot);
                    disturbed.in_order.push(slot);
                }
            }
        }
        disturbed.earlier[change.table].push(slot);
    }

    /// Ties a slot to all in the list, of which one then stands for all.
    fn unite_all(&mut self, others: &mut Vec<u32>, slot: u32) {
        others.iter().for_each(|other| self.unite(*other, slot));
        others.truncate(1);
    }

    /// Equal values of this key are equal slots.
    fn is_slot_key(&self, table: usize, key: usize) -> bool {
        let table = &self.tables[table];
        key == 0 && table.folds && table.keys[0].plain
    }

    fn unite(&mut self, a: u32, b: u32) {
        if a == b || a == NONE || b == NONE {
            return;
        }
        let (a, b) = (find(&mut self.forest, a), find(&mut self.forest, b));
        self.forest[a.max(b) as usize] = a.min(b);
    }
}

fn find(forest: &mut [u32], mut slot: u32) -> u32 {
    while forest[slot as usize] != slot {
        let parent = forest[slot as usize];
        forest[slot as usize] = forest[parent as usize];
        slot = forest[slot as usize];
    }
    slot
}

/// The images of a change, the after image only where it differs in these columns.
fn distinct_images<'a>(change: &'a MappedChange, columns: &[usize]) -> [Option<&'a Row>; 2] {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if same_values(columns, before, after) => [Some(before), None],
        (before, after) => [before.as_ref(), after.as_ref()],
    }
}
