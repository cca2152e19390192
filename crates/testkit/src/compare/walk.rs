//! Walks the ordered rows of two sides in step.

use std::cmp::Ordering;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, QueryResult, Row, TextProtocol};

use super::rendering::{self, Reading};
use super::report::{Sample, TableComparison};
use super::shape::{self, Shape};
use super::{TablePair, report};
use crate::sql;

type Rows<'a> = QueryResult<'a, 'static, TextProtocol>;

pub async fn table(old: &mut Conn, new: &mut Conn, pair: &TablePair) -> Result<TableComparison> {
    let mut found = TableComparison::named(format!("{}.{}", pair.old.0, pair.old.1));
    let old_shape = shape::read(old, &pair.old.0, &pair.old.1).await.context("on the old side")?;
    let new_shape = shape::read(new, &pair.new.0, &pair.new.1).await.context("on the new side")?;
    found.columns_on_one_side = lonely(&old_shape, &new_shape).chain(lonely(&new_shape, &old_shape)).collect();

    let key: &[String] =
        if old_shape.key.iter().all(|name| new_shape.column(name).is_some()) { &old_shape.key } else { &[] };
    let old_name = sql::full_name(&pair.old.0, &pair.old.1);
    let new_name = sql::full_name(&pair.new.0, &pair.new.1);
    let old_reading = rendering::reading(&old_name, &old_shape, &new_shape, key);
    let new_reading = rendering::reading(&new_name, &new_shape, &old_shape, key);
    ensure!(old_reading.key_columns > 0, "the two sides share no column");

    let mut old_rows = old.query_iter(old_reading.sql.as_str()).await.context("cannot read the old side")?;
    let mut new_rows = new.query_iter(new_reading.sql.as_str()).await.context("cannot read the new side")?;
    walk(&mut old_rows, &mut new_rows, &old_reading, &mut found).await?;
    old_rows.drop_result().await?;
    new_rows.drop_result().await?;
    Ok(found)
}

fn lonely(of: &Shape, other: &Shape) -> impl Iterator<Item = String> {
    of.columns
        .iter()
        .filter(|column| other.column(&column.name).is_none())
        .map(|column| column.name.clone())
        .collect::<Vec<_>>()
        .into_iter()
}

async fn walk(old: &mut Rows<'_>, new: &mut Rows<'_>, reading: &Reading, found: &mut TableComparison) -> Result<()> {
    let (mut left, mut right) = tokio::try_join!(next(old, reading), next(new, reading))?;
    loop {
        let order = match (&left, &right) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.key.cmp(&b.key),
        };
        found.rows_old += u64::from(order.is_le());
        found.rows_new += u64::from(order.is_ge());
        match (order, &left, &right) {
            (Ordering::Less, Some(row), _) => found.missing_on_new(Sample::lonely(&row.text, "only on old")),
            (Ordering::Greater, _, Some(row)) => found.missing_on_old(Sample::lonely(&row.text, "only on new")),
            (Ordering::Equal, Some(a), Some(b)) => {
                found.both(&a.text, report::different_columns(&a.values, &b.values, reading))
            }
            _ => {}
        }
        if order.is_le() {
            left = next(old, reading).await?;
        }
        if order.is_ge() {
            right = next(new, reading).await?;
        }
    }
}

/// A row of either side, ready to be compared.
struct Rendered {
    key: Key,
    /// The key for people.
    text: String,
    values: Row,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Numbers(Vec<Option<i128>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

async fn next(rows: &mut Rows<'_>, reading: &Reading) -> Result<Option<Rendered>> {
    let Some(row) = rows.next().await? else { return Ok(None) };
    let parts: Vec<Option<&[u8]>> = (0..reading.key_columns).map(|i| report::bytes_of(&row, i)).collect();
    let text = parts.iter().map(|part| report::shown(*part)).collect::<Vec<_>>().join(",");
    let key = if reading.numeric {
        Key::Numbers(parts.iter().map(|part| part.map(number).transpose()).collect::<Result<_>>()?)
    } else {
        Key::Bytes(parts.iter().map(|part| part.map(<[u8]>::to_vec)).collect())
    };
    Ok(Some(Rendered { key, text, values: row }))
}

fn number(digits: &[u8]) -> Result<i128> {
    std::str::from_utf8(digits)?.parse().context("an integer key is not rendered as an integer")
}
