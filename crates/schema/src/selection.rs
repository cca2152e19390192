//! The tables that a pair maps, as both sides define them.

use std::collections::BTreeMap;

use crossfade_catalog::definition::{Sight, create_statement};
use crossfade_catalog::{CatalogError, Dialect, table_shapes};
use crossfade_config::{SelectedTable, Settings, TablePattern};
use crossfade_model::{Side, TableName, TableShape};
use mysql_async::Conn;

use crate::SchemaError;
use crate::names::Names;
use crate::table::TableDefinition;

/// One side, and what of it may be seen.
pub struct SideSchema {
    pub(crate) side: Side,
    pub(crate) conn: Conn,
    pub(crate) dialect: Dialect,
    pub(crate) sight: Sight,
}

impl SideSchema {
    /// Takes a connection for [`Purpose::Catalog`](crossfade_catalog::Purpose::Catalog).
    ///
    /// # Errors
    ///
    /// [`CatalogError::Query`].
    pub async fn read(side: Side, mut conn: Conn, dialect: Dialect) -> Result<SideSchema, CatalogError> {
        let sight = Sight::read(&mut conn, dialect).await?;
        Ok(SideSchema { side, conn, dialect, sight })
    }

    /// The full definition of a table whose shape is known.
    pub(crate) async fn definition(&mut self, shape: TableShape) -> Result<TableDefinition, SchemaError> {
        let statement = create_statement(&mut self.conn, &shape.name).await?;
        Ok(TableDefinition { shape, statement })
    }
}

/// The mapped tables and their definitions.
pub(crate) struct Selection<'s> {
    pub selected: Vec<SelectedTable<'s>>,
    pub names: Names,
    pub old: BTreeMap<TableName, TableShape>,
    pub new: BTreeMap<TableName, TableShape>,
}

impl<'s> Selection<'s> {
    pub async fn read(
        settings: &'s Settings,
        old: &mut SideSchema,
        new: &mut SideSchema,
    ) -> Result<Selection<'s>, SchemaError> {
        let old_shapes = table_shapes(&mut old.conn, &settings.old_patterns()).await?;
        let existing: Vec<TableName> = old_shapes.iter().map(|shape| shape.name.clone()).collect();
        let selected = settings.select(&existing);
        let entries = settings.tables.iter().filter(|entry| !entry.skip).map(|entry| entry.new.clone());
        let wanted: Vec<TablePattern> =
            entries.chain(selected.iter().map(|table| TablePattern::exact(&table.new))).collect();
        let mut new_shapes = by_name(table_shapes(&mut new.conn, &wanted).await?);
        let left_out = settings.left_out(Side::New);
        new_shapes.retain(|name, _| {
            selected.iter().any(|table| table.new == *name) || !left_out.iter().any(|pattern| pattern.matches(name))
        });
        let names = Names::of(&selected);
        Ok(Selection { selected, names, old: by_name(old_shapes), new: new_shapes })
    }

    /// Tables of the new side that a pattern takes and the old side does not have.
    pub fn only_on_new(&self) -> impl Iterator<Item = &TableName> {
        self.new.keys().filter(|name| !self.selected.iter().any(|table| table.new == **name))
    }
}

fn by_name(shapes: Vec<TableShape>) -> BTreeMap<TableName, TableShape> {
    shapes.into_iter().map(|shape| (shape.name.clone(), shape)).collect()
}
