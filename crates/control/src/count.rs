//! AUTO_INCREMENT: the side that users write to from now on counts on from where the other one has stopped.
//!
//! A row that crosses raises the other side's counter by itself. What does not cross are numbers that were given and not used, of
//! inserts that were rolled back, and of rows that were deleted before they crossed: they must not be given again.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_model::{Side, TableName};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::ControlError;
use crate::side::{during, in_time};

/// A table by its names on both sides, where both sides count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedTable {
    pub old: TableName,
    pub new: TableName,
}

impl CountedTable {
    fn on(&self, side: Side) -> &TableName {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }
}

/// Somebody who has a table open must not keep users waiting.
const LOCK_WAIT_SECONDS: u32 = 2;

/// Raises the counters of `to` that are behind those of the other side; gives the tables' names there. Repeatable. The readers of
/// the binlog take the ALTER TABLE for what it is: the table is read anew, and its rows stay.
pub(crate) async fn raise(
    (from_conn, from): (&mut Conn, Side),
    (to_conn, to): (&mut Conn, Side),
    tables: &[CountedTable],
) -> Result<Vec<String>, ControlError> {
    let names = |side| tables.iter().map(|table| table.on(side)).collect::<Vec<_>>();
    let (from_names, to_names) = (names(from), names(to));
    let (here, there) =
        tokio::try_join!(next_values(from_conn, from, &from_names), next_values(to_conn, to, &to_names))?;
    let mut raised = Vec::new();
    for table in tables {
        let Some(next) = here.get(table.on(from)) else { continue };
        let name = table.on(to);
        if there.get(name).is_none_or(|has| has >= next) {
            continue;
        }
        if raised.is_empty() {
            let set = to_conn.query_drop(format!("SET SESSION lock_wait_timeout = {LOCK_WAIT_SECONDS}")).await;
            set.map_err(during(to, "bound how long it waits for a lock"))?;
        }
        let statement = format!("ALTER TABLE {} AUTO_INCREMENT = {next}", name.quoted());
        in_time(to, to_conn.query_drop(statement)).await?.map_err(during(to, "raise the next AUTO_INCREMENT value"))?;
        raised.push(format!("{name} from {next}"));
    }
    Ok(raised)
}

/// The next values, of tables that have one. MySQL 8 and later remembers statistics for a day, unless told not to; MariaDB skips
/// comments of versions 50700 to 99999 (MariaDB documentation, "Comment Syntax").
async fn next_values(
    conn: &mut Conn,
    side: Side,
    tables: &[&TableName],
) -> Result<BTreeMap<TableName, u64>, ControlError> {
    let during = || during(side, "tell the next AUTO_INCREMENT values");
    let fresh = "/*!80000 SET SESSION information_schema_stats_expiry = 0 */";
    in_time(side, conn.query_drop(fresh)).await?.map_err(during())?;
    let mut values = BTreeMap::new();
    let schemas: BTreeSet<&str> = tables.iter().map(|table| &*table.schema).collect();
    for schema in schemas {
        let names: Vec<&str> =
            tables.iter().filter(|table| *table.schema == *schema).map(|table| &*table.table).collect();
        let places = vec!["?"; names.len()].join(", ");
        let question = format!(
            "SELECT table_name, auto_increment FROM information_schema.tables \
             WHERE table_schema = ? AND auto_increment IS NOT NULL AND table_name IN ({places})"
        );
        let parameters: Vec<&str> = std::iter::once(schema).chain(names).collect();
        let rows: Result<Vec<(String, u64)>, _> = in_time(side, conn.exec(question, parameters)).await?;
        for (table, next) in rows.map_err(during())? {
            values.insert(TableName::new(schema, table), next);
        }
    }
    Ok(values)
}
