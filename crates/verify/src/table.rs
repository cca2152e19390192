//! A table as it is compared: the SQL of both sides.

use std::sync::Arc;

use crossfade_catalog::chunk::{KeyBound, KeyRange, KeySpace};
use crossfade_model::{Column, ColumnKind, Side, TableName, TableShape};
use crossfade_rules::TableMapping;
use crossfade_rules::mapping::ClockKind;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};

use crate::canonical::{Canonical, digest};
use crate::picked::Pick;
use crate::{Filter, VerifyError};

/// Rows that are asked for together by their keys.
const KEYS_TOGETHER: usize = 32;

/// Stands in a sum for a row of which the server gives no digest. It would take 50 billion others to add up to it. Its
/// digits make a decimal number of it, which is exact.
const NO_DIGEST: &str = "1000000000000000000000000000000";

/// One table on both sides.
#[derive(Debug, Clone)]
pub(crate) struct ComparedTable {
    pub old: TableSide,
    pub new: TableSide,
    /// The carried columns, as either side names them.
    pub columns: Vec<ColumnNames>,
}

/// A column, as either side names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnNames {
    pub old: String,
    pub new: String,
}

/// One side of a table.
#[derive(Debug, Clone)]
pub(crate) struct TableSide {
    pub side: Side,
    pub name: TableName,
    pub shape: Arc<TableShape>,
    pub space: KeySpace,
    columns: Vec<Canonical>,
    key: Vec<usize>,
    filter: String,
    filter_params: Vec<Value>,
}

/// What is compared of a range of rows: their number, and a sum over the digests of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub rows: u64,
    /// Of 64 bits of each row's digest, exact: two rows cannot cancel each other out as they would in an XOR.
    sum: String,
}

/// A row, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowDigest {
    /// As its own side tells it.
    pub key: KeyBound,
    /// Of the key's values: equal on both sides for equal keys.
    pub key_digest: String,
    pub digest: String,
}

impl ComparedTable {
    /// By the forward mapping and both sides' definitions. `None`: no time tells how recent rows are, and the filter asks
    /// for that.
    ///
    /// # Errors
    ///
    /// The table has no key that it can be split by.
    pub fn new(
        mapping: &TableMapping,
        old: &Arc<TableShape>,
        new: &Arc<TableShape>,
        filter: &Filter,
        only_digests: bool,
    ) -> Result<Option<ComparedTable>, VerifyError> {
        let column = |shape: &TableShape, name: &str| shape.column(name).map(|index| shape.columns[index].clone());
        let pairs: Vec<(Column, Column)> = mapping
            .columns
            .iter()
            .filter_map(|mapped| Some((column(old, &mapped.source)?, column(new, &mapped.target)?)))
            .collect();
        let clock = mapping.clock.as_ref().filter(|clock| matches!(clock.kind, ClockKind::Time { .. }));
        if filter.since.is_some() && clock.is_none() {
            return Ok(None);
        }
        let side = |side: Side, shape: &Arc<TableShape>| {
            let of = |(old, new): &(Column, Column)| match side {
                Side::Old => Canonical::of(old, new, only_digests),
                Side::New => Canonical::of(new, old, only_digests),
            };
            let own =
                |(old, new): &(Column, Column)| if side == Side::Old { old.name.clone() } else { new.name.clone() };
            let key: Vec<usize> =
                mapping.row_key.iter().filter_map(|index| shape.column(&own(pairs.get(*index)?))).collect();
            let (filter, filter_params) = filter.sql(clock.map(|clock| own(&pairs[clock.index])).as_deref());
            Ok::<_, VerifyError>(TableSide {
                side,
                name: shape.name.clone(),
                shape: shape.clone(),
                space: KeySpace::new(shape, &key)?,
                columns: pairs.iter().map(of).collect(),
                key: mapping.row_key.clone(),
                filter,
                filter_params,
            })
        };
        let names = |(old, new): &(Column, Column)| ColumnNames { old: old.name.clone(), new: new.name.clone() };
        Ok(Some(ComparedTable {
            old: side(Side::Old, old)?,
            new: side(Side::New, new)?,
            columns: pairs.iter().map(names).collect(),
        }))
    }

    pub fn side(&self, side: Side) -> &TableSide {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// Whether a whole number is the key on both sides, and all rows are compared.
    pub fn is_numbered(&self) -> bool {
        let [key] = self.old.key[..] else { return false };
        let is_integer = |side: &TableSide, name: &str| {
            let kind = side.shape.column(name).map(|index| &side.shape.columns[index].kind);
            matches!(kind, Some(ColumnKind::Integer { .. }))
        };
        let is_key = |names: &ColumnNames| is_integer(&self.old, &names.old) && is_integer(&self.new, &names.new);
        self.old.filter.is_empty() && self.columns.get(key).is_some_and(is_key)
    }
}

impl TableSide {
    /// Counts and sums the rows of a range that the filter takes.
    pub async fn checksum(&self, conn: &mut Conn, range: &KeyRange) -> Result<Checksum, VerifyError> {
        let (condition, params) = self.filtered(range);
        let sql = format!(
            "SELECT COUNT(*), CAST(COALESCE(SUM(IFNULL(CAST(CONV(LEFT({}, 16), 16, 10) AS UNSIGNED), {NO_DIGEST})), 0) AS CHAR) \
             FROM {} WHERE {condition}",
            digest(&self.columns),
            self.space.from(),
        );
        let found: Option<(u64, String)> =
            conn.exec_first(sql, Params::Positional(params)).await.map_err(self.unread())?;
        let (rows, sum) = found.unwrap_or_default();
        if sum.len() >= NO_DIGEST.len() {
            return Err(VerifyError::NoDigest { table: self.name.to_string(), side: self.side });
        }
        Ok(Checksum { rows, sum })
    }

    /// The rows of a range that the filter takes, without their values.
    pub async fn rows(&self, conn: &mut Conn, range: &KeyRange) -> Result<Vec<RowDigest>, VerifyError> {
        let (condition, params) = self.filtered(range);
        let rows = self.read(conn, &self.select(&condition, ""), params).await?;
        rows.iter().map(|row| self.row(row)).collect()
    }

    /// The rows that fulfil a condition, without their values. The server chooses the index.
    pub async fn picked(&self, conn: &mut Conn, pick: &Pick) -> Result<Vec<RowDigest>, VerifyError> {
        let sql = self.selected(&self.name.quoted(), &pick.condition, "");
        let rows = self.read(conn, &sql, pick.params.clone()).await?;
        rows.iter().map(|row| self.row(row)).collect()
    }

    /// The rows of these keys as they are now, in the order of `keys`; the filter is not asked.
    ///
    /// The server compares: a row whose key it takes for the same is found, too.
    pub async fn rows_of(&self, conn: &mut Conn, keys: &[&KeyBound]) -> Result<Vec<Option<RowDigest>>, VerifyError> {
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(KEYS_TOGETHER) {
            let (mut parts, mut params) = (Vec::new(), Vec::new());
            for (number, key) in chunk.iter().enumerate() {
                let (condition, mut of_key) = self.space.is(key);
                parts.push(self.select(&condition, &format!(", {number}")));
                params.append(&mut of_key);
            }
            let width = self.space.key_width();
            let mut of_chunk = vec![None; chunk.len()];
            for row in self.read(conn, &parts.join(" UNION ALL "), params).await? {
                let number = row.get_opt::<usize, _>(2 + width).and_then(Result::ok);
                if let Some(slot) = number.and_then(|number| of_chunk.get_mut(number)) {
                    *slot = Some(self.row(&row)?);
                }
            }
            found.append(&mut of_chunk);
        }
        Ok(found)
    }

    /// `more` is added to what is selected.
    fn select(&self, condition: &str, more: &str) -> String {
        self.selected(self.space.from(), condition, more)
    }

    fn selected(&self, from: &str, condition: &str, more: &str) -> String {
        format!(
            "SELECT LEFT({}, 32), LEFT({}, 32), {}{more} FROM {from} WHERE {condition}",
            digest(self.key.iter().map(|index| &self.columns[*index])),
            digest(&self.columns),
            self.space.key_list(),
        )
    }

    async fn read(&self, conn: &mut Conn, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, VerifyError> {
        conn.exec(sql, Params::Positional(params)).await.map_err(self.unread())
    }

    fn row(&self, row: &Row) -> Result<RowDigest, VerifyError> {
        let lost = || VerifyError::NoDigest { table: self.name.to_string(), side: self.side };
        let text = |index: usize| row.get_opt::<String, _>(index).and_then(Result::ok);
        let key: Option<Vec<String>> = (2..2 + self.space.key_width()).map(text).collect();
        let key = self.space.bound(key.ok_or_else(lost)?);
        Ok(RowDigest { key, key_digest: text(0).ok_or_else(lost)?, digest: text(1).ok_or_else(lost)? })
    }

    /// The row of a key, locked until the open transaction ends; where there is none, its place is kept free.
    pub async fn lock(&self, conn: &mut Conn, key: &KeyBound) -> Result<Option<RowDigest>, VerifyError> {
        let (condition, params) = self.space.is(key);
        let rows = self.read(conn, &self.select(&format!("{condition} FOR UPDATE"), ""), params).await?;
        rows.first().map(|row| self.row(row)).transpose()
    }

    /// The digests of a row's columns, one by one; `None` where there is no such row.
    pub async fn column_digests(&self, conn: &mut Conn, key: &KeyBound) -> Result<Option<Vec<String>>, VerifyError> {
        let (condition, params) = self.space.is(key);
        let each: Vec<String> = self.columns.iter().map(|column| digest([column])).collect();
        let sql = format!("SELECT {} FROM {} WHERE {condition}", each.join(", "), self.space.from());
        let row: Option<Row> = conn.exec_first(sql, Params::Positional(params)).await.map_err(self.unread())?;
        let text = |row: &Row, index: usize| row.get_opt::<String, _>(index).and_then(Result::ok).unwrap_or_default();
        Ok(row.map(|row| (0..self.columns.len()).map(|index| text(&row, index)).collect()))
    }

    /// Rows and bytes of the table, as the server estimates them.
    pub async fn estimate(&self, conn: &mut Conn) -> Result<(u64, u64), VerifyError> {
        let found: Option<(Option<u64>, Option<u64>)> = conn
            .exec_first(
                "SELECT table_rows, data_length FROM information_schema.tables WHERE table_schema = ? AND table_name = ?",
                (&*self.name.schema, &*self.name.table),
            )
            .await
            .map_err(self.unread())?;
        let (rows, bytes) = found.unwrap_or_default();
        Ok((rows.unwrap_or(0), bytes.unwrap_or(0)))
    }

    fn filtered(&self, range: &KeyRange) -> (String, Vec<Value>) {
        let (mut condition, mut params) = self.space.within(range);
        if !self.filter.is_empty() {
            condition = format!("{condition} AND {}", self.filter);
            params.extend(self.filter_params.iter().cloned());
        }
        (condition, params)
    }

    pub fn unread(&self) -> impl FnOnce(mysql_async::Error) -> VerifyError {
        let (table, side) = (self.name.to_string(), self.side);
        move |source| VerifyError::Read { table, side, source }
    }
}
