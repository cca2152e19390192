//! Children that follow their parent's new key.
//!
//! MySQL from 9.6 writes what ON UPDATE CASCADE changed into the binlog, and writes it before the change of the parent
//! that caused it. Applied in that order, a child would refer to a parent that is not there yet. With the parent first,
//! the target's own cascade moves the children, and their changes then find them moved.
//!
//! A key that is only spelled otherwise is found in either order. But where children have the new spelling already, MySQL 9.7
//! says of the change of their parent that it is done, and has not done it.

use crossfade_model::Row;

use super::MappedChange;
use super::table::{PlannedLink, PlannedTable};
use super::token::{Tokens, same_values};
use crate::key::Fineness;

/// Moves parents that change their key before the children of the same source transaction that follow them.
pub(super) fn parents_first(tables: &[PlannedTable], changes: &mut [MappedChange]) {
    for index in 1..changes.len() {
        if let Some(first) = first_follower(tables, &changes[..=index]) {
            changes[first..=index].rotate_right(1);
        }
    }
}

/// The first change that follows the last one.
fn first_follower(tables: &[PlannedTable], changes: &[MappedChange]) -> Option<usize> {
    let (parent, earlier) = changes.split_last()?;
    let table = &tables[parent.table];
    let (Some(before), Some(after)) = (&parent.before, &parent.after) else { return None };
    if table.updates_disturb.is_empty() || !table.takes_value(Some(before), Some(after)) {
        return None;
    }
    let mut tokens = Tokens::default();
    let mut first = None;
    for (key, planned) in table.keys.iter().enumerate().filter(|(_, key)| key.referred) {
        let mut of = |row: &Row| tokens.of(Fineness::Folded, (parent.table, key), &planned.columns, row);
        if same_values(&planned.columns, before, after) {
            continue;
        }
        let (Some(old), Some(new)) = (of(before), of(after)) else { continue };
        // Who came to the new key before another parent gave it up has followed that one. And who came to it before this parent
        // was last written under its old key has not followed it from there.
        let mut ends_the_search = |change: &MappedChange| {
            let gives_new_up = change.before.as_ref().is_some_and(|row| of(row) == Some(new));
            let is_this_parent = change.after.as_ref().is_some_and(|row| of(row) == Some(old));
            change.table == parent.table && (gives_new_up || is_this_parent)
        };
        for (index, change) in earlier.iter().enumerate().rev() {
            if change.transaction != parent.transaction || ends_the_search(change) {
                break;
            }
            let mut links = tables[change.table].links.iter();
            if links.any(|link| {
                link.follows && link.parent == parent.table && link.key == key && follows(table, link, change, after)
            }) {
                first = Some(first.map_or(index, |first: usize| first.min(index)));
            }
        }
    }
    first
}

/// The child has left its reference for the parent's new key.
fn follows(table: &PlannedTable, link: &PlannedLink, child: &MappedChange, parent: &Row) -> bool {
    let (Some(before), Some(after)) = (&child.before, &child.after) else { return false };
    let mut columns = link.columns.iter().zip(&table.keys[link.key].columns);
    let mut left = link.columns.iter();
    columns.all(|(column, key)| after.get(*column) == parent.get(*key))
        && left.any(|column| before.get(*column) != after.get(*column))
}
