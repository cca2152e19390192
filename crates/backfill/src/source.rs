//! Reading a table of the source in the order of its key, exactly as its row events would have it.

use std::fmt::Write;
use std::sync::Arc;

use crossfade_applier::{cell, placeholder, push_params};
use crossfade_binlog::decode::stored_text;
use crossfade_catalog::chunk::{KeyBound, KeyRange, KeySpace};
use crossfade_catalog::{Purpose, Servers};
use crossfade_message::CopyKey;
use crossfade_model::{Column, ColumnKind, Row, TableLayout, TableName, TableShape, Value, quote_identifier};
use crossfade_rules::TableMapping;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value as Param};

use crate::error::BackfillError;

/// Rows are counted up to this number; beyond it the server's estimate serves.
const COUNTED_ROWS: u64 = 5_000_000;

/// Rows of a statement that asks for them by their keys.
pub(crate) const KEYS_AT_A_TIME: usize = 200;

/// A table of the source.
pub(crate) struct SourceTable {
    name: TableName,
    quoted: String,
    /// In the order of the mapping's columns.
    columns: Vec<Column>,
    /// Indexes into `columns`.
    key: Vec<usize>,
    key_layout: Arc<TableLayout>,
    select_list: String,
    space: KeySpace,
}

impl SourceTable {
    /// `None` where the definition does not have what the mapping carries, or the table has no key.
    pub fn new(mapping: &TableMapping, shape: &TableShape) -> Option<SourceTable> {
        let columns: Option<Vec<Column>> = mapping
            .columns
            .iter()
            .map(|mapped| shape.column(&mapped.source).map(|index| shape.columns[index].clone()))
            .collect();
        let columns = columns?;
        let key = mapping.row_key.clone();
        if key.is_empty() {
            return None;
        }
        let places: Option<Vec<usize>> = key.iter().map(|part| shape.column(&columns[*part].name)).collect();
        let space = KeySpace::new(shape, &places?).ok()?;
        Some(SourceTable {
            name: mapping.source.clone(),
            select_list: columns.iter().map(select_expression).collect::<Vec<_>>().join(", "),
            key_layout: Arc::new(TableLayout {
                name: mapping.source.clone(),
                columns: key.iter().map(|part| columns[*part].name.as_str().into()).collect(),
                kinds: key.iter().map(|part| columns[*part].kind.clone()).collect(),
                row_key: (0..key.len()).collect(),
            }),
            quoted: mapping.source.quoted(),
            space,
            columns,
            key,
        })
    }

    /// A row's key, for the store.
    pub fn key_of(&self, row: &Row) -> CopyKey {
        let values = self.key.iter().map(|part| row[*part].clone()).collect();
        CopyKey { layout: self.key_layout.clone(), values }
    }

    /// The key of the last row; `None` for an empty table.
    pub async fn last_key(&self, conn: &mut Conn) -> Result<Option<KeyBound>, BackfillError> {
        Ok(self.space.last(conn, &KeyRange::default()).await?)
    }

    /// How many rows there are, exactly up to some millions.
    pub async fn count(&self, conn: &mut Conn) -> Result<u64, mysql_async::Error> {
        let sql = format!("SELECT COUNT(*) FROM (SELECT 1 FROM {} LIMIT {COUNTED_ROWS}) AS counted", self.quoted);
        let counted: u64 = conn.query_first(sql).await?.unwrap_or(0);
        if counted < COUNTED_ROWS {
            return Ok(counted);
        }
        let estimate: Option<Option<u64>> = conn
            .exec_first(
                "SELECT table_rows FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
                (&*self.name.schema, &*self.name.table),
            )
            .await?;
        Ok(estimate.flatten().unwrap_or(0).max(counted))
    }

    /// The end of the chunk of so many rows after a bound; `None` where the rest of the table up to `end` is no more than that.
    pub async fn chunk_end(
        &self,
        conn: &mut Conn,
        range: &KeyRange,
        rows: u64,
    ) -> Result<Option<KeyBound>, BackfillError> {
        Ok(self.space.nth(conn, range, rows).await?)
    }

    /// Reads the rows of a range. `None`: they have more than `most_bytes` and would not all fit.
    pub async fn read(
        &self,
        conn: &mut Conn,
        range: &KeyRange,
        most_bytes: usize,
    ) -> Result<Option<Vec<Row>>, BackfillError> {
        let (condition, params) = self.space.within(range);
        let (list, from) = (&self.select_list, self.space.from());
        let mut result = conn.exec_iter(format!("SELECT {list} FROM {from} WHERE {condition}"), params).await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = result.next().await? {
            let row = self.cells(row);
            bytes += row.iter().map(Value::heap_bytes).sum::<usize>() + row.len() * size_of::<Value>();
            rows.push(row);
            // What is left comes over a connection that is given up.
            if bytes > most_bytes && rows.len() > 1 {
                return Ok(None);
            }
        }
        Ok(Some(rows))
    }

    /// Reads the rows of these keys that exist, at most [`KEYS_AT_A_TIME`], and holds them as they are until the transaction
    /// ends.
    pub async fn hold_keys(&self, conn: &mut Conn, keys: &[CopyKey]) -> Result<Vec<Row>, mysql_async::Error> {
        let mut sql = format!("SELECT {} FROM {} WHERE ", self.select_list, self.space.from());
        let mut params = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            sql.push_str(if number > 0 { " OR (" } else { "(" });
            for (place, (part, value)) in self.key.iter().zip(&key.values).enumerate() {
                sql.push_str(if place > 0 { " AND " } else { "" });
                self.push_comparison(*part, value, "=", &mut sql, &mut params);
            }
            sql.push(')');
        }
        sql.push_str(" LOCK IN SHARE MODE");
        let rows: Vec<mysql_async::Row> = conn.exec(sql, params).await?;
        Ok(rows.into_iter().map(|row| self.cells(row)).collect())
    }

    fn push_comparison(&self, part: usize, value: &Value, comparison: &str, sql: &mut String, params: &mut Vec<Param>) {
        let column = &self.columns[part];
        let name = quote_identifier(&column.name);
        match (value, &column.kind) {
            // An ENUM or SET is ordered by its number, but compared with a text by its label.
            (Value::Enum(label), ColumnKind::Enum { labels }) => {
                let number = labels.iter().position(|known| known == label).map_or(0, |place| place as u64 + 1);
                let _ = write!(sql, "{name} + 0 {comparison} ?");
                params.push(Param::UInt(number));
            }
            (Value::Set(chosen), ColumnKind::Set { labels }) => {
                let bit = |label: &str| labels.iter().position(|known| known == label).map_or(0, |place| 1 << place);
                let number = chosen.split(',').map(bit).fold(0_u64, |bits, bit| bits | bit);
                let _ = write!(sql, "{name} + 0 {comparison} ?");
                params.push(Param::UInt(number));
            }
            // Against a text, a DECIMAL would be compared as a floating-point number.
            (Value::Decimal(digits), ColumnKind::Decimal { precision, scale }) => {
                let _ = write!(sql, "{name} {comparison} CAST(? AS DECIMAL({precision},{scale}))");
                params.push(Param::Bytes(digits.clone().into_bytes()));
            }
            _ => {
                let _ = write!(sql, "{name} {comparison} {}", placeholder(value, column));
                push_params(value, column, params);
            }
        }
    }

    fn cells(&self, row: mysql_async::Row) -> Row {
        let raw = row.unwrap_raw().into_iter().map(|value| value.unwrap_or(Param::NULL));
        raw.zip(&self.columns)
            .map(|(value, column)| match (value, &column.kind) {
                (Param::Bytes(bytes), ColumnKind::Text { charset }) => {
                    stored_text(charset, &bytes).unwrap_or(Value::Bytes(bytes))
                }
                (value, kind) => cell(value, kind),
            })
            .collect()
    }
}

/// How many rows a table of the source may have, by its server's own estimate; `None` where it does not say.
pub async fn expected_rows(source: &Servers, tables: &[TableName]) -> Result<Vec<Option<u64>>, BackfillError> {
    let mut conn = source.connect(Purpose::Catalog).await?;
    // MySQL would tell what it had found out yesterday (manual, INFORMATION_SCHEMA.STATISTICS).
    conn.query_drop("/*!80000 SET SESSION information_schema_stats_expiry = 0 */").await?;
    let mut expected = Vec::with_capacity(tables.len());
    for table in tables {
        let estimate: Option<Option<u64>> = conn
            .exec_first(
                "SELECT table_rows FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
                (&*table.schema, &*table.table),
            )
            .await?;
        expected.push(estimate.flatten());
    }
    Ok(expected)
}

/// Text comes as it is stored, but for UTF-8, which is what comes anyway.
fn select_expression(column: &Column) -> String {
    let name = quote_identifier(&column.name);
    match &column.kind {
        ColumnKind::Text { charset } if !matches!(charset.as_str(), "utf8mb4" | "utf8mb3" | "utf8") => {
            format!("CAST({name} AS BINARY)")
        }
        _ => name,
    }
}
