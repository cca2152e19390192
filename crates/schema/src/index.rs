//! Secondary indexes that can be dropped while rows are copied, and built afterwards.

use std::collections::BTreeSet;

use crossfade_catalog::{CatalogError, table_shape};
use crossfade_model::TableName;
use mysql_async::prelude::Queryable;

use crate::SchemaError;
use crate::printed::{Item, ItemKind, PrintedTable};
use crate::selection::SideSchema;
use crate::token::{TokenKind, depth_after, printed};

/// An index, and what follows the table in the CREATE INDEX that makes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondaryIndex {
    pub name: String,
    pub definition: String,
}

/// The plain secondary indexes of a table that nothing else rests on: they let the same values in as without them. What a foreign
/// key of this or another table may need stays, and so does what holds AUTO_INCREMENT, an expression, FULLTEXT or SPATIAL.
///
/// # Errors
///
/// [`SchemaError`], also where there is no such table.
pub async fn deferrable_indexes(side: &mut SideSchema, name: &TableName) -> Result<Vec<SecondaryIndex>, SchemaError> {
    let unread = || SchemaError::Unread { table: name.clone() };
    let shape = table_shape(&mut side.conn, name).await?.ok_or_else(unread)?;
    let mut needed: Vec<BTreeSet<String>> = Vec::new();
    let lower = |column: &str| column.to_lowercase();
    for key in &shape.foreign_keys {
        needed.push(key.columns.iter().map(|&column| lower(&shape.columns[column].name)).collect());
    }
    needed.extend(referred(side, name).await?);
    needed.extend(
        shape.columns.iter().filter(|column| column.auto_increment).map(|column| BTreeSet::from([lower(&column.name)])),
    );
    let definition = side.definition(shape).await?;
    let statement = definition.printed()?;
    Ok(plain_indexes(&statement, &needed))
}

/// Whether a table has any row.
///
/// # Errors
///
/// [`SchemaError::Catalog`].
pub async fn has_rows(side: &mut SideSchema, name: &TableName) -> Result<bool, SchemaError> {
    let row: Option<u8> = side
        .conn
        .query_first(format!("SELECT 1 FROM {} LIMIT 1", name.quoted()))
        .await
        .map_err(|source| CatalogError::Query { what: "whether a table has rows", source })?;
    Ok(row.is_some())
}

/// The columns of this table that foreign keys lead to, as far as the account sees them; the server refuses to drop what is
/// needed in any case.
async fn referred(side: &mut SideSchema, name: &TableName) -> Result<Vec<BTreeSet<String>>, SchemaError> {
    let rows: Vec<(String, String, String, String)> = side
        .conn
        .exec(
            "SELECT table_schema, table_name, constraint_name, referenced_column_name
               FROM information_schema.key_column_usage
              WHERE referenced_table_schema = ? AND referenced_table_name = ?
              ORDER BY table_schema, table_name, constraint_name",
            (&*name.schema, &*name.table),
        )
        .await
        .map_err(|source| CatalogError::Query { what: "the definitions of foreign keys", source })?;
    let mut found: Vec<((String, String, String), BTreeSet<String>)> = Vec::new();
    for (schema, table, key, column) in rows {
        let id = (schema, table, key);
        match found.last_mut() {
            Some((last, columns)) if *last == id => drop(columns.insert(column.to_lowercase())),
            _ => found.push((id, BTreeSet::from([column.to_lowercase()]))),
        }
    }
    Ok(found.into_iter().map(|(_, columns)| columns).collect())
}

fn plain_indexes(statement: &PrintedTable<'_>, needed: &[BTreeSet<String>]) -> Vec<SecondaryIndex> {
    let keys = statement.items.iter().filter(|item| item.kind == ItemKind::Key);
    let plain = keys.filter(|item| item.tokens.first().is_some_and(|token| token.is_word("KEY")));
    let free = plain.filter(|item| columns(item).is_some_and(|columns| !is_needed(&columns, needed)));
    free.map(|item| SecondaryIndex {
        name: item.name.clone(),
        definition: printed(&item.tokens[item.own_name_end()..]).trim().to_owned(),
    })
    .collect()
}

/// A foreign key is served by an index whose first columns are its own, in any order here: what may serve, stays.
fn is_needed(columns: &[String], needed: &[BTreeSet<String>]) -> bool {
    needed.iter().any(|key| {
        let first: BTreeSet<String> = columns.iter().take(key.len()).cloned().collect();
        first == *key
    })
}

/// The columns of an index in lower case; `None` where a part of it is an expression.
fn columns(item: &Item<'_>) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut depth = 0;
    let mut begins = false;
    for token in &item.tokens[item.own_name_end()..] {
        if depth == 0 && token.is_sign("(") && found.is_empty() {
            begins = true;
        } else if begins && depth == 1 && token.kind != TokenKind::Hint {
            found.push(token.name()?.to_lowercase());
            begins = false;
        } else if depth == 1 && token.is_sign(",") {
            begins = true;
        }
        depth = depth_after(depth, token);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_something_rests_on_stays() {
        let statement = "CREATE TABLE `t` (\n `id` int, `a` int, `b` int, `c` varchar(9),\n PRIMARY KEY (`id`),\n UNIQUE KEY `u` (`b`),\n\
            \x20 KEY `fk` (`b`,`A`,`c`),\n KEY `plain ``k` (`a`,`c`(3) DESC) USING BTREE COMMENT 'it''s, (x)' /*!80000 INVISIBLE */,\n\
            \x20 KEY `expression` ((lower(`c`))),\n KEY `later` (`c`,(`a` + 1)),\n KEY `other` (`c`,`b`,`a`),\n FULLTEXT KEY `f` (`c`)\n)";
        let table = PrintedTable::parse(statement).expect("a statement");
        let needed = [BTreeSet::from(["a".to_owned(), "b".to_owned()])];
        let found = plain_indexes(&table, &needed);
        let shown: Vec<(&str, &str)> =
            found.iter().map(|index| (index.name.as_str(), index.definition.as_str())).collect();
        let definition = "(`a`,`c`(3) DESC) USING BTREE COMMENT 'it''s, (x)' /*!80000 INVISIBLE */";
        assert_eq!(shown, [("plain `k", definition), ("other", "(`c`,`b`,`a`)")]);
    }
}
