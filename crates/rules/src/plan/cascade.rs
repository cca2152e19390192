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
    let referred = table.keys.iter().enumerate().filter(|(_, key)| key.referred);
    let respelled = referred.filter(|(_, key)| !same_values(&key.columns, before, after));
    let moved: Vec<Moved> = respelled
        .map(|(key, planned)| {
            let mut of = |row: &Row| tokens.of(Fineness::Folded, (parent.table, key), &planned.columns, row);
            Moved { table: parent.table, key, columns: &planned.columns, row: after, old: of(before), new: of(after) }
        })
        .collect();
    let mut first = None;
    for (index, change) in earlier.iter().enumerate().rev() {
        let links = &tables[change.table].links;
        if change.transaction != parent.transaction {
            break;
        }
        if moved.iter().any(|moved| links.iter().any(|link| moved.is_followed_by(link, change, &mut tokens))) {
            first = Some(index);
        } else if moved.iter().any(|moved| moved.comes_after(links, change, &mut tokens)) {
            break;
        }
    }
    first
}

/// A parent's key, and what its change makes of it.
struct Moved<'a> {
    table: usize,
    key: usize,
    columns: &'a [usize],
    row: &'a Row,
    old: Option<u64>,
    new: Option<u64>,
}

impl Moved<'_> {
    /// The child has left its reference to the old key for the new one. Rows of the parent's own table do not: there, ON UPDATE
    /// CASCADE acts like RESTRICT (MySQL manual, "FOREIGN KEY Constraints").
    fn is_followed_by(&self, link: &PlannedLink, child: &MappedChange, tokens: &mut Tokens) -> bool {
        let (Some(before), Some(after), Some(_), Some(_)) = (&child.before, &child.after, self.old, self.new) else {
            return false;
        };
        let mut columns = link.columns.iter().zip(self.columns);
        link.follows
            && child.table != self.table
            && self.is_of(link)
            && columns.all(|(column, key)| after.get(*column) == self.row.get(*key))
            && !same_values(&link.columns, before, after)
            && tokens.of(Fineness::Folded, (self.table, self.key), &link.columns, before) == self.old
    }

    /// The change has the parent as it was before, by its own image or by a reference, or gives up what it takes.
    fn comes_after(&self, links: &[PlannedLink], change: &MappedChange, tokens: &mut Tokens) -> bool {
        let mut is = |value: Option<u64>, columns: &[usize], row: &Option<Row>| {
            let row = row.as_ref().filter(|_| value.is_some());
            row.is_some_and(|row| tokens.of(Fineness::Folded, (self.table, self.key), columns, row) == value)
        };
        let mut of_the_old = links.iter().filter(|link| self.is_of(link) && self.old != self.new);
        let refers = of_the_old
            .any(|link| is(self.old, &link.columns, &change.before) || is(self.old, &link.columns, &change.after));
        let is_parent = change.table == self.table;
        refers || is_parent && (is(self.new, self.columns, &change.before) || is(self.old, self.columns, &change.after))
    }

    fn is_of(&self, link: &PlannedLink) -> bool {
        (link.parent, link.key) == (self.table, self.key)
    }
}
