//! What must be true when all is quiet.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use crossfade_testkit::compare::{self, Comparison, TablePair};
use crossfade_testkit::{binlog_window, hotset, sql};
use crossfade_tests::{Direction, Migration};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use tokio::time::Instant;

/// How long the binlogs are watched after all is quiet.
const SILENCE: Duration = Duration::from_secs(5);
/// So many differing rows are shown with their history.
const SHOWN: usize = 3;
const LOOK: Duration = Duration::from_secs(1);

/// Waits until every change that users have made is captured, and applied, decided against, or parked.
pub async fn all_is_settled(migration: &Migration, limit: Duration) -> Result<()> {
    let mut before = Vec::new();
    let written = [
        hotset::changes(&migration.old, &migration.schema).await?.total(),
        hotset::changes(&migration.new, &migration.schema).await?.total(),
    ];
    let end = Instant::now() + limit;
    loop {
        let status = migration.status().read().await?;
        let numbers = [status.all("last_seq"), status.all("settled_seq")].concat();
        let captured = Direction::BOTH.map(|direction| status.number(direction.as_str(), "last_seq"));
        let all_captured = captured.iter().zip(&written).all(|(captured, written)| captured >= written);
        // What one direction sends back the other one has still to apply: the numbers must have come to rest.
        if all_captured && status.is_caught_up() && numbers == before {
            return Ok(());
        }
        ensure!(Instant::now() < end, "not settled within {limit:?}: users made {written:?}, {}", status.0);
        before = numbers;
        tokio::time::sleep(LOOK).await;
    }
}

/// Compares every synced row; the ledgers are each side's own.
pub async fn rows_are_equal(migration: &Migration) -> Result<u64> {
    let pair = |table: hotset::Table| {
        let name = (migration.schema.clone(), table.name().to_owned());
        TablePair { old: name.clone(), new: name }
    };
    let pairs: Vec<TablePair> = hotset::Table::ALL.into_iter().map(pair).collect();
    let comparison = compare::tables(&migration.old, &migration.new, &pairs).await?;
    if !comparison.is_equal() {
        bail!(
            "{} rows differ when all is quiet\n{comparison}\n{}",
            comparison.differences(),
            lives(migration, &comparison).await
        );
    }
    Ok(comparison.rows_compared())
}

/// Leaves the messages and both binlogs beside the logs: servers end with the test.
pub async fn keep_what_was_written(migration: &Migration) -> Result<()> {
    let messages = migration.crossfade(&["messages", "list", "--limit", "100000", "--json"]).await?;
    std::fs::write(migration.folder.join("messages.json"), messages)?;
    for (side, pool) in [("old", &migration.old), ("new", &migration.new)] {
        let mut connection = pool.get_conn().await?;
        let base: Option<String> = connection.query_first("SELECT @@log_bin_basename").await?;
        let folder = base.as_deref().and_then(|base| Path::new(base).parent()).context("no folder of binlogs")?;
        let logs: Vec<mysql_async::Row> = connection.query("SHOW BINARY LOGS").await?;
        for name in logs.iter().filter_map(|log| log.get::<String, _>(0)) {
            std::fs::copy(folder.join(&name), migration.folder.join(format!("{side}.{name}")))?;
        }
    }
    Ok(())
}

/// The lives of the first few rows that differ, on both sides.
async fn lives(migration: &Migration, comparison: &Comparison) -> String {
    let mut lives = String::new();
    let samples = comparison.tables.iter().flat_map(|table| table.samples.iter().map(|sample| (&table.name, sample)));
    for (table, sample) in samples.take(SHOWN) {
        let id: String = sample.key.chars().filter(char::is_ascii_digit).collect();
        let told = match migration.crossfade_any(&["messages", "history", table, &id, "--json"]).await {
            Ok((_, output, errors)) => format!("{output}{errors}"),
            Err(error) => format!("{error:#}"),
        };
        lives.push_str(&format!("{table} {}: {}\n", sample.key, sample.what));
        for (side, pool) in [("old", &migration.old), ("new", &migration.new)] {
            let row = row(pool, table, &id).await.unwrap_or_else(|error| format!("{error:#}"));
            lives.push_str(&format!("on {side}: {row}\n"));
        }
        lives.push_str(&format!("{told}\n"));
    }
    lives
}

async fn row(pool: &Pool, table: &str, id: &str) -> Result<String> {
    let (schema, table) = table.split_once('.').unwrap_or(("", table));
    let query = format!("SELECT * FROM {}.{} WHERE id = {id}", sql::name(schema), sql::name(table));
    let row: Option<mysql_async::Row> = pool.get_conn().await?.query_first(query).await?;
    Ok(row.map_or_else(|| "nothing".to_owned(), |row| format!("{:?}", row.unwrap())))
}

/// The streams hold every change of a user once, and no echo: so says the ledger of each side, by kind of change. What went
/// back to the side whose change had lost is in the streams too, and says so, where the side has marks of it.
pub async fn every_change_was_captured_once(migration: &Migration) -> Result<Captured> {
    let mut captured = Captured::default();
    for (direction, source) in [(Direction::Forward, &migration.old), (Direction::Reverse, &migration.new)] {
        let written = hotset::changes(source, &migration.schema).await?;
        let (found, returned) = captured_of(migration, direction).await?;
        let marks = marks(migration, direction, source).await?;
        if found != written || (returned > 0) != (marks > 0) || returned < marks {
            bail!(
                "{} captured {found:?}, but users made {written:?}, and {marks} times something went back, in {returned} \
                 messages: echoes were captured, or changes lost",
                direction.as_str()
            );
        }
        captured.returned += returned;
        match direction {
            Direction::Forward => captured.forward = written.total(),
            Direction::Reverse => captured.reverse = written.total(),
        }
    }
    Ok(captured)
}

/// How often something went back to be captured by a direction.
async fn marks(migration: &Migration, direction: Direction, source: &Pool) -> Result<u64> {
    let query = "SELECT COUNT(*) FROM crossfade.returned WHERE pair = ? AND stream LIKE ?";
    let stream = format!("{}/%", direction.as_str());
    Ok(source.get_conn().await?.exec_first(query, (&migration.pair, stream)).await?.unwrap_or_default())
}

/// What the streams hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Captured {
    /// Changes of users.
    pub forward: u64,
    pub reverse: u64,
    /// Changes that went back to the side whose own had lost.
    pub returned: u64,
}

/// What users did, by kind of change, and how many messages only went back.
async fn captured_of(migration: &Migration, direction: Direction) -> Result<(hotset::Changes, u64)> {
    // The store is on the new side.
    let mut connection = migration.new.get_conn().await?;
    let query =
        "SELECT op, origin = 'user', COUNT(*) FROM crossfade.message WHERE pair = ? AND stream LIKE ? GROUP BY 1, 2";
    let stream = format!("{}/%", direction.as_str());
    let counts: Vec<(String, bool, u64)> = connection.exec(query, (&migration.pair, stream)).await?;
    let sum = |which: &dyn Fn(&str, bool) -> bool| -> u64 {
        counts.iter().filter(|(op, by_user, _)| which(op, *by_user)).map(|(.., count)| count).sum()
    };
    let of_users = |op: &str| sum(&|found, by_user| by_user && found == op);
    let changes =
        hotset::Changes { inserts: of_users("insert"), updates: of_users("update"), deletes: of_users("delete") };
    Ok((changes, sum(&|_, by_user| !by_user)))
}

/// No row event on any table of the migration while nobody writes.
pub async fn binlogs_are_quiet(migration: &Migration) -> Result<()> {
    // The silence itself is what is measured here, so this wait is for a time and not for a state.
    let since = (binlog_window::now(&migration.old).await?, binlog_window::now(&migration.new).await?);
    tokio::time::sleep(SILENCE).await;
    let on_old = binlog_window::row_events(&migration.old, &since.0, &["crossfade"]).await?;
    let on_new = binlog_window::row_events(&migration.new, &since.1, &["crossfade"]).await?;
    ensure!(on_old.is_empty() && on_new.is_empty(), "changes go round in silence: old {on_old:?}, new {on_new:?}");
    Ok(())
}
