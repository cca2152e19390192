//! A database that refuses what a server refuses, statement by statement.

use crossfade_model::{ReferentialAction, Row, Value};
use crossfade_rules::{ChangeKind, MappedChange, NetChange, Step};

use crate::schema::{KEY, KEYLESS, OPAQUE, PARENT, TABLES, TAG, parent_of};

/// How key texts compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collation {
    IgnoresCase,
    Binary,
}

/// What foreign keys do, and whether the binlog tells what new keys of parents did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions {
    pub on_delete: ReferentialAction,
    pub on_update: ReferentialAction,
    pub updates_are_logged: bool,
}

#[derive(Debug, Clone)]
pub struct Database {
    pub tables: Vec<Vec<Row>>,
    collation: Collation,
    actions: Actions,
    /// What new keys of parents have done to children, if that is logged: the table, and the row before and after.
    pub logged: Vec<(usize, Row, Row)>,
}

impl Database {
    pub fn new(collation: Collation, actions: Actions) -> Database {
        Database { tables: vec![Vec::new(); TABLES], collation, actions, logged: Vec::new() }
    }

    /// The rows of all tables, sorted.
    pub fn contents(&self) -> Vec<Vec<String>> {
        let sorted = |rows: &Vec<Row>| {
            let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        };
        self.tables.iter().map(sorted).collect()
    }

    fn same(&self, a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Null, _) | (_, Value::Null) => false,
            (Value::Text(a), Value::Text(b)) if self.collation == Collation::IgnoresCase => {
                a.to_lowercase() == b.to_lowercase()
            }
            (a, b) => a == b,
        }
    }

    /// Under a unique key on a prefix (`OPAQUE`) the first letter must differ.
    fn same_tag(&self, table: usize, a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Text(a), Value::Text(b)) if table == OPAQUE => {
                self.same(&Value::Text(a[..1].to_owned()), &Value::Text(b[..1].to_owned()))
            }
            _ => self.same(a, b),
        }
    }

    pub fn find(&self, table: usize, key: &Value) -> Option<usize> {
        self.tables[table].iter().position(|row| self.same(&row[KEY], key))
    }

    /// A row may stand in a table beside all rows but the one at `except`.
    fn check(&self, table: usize, row: &Row, except: Option<usize>) -> Result<(), String> {
        for (index, other) in self.tables[table].iter().enumerate() {
            if Some(index) == except || table == KEYLESS {
                continue;
            }
            if self.same(&other[KEY], &row[KEY]) || self.same_tag(table, &other[TAG], &row[TAG]) {
                return Err(format!("duplicate of {other:?}"));
            }
        }
        let Some((parent, column)) = parent_of(table).filter(|_| !row[PARENT].is_null()) else { return Ok(()) };
        let itself = parent == table && self.same(&row[column], &row[PARENT]);
        let there = self.tables[parent].iter().any(|other| self.same(&other[column], &row[PARENT]));
        if itself || there { Ok(()) } else { Err("no parent".to_owned()) }
    }

    pub fn insert(&mut self, table: usize, row: Row) -> Result<(), String> {
        self.check(table, &row, None)?;
        self.tables[table].push(row);
        Ok(())
    }

    pub fn update(&mut self, table: usize, index: usize, row: Row) -> Result<(), String> {
        self.check(table, &row, Some(index))?;
        let old = self.tables[table][index].clone();
        self.leave_children(table, &old, Some(&row))?;
        self.tables[table][index] = row;
        Ok(())
    }

    pub fn delete(&mut self, table: usize, index: usize) -> Result<(), String> {
        let old = self.tables[table].remove(index);
        let left = self.leave_children(table, &old, None);
        if left.is_err() {
            self.tables[table].insert(index, old);
        }
        left
    }

    /// What becomes of the children of a row that goes or changes. A row that goes has gone before its children are
    /// asked, so rows that refer to each other in a circle go once.
    fn leave_children(&mut self, table: usize, old: &Row, new: Option<&Row>) -> Result<(), String> {
        for child in 0..TABLES {
            let Some((_, column)) = parent_of(child).filter(|(parent, _)| *parent == table) else { continue };
            if new.is_some_and(|new| self.same(&old[column], &new[column])) {
                continue;
            }
            let refers = |database: &Database, row: &Row| {
                database.same(&row[PARENT], &old[column]) && !(child == table && row == old)
            };
            while let Some(index) = self.tables[child].iter().position(|row| refers(self, row)) {
                let Some(new) = new else {
                    match self.actions.on_delete {
                        ReferentialAction::Restrict => return Err("has children".to_owned()),
                        ReferentialAction::SetNull => self.tables[child][index][PARENT] = Value::Null,
                        ReferentialAction::Cascade => self.delete(child, index)?,
                    }
                    continue;
                };
                let before = self.tables[child][index].clone();
                self.tables[child][index][PARENT] = match self.actions.on_update {
                    // Servers treat a table that refers to itself like RESTRICT; elsewhere plans are to stand more than that.
                    _ if self.actions.updates_are_logged && child == table => return Err("has children".to_owned()),
                    ReferentialAction::Restrict => return Err("has children".to_owned()),
                    ReferentialAction::SetNull => Value::Null,
                    ReferentialAction::Cascade => new[column].clone(),
                };
                if self.actions.updates_are_logged {
                    self.logged.push((child, before, self.tables[child][index].clone()));
                }
            }
        }
        Ok(())
    }

    /// Executes a step, its rows in the order given by `shuffle`.
    pub fn execute(&mut self, step: &Step, shuffle: impl Fn(usize) -> Vec<usize>) -> Result<(), String> {
        match step {
            Step::InOrder(changes) => changes.iter().try_for_each(|change| self.replay(change)),
            Step::Net { table, kind, rows } => shuffle(rows.len())
                .into_iter()
                .try_for_each(|index| self.execute_net(*table, *kind, &rows[index]))
                .map_err(|error| format!("{error} in {kind:?} of {table}: {rows:?}")),
        }
    }

    fn execute_net(&mut self, table: usize, kind: ChangeKind, net: &NetChange) -> Result<(), String> {
        match (kind, &net.before, &net.after) {
            (ChangeKind::Insert, None, Some(after)) => self.insert(table, after.clone()),
            (ChangeKind::Update | ChangeKind::KeyChange, Some(before), Some(after)) => {
                let index = self.expect(table, before)?;
                self.update(table, index, after.clone())
            }
            (ChangeKind::Delete, Some(before), None) if net.transient => match self.find(table, &before[KEY]) {
                None => Ok(()),
                Some(_) => Err("a transient row's key is taken".to_owned()),
            },
            (ChangeKind::Delete, Some(before), None) => {
                let index = self.expect(table, before)?;
                self.delete(table, index)
            }
            shape => Err(format!("impossible net change {shape:?}")),
        }
    }

    /// The row as its before image says. Where the server changes children by itself, the image may know more.
    fn expect(&self, table: usize, before: &Row) -> Result<usize, String> {
        let index = self.find(table, &before[KEY]).ok_or("no such row")?;
        let row = &self.tables[table][index];
        if self.actions.on_update == ReferentialAction::Restrict && row != before {
            return Err(format!("expected {before:?}, found {row:?}"));
        }
        Ok(index)
    }

    /// Applies a captured change as it is.
    pub fn replay(&mut self, change: &MappedChange) -> Result<(), String> {
        let table = change.table;
        let find = |row: &Row| match table {
            KEYLESS => self.tables[table].iter().position(|other| other == row),
            _ => self.find(table, &row[KEY]),
        };
        match (&change.before, &change.after) {
            (None, Some(after)) => self.insert(table, after.clone()),
            (Some(before), Some(after)) => match find(before) {
                Some(index) => self.update(table, index, after.clone()),
                // The parent came first, and has taken along what is found by all its contents.
                None if table == KEYLESS && self.actions.updates_are_logged && find(after).is_some() => Ok(()),
                None => Err("no such row to update".to_owned()),
            },
            (Some(before), None) => {
                let index = find(before).ok_or("no such row to delete")?;
                self.delete(table, index)
            }
            (None, None) => Err("no image".to_owned()),
        }
    }
}
