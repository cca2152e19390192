//! Children that follow their parent's new key.
//!
//! MySQL from 9.6 writes what ON UPDATE CASCADE and SET NULL changed into the binlog, and writes it right before the change of
//! the parent that caused it: for each parent, updates of the tables below it and nothing else, since children's triggers do
//! not run (asked of MySQL 9.7.4). Applied in that order, a child would refer to a parent that is not there yet. With the
//! parent first, the target's own cascade moves the children, and their changes then find them moved.
//!
//! Other servers write nothing of the kind. There, all that comes before a parent's change is what users did on purpose, and
//! may need the parent as it was.
//!
//! A key that is only spelled otherwise is found in either order. But where children have the new spelling already, MySQL 9.7
//! says of the change of their parent that it is done, and has not done it.

use crossfade_model::{ReferentialAction, Row};

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

/// The first of the children that follow the last change, which is their parent's.
fn first_follower(tables: &[PlannedTable], changes: &[MappedChange]) -> Option<usize> {
    let (parent, earlier) = changes.split_last()?;
    let table = &tables[parent.table];
    let (Some(before), Some(after)) = (&parent.before, &parent.after) else { return None };
    if table.updates_disturb.is_empty() || !table.takes_value(Some(before), Some(after)) {
        return None;
    }
    let mut cascade = Cascade::of(tables, parent.table, (before, after));
    if cascade.moved.is_empty() {
        return None;
    }
    let mut first = None;
    for (index, change) in earlier.iter().enumerate().rev() {
        // ON UPDATE CASCADE acts like RESTRICT in the parent's own table (MySQL manual, "FOREIGN KEY Constraints").
        let may_follow = change.table != parent.table && table.updates_disturb.contains(&change.table);
        let (true, Some(before), Some(after)) = (may_follow, &change.before, &change.after) else { break };
        if change.transaction != parent.transaction {
            break;
        }
        match cascade.place_of(&tables[change.table].links, (before, after)) {
            Place::Behind => first = Some(index),
            Place::Any => {}
            Place::Before => break,
        }
    }
    first
}

/// Where a child's change may stand.
enum Place {
    /// Behind its parent's, which it follows.
    Behind,
    Any,
    /// Before its parent's, which it needs as that was.
    Before,
}

/// What a change of a parent does to children, seen from the last of them to the first.
struct Cascade<'a> {
    table: usize,
    row: &'a Row,
    moved: Vec<Moved>,
    /// Children that are known to leave the old key later, as they were before.
    leaving: Vec<&'a Row>,
    tokens: Tokens,
}

/// A key of which children may have copies.
struct Moved {
    key: usize,
    columns: Vec<usize>,
    old: Option<u64>,
    new: Option<u64>,
}

impl<'a> Cascade<'a> {
    fn of(tables: &[PlannedTable], table: usize, (before, after): (&'a Row, &'a Row)) -> Cascade<'a> {
        let mut tokens = Tokens::default();
        let referred = tables[table].keys.iter().enumerate().filter(|(_, key)| key.referred);
        let changed = referred.filter(|(_, key)| !same_values(&key.columns, before, after));
        let moved = changed.map(|(key, planned)| {
            let mut of = |row| tokens.of(Fineness::Folded, (table, key), &planned.columns, row);
            Moved { key, columns: planned.columns.clone(), old: of(before), new: of(after) }
        });
        let moved = moved.collect();
        Cascade { table, row: after, moved, leaving: Vec::new(), tokens }
    }

    fn place_of(&mut self, links: &[PlannedLink], (before, after): (&'a Row, &'a Row)) -> Place {
        let mut place = Place::Any;
        for link in links.iter().filter(|link| link.parent == self.table) {
            let stays = same_values(&link.columns, before, after);
            let Some(moved) = self.moved.iter().find(|moved| moved.key == link.key) else {
                // Nothing of this parent's has made it leave.
                if stays { continue } else { return Place::Before }
            };
            let mut of = |row| self.tokens.of(Fineness::Folded, (self.table, link.key), &link.columns, row);
            let (had, has) = (of(before), of(after));
            if stays {
                let needs_it = has.is_some() && has == moved.old && moved.old != moved.new;
                if needs_it && !self.leaving.contains(&after) {
                    return Place::Before;
                }
                continue;
            }
            if had.is_none() || had != moved.old || !moved.takes_along(link, (after, has), self.row) {
                return Place::Before;
            }
            self.leaving.push(before);
            if link.on_update == ReferentialAction::Cascade && moved.new.is_some() {
                place = Place::Behind;
            }
        }
        place
    }
}

impl Moved {
    /// The foreign key makes of a child with the old key what it has become.
    fn takes_along(&self, link: &PlannedLink, (child, has): (&Row, Option<u64>), parent: &Row) -> bool {
        let mut pairs = link.columns.iter().zip(&self.columns);
        match link.on_update {
            ReferentialAction::Cascade if self.old != self.new && self.new.is_some() => has == self.new,
            ReferentialAction::Cascade => pairs.all(|(column, key)| child.get(*column) == parent.get(*key)),
            ReferentialAction::SetNull => link.columns.iter().all(|column| child[*column].is_null()),
            ReferentialAction::Restrict => false,
        }
    }
}
