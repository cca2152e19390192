//! Which tables may be copied now.

use std::collections::BTreeSet;

use crossfade_message::{CopyState, TableCopy};
use crossfade_rules::TableMapping;
use crossfade_rules::chunk::CopyOrder;

/// The places of tables among the mappings, each with its copy, whose parents are copied and that have something to be done.
/// Tables that refer to each other in a circle do not wait for each other.
pub(crate) fn ready<'c>(
    mappings: &[TableMapping],
    order: &CopyOrder,
    copies: &'c [TableCopy],
) -> Vec<(usize, &'c TableCopy)> {
    let uncopied = uncopied(mappings, copies);
    let is_free = |table: usize| order.parents[table].iter().all(|parent| !uncopied.contains(parent));
    copies
        .iter()
        .filter_map(|copy| Some((place(mappings, copy)?, copy)))
        .filter(|(table, copy)| match copy.state {
            CopyState::Waiting | CopyState::Clearing | CopyState::Copying => is_free(*table),
            CopyState::Copied => copy.refused > 0,
            CopyState::Stopped => false,
        })
        .collect()
}

/// The tables that are to be copied and are not copied yet.
pub(crate) fn uncopied(mappings: &[TableMapping], copies: &[TableCopy]) -> BTreeSet<usize> {
    let open = copies.iter().filter(|copy| copy.state != CopyState::Copied);
    open.filter_map(|copy| place(mappings, copy)).collect()
}

fn place(mappings: &[TableMapping], copy: &TableCopy) -> Option<usize> {
    mappings.iter().position(|mapping| mapping.source == copy.table)
}
