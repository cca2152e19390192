//! Components into lanes, net changes into steps.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_model::Origin;

use super::slot::{Life, NONE, Slot, Slots, is_before};
use super::table::PlannedTable;
use super::tie::Ties;
use super::{ChangeKind, Departure, LanePlan, MappedChange, NetChange, Plan, Seqs, Step};

use super::order::Order;
use crate::merge::Part;

/// Number of the rule by which changes get their lanes, part of [`plan_hash`](crate::mapping::plan_hash) and of
/// [`rules_hash`](crate::mapping::rules_hash). Raise it with every change that may put one into another lane (`slot` and `tie`
/// included): a batch that an older program left half applied is refused then, and so is a program beside an older one.
///
/// What a change had seen tells no rule, since no release has had another one. The first that has must write it there, beside the
/// number of lanes, and keep this one for what was captured before.
pub(crate) const LANE_RULE: u64 = 1;

/// Groups rows that can share a statement: by rank, table and kind.
type Groups = BTreeMap<(u32, usize, ChangeKind), Vec<NetChange>>;

pub(super) fn fill(
    tables: &[PlannedTable],
    mut changes: Vec<MappedChange>,
    slots: &Slots,
    ties: &Ties,
    order: &Order,
    lanes: u16,
) -> Plan {
    let lane_of_slot = lanes_of_slots(changes.len(), slots, ties, lanes);
    let mut groups: Vec<Groups> = vec![Groups::new(); usize::from(lanes)];
    for (index, slot) in slots.slots.iter().enumerate() {
        if slot.moved_to == NONE && !order.in_order[ties.root[index] as usize] {
            let (kind, change) = net_change(&tables[slot.table], &mut changes, slots, slot);
            let key = (order.rank[index], slot.table, kind);
            groups[usize::from(lane_of_slot[index])].entry(key).or_default().push(change);
        }
    }
    let mut in_order: Vec<Vec<MappedChange>> = vec![Vec::new(); usize::from(lanes)];
    let mut placed = Vec::with_capacity(changes.len());
    let mut messages = vec![0_u64; usize::from(lanes)];
    for (index, change) in changes.into_iter().enumerate() {
        let slot = slots.of_change(index)[0] as usize;
        let lane = lane_of_slot[slot];
        placed.push((change.seq, lane));
        messages[usize::from(lane)] += 1;
        if order.in_order[ties.root[slot] as usize] {
            in_order[usize::from(lane)].push(change);
        }
    }
    let steps = groups.into_iter().zip(in_order).map(|(groups, in_order)| lane_steps(groups, in_order));
    let lanes = steps.zip(messages).map(|(steps, messages)| LanePlan { steps, messages }).collect();
    Plan { lanes, placed }
}

fn lane_steps(groups: Groups, in_order: Vec<MappedChange>) -> Vec<Step> {
    let net = groups.into_iter().map(|((_, table, kind), rows)| Step::Net { table, kind, rows });
    // Nothing ties these to the net changes, so they may as well come last.
    let rest = Some(Step::InOrder(in_order)).filter(|step| !matches!(step, Step::InOrder(rows) if rows.is_empty()));
    net.chain(rest).collect()
}

/// Rows of each table that a lane should get at least: with fewer, what a statement costs beside its rows counts.
const LEAST_TABLE_ROWS: usize = 100;

/// Per slot its lane. Components keep together, and lanes get about the same number of changes. Where each lane would get
/// [`LEAST_TABLE_ROWS`] of each table or more, on average, lanes fill up in the order of the batch, since neighbours there are likely
/// to be neighbours in the table too; else table by table, so that a table is in few lanes.
fn lanes_of_slots(changes: usize, slots: &Slots, ties: &Ties, lanes: u16) -> Vec<u16> {
    let count = slots.slots.len();
    if lanes == 1 {
        return vec![0; count];
    }
    let mut size = vec![0_usize; count];
    for index in 0..changes {
        size[ties.root[slots.of_change(index)[0] as usize] as usize] += 1;
    }
    let mut lane_of_root = vec![NO_LANE; count];
    let mut load = vec![0_usize; usize::from(lanes)];
    let mut put = |root: usize, lane: usize, load: &mut Vec<usize>| {
        lane_of_root[root] = lane as u16;
        load[lane] += size[root];
    };
    // Keyless tables have one writer.
    let keyless = slots.keyless;
    if keyless != NONE {
        put(ties.root[keyless as usize] as usize, 0, &mut load);
    }
    let quota = changes.div_ceil(usize::from(lanes));
    let mut roots: Vec<usize> = (0..count).filter(|slot| ties.root[*slot] as usize == *slot).collect();
    roots.retain(|root| keyless == NONE || *root != ties.root[keyless as usize] as usize);
    // Big ones first, each to the emptiest lane; the others fill up in order, or table by table.
    let (mut big, mut small): (Vec<usize>, Vec<usize>) = roots.into_iter().partition(|root| size[*root] * 4 > quota);
    big.sort_by_key(|root| (std::cmp::Reverse(size[*root]), *root));
    for root in big {
        let lane = emptiest(&load);
        put(root, lane, &mut load);
    }
    let table = |root: &usize| slots.slots[*root].table;
    let tables: BTreeSet<usize> = small.iter().map(table).collect();
    if changes < tables.len() * usize::from(lanes) * LEAST_TABLE_ROWS {
        small.sort_by_key(table);
    }
    let mut lane = 0;
    for root in small {
        while load[lane] >= quota && lane + 1 < load.len() {
            lane += 1;
        }
        put(root, lane, &mut load);
    }
    (0..count).map(|slot| lane_of_root[ties.root[slot] as usize]).collect()
}

const NO_LANE: u16 = u16::MAX;

fn emptiest(load: &[usize]) -> usize {
    load.iter().enumerate().min_by_key(|(lane, load)| (**load, *lane)).map_or(0, |(lane, _)| lane)
}

/// Takes a slot's images out of its changes.
fn net_change(
    table: &PlannedTable,
    changes: &mut [MappedChange],
    slots: &Slots,
    slot: &Slot,
) -> (ChangeKind, NetChange) {
    let last = slot.last as usize / 2;
    let first = slot.first as usize / 2;
    let left = slots.slots.get(slot.moved_from as usize);
    let folded = if slot.first == slot.last { Vec::new() } else { parts(table, changes, slots, slot) };
    let departure = left.map(|left| departure(table, changes, slots, left));
    let (kind, before) = match (slot.life, left) {
        (Life::Insert, Some(left)) => (ChangeKind::KeyChange, changes[left.first as usize / 2].before.take()),
        (Life::Insert, None) => (ChangeKind::Insert, None),
        (Life::Update, _) => (ChangeKind::Update, changes[first].before.take()),
        (Life::Transient, _) => (ChangeKind::Delete, changes[last].before.take()),
        // An unfolded slot's component is applied in order and never comes here.
        (Life::Delete | Life::Unfolded, _) => (ChangeKind::Delete, changes[first].before.take()),
    };
    let after = match slot.life {
        Life::Insert | Life::Update => changes[last].after.take(),
        Life::Delete | Life::Transient | Life::Unfolded => None,
    };
    let own = seqs(changes, slots, slot);
    let seqs = match &departure {
        Some(departure) => merged(&departure.seqs, &own),
        None => own,
    };
    let origin = changes[last].origin;
    let origin = if slots.changes(slot).all(|index| changes[index].origin == origin) { origin } else { Origin::User };
    let began = &changes[left.map_or(first, |left| left.first as usize / 2)];
    let MappedChange { effective, seen, transaction, .. } = &changes[last];
    let change = NetChange {
        seqs,
        before,
        after,
        effective: *effective,
        seen: seen.clone(),
        transaction: *transaction,
        origin,
        first_origin: began.origin,
        first_seen: began.seen.clone(),
        transient: slot.life == Life::Transient,
        moved_from: departure.map(Box::new),
        folded,
    };
    (kind, change)
}

fn departure(table: &PlannedTable, changes: &[MappedChange], slots: &Slots, left: &Slot) -> Departure {
    let MappedChange { effective, seen, .. } = &changes[left.last as usize / 2];
    let (seqs, parts) = (seqs(changes, slots, left), parts(table, changes, slots, left));
    Departure { seqs, effective: *effective, seen: seen.clone(), parts }
}

/// What a slot is made of, where somebody will ask.
fn parts(table: &PlannedTable, changes: &[MappedChange], slots: &Slots, slot: &Slot) -> Vec<Part> {
    if !table.merges {
        return Vec::new();
    }
    let part = |half: u32| {
        let change = &changes[half as usize / 2];
        let leaves = slots.of_half.get(half as usize + 1).is_some_and(|slot| *slot != NONE);
        match is_before(half) {
            true if leaves => change.departure(),
            true => change.arrival(false),
            false => change.arrival(true),
        }
    };
    slots.halves(slot).map(part).collect()
}

fn seqs(changes: &[MappedChange], slots: &Slots, slot: &Slot) -> Seqs {
    let mut indexes = slots.changes(slot);
    let mut seqs = Seqs::one(changes[indexes.next().unwrap_or_default()].seq);
    indexes.for_each(|index| seqs.push(changes[index].seq));
    seqs
}

/// Both lists in ascending order, without doubles.
fn merged(a: &Seqs, b: &Seqs) -> Seqs {
    let mut all: Vec<u64> = a.iter().chain(b.iter()).collect();
    all.sort_unstable();
    all.dedup();
    Seqs { first: all[0], rest: all.split_off(1) }
}
