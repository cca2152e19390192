//! A yardstick for what the target can take: the net rows of so many changes in statements of many rows, and nothing else.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use crossfade_model::{Row, RowChange, TableLayout, Value, quote_identifier};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;

use crate::decoding;
use crate::recording::BinlogPlace;
use crate::stage::Stage;

const CONNECTIONS: usize = 2;
/// Source changes that are folded into one transaction.
const FOLDED: usize = 500;

/// Statements that only have to be sent.
#[derive(Debug)]
pub struct Ceiling {
    prepared: Vec<(Conn, Vec<String>)>,
    writing: JoinSet<Result<()>>,
}

impl Ceiling {
    /// Decodes the source's binlog from a place on, and makes the statements.
    pub async fn prepare(stage: &Stage, from: &BinlogPlace) -> Result<Ceiling> {
        let source = stage.source()?;
        let path = source.data_dir().join(&from.file);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut shares: Vec<Share> = (0..CONNECTIONS).map(|_| Share::default()).collect();
        let mut failed = None;
        decoding::each_change(&bytes, from.offset, source.flavor(), |change| {
            if failed.is_none() {
                failed = add(&mut shares, change).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let mut prepared = Vec::new();
        for share in shares {
            prepared.push((stage.target()?.connect().await?, share.statements()?));
        }
        Ok(Ceiling { prepared, writing: JoinSet::new() })
    }

    pub fn begin(&mut self) {
        for (conn, statements) in std::mem::take(&mut self.prepared) {
            self.writing.spawn(send(conn, statements));
        }
    }

    pub fn must_run(&mut self) -> Result<()> {
        while let Some(written) = self.writing.try_join_next() {
            written??;
        }
        Ok(())
    }

    pub async fn end(&mut self) -> Result<()> {
        while let Some(written) = self.writing.join_next().await {
            written??;
        }
        Ok(())
    }
}

async fn send(mut conn: Conn, statements: Vec<String>) -> Result<()> {
    for statement in statements {
        conn.query_drop(statement).await?;
    }
    Ok(())
}

/// Rows by their keys, in whose order they are written; `None` for one that is gone.
type Net = BTreeMap<u64, Option<Row>>;

/// The changes of one connection: those of a row are all of one.
#[derive(Debug, Default)]
struct Share {
    open: Vec<(Arc<TableLayout>, Net)>,
    changes: usize,
    done: Vec<String>,
}

fn add(shares: &mut [Share], change: RowChange) -> Result<()> {
    let layout = change.layout.clone();
    let [key] = layout.row_key[..] else { bail!("{} has no key of one column", layout.name) };
    let image = change.after.as_ref().or(change.before.as_ref()).context("a change without an image")?;
    let number = match &image[key] {
        Value::UInt(number) => *number,
        Value::Int(number) => u64::try_from(*number).context("a negative key")?,
        other => bail!("a key that is no number: {other:?}"),
    };
    let share = &mut shares[usize::try_from(number % CONNECTIONS as u64)?];
    share.add(layout, number, change.after)
}

impl Share {
    fn add(&mut self, layout: Arc<TableLayout>, key: u64, after: Option<Row>) -> Result<()> {
        let place = match self.open.iter().position(|(open, _)| open.name == layout.name) {
            Some(place) => place,
            None => {
                self.open.push((layout, Net::new()));
                self.open.len() - 1
            }
        };
        self.open[place].1.insert(key, after);
        self.changes += 1;
        if self.changes == FOLDED { self.close() } else { Ok(()) }
    }

    /// What is open becomes one transaction.
    fn close(&mut self) -> Result<()> {
        self.changes = 0;
        let mut statements = Vec::new();
        for (layout, net) in self.open.drain(..) {
            let table = format!("{}.{}", quote_identifier(&layout.name.schema), quote_identifier(&layout.name.table));
            let key = quote_identifier(&layout.columns[layout.row_key[0]]);
            let gone: Vec<String> =
                net.iter().filter(|(_, row)| row.is_none()).map(|(key, _)| key.to_string()).collect();
            if !gone.is_empty() {
                statements.push(format!("DELETE FROM {table} WHERE {key} IN ({})", gone.join(",")));
            }
            let left: Vec<&Row> = net.values().flatten().collect();
            if !left.is_empty() {
                statements.push(upsert(&table, &layout, &left)?);
            }
        }
        match statements.len() {
            0 => {}
            1 => self.done.extend(statements),
            _ => self.done.push(format!("BEGIN;{};COMMIT", statements.join(";"))),
        }
        Ok(())
    }

    fn statements(mut self) -> Result<Vec<String>> {
        self.close()?;
        Ok(self.done)
    }
}

fn upsert(table: &str, layout: &TableLayout, rows: &[&Row]) -> Result<String> {
    let columns: Vec<String> = layout.columns.iter().map(|column| quote_identifier(column)).collect();
    let mut text = format!("INSERT INTO {table} ({}) VALUES ", columns.join(","));
    for (place, row) in rows.iter().enumerate() {
        let values: Result<Vec<String>> = row.iter().map(literal).collect();
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(text, "{comma}({})", values?.join(","));
    }
    let set: Vec<String> = columns.iter().map(|column| format!("{column}=VALUES({column})")).collect();
    let _ = write!(text, " ON DUPLICATE KEY UPDATE {}", set.join(","));
    Ok(text)
}

/// Of the types that the workloads have.
fn literal(value: &Value) -> Result<String> {
    let text = |text: &str| mysql_async::Value::from(text).as_sql(false);
    Ok(match value {
        Value::Null => "NULL".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Decimal(digits) => digits.clone(),
        Value::Text(string) | Value::Enum(string) => text(string),
        Value::Json(document) => text(&document.text),
        Value::Datetime(date, time) => text(&format!("{date} {time}")),
        other => bail!("no workload has a value like {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use crossfade_model::{ColumnKind, RowOp, TableName};

    use super::*;

    fn change(id: u64, name: Option<&str>) -> RowChange {
        let layout = TableLayout {
            name: TableName::new("bench", "t"),
            columns: vec!["id".into(), "name".into()],
            kinds: vec![
                ColumnKind::Integer { bytes: 8, unsigned: true },
                ColumnKind::Text { charset: "utf8mb4".to_owned() },
            ],
            row_key: vec![0],
        };
        let row = |name: &str| vec![Value::UInt(id), Value::Text(name.to_owned())];
        let (op, before, after) = match name {
            Some(name) => (RowOp::Insert, None, Some(row(name))),
            None => (RowOp::Delete, Some(row("gone")), None),
        };
        RowChange { layout: Arc::new(layout), op, before, after, event_index: 0 }
    }

    #[test]
    fn a_transaction_has_the_net_rows_of_its_changes_in_the_order_of_their_keys() {
        let mut shares: Vec<Share> = (0..CONNECTIONS).map(|_| Share::default()).collect();
        for (id, name) in
            [(4, Some("x")), (2, Some("it's")), (4, Some("y")), (6, Some("z")), (6, None), (1, Some("odd"))]
        {
            add(&mut shares, change(id, name)).unwrap();
        }
        let statements: Vec<Vec<String>> = shares.into_iter().map(|share| share.statements().unwrap()).collect();
        let upsert = "INSERT INTO `bench`.`t` (`id`,`name`) VALUES";
        let set = "ON DUPLICATE KEY UPDATE `id`=VALUES(`id`),`name`=VALUES(`name`)";
        let even =
            format!("BEGIN;DELETE FROM `bench`.`t` WHERE `id` IN (6);{upsert} (2,'it\\'s'),(4,'y') {set};COMMIT");
        assert_eq!(statements, [vec![even], vec![format!("{upsert} (1,'odd') {set}")]]);
    }

    #[test]
    fn so_many_changes_are_one_transaction() {
        let mut shares = vec![Share::default(), Share::default()];
        for _ in 0..FOLDED {
            add(&mut shares, change(2, Some("x"))).unwrap();
        }
        let mut signed = change(2, Some("y"));
        signed.after.as_mut().unwrap()[0] = Value::Int(2);
        add(&mut shares, signed).unwrap();
        assert_eq!(shares.swap_remove(0).statements().unwrap().len(), 2);
    }
}
