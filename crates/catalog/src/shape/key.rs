//! Primary, unique and foreign keys.

use std::collections::BTreeMap;

use crossfade_model::{ForeignKey, ReferentialAction, TableName, TableShape, UniqueKey};
use mysql_async::Conn;

use super::NameFilter;
use crate::CatalogError;

/// One part of a unique key as it arrives: table, key, column (none for an expression), prefix length.
type KeyRow = (String, String, Option<String>, Option<u64>);

/// A column, and how much of it where not all.
type KeyPart = (Option<String>, Option<u64>);

/// One part of a foreign key: table, key, column, parent's schema, table and column, on delete, on update.
type ForeignKeyRow = (String, String, String, String, String, String, String, String);

pub(super) async fn read_keys(
    conn: &mut Conn,
    filter: &NameFilter<'_>,
    shapes: &mut BTreeMap<String, TableShape>,
) -> Result<(), CatalogError> {
    let rows: Vec<KeyRow> = filter
        .rows(
            conn,
            "the definitions of keys",
            "SELECT table_name, index_name, column_name, CAST(sub_part AS UNSIGNED) FROM information_schema.statistics
              WHERE table_schema = ? AND non_unique = 0",
            " ORDER BY table_name, index_name, seq_in_index",
        )
        .await?;
    let mut parts: BTreeMap<(String, String), Vec<KeyPart>> = BTreeMap::new();
    for (table, key, column, prefix) in rows {
        parts.entry((table, key)).or_default().push((column, prefix));
    }
    for ((table, name), parts) in parts {
        let Some(shape) = shapes.get_mut(&table) else { continue };
        let key = unique_key(shape, name, &parts);
        if key.name == "PRIMARY" && !key.partial {
            shape.primary_key = key.columns;
        } else {
            shape.unique_keys.push(key);
        }
    }
    Ok(())
}

fn unique_key(shape: &TableShape, name: String, parts: &[KeyPart]) -> UniqueKey {
    let columns: Option<Vec<usize>> =
        parts.iter().map(|(column, _)| shape.column(column.as_deref().unwrap_or_default())).collect();
    let columns = columns.unwrap_or_default();
    UniqueKey {
        name,
        nullable: columns.is_empty() || columns.iter().any(|&column| shape.columns[column].nullable),
        partial: columns.is_empty() || parts.iter().any(|(_, prefix)| prefix.is_some()),
        columns,
    }
}

pub(super) async fn read_foreign_keys(
    conn: &mut Conn,
    filter: &NameFilter<'_>,
    shapes: &mut BTreeMap<String, TableShape>,
) -> Result<(), CatalogError> {
    let rows: Vec<ForeignKeyRow> = filter
        .rows(
            conn,
            "the definitions of foreign keys",
            "SELECT table_name, constraint_name, column_name, referenced_table_schema, referenced_table_name,
                    referenced_column_name, delete_rule, update_rule
               FROM (SELECT part.table_schema, part.table_name, part.constraint_name, part.column_name,
                            part.ordinal_position, part.referenced_table_schema, part.referenced_table_name,
                            part.referenced_column_name, whole.delete_rule, whole.update_rule
                       FROM information_schema.key_column_usage AS part
                       JOIN information_schema.referential_constraints AS whole
                         ON whole.constraint_schema = part.constraint_schema AND whole.table_name = part.table_name
                        AND whole.constraint_name = part.constraint_name
                      WHERE part.referenced_table_name IS NOT NULL) AS parts
              WHERE table_schema = ?",
            " ORDER BY table_name, constraint_name, ordinal_position",
        )
        .await?;
    for (table, name, column, parent_schema, parent_table, parent_column, on_delete, on_update) in rows {
        let Some(shape) = shapes.get_mut(&table) else { continue };
        let Some(column) = shape.column(&column) else { continue };
        if shape.foreign_keys.last().is_none_or(|last| last.name != name) {
            shape.foreign_keys.push(ForeignKey {
                name,
                columns: Vec::new(),
                parent: TableName::new(parent_schema, parent_table),
                parent_columns: Vec::new(),
                on_delete: action(&on_delete),
                on_update: action(&on_update),
            });
        }
        if let Some(key) = shape.foreign_keys.last_mut() {
            key.columns.push(column);
            key.parent_columns.push(parent_column);
        }
    }
    Ok(())
}

/// InnoDB takes NO ACTION for RESTRICT and refuses SET DEFAULT (MySQL manual, "FOREIGN KEY Constraints").
fn action(rule: &str) -> ReferentialAction {
    match rule {
        "CASCADE" => ReferentialAction::Cascade,
        "SET NULL" => ReferentialAction::SetNull,
        _ => ReferentialAction::Restrict,
    }
}
