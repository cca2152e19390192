//! What must be true when all is quiet.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use crossfade_testkit::compare::{self, Comparison, TablePair};
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_testkit::{binlog_window, hotset};
use crossfade_tests::{Direction, Migration};

/// How long the binlogs are watched after all is quiet.
const SILENCE: Duration = Duration::from_secs(5);
/// So many differing rows are shown with their history.
const SHOWN: usize = 3;

/// Waits until every change that users have made is captured, and applied, decided against, or set aside.
pub async fn all_is_settled(migration: &Migration, limit: Duration) -> Result<()> {
    until("all settled", limit, || async {
        let status = migration.status().read().await?;
        for (direction, source) in [(Direction::Forward, &migration.old), (Direction::Reverse, &migration.new)] {
            let written = hotset::changes(source, &migration.schema).await?;
            let number = |field| status.number(direction.as_str(), field);
            if number("last_seq") != written || number("settled_seq") != written {
                return Ok(Progress::NotYet(format!("{} has {written} changes: {}", direction.as_str(), status.0)));
            }
        }
        Ok(Progress::Reached(()))
    })
    .await
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
        lives.push_str(&format!("{table} {}: {}\n{told}\n", sample.key, sample.what));
    }
    lives
}

/// The streams' numbers have no holes, so the last one counts what was captured: every change of a user, and no echo.
pub async fn every_change_was_captured_once(migration: &Migration, status: &Status) -> Result<[u64; 2]> {
    let mut changes = [0; 2];
    for (index, (direction, source)) in
        [(Direction::Forward, &migration.old), (Direction::Reverse, &migration.new)].into_iter().enumerate()
    {
        let written = hotset::changes(source, &migration.schema).await?;
        let captured = status.number(direction.as_str(), "last_seq");
        ensure!(
            captured == written,
            "{} captured {captured} changes, but users made {written}: echoes were captured, or changes lost",
            direction.as_str()
        );
        changes[index] = written;
    }
    Ok(changes)
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
