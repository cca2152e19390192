//! Primary, unique and foreign keys.

use std::collections::BTreeMap;

use crossfade_model::{ForeignKey, ReferentialAction, TableName, TableShape, UniqueKey, quote_identifier};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::NameFilter;
use crate::CatalogError;

/// One part of a unique key as it arrives: table, key, column (none for an expression), prefix length.
type KeyRow = (String, String, Option<String>, Option<u64>);

/// A column, and how much of it where not all.
type KeyPart = (Option<String>, Option<u64>);

/// One part of a foreign key: table, key, column, parent's schema, table and column, on delete, on update. The last two
/// are missing where the account may not see them.
type ForeignKeyRow = (String, String, String, String, String, String, Option<String>, Option<String>);

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
                       LEFT JOIN information_schema.referential_constraints AS whole
                         ON whole.constraint_schema = part.constraint_schema AND whole.table_name = part.table_name
                        AND whole.constraint_name = part.constraint_name
                      WHERE part.referenced_table_name IS NOT NULL) AS parts
              WHERE table_schema = ?",
            " ORDER BY table_name, constraint_name, ordinal_position",
        )
        .await?;
    let mut unseen: Vec<(String, String)> = Vec::new();
    for (table, name, column, parent_schema, parent_table, parent_column, on_delete, on_update) in rows {
        let Some(shape) = shapes.get_mut(&table) else { continue };
        let Some(column) = shape.column(&column) else { continue };
        if shape.foreign_keys.last().is_none_or(|last| last.name != name) {
            if on_delete.is_none() || on_update.is_none() {
                unseen.push((table, name.clone()));
            }
            shape.foreign_keys.push(ForeignKey {
                name,
                columns: Vec::new(),
                parent: TableName::new(parent_schema, parent_table),
                parent_columns: Vec::new(),
                on_delete: action(on_delete.as_deref().unwrap_or_default()),
                on_update: action(on_update.as_deref().unwrap_or_default()),
            });
        }
        if let Some(key) = shape.foreign_keys.last_mut() {
            key.columns.push(column);
            key.parent_columns.push(parent_column);
        }
    }
    for (table, name) in unseen {
        if let Some(shape) = shapes.get_mut(&table) {
            read_actions(conn, shape, &name).await?;
        }
    }
    Ok(())
}

/// MariaDB shows `referential_constraints` only to accounts with privileges on the whole schema, but the statement that
/// creates a table to all who may read it.
async fn read_actions(conn: &mut Conn, shape: &mut TableShape, name: &str) -> Result<(), CatalogError> {
    let what = "the definitions of foreign keys";
    let row: Option<(String, String)> = conn
        .query_first(format!("SHOW CREATE TABLE {}", shape.name.quoted()))
        .await
        .map_err(|source| CatalogError::Query { what, source })?;
    let statement = row.map(|(_, statement)| statement).unwrap_or_default();
    let unexpected = || CatalogError::Unexpected { what, found: format!("{} without `{name}`", shape.name) };
    let (on_delete, on_update) = printed_actions(&statement, name).ok_or_else(unexpected)?;
    if let Some(key) = shape.foreign_keys.iter_mut().find(|key| key.name == name) {
        (key.on_delete, key.on_update) = (on_delete, on_update);
    }
    Ok(())
}

/// Reads ``CONSTRAINT `name` FOREIGN KEY (…) REFERENCES `parent` (…) ON DELETE CASCADE``, which stands on its own line.
fn printed_actions(statement: &str, name: &str) -> Option<(ReferentialAction, ReferentialAction)> {
    let begin = format!("CONSTRAINT {} FOREIGN KEY ", quote_identifier(name));
    let line = statement.lines().map(str::trim).find(|line| line.starts_with(&begin))?;
    let (_, actions) = line.rsplit_once(')')?;
    let of = |event: &str| {
        let rule = actions.split_once(event).map(|(_, rule)| rule.trim_start()).unwrap_or_default();
        let known = ["CASCADE", "SET NULL"].into_iter().find(|known| rule.starts_with(known));
        action(known.unwrap_or_default())
    };
    Some((of("ON DELETE"), of("ON UPDATE")))
}

/// InnoDB takes NO ACTION for RESTRICT and refuses SET DEFAULT (MySQL manual, "FOREIGN KEY Constraints").
fn action(rule: &str) -> ReferentialAction {
    match rule {
        "CASCADE" => ReferentialAction::Cascade,
        "SET NULL" => ReferentialAction::SetNull,
        _ => ReferentialAction::Restrict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_from_the_printed_statement() {
        use ReferentialAction::{Cascade, Restrict, SetNull};
        let statement = "CREATE TABLE `t` (\n  `a` int COMMENT 'ON DELETE CASCADE',\n\
            \x20 CONSTRAINT `a``b` FOREIGN KEY (`a`) REFERENCES `p)` (`ON DELETE CASCADE`),\n\
            \x20 CONSTRAINT `c` FOREIGN KEY (`a`) REFERENCES `p` (`a`) ON DELETE CASCADE ON UPDATE SET NULL,\n\
            \x20 CONSTRAINT `d` FOREIGN KEY (`a`) REFERENCES `p` (`a`) ON DELETE NO ACTION ON UPDATE CASCADE\n\
            ) ENGINE=InnoDB";
        let cases = [
            ("a`b", Some((Restrict, Restrict))),
            ("c", Some((Cascade, SetNull))),
            ("d", Some((Restrict, Cascade))),
            ("e", None),
        ];
        for (name, expected) in cases {
            assert_eq!(printed_actions(statement, name), expected, "{name}");
        }
    }
}
