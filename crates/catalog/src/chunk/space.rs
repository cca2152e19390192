//! A table as it is split by its key.

use crossfade_model::{TableName, TableShape, quote_identifier};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};

use super::key_column::KeyColumn;
use super::{KeyBound, KeyRange};
use crate::CatalogError;

/// What is asked of a connection before bounds go through it: every date that a column can hold is one, a time is UTC.
const SESSION: &str = "SET SESSION time_zone = '+00:00', sql_mode = 'ALLOW_INVALID_DATES'";

/// A table, its key, and the SQL that reads ranges of it.
#[derive(Debug, Clone)]
pub struct KeySpace {
    table: TableName,
    /// The table with its key's index forced: with the statistics of a table that was just filled, a server may read all of
    /// it instead.
    from: String,
    columns: Vec<KeyColumn>,
}

impl KeySpace {
    /// `key` are the columns of the key, as indexes into the definition's columns.
    ///
    /// # Errors
    ///
    /// [`CatalogError::NoKey`] where there are none, or a column's type is not known.
    pub fn new(shape: &TableShape, key: &[usize]) -> Result<KeySpace, CatalogError> {
        let columns: Option<Vec<KeyColumn>> =
            key.iter().map(|index| KeyColumn::new(shape.columns.get(*index)?)).collect();
        let columns = columns.filter(|columns| !columns.is_empty());
        let columns = columns.ok_or_else(|| CatalogError::NoKey { table: shape.name.to_string() })?;
        let index = if shape.primary_key == key {
            Some("PRIMARY")
        } else {
            let same = shape.unique_keys.iter().find(|unique| !unique.partial && unique.columns == key);
            same.map(|unique| unique.name.as_str())
        };
        let forced = index.map(|index| format!(" FORCE INDEX ({})", quote_identifier(index))).unwrap_or_default();
        Ok(KeySpace { from: format!("{}{forced}", shape.name.quoted()), table: shape.name.clone(), columns })
    }

    /// Makes a connection read and compare as bounds need it.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Query`].
    pub async fn prepare(conn: &mut Conn) -> Result<(), CatalogError> {
        let set = conn.query_drop(SESSION).await;
        set.map_err(|source| CatalogError::Query { what: "its session's settings", source })
    }

    /// What follows FROM.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The columns of the key, for ORDER BY.
    pub fn order(&self) -> String {
        self.each(|column| column.name.clone())
    }

    /// Expressions that give a row's key, as many as [`key_width`](KeySpace::key_width); [`bound`](KeySpace::bound) takes
    /// what comes back.
    pub fn key_list(&self) -> String {
        self.each(KeyColumn::shown)
    }

    pub fn key_width(&self) -> usize {
        self.columns.len()
    }

    /// The key that [`key_list`](KeySpace::key_list) gave.
    pub fn bound(&self, shown: impl IntoIterator<Item = String>) -> KeyBound {
        KeyBound(self.columns.iter().zip(shown).map(|(column, value)| column.part(value)).collect())
    }

    /// The condition that a row is in the range, and its parameters. A row is in exactly one of ranges that follow each
    /// other.
    ///
    /// Row constructors are spelled out, and the first column's own bound stands by itself: so both servers read the range
    /// of the index and nothing else (MySQL manual, "Range Optimization of Row Constructor Expressions", allows only
    /// equalities there).
    pub fn within(&self, range: &KeyRange) -> (String, Vec<Value>) {
        let (mut conditions, mut params) = (Vec::new(), Vec::new());
        if let Some(after) = &range.after {
            conditions.push(self.beyond(after, ">", ">", &mut params));
        }
        if let Some(through) = &range.through {
            conditions.push(self.beyond(through, "<", "<=", &mut params));
        }
        let sql = if conditions.is_empty() { "1 = 1".to_owned() } else { conditions.join(" AND ") };
        (sql, params)
    }

    /// The condition that a row has this key, by the server's own comparison, and its parameters.
    pub fn is(&self, key: &KeyBound) -> (String, Vec<Value>) {
        let mut params = Vec::new();
        let parts: Vec<String> =
            (0..self.columns.len()).map(|index| self.compared(key, index, "=", &mut params)).collect();
        (parts.join(" AND "), params)
    }

    /// The key of row number `row` (the first is 1) of a range; `None` where it has fewer.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Query`], or [`CatalogError::KeyUnreadable`] where the key could not be compared with.
    pub async fn nth(&self, conn: &mut Conn, range: &KeyRange, row: u64) -> Result<Option<KeyBound>, CatalogError> {
        let end = format!("ORDER BY {} LIMIT 1 OFFSET {}", self.order(), row.saturating_sub(1));
        self.one(conn, range, &end).await
    }

    /// The last key of a range.
    ///
    /// # Errors
    ///
    /// As [`KeySpace::nth`].
    pub async fn last(&self, conn: &mut Conn, range: &KeyRange) -> Result<Option<KeyBound>, CatalogError> {
        let end = format!("ORDER BY {} LIMIT 1", self.each(|column| format!("{} DESC", column.name)));
        self.one(conn, range, &end).await
    }

    async fn one(&self, conn: &mut Conn, range: &KeyRange, end: &str) -> Result<Option<KeyBound>, CatalogError> {
        let unreadable: Vec<String> = self.columns.iter().map(KeyColumn::is_unreadable).collect();
        let (condition, params) = self.within(range);
        let sql = format!(
            "SELECT {}, {} FROM {} WHERE {condition} {end}",
            unreadable.join(" OR "),
            self.key_list(),
            self.from
        );
        let row: Option<Row> = conn
            .exec_first(sql, Params::Positional(params))
            .await
            .map_err(|source| CatalogError::Query { what: "a bound of a chunk", source })?;
        let Some(row) = row else { return Ok(None) };
        let lost = || CatalogError::KeyUnreadable { table: self.table.to_string() };
        let shown: Option<Vec<String>> =
            (1..=self.columns.len()).map(|index| row.get_opt::<String, _>(index)?.ok()).collect();
        match row.get_opt::<bool, _>(0) {
            Some(Ok(false)) => shown.map(|shown| Some(self.bound(shown))).ok_or_else(lost),
            _ => Err(lost()),
        }
    }

    /// Beyond a bound in the direction of `strictly`; of the last column as `at_last` says.
    fn beyond(&self, bound: &KeyBound, strictly: &str, at_last: &str, params: &mut Vec<Value>) -> String {
        let last = self.columns.len() - 1;
        if last == 0 {
            return self.compared(bound, 0, at_last, params);
        }
        let first = self.compared(bound, 0, &format!("{strictly}="), params);
        let cases: Vec<String> = (0..=last)
            .map(|index| {
                let mut parts: Vec<String> =
                    (0..index).map(|earlier| self.compared(bound, earlier, "=", params)).collect();
                parts.push(self.compared(bound, index, if index == last { at_last } else { strictly }, params));
                parts.join(" AND ")
            })
            .collect();
        format!("{first} AND (({}))", cases.join(") OR ("))
    }

    fn compared(&self, bound: &KeyBound, index: usize, operator: &str, params: &mut Vec<Value>) -> String {
        let column = &self.columns[index];
        // A bound of another key has too few parts; then none of its columns is compared with anything.
        let Some(part) = bound.0.get(index) else { return "1 = 1".to_owned() };
        if let Some(condition) = column.label_condition(part, operator) {
            return condition;
        }
        params.push(Value::Bytes(part.value.clone().into_bytes()));
        format!("{} {operator} {}", column.name, column.placeholder(part))
    }

    fn each(&self, of: impl Fn(&KeyColumn) -> String) -> String {
        self.columns.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}
