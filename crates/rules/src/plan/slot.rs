//! Folding: all changes of one row key become one slot.
//!
//! A slot is a chain of *halves*. The before half of change `i` has number `2 i`, its after half `2 i + 1`. An insert
//! has an after half, a delete a before half; an update that keeps the key is one entry, its before half; one that
//! changes the key puts its before half into the old key's slot and its after half into the new key's.

use rustc_hash::FxHashMap;

use super::MappedChange;
use super::table::PlannedTable;
use super::token::{Tokens, same_values};
use crate::key::Fineness;

pub(super) const NONE: u32 = u32::MAX;

/// The half is a before image.
pub(super) fn is_before(half: u32) -> bool {
    half.is_multiple_of(2)
}

/// The changes of one row key, or (unfolded) all changes of a table or of all keyless tables.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub table: usize,
    /// First and last half.
    pub first: u32,
    pub last: u32,
    /// The last after half, where a row came here.
    last_arrival: u32,
    /// A value that children may refer to changed under them, and they with it.
    shifts: bool,
    pub life: Life,
    /// For a row that came here by changing its key: the slot that it left, when the two are one net change.
    pub moved_from: u32,
    /// For a row that left by changing its key: the slot that its net change is part of.
    pub moved_to: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Its changes must be applied one by one, for a reason that lies in the slot itself.
    Unfolded,
    Insert,
    Update,
    Delete,
    /// Neither there before nor after.
    Transient,
}

#[derive(Debug)]
pub(super) struct Slots {
    pub slots: Vec<Slot>,
    /// Per half its slot; `NONE` for halves that no slot has as an entry.
    pub of_half: Vec<u32>,
    /// Per half the next half of the same slot.
    pub next: Vec<u32>,
    /// Exact token of a row key to its slot.
    pub by_key: FxHashMap<u64, u32>,
    /// The slot of all keyless tables.
    pub keyless: u32,
}

impl Slots {
    /// The slots of a change: that of its before image and that of its after image, which may be one.
    pub fn of_change(&self, index: usize) -> [u32; 2] {
        let (before, after) = (self.of_half[2 * index], self.of_half[2 * index + 1]);
        match (before, after) {
            (NONE, after) => [after; 2],
            (before, NONE) => [before; 2],
            both => both.into(),
        }
    }

    /// Indexes of a slot's changes, in order.
    pub fn changes(&self, slot: &Slot) -> impl Iterator<Item = usize> + '_ {
        self.halves(slot).map(|half| half as usize / 2)
    }

    /// A slot's halves, in order.
    pub fn halves(&self, slot: &Slot) -> impl Iterator<Item = u32> + '_ {
        let follow = |half: &u32| Some(self.next[*half as usize]).filter(|next| *next != NONE);
        std::iter::successors(Some(slot.first), follow)
    }
}

/// Folds a batch.
pub(super) fn fold(tables: &[PlannedTable], changes: &[MappedChange]) -> Slots {
    let mut folding = Folding {
        tables,
        changes,
        tokens: Tokens::default(),
        unfolded: vec![NONE; tables.len()],
        slots: Slots {
            slots: Vec::with_capacity(changes.len()),
            of_half: vec![NONE; 2 * changes.len()],
            next: vec![NONE; 2 * changes.len()],
            by_key: FxHashMap::with_capacity_and_hasher(changes.len(), Default::default()),
            keyless: NONE,
        },
    };
    for index in 0..changes.len() {
        folding.add(index);
    }
    let mut slots = folding.slots;
    settle_lives(tables, changes, &mut slots);
    let linked = link_moves(&mut slots, changes.len());
    unfold_other_moves(&mut slots, &linked);
    slots
}

struct Folding<'a> {
    tables: &'a [PlannedTable],
    changes: &'a [MappedChange],
    tokens: Tokens,
    /// Per table the slot of all its changes, where it does not fold.
    unfolded: Vec<u32>,
    slots: Slots,
}

impl Folding<'_> {
    fn add(&mut self, index: usize) {
        let change = &self.changes[index];
        let table = &self.tables[change.table];
        let half = 2 * index as u32;
        if !table.folds {
            return self.add_unfolded(change.table, half);
        }
        let key = &table.keys[0].columns;
        match (&change.before, &change.after) {
            (Some(before), Some(after)) if same_values(key, before, after) => {
                self.add_half(half, before);
                if !table.updates_disturb.is_empty() && table.takes_value(Some(before), Some(after)) {
                    let slot = self.slots.of_half[half as usize] as usize;
                    self.slots.slots[slot].shifts = true;
                }
            }
            (before, after) => {
                if let Some(before) = before {
                    self.add_half(half, before);
                }
                if let Some(after) = after {
                    self.add_half(half + 1, after);
                }
            }
        }
    }

    fn add_unfolded(&mut self, table: usize, half: u32) {
        let keyless = self.tables[table].keyless;
        let known = if keyless { self.slots.keyless } else { self.unfolded[table] };
        if known != NONE {
            return self.append(known, half);
        }
        let slot = self.open(table, half, Life::Unfolded);
        if keyless {
            self.slots.keyless = slot;
        } else {
            self.unfolded[table] = slot;
        }
    }

    /// Puts a half into the slot of the key in `row`, which is the half's own image.
    fn add_half(&mut self, half: u32, row: &[crossfade_model::Value]) {
        let table = self.changes[half as usize / 2].table;
        let key = &self.tables[table].keys[0].columns;
        // A NULL in a row key cannot be; such rows stay alone under a token of their own.
        let mut token = self.tokens.of(Fineness::Exact, (table, 0), key, row).unwrap_or(u64::from(half));
        while let Some(slot) = self.slots.by_key.get(&token).copied() {
            if self.has_key(slot, table, row) {
                return self.append(slot, half);
            }
            // Two keys with one token: the next number serves.
            token = token.wrapping_add(1);
        }
        let life = if is_before(half) { Life::Update } else { Life::Insert };
        let slot = self.open(table, half, life);
        self.slots.by_key.insert(token, slot);
    }

    fn has_key(&self, slot: u32, table: usize, row: &[crossfade_model::Value]) -> bool {
        let Slot { table: other, first, .. } = self.slots.slots[slot as usize];
        let change = &self.changes[first as usize / 2];
        let image = if is_before(first) { &change.before } else { &change.after };
        let key = &self.tables[table].keys[0].columns;
        other == table && image.as_ref().is_some_and(|image| same_values(key, image, row))
    }

    fn open(&mut self, table: usize, half: u32, life: Life) -> u32 {
        let slot = self.slots.slots.len() as u32;
        let last_arrival = if is_before(half) { NONE } else { half };
        let (first, last, moved_from, moved_to) = (half, half, NONE, NONE);
        self.slots.slots.push(Slot { table, first, last, last_arrival, shifts: false, life, moved_from, moved_to });
        self.slots.of_half[half as usize] = slot;
        slot
    }

    fn append(&mut self, slot: u32, half: u32) {
        let entry = &mut self.slots.slots[slot as usize];
        if !is_before(half) {
            entry.last_arrival = half;
            // The row comes back after it had gone. What its going did to children is not in the net change.
            if self.tables[entry.table].cascades() {
                entry.life = Life::Unfolded;
            }
        }
        self.slots.next[entry.last as usize] = half;
        entry.last = half;
        self.slots.of_half[half as usize] = slot;
    }
}

fn settle_lives(tables: &[PlannedTable], changes: &[MappedChange], slots: &mut Slots) {
    let of_half = &slots.of_half;
    for slot in slots.slots.iter_mut().filter(|slot| slot.life != Life::Unfolded) {
        let last = slot.last as usize;
        // A before half leaves the row there only if it is an update that kept the key.
        let stays = !is_before(slot.last) || (changes[last / 2].after.is_some() && of_half[last + 1] == NONE);
        // Children followed a value that the net change does not show.
        if slot.shifts && slot.first != slot.last {
            slot.life = Life::Unfolded;
            continue;
        }
        slot.life = match (is_before(slot.first), stays) {
            (true, true) => Life::Update,
            (true, false) => Life::Delete,
            (false, true) => Life::Insert,
            // Children that the server removed together with the row are in no message.
            (false, false) if tables[slot.table].cascades() => Life::Unfolded,
            (false, false) => Life::Transient,
        };
    }
}

/// Makes one net change of a row that left one key for good and arrived at another that was free before. Says of every
/// change whether it moved such a row.
fn link_moves(slots: &mut Slots, changes: usize) -> Vec<bool> {
    let mut linked = vec![false; changes];
    for arrived in 0..slots.slots.len() as u32 {
        if slots.slots[arrived as usize].life != Life::Insert {
            continue;
        }
        if let Some((left, moves)) = origin(slots, arrived) {
            slots.slots[arrived as usize].moved_from = left;
            slots.slots[left as usize].moved_to = arrived;
            moves.into_iter().for_each(|index| linked[index] = true);
        }
    }
    linked
}

/// The slot where the row that is now in `arrived` was before the batch, and the changes that have moved it.
fn origin(slots: &Slots, arrived: u32) -> Option<(u32, Vec<usize>)> {
    let mut slot = &slots.slots[arrived as usize];
    let mut moves = Vec::new();
    loop {
        // Nothing but updates follow the arrival.
        let arrival = Some(slot.last_arrival).filter(|half| *half != NONE)?;
        let left = slots.of_half[arrival as usize - 1];
        let from = slots.slots.get(left as usize)?;
        // Something else happened to the old key afterwards.
        if from.last != arrival - 1 {
            return None;
        }
        moves.push(arrival as usize / 2);
        match from.life {
            Life::Delete => return Some((left, moves)),
            Life::Transient => slot = from,
            Life::Unfolded | Life::Insert | Life::Update => return None,
        }
    }
}

/// A change of the key wins or loses as a whole, which two net changes apart from each other do not tell.
fn unfold_other_moves(slots: &mut Slots, linked: &[bool]) {
    for (index, linked) in linked.iter().enumerate() {
        let (left, arrived) = (slots.of_half[2 * index], slots.of_half[2 * index + 1]);
        if !linked && left != NONE && arrived != NONE {
            slots.slots[left as usize].life = Life::Unfolded;
            slots.slots[arrived as usize].life = Life::Unfolded;
        }
    }
}
