//! What a table looks like, from `information_schema`.

use anyhow::{Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `varchar`, `bigint`, …, in lower case.
    pub data_type: String,
    pub charset: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Shape {
    /// In the order of their names, so that two sides with another column order line up.
    pub columns: Vec<Column>,
    /// Names of the primary key's columns, or of the first unique key without NULLs; empty where there is neither.
    pub key: Vec<String>,
}

impl Shape {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Base tables of a schema, by name.
pub async fn tables(connection: &mut Conn, schema: &str) -> Result<Vec<String>> {
    let sql = "SELECT table_name AS name FROM information_schema.tables \
               WHERE table_schema = ? AND table_type = 'BASE TABLE' ORDER BY table_name";
    Ok(connection.exec(sql, (schema,)).await?)
}

/// Generated and invisible columns are included: whoever compares wants to see everything.
pub async fn read(connection: &mut Conn, schema: &str, table: &str) -> Result<Shape> {
    let sql = "SELECT column_name AS name, LOWER(data_type) AS kind, character_set_name AS charset \
               FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY column_name";
    let rows: Vec<(String, String, Option<String>)> = connection.exec(sql, (schema, table)).await?;
    if rows.is_empty() {
        bail!("there is no table {schema}.{table}");
    }
    let columns = rows.into_iter().map(|(name, data_type, charset)| Column { name, data_type, charset }).collect();
    Ok(Shape { columns, key: key(connection, schema, table).await? })
}

async fn key(connection: &mut Conn, schema: &str, table: &str) -> Result<Vec<String>> {
    // An index over an expression or with a nullable part does not identify a row.
    let sql = "SELECT index_name AS index_name, MAX(nullable = 'YES') AS loose, \
                      SUM(column_name IS NULL) AS expressions, SUM(sub_part IS NOT NULL) AS prefixes \
               FROM information_schema.statistics \
               WHERE table_schema = ? AND table_name = ? AND non_unique = 0 \
               GROUP BY index_name ORDER BY index_name <> 'PRIMARY', index_name";
    let indexes: Vec<(String, i64, i64, i64)> = connection.exec(sql, (schema, table)).await?;
    let Some((index, ..)) =
        indexes.iter().find(|(_, loose, expressions, prefixes)| loose + expressions + prefixes == 0)
    else {
        return Ok(Vec::new());
    };
    let sql = "SELECT column_name AS name FROM information_schema.statistics \
               WHERE table_schema = ? AND table_name = ? AND index_name = ? ORDER BY seq_in_index";
    Ok(connection.exec(sql, (schema, table, index)).await?)
}
