//! In what order the net changes of a component can be applied, if in any.
//!
//! The target checks keys after every statement: a unique value must be released before it is taken, a parent must be
//! there before a child refers to it, and no child may refer to a parent that goes. Where these ask for a circle, and
//! where values fold alike in a way that only the server could tell apart, the component is applied unfolded, which is
//! always possible because the source has done it.

use crossfade_model::Row;

use super::MappedChange;
use super::graph::Graph;
use super::slot::{Life, NONE, Slot, Slots, is_before};
use super::table::PlannedTable;
use super::tie::Ties;
use super::token::{Tokens, same_values, silent_token};
use crate::key::Fineness;

#[derive(Debug)]
pub(super) struct Order {
    /// Per slot; that of a slot whose row moved on means nothing.
    pub rank: Vec<u32>,
    /// Per slot that is the root of a component: its changes are applied unfolded, in source order.
    pub in_order: Vec<bool>,
}

/// What a net change does to a key value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Releases,
    Takes,
    /// Has it before and after.
    Keeps,
    /// Had it inside the batch only, and is applied as a delete by this row key.
    Transient,
    /// Releases a value that children may refer to.
    Abandons,
    ChildBefore,
    ChildAfter,
}

pub(super) fn order(tables: &[PlannedTable], changes: &[MappedChange], slots: &Slots, ties: &Ties) -> Order {
    let count = slots.slots.len();
    let mut order = Order { rank: vec![0; count], in_order: vec![false; count] };
    let mut nets = vec![0_u32; count];
    for (index, slot) in slots.slots.iter().enumerate() {
        let root = ties.root[index] as usize;
        order.in_order[root] |= slot.life == Life::Unfolded;
        nets[root] += u32::from(slot.moved_to == NONE);
    }
    for slot in &ties.in_order {
        order.in_order[ties.root[*slot as usize] as usize] = true;
    }
    let asks = |index: &usize| {
        let root = ties.root[*index] as usize;
        nets[root] > 1 && !order.in_order[root] && slots.slots[*index].moved_to == NONE
    };
    let tied: Vec<usize> = (0..count).filter(asks).collect();
    if tied.is_empty() {
        return order;
    }
    let mut uses = Uses { tables, changes, slots, ties, tokens: Tokens::default(), uses: Vec::new() };
    for (node, slot) in tied.iter().enumerate() {
        uses.add(node as u32, &slots.slots[*slot]);
    }
    let (graph, doubtful) = graph(uses.uses, tied.len());
    for (node, rank) in graph.ranks().into_iter().enumerate() {
        match rank {
            Some(rank) => order.rank[tied[node]] = rank,
            None => order.in_order[ties.root[tied[node]] as usize] = true,
        }
    }
    for node in doubtful {
        order.in_order[ties.root[tied[node as usize]] as usize] = true;
    }
    order
}

/// Collects who uses which value, as (token, role, node).
struct Uses<'a> {
    tables: &'a [PlannedTable],
    changes: &'a [MappedChange],
    slots: &'a Slots,
    ties: &'a Ties,
    tokens: Tokens,
    uses: Vec<(u64, Role, u32)>,
}

impl<'a> Uses<'a> {
    fn add(&mut self, node: u32, slot: &Slot) {
        let table = &self.tables[slot.table];
        if slot.life == Life::Transient {
            let row = self.changes[slot.last as usize / 2].before.as_ref();
            // Its key is to be free, as if it came.
            self.take_from_silent(node, slot, None, row);
            return self.push((slot.table, 0), &table.keys[0].columns, row, Role::Transient, node);
        }
        let (before, after) = self.net_images(slot);
        for (key, planned) in table.keys.iter().enumerate() {
            let (place, columns) = ((slot.table, key), planned.columns.as_slice());
            match (before, after) {
                (Some(before), Some(after)) if same_values(columns, before, after) => {
                    self.push(place, columns, Some(after), Role::Keeps, node);
                }
                _ => {
                    self.push(place, columns, before, Role::Releases, node);
                    if planned.referred {
                        self.push(place, columns, before, Role::Abandons, node);
                    }
                    self.push(place, columns, after, Role::Takes, node);
                }
            }
        }
        self.take_from_silent(node, slot, before, after);
        if after.is_none() {
            let released = table.deletes_disturb.iter().map(|child| (silent_token(*child), Role::Releases, node));
            self.uses.extend(released);
        }
        for link in &table.links {
            let place = (link.parent, link.key);
            self.push(place, &link.columns, before, Role::ChildBefore, node);
            self.push(place, &link.columns, after, Role::ChildAfter, node);
        }
    }

    /// Whoever takes values comes after the deletes whose cascades may free them.
    fn take_from_silent(&mut self, node: u32, slot: &Slot, before: Option<&Row>, after: Option<&Row>) {
        let later = self.ties.silent_from[slot.table].is_some_and(|from| slot.last as usize / 2 > from);
        if later && self.tables[slot.table].takes_value(before, after) {
            self.uses.push((silent_token(slot.table), Role::Takes, node));
        }
    }

    /// The row as the target has it before and after the net change.
    fn net_images(&self, slot: &Slot) -> (Option<&'a Row>, Option<&'a Row>) {
        let changes = self.changes;
        let first = match slot.moved_from {
            NONE => slot.first,
            left => self.slots.slots[left as usize].first,
        };
        let before = if is_before(first) { changes[first as usize / 2].before.as_ref() } else { None };
        let stays = matches!(slot.life, Life::Insert | Life::Update);
        let after = if stays { changes[slot.last as usize / 2].after.as_ref() } else { None };
        (before, after)
    }

    fn push(&mut self, place: (usize, usize), columns: &[usize], row: Option<&Row>, role: Role, node: u32) {
        let token = row.and_then(|row| self.tokens.of(Fineness::Folded, place, columns, row));
        self.uses.extend(token.map(|token| (token, role, node)));
    }
}

/// The graph of all values, and nodes whose component must not be reordered.
fn graph(mut uses: Vec<(u64, Role, u32)>, nodes: usize) -> (Graph, Vec<u32>) {
    uses.sort_unstable();
    let mut graph = Graph::new(nodes);
    let mut doubtful = Vec::new();
    for class in uses.chunk_by(|a, b| a.0 == b.0) {
        let of_role = |role| -> Vec<u32> { class.iter().filter(|use_| use_.1 == role).map(|use_| use_.2).collect() };
        let value = ValueUse {
            releases: of_role(Role::Releases),
            takes: of_role(Role::Takes),
            keeps: of_role(Role::Keeps),
            transient: of_role(Role::Transient),
            abandons: of_role(Role::Abandons),
            child_before: of_role(Role::ChildBefore),
            child_after: of_role(Role::ChildAfter),
        };
        if value.is_doubtful() {
            doubtful.push(class[0].2);
        } else {
            value.add_to(&mut graph);
        }
    }
    (graph, doubtful)
}

/// Who uses one value, by node.
struct ValueUse {
    releases: Vec<u32>,
    takes: Vec<u32>,
    keeps: Vec<u32>,
    transient: Vec<u32>,
    abandons: Vec<u32>,
    child_before: Vec<u32>,
    child_after: Vec<u32>,
}

impl ValueUse {
    /// Net effects do not tell enough to order these.
    fn is_doubtful(&self) -> bool {
        let others = [&self.releases, &self.takes, &self.keeps, &self.child_before, &self.child_after];
        let transient = !self.transient.is_empty() && others.iter().any(|list| !list.is_empty());
        // A child ends up with a parent that goes: the server itself changes the child, or two keys fold alike.
        let child_stays = !self.child_after.is_empty() && !self.releases.is_empty();
        // A row that refers to itself, or only to a key that folds like its own, beside another such row.
        let own = |node: &u32| self.releases.contains(node) || self.takes.contains(node);
        let lone = |node: &u32| self.releases.iter().chain(&self.takes).all(|other| other == node);
        let of_itself = self.child_before.iter().chain(&self.child_after).any(|node| own(node) && !lone(node));
        // A value went from one row to another in a single change, and the batch may not show who refers to it.
        let handed_over = !self.abandons.is_empty() && self.takes.iter().any(|node| !self.abandons.contains(node));
        // One row has the value all the time and another one gives it up: only the target can have had it twice, or two spellings.
        let kept_elsewhere = !self.keeps.is_empty() && !self.releases.is_empty();
        transient || handed_over || child_stays || of_itself || kept_elsewhere
    }

    fn add_to(mut self, graph: &mut Graph) {
        // A row that refers to itself comes and goes with itself.
        self.child_before.retain(|node| !self.releases.contains(node));
        self.child_after.retain(|node| !self.takes.contains(node));
        graph.all_before(&self.child_before, &self.releases);
        // A lone row that only changes how it spells its value needs nobody.
        if self.releases != self.takes || self.releases.len() > 1 {
            graph.all_before(&self.releases, &self.takes);
        }
        graph.all_before(&self.takes, &self.child_after);
    }
}
