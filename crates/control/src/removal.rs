//! Taking away what crossfade has kept on a server: the rows of one pair, and the schema where nobody else has anything in it.

use std::fmt;

use crossfade_catalog::{Purpose, connect as connect_to};
use crossfade_config::Settings;
use crossfade_message::{MIGRATION_LOCK, SCHEMA, node_tables};
use crossfade_model::Side;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, params};

use crate::ControlError;
use crate::side::{connect, during};

/// What has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// There was nothing.
    Nothing,
    /// The schema is gone.
    Schema,
    /// The pair's rows are gone; what else is there belongs to others, or to the store.
    Rows(u64),
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removed::Nothing => f.write_str("nothing of crossfade was there"),
            Removed::Schema => write!(f, "the schema `{SCHEMA}` was dropped"),
            Removed::Rows(rows) => {
                write!(f, "{rows} rows of the pair were deleted; the schema `{SCHEMA}` has others' too")
            }
        }
    }
}

/// Rows that are deleted by one statement.
const ROWS_AT_A_TIME: u64 = 1_000;
const LOCK_WITHIN_SECONDS: u32 = 30;
const WHAT: &str = "remove what crossfade has kept there";

/// Rows of the pair, and of the flags of its groups, which are kept under `<pair>/<group>`: no name has a `/`, after which comes `0`.
const OWN: &str = "(pair = :pair OR (pair > CONCAT(:pair, '/') AND pair < CONCAT(:pair, '0')))";

/// These tell that the migration is over, until everything else is gone.
const LAST: [&str; 2] = ["stream", "switch_run"];

/// Removes from a side's node what the pair has there. A store that is on the same server stays. Repeatable. No process of the pair
/// may run meanwhile.
pub async fn of_node(settings: &Settings, side: Side) -> Result<Removed, ControlError> {
    let mut conn = connect(settings, side, Purpose::Catalog).await?;
    let removed = remove(&mut conn, &settings.pair, true).await;
    let _ = conn.disconnect().await;
    removed.map_err(during(side, WHAT))?.ok_or_else(busy)
}

/// Removes the pair from the store. What is left to be told of it is then in the report alone. As [`of_node`].
pub async fn of_store(settings: &Settings) -> Result<Removed, ControlError> {
    let connected = connect_to(settings.store_url(), Purpose::Catalog).await;
    let mut conn = connected.map_err(ControlError::StoreServer)?;
    let removed = remove(&mut conn, &settings.pair, false).await;
    let _ = conn.disconnect().await;
    removed.map_err(ControlError::Removal)?.ok_or_else(busy)
}

fn busy() -> ControlError {
    ControlError::Refused(format!("somebody else has made or removed the schema `{SCHEMA}` for longer than 30 s"))
}

/// `None` where somebody else was at it for too long.
async fn remove(conn: &mut Conn, pair: &str, of_node: bool) -> Result<Option<Removed>, mysql_async::Error> {
    // `init` takes the same lock: nobody makes the schema his own while it is looked at.
    let lock = format!("SELECT GET_LOCK('{MIGRATION_LOCK}', {LOCK_WITHIN_SECONDS})");
    if conn.query_first::<Option<i64>, _>(lock).await?.flatten() != Some(1) {
        return Ok(None);
    }
    let removed = remove_in_time(conn, pair, of_node).await;
    let _ = conn.query_drop(format!("DO RELEASE_LOCK('{MIGRATION_LOCK}')")).await;
    removed.map(Some)
}

/// Whoever waits for a session that holds one of the tables keeps all others from them.
async fn remove_in_time(conn: &mut Conn, pair: &str, of_node: bool) -> Result<Removed, mysql_async::Error> {
    let bounds = format!(
        "SET SESSION lock_wait_timeout = {LOCK_WITHIN_SECONDS}, innodb_lock_wait_timeout = {LOCK_WITHIN_SECONDS}"
    );
    conn.query_drop(bounds).await?;
    remove_locked(conn, pair, of_node).await
}

async fn remove_locked(conn: &mut Conn, pair: &str, of_node: bool) -> Result<Removed, mysql_async::Error> {
    let exists: Option<u8> =
        conn.exec_first("SELECT 1 FROM information_schema.schemata WHERE schema_name = ?", (SCHEMA,)).await?;
    if exists.is_none() {
        return Ok(Removed::Nothing);
    }
    let tables = tables_of_pairs(conn).await?;
    let node = node_tables();
    let is_own = |table: &&String| !of_node || node.contains(&table.as_str());
    let mut others = false;
    for table in &tables {
        others = others || has_rows(conn, table, &format!("NOT {OWN}"), pair).await?;
        // The store is here.
        others = others || (!is_own(&table) && has_rows(conn, table, OWN, pair).await?);
    }
    if !others {
        conn.query_drop(format!("DROP DATABASE IF EXISTS `{SCHEMA}`")).await?;
        return Ok(Removed::Schema);
    }
    let mut rows = 0;
    for table in tables.iter().filter(is_own).filter(|table| !LAST.contains(&table.as_str())) {
        rows += delete(conn, table, pair).await?;
    }
    if !of_node {
        conn.query_drop("START TRANSACTION").await?;
        for table in LAST {
            conn.exec_drop(format!("DELETE FROM `{SCHEMA}`.`{table}` WHERE {OWN}"), params! { pair }).await?;
            rows += conn.affected_rows();
        }
        conn.query_drop("COMMIT").await?;
    }
    Ok(Removed::Rows(rows))
}

/// Every table of the schema that is keyed by pair.
async fn tables_of_pairs(conn: &mut Conn) -> Result<Vec<String>, mysql_async::Error> {
    conn.exec(
        "SELECT c.table_name AS name FROM information_schema.columns c JOIN information_schema.tables t \
           ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
         WHERE c.table_schema = ? AND c.column_name = 'pair' AND t.table_type = 'BASE TABLE' ORDER BY c.table_name",
        (SCHEMA,),
    )
    .await
}

async fn has_rows(conn: &mut Conn, table: &str, condition: &str, pair: &str) -> Result<bool, mysql_async::Error> {
    let question = format!("SELECT 1 FROM `{SCHEMA}`.`{table}` WHERE {condition} LIMIT 1");
    Ok(conn.exec_first::<u8, _, _>(question, params! { pair }).await?.is_some())
}

async fn delete(conn: &mut Conn, table: &str, pair: &str) -> Result<u64, mysql_async::Error> {
    let mut rows = 0;
    loop {
        let statement = format!("DELETE FROM `{SCHEMA}`.`{table}` WHERE {OWN} LIMIT {ROWS_AT_A_TIME}");
        conn.exec_drop(statement, params! { pair }).await?;
        rows += conn.affected_rows();
        if conn.affected_rows() < ROWS_AT_A_TIME {
            return Ok(rows);
        }
    }
}
