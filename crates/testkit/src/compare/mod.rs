//! Are two databases equal? Judged row by row, through queries and a rendering of values that belong to this module alone.
//!
//! Both sides are read in the order of a table's key and walked side by side. Every value is rendered by the server that
//! holds it, to text that is equal exactly where the values are: strings by their characters' bytes, floating-point numbers
//! with every digit, `NULL` apart from the empty string. Nobody should be writing meanwhile.

mod rendering;
mod report;
mod shape;
mod walk;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};

pub use report::{Comparison, Sample, TableComparison};

/// A table on the old side and its like on the new one, each as (schema, table). Columns are matched by name.
#[derive(Debug, Clone)]
pub struct TablePair {
    pub old: (String, String),
    pub new: (String, String),
}

/// Compares every base table that either side has in `schema`.
pub async fn schemas(old: &Pool, new: &Pool, schema: &str) -> Result<Comparison> {
    let mut old_connection = reading_connection(old).await?;
    let mut new_connection = reading_connection(new).await?;
    let mut names = shape::tables(&mut old_connection, schema).await?;
    for table in shape::tables(&mut new_connection, schema).await? {
        if !names.contains(&table) {
            names.push(table);
        }
    }
    let pairs: Vec<TablePair> = names
        .into_iter()
        .map(|table| TablePair { old: (schema.to_owned(), table.clone()), new: (schema.to_owned(), table) })
        .collect();
    compare(&mut old_connection, &mut new_connection, &pairs).await
}

/// Compares the given tables.
pub async fn tables(old: &Pool, new: &Pool, pairs: &[TablePair]) -> Result<Comparison> {
    let mut old_connection = reading_connection(old).await?;
    let mut new_connection = reading_connection(new).await?;
    compare(&mut old_connection, &mut new_connection, pairs).await
}

async fn compare(old: &mut Conn, new: &mut Conn, pairs: &[TablePair]) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    for pair in pairs {
        let name = format!("{}.{}", pair.old.0, pair.old.1);
        let table = walk::table(old, new, pair).await.with_context(|| format!("cannot compare {name}"))?;
        comparison.tables.push(table);
    }
    Ok(comparison)
}

/// A session in which values look the same on every server.
async fn reading_connection(pool: &Pool) -> Result<Conn> {
    let mut connection = pool.get_conn().await.context("cannot connect to compare")?;
    connection.query_drop("SET SESSION sql_mode = '', time_zone = '+00:00', max_sort_length = 8388608").await?;
    connection.query_drop("SET NAMES utf8mb4").await?;
    Ok(connection)
}
