//! The target's tables, as a direction's mappings see them.

use std::sync::Arc;

use crossfade_catalog::Flavor;
use crossfade_model::{Column, TableLayout, TableShape};
use crossfade_rules::TableMapping;

use crate::table::{PacketLimit, TargetTable};

pub(crate) fn target_tables(
    mappings: &[TableMapping],
    shapes: &[Arc<TableShape>],
    flavor: Flavor,
    packet: &PacketLimit,
) -> Vec<TargetTable> {
    let is_mysql = flavor == Flavor::MySql;
    mappings
        .iter()
        .zip(shapes)
        .map(|(mapping, shape)| {
            let columns: Vec<Column> = mapping
                .columns
                .iter()
                .filter_map(|mapped| shape.column(&mapped.target).map(|index| shape.columns[index].clone()))
                .collect();
            let source_kinds: Vec<_> = mapping.columns.iter().map(|column| column.source_kind.clone()).collect();
            let key_index = key_index(mapping, shape);
            let row_key = mapping.row_key.clone();
            TargetTable::new(&mapping.target, columns, &source_kinds, row_key, key_index, is_mysql, packet.clone())
        })
        .collect()
}

/// The target's columns, as messages name them.
pub(crate) fn layout(mapping: &TableMapping, table: &TargetTable) -> Arc<TableLayout> {
    Arc::new(TableLayout {
        name: mapping.target.clone(),
        columns: table.columns().iter().map(|column| column.name.as_str().into()).collect(),
        kinds: table.columns().iter().map(|column| column.kind.clone()).collect(),
        row_key: mapping.row_key.clone(),
    })
}

/// The index of the target over the columns of the row key.
fn key_index<'s>(mapping: &TableMapping, shape: &'s TableShape) -> Option<&'s str> {
    let places: Vec<usize> =
        mapping.row_key.iter().filter_map(|index| shape.column(&mapping.columns[*index].target)).collect();
    let is_over =
        |columns: &[usize]| columns.len() == places.len() && places.iter().all(|place| columns.contains(place));
    if places.is_empty() {
        None
    } else if is_over(&shape.primary_key) {
        Some("PRIMARY")
    } else {
        shape.unique_keys.iter().find(|key| !key.partial && is_over(&key.columns)).map(|key| key.name.as_str())
    }
}
