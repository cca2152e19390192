//! The source tables whose changes are carried.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_model::{TableName, TableShape};

/// The synced tables of one source, by their names there.
#[derive(Debug, Clone, Default)]
pub struct SyncedTables {
    tables: HashMap<TableName, SyncedTable>,
}

/// One synced table.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncedTable {
    /// The definition as the source declares it; renewed by the reader when an ALTER passes.
    pub shape: Arc<TableShape>,
    /// The source's columns that the mapping names. Losing one stops the stream; others are reported as not carried.
    pub mapped_columns: Vec<String>,
}

impl SyncedTables {
    pub fn new() -> SyncedTables {
        SyncedTables::default()
    }

    /// Adds a table, named by its shape. A table added again replaces the first.
    pub fn insert(&mut self, shape: Arc<TableShape>, mapped_columns: Vec<String>) {
        self.tables.insert(shape.name.clone(), SyncedTable { shape, mapped_columns });
    }

    /// Adds a table all of whose columns are mapped, generated ones excepted.
    pub fn insert_whole(&mut self, shape: Arc<TableShape>) {
        let columns = shape.columns.iter().filter(|column| !column.generated).map(|column| column.name.clone());
        let columns = columns.collect();
        self.insert(shape, columns);
    }

    pub fn get(&self, table: &TableName) -> Option<&SyncedTable> {
        self.tables.get(table)
    }

    /// A table as a statement or event spells it. `folds_names`: the server's table names do not depend on case.
    pub(crate) fn find(&self, schema: &str, table: &str, folds_names: bool) -> Option<(&TableName, &SyncedTable)> {
        let same = |a: &str, b: &str| if folds_names { a.to_lowercase() == b.to_lowercase() } else { a == b };
        self.tables.iter().find(|(name, _)| same(&name.table, table) && same(&name.schema, schema))
    }

    pub fn len(&self) -> usize {
        self.tables.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TableName, &SyncedTable)> {
        self.tables.iter()
    }

    pub(crate) fn renew(&mut self, table: &TableName, shape: Arc<TableShape>) {
        if let Some(synced) = self.tables.get_mut(table) {
            synced.shape = shape;
        }
    }
}

impl SyncedTable {
    /// Mapped columns that `columns` lacks.
    pub(crate) fn missing_columns<'a>(&self, columns: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        let lacks = |name: &&String| !columns.clone().any(|column| column.eq_ignore_ascii_case(name));
        self.mapped_columns.iter().filter(lacks).cloned().collect()
    }

    /// Those of `columns` that the mapping does not name.
    pub(crate) fn unmapped_columns<'a>(&self, columns: impl Iterator<Item = &'a str>) -> Vec<String> {
        let unmapped = |name: &&str| !self.mapped_columns.iter().any(|mapped| mapped.eq_ignore_ascii_case(name));
        columns.filter(unmapped).map(str::to_owned).collect()
    }
}
