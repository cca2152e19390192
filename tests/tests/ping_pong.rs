//! Nothing that crossfade wrote travels back: after many conflicting writes and then silence, both binlogs stay silent too.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::binlog_window;
use crossfade_testkit::workload::{Mix, Settings, Side, Workload};
use crossfade_tests::{Migration, Setup, rounds};

const USERS: u64 = 200;
/// Conflicting changes that each side makes at least.
const CHANGES: u64 = 10_000;
/// Transactions tried for that: some find nothing to change, or a row that is there already.
const TRIES: u32 = 14_500;
/// How long the binlogs are watched after all is quiet.
const SILENCE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(240);

async fn silence_after_conflicts(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::of_users(&Setup::new(flavor, "ping_pong"), USERS).await?;
    migration.start_both().await?;
    let old = Workload::start(&migration.old, &settings(&migration, Side::Old))?;
    let new = Workload::start(&migration.new, &settings(&migration, Side::New))?;
    let (old, new) = tokio::try_join!(old.complete(LIMIT), new.complete(LIMIT))?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;

    let conflicts = status.total("conflicts_won") + status.total("conflicts_lost");
    let attempts = old.plus(&new);
    println!("{flavor:?}: {attempts:?}, {conflicts} conflicts decided: {}", status.0);
    ensure!(old.hot_changes >= CHANGES && new.hot_changes >= CHANGES, "too few conflicting writes: {old:?} {new:?}");
    ensure!(conflicts > 100, "too few conflicts: {}", status.0);
    ensure!(status.total("last_seq") == attempts.changes, "captured other than written: {attempts:?} {}", status.0);

    // The silence itself is what is measured here, so this wait is for a time and not for a state.
    let since = (binlog_window::now(&migration.old).await?, binlog_window::now(&migration.new).await?);
    tokio::time::sleep(SILENCE).await;
    // Tests beside this one write their own schemas.
    let mine = |events: std::collections::BTreeMap<String, u64>| -> Vec<(String, u64)> {
        events.into_iter().filter(|(table, _)| table.starts_with(&format!("{}.", migration.schema))).collect()
    };
    let on_old = mine(binlog_window::row_events(&migration.old, &since.0, &["crossfade"]).await?);
    let on_new = mine(binlog_window::row_events(&migration.new, &since.1, &["crossfade"]).await?);
    println!("{flavor:?}: row events on user tables in {SILENCE:?} of silence: old {on_old:?}, new {on_new:?}");
    ensure!(on_old.is_empty() && on_new.is_empty(), "changes go round: {on_old:?} {on_new:?}");
    migration.stop_both().await
}

fn settings(migration: &Migration, side: Side) -> Settings {
    Settings {
        hot_users: 30,
        writers: 3,
        mix: Mix::conflicts(),
        limit: Some(u64::from(rounds(TRIES, 10 * TRIES))),
        ..Settings::new(&migration.schema, side, USERS)
    }
}

#[tokio::test]
async fn p3_silence_after_conflicts_on_mysql() -> Result<()> {
    silence_after_conflicts(Flavor::MySql).await
}

#[tokio::test]
async fn p3_silence_after_conflicts_on_mariadb() -> Result<()> {
    silence_after_conflicts(Flavor::MariaDb).await
}
