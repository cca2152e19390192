//! What later changes may depend on, when a change is set aside: its key values, and those of its parents.

use crossfade_model::{Row, Value};
use rustc_hash::FxHashMap;

use super::Planner;
use super::token::{Tokens, silent_token};
use crate::key::Fineness;

/// The values of one change that tie it to others. Values that the server may take for equal have equal tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependence {
    /// Of its row key and unique keys, before and after.
    keys: Vec<u64>,
    /// Of the keys that it brings: children may refer to them only when it is applied.
    brought: Vec<u64>,
    /// Of the keys that it gives up: it may do so only when no child refers to them any more.
    given_up: Vec<u64>,
    /// Of the parents that it refers to, before and after.
    parents: Vec<u64>,
    /// Of the parents that it refers to in the end.
    needed: Vec<u64>,
}

/// A foreign key, as its child sees it.
#[derive(Debug, Clone, Copy)]
pub struct ForeignKey<'p> {
    /// The parent's table.
    pub parent: usize,
    /// Of the child's columns.
    pub columns: &'p [usize],
    /// Of the parent's columns, in the order of `columns`.
    pub referred: &'p [usize],
    place: (usize, usize),
}

/// The changes that are set aside: whoever depends on one of them waits too.
#[derive(Debug, Clone, Default)]
pub struct Dependences {
    keys: Counts,
    brought: Counts,
    parents: Counts,
}

type Counts = FxHashMap<u64, u32>;

impl Planner {
    /// The dependence of a change, or of a net change, of one of the planner's tables.
    pub fn dependence(&self, table: usize, before: Option<&Row>, after: Option<&Row>) -> Dependence {
        let mut tokens = Tokens::default();
        let mut dependence = Dependence::default();
        let Some(planned) = self.tables.get(table) else { return dependence };
        if planned.keyless {
            // Rows are found by all their values, so every change of the table may be about the same row.
            dependence.keys.push(silent_token(table));
        }
        for (key, of_key) in planned.keys.iter().enumerate() {
            let mut token =
                |row: Option<&Row>| tokens.of(Fineness::Folded, (table, key), &of_key.columns, row?.as_slice());
            let (left, taken) = (token(before), token(after));
            dependence.keys.extend(left.into_iter().chain(taken));
            if left != taken && of_key.referred {
                dependence.given_up.extend(left);
                dependence.brought.extend(taken);
            }
        }
        for link in &planned.links {
            let mut token = |row: Option<&Row>| {
                tokens.of(Fineness::Folded, (link.parent, link.key), &link.columns, row?.as_slice())
            };
            let (left, taken) = (token(before), token(after));
            dependence.parents.extend(left.into_iter().chain(taken));
            dependence.needed.extend(taken);
        }
        dependence
    }

    /// The foreign keys of a table to tables of the planner.
    pub fn foreign_keys(&self, table: usize) -> impl Iterator<Item = ForeignKey<'_>> {
        let links = self.tables.get(table).map_or(&[][..], |planned| &planned.links);
        links.iter().map(|link| ForeignKey {
            parent: link.parent,
            columns: &link.columns,
            referred: &self.tables[link.parent].keys[link.key].columns,
            place: (link.parent, link.key),
        })
    }
}

impl ForeignKey<'_> {
    /// Stands for the parent that a row refers to; `None` where it refers to none. What the server may take for one parent has
    /// one token.
    pub fn wanted(&self, row: &Row) -> Option<u64> {
        Tokens::default().of(Fineness::Folded, self.place, self.columns, row)
    }

    /// The same of a parent with these values in the columns that are referred to.
    pub fn offered(&self, values: &[Value]) -> Option<u64> {
        let columns: Vec<usize> = (0..values.len()).collect();
        Tokens::default().of(Fineness::Folded, self.place, &columns, values)
    }
}

impl Dependence {
    /// Also of what ends with its row.
    pub fn and(mut self, others: &Dependence) -> Dependence {
        let Dependence { keys, brought, given_up, parents, needed } = others;
        self.keys.extend(keys);
        self.brought.extend(brought);
        self.given_up.extend(given_up);
        self.parents.extend(parents);
        self.needed.extend(needed);
        self
    }

    /// Of its row key and unique keys, before and after.
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// Of the keys that children may have referred to and that it gives up.
    pub fn given_up(&self) -> &[u64] {
        &self.given_up
    }

    /// Of the parents that it refers to, before and after.
    pub fn parents(&self) -> &[u64] {
        &self.parents
    }

    /// All values that tie the change to others, in whichever way.
    pub fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.keys.iter().chain(&self.parents).copied()
    }
}

impl Dependences {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn add(&mut self, dependence: &Dependence) {
        let Dependence { keys, brought, parents, .. } = dependence;
        for (counts, tokens) in [(&mut self.keys, keys), (&mut self.brought, brought), (&mut self.parents, parents)] {
            tokens.iter().for_each(|token| *counts.entry(*token).or_default() += 1);
        }
    }

    /// Takes out what was [added](Dependences::add) before.
    pub fn remove(&mut self, dependence: &Dependence) {
        let Dependence { keys, brought, parents, .. } = dependence;
        for (counts, tokens) in [(&mut self.keys, keys), (&mut self.brought, brought), (&mut self.parents, parents)] {
            for token in tokens {
                if let Some(count) = counts.get_mut(token) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(token);
                    }
                }
            }
        }
    }

    /// Whether a later change must wait: it is of the same row, needs a unique value that one set aside has or gives up,
    /// refers to a parent that is not there yet, or ends a parent that one set aside still refers to.
    pub fn holds_back(&self, later: &Dependence) -> bool {
        let any = |tokens: &[u64], counts: &Counts| tokens.iter().any(|token| counts.contains_key(token));
        any(&later.keys, &self.keys) || any(&later.needed, &self.brought) || any(&later.given_up, &self.parents)
    }
}
