//! Which tables may be copied now, and which of them are urgent.

use std::collections::BTreeSet;

use crossfade_message::{CopyState, TableCopy};
use crossfade_rules::TableMapping;
use crossfade_rules::chunk::CopyOrder;

use crate::history::Left;

/// What it costs to read and write a row and to recognise its echo, if a place in a unique key costs 1; by trial.
const ROW_ITSELF: usize = 5;

/// What a row of a table costs, beside other tables' rows: itself, its place in each further unique key, and the look for each parent.
pub(crate) fn row_cost(mapping: &TableMapping) -> u64 {
    (ROW_ITSELF + mapping.unique_keys.len() + mapping.parents.len()) as u64
}

/// Another number where rows of some table cost otherwise.
pub(crate) fn costs_id(mappings: &[TableMapping]) -> u64 {
    // FNV-1a; never 0, in practice.
    mappings.iter().map(row_cost).fold(0xcbf2_9ce4_8422_2325, |id, cost| (id ^ cost).wrapping_mul(0x0100_0000_01b3))
}

/// What the rows cost that are done, and what is left; `None` where a table's size is not known.
pub(crate) fn costs(mappings: &[TableMapping], copies: &[TableCopy]) -> (u64, Option<Left>) {
    let (mut done, mut left) = (0, Some(Left::default()));
    for copy in copies {
        let cost = place(mappings, copy).map_or(1, |table| row_cost(&mappings[table]));
        done += cost * copy.counts.read;
        left = match copy.state {
            CopyState::Copied | CopyState::Stopped => left,
            _ => left.zip(copy.total_rows).map(|(left, total)| {
                let rows = total.saturating_sub(copy.counts.read);
                Left { rows: left.rows + rows, cost: left.cost + cost * rows }
            }),
        };
    }
    (done, left)
}

/// The places of tables among the mappings, each with its copy, whose parents are copied and that have something to be done.
/// Tables that refer to each other in a circle do not wait for each other.
///
/// First those behind which most is waiting: what comes last is then copied beside other tables, and not all alone.
pub(crate) fn ready<'c>(
    mappings: &[TableMapping],
    order: &CopyOrder,
    copies: &'c [TableCopy],
) -> Vec<(usize, &'c TableCopy)> {
    let uncopied = uncopied(mappings, copies);
    let is_free = |table: usize| order.parents[table].iter().all(|parent| !uncopied.contains(parent));
    let mut left = vec![0; mappings.len()];
    for copy in copies {
        if let Some(table) = place(mappings, copy) {
            let rows = copy.total_rows.unwrap_or(0).saturating_sub(copy.counts.read);
            left[table] = row_cost(&mappings[table]) * rows;
        }
    }
    let waiting = waiting_behind(order, &left);
    let mut ready: Vec<(usize, &TableCopy)> = copies
        .iter()
        .filter_map(|copy| Some((place(mappings, copy)?, copy)))
        .filter(|(table, copy)| match copy.state {
            CopyState::Waiting | CopyState::Clearing | CopyState::Copying => is_free(*table),
            CopyState::Copied => copy.refused > 0,
            CopyState::Stopped => false,
        })
        .collect();
    ready.sort_by_key(|(table, _)| std::cmp::Reverse(waiting[*table]));
    ready
}

/// For each table the work of it and of those that wait for it, one after the other: of the longest such chain.
fn waiting_behind(order: &CopyOrder, work: &[u64]) -> Vec<u64> {
    let (mut waiting, mut is_longer) = (work.to_vec(), true);
    // There are no circles in this order.
    while std::mem::take(&mut is_longer) {
        for (child, parents) in order.parents.iter().enumerate() {
            for parent in parents {
                let through = work[*parent] + waiting[child];
                is_longer |= through > waiting[*parent];
                waiting[*parent] = waiting[*parent].max(through);
            }
        }
    }
    waiting
}

/// The tables that are to be copied and are not copied yet.
pub(crate) fn uncopied(mappings: &[TableMapping], copies: &[TableCopy]) -> BTreeSet<usize> {
    let open = copies.iter().filter(|copy| copy.state != CopyState::Copied);
    open.filter_map(|copy| place(mappings, copy)).collect()
}

fn place(mappings: &[TableMapping], copy: &TableCopy) -> Option<usize> {
    mappings.iter().position(|mapping| mapping.source == copy.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_chain_is_the_most_urgent() {
        // 0 <- 1 <- 2, 0 <- 3, and 4 by itself.
        let parents = vec![vec![], vec![0], vec![1], vec![0], vec![]];
        let order = CopyOrder { parents, in_circle: vec![false; 5] };
        assert_eq!(waiting_behind(&order, &[1, 20, 300, 50, 310]), [321, 320, 300, 50, 310]);
        assert_eq!(waiting_behind(&order, &[1, 20, 300, 500, 0]), [501, 320, 300, 500, 0]);
    }
}
