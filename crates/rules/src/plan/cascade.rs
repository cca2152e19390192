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
    let below = &tables[parent.table].updates_disturb;
    let (Some(before), Some(after)) = (&parent.before, &parent.after) else { return None };
    if below.is_empty() {
        return None;
    }
    let mut cascade = Cascade::of(tables, parent.table, (before, after));
    if cascade.changed_keys.is_empty() {
        return None;
    }
    let mut first = None;
    for (index, change) in earlier.iter().enumerate().rev() {
        // ON UPDATE CASCADE acts like RESTRICT in the parent's own table (MySQL manual, "FOREIGN KEY Constraints"), and so it does
        // for what leads back to it.
        let table = &tables[change.table];
        let may_change_parents = change.table == parent.table || table.updates_disturb.contains(&parent.table);
        let (Some(child_before), Some(child_after)) = (&change.before, &change.after) else { break };
        if change.transaction != parent.transaction || may_change_parents {
            break;
        }
        // What has come down to a child has changed what it refers to.
        let refers_as_before = || table.links.iter().all(|link| same_values(&link.columns, child_before, child_after));
        if below.contains(&change.table) && refers_as_before() {
            break;
        }
        match cascade.place_of(&table.links, (child_before, child_after)) {
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

/// What a change of a parent does to children, seen from the last of them to the first. The foreign keys are the target's, which
/// the source's are taken to be like.
struct Cascade<'a> {
    parent: usize,
    parent_after: &'a Row,
    changed_keys: Vec<ChangedKey>,
    /// Children that are known to leave the old key later, as they were before.
    leaving: Vec<&'a Row>,
}

/// A key that children may refer to, and that the parent's change alters, be it in how it is spelled.
struct ChangedKey {
    key: usize,
    columns: Vec<usize>,
    /// Folded; `None` where a part is NULL.
    old_token: Option<u64>,
    new_token: Option<u64>,
}

impl<'a> Cascade<'a> {
    fn of(tables: &[PlannedTable], parent: usize, (before, after): (&'a Row, &'a Row)) -> Cascade<'a> {
        let mut tokens = Tokens::default();
        let referred = tables[parent].keys.iter().enumerate().filter(|(_, key)| key.referred);
        let changed = referred.filter(|(_, key)| !same_values(&key.columns, before, after));
        let changed = changed.map(|(key, planned)| {
            let mut of = |row| tokens.of(Fineness::Folded, (parent, key), &planned.columns, row);
            let (old_token, new_token) = (of(before), of(after));
            ChangedKey { key, columns: planned.columns.clone(), old_token, new_token }
        });
        let changed_keys = changed.collect();
        Cascade { parent, parent_after: after, changed_keys, leaving: Vec::new() }
    }

    fn place_of(&mut self, links: &[PlannedLink], (before, after): (&'a Row, &'a Row)) -> Place {
        let links = || links.iter().filter(|link| link.parent == self.parent);
        let taken: Vec<&PlannedLink> = links().filter(|link| self.takes_along(link, before, after)).collect();
        // References may have columns in common.
        let is_taken = |column: &usize| taken.iter().any(|link| link.columns.contains(column));
        for link in links() {
            let mut changed = link.columns.iter().filter(|column| !same_values(&[**column], before, after));
            let has_left = changed.any(|column| !is_taken(column));
            if has_left || self.needs_old(link, after) && !self.leaving.contains(&after) {
                return Place::Before;
            }
        }
        if taken.is_empty() {
            return Place::Any;
        }
        self.leaving.push(before);
        // Who has lost its reference refers to nobody, in either order.
        let comes_to_new = |link: &&PlannedLink| {
            let key = self.changed_key(link);
            link.on_update == ReferentialAction::Cascade && key.is_some_and(|key| key.new_token.is_some())
        };
        if taken.iter().any(comes_to_new) { Place::Behind } else { Place::Any }
    }

    /// The foreign key makes of a child with the old key what it has become.
    fn takes_along(&self, link: &PlannedLink, before: &Row, after: &Row) -> bool {
        let Some(key) = self.changed_key(link) else { return false };
        let had_old = key.old_token.is_some() && self.token(link, before) == key.old_token;
        if !had_old || same_values(&link.columns, before, after) {
            return false;
        }
        let mut pairs = link.columns.iter().zip(&key.columns);
        match link.on_update {
            // As it is spelled: what folds alike may be another parent's.
            ReferentialAction::Cascade => {
                pairs.all(|(column, of_key)| after.get(*column) == self.parent_after.get(*of_key))
            }
            ReferentialAction::SetNull => link.columns.iter().all(|column| after[*column].is_null()),
            ReferentialAction::Restrict => false,
        }
    }

    /// The child refers to what the parent is not any more.
    fn needs_old(&self, link: &PlannedLink, child: &Row) -> bool {
        let key = self.changed_key(link).filter(|key| key.old_token.is_some() && key.old_token != key.new_token);
        key.is_some_and(|key| self.token(link, child) == key.old_token)
    }

    fn changed_key(&self, link: &PlannedLink) -> Option<&ChangedKey> {
        self.changed_keys.iter().find(|changed| changed.key == link.key)
    }

    fn token(&self, link: &PlannedLink, child: &Row) -> Option<u64> {
        Tokens::default().of(Fineness::Folded, (self.parent, link.key), &link.columns, child)
    }
}
