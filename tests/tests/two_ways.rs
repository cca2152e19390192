//! Both sides are written at once, in conflict and out of it; in the end they are equal and every change is accounted for.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::workload::{Counts, Settings, Side, Workload};
use crossfade_tests::{Direction, Migration, Setup, rounds};

const USERS: u64 = 2_000;
const QUIET_LIMIT: Duration = Duration::from_secs(120);

async fn both_sides_converge(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::of_users(&Setup::new(flavor, "two_ways"), USERS).await?;
    migration.start_both().await?;

    let transactions = u64::from(rounds(1_500, 30_000));
    let old = Workload::start(&migration.old, &settings(&migration, Side::Old, transactions))?;
    let new = Workload::start(&migration.new, &settings(&migration, Side::New, transactions))?;
    let limit = Duration::from_secs(30 + transactions / 20);
    let (old, new) = tokio::try_join!(old.complete(limit), new.complete(limit))?;

    let (status, comparison) = migration.until_quiet_and_equal(QUIET_LIMIT).await?;
    println!("{flavor:?}: old {old:?}\n{flavor:?}: new {new:?}\n{flavor:?}: {} rows equal", comparison.rows_compared());
    println!("{flavor:?}: {}", status.0);

    // Something happened: both ways, with conflicts, transactions of many rows, and echoes.
    for counts in [&old, &new] {
        ensure!(counts.transactions > transactions / 2 && counts.changes > counts.transactions, "{counts:?}");
        ensure!(counts.hot_changes > 100 && counts.rolled_back > 10, "{counts:?}");
    }
    ensure!(status.total("echoes") > 1_000, "too few echoes: {}", status.0);
    ensure!(status.total("conflicts_won") + status.total("conflicts_lost") > 10, "too few conflicts: {}", status.0);
    ensure!(status.total("open_failures") == 0, "rows were parked: {}", status.0);

    every_change_was_captured_once(&status, Direction::Forward, &old)?;
    every_change_was_captured_once(&status, Direction::Reverse, &new)?;
    migration.stop_both().await
}

/// The stream's numbers have no holes, so its last one counts what was captured: every change of a user, no echo.
fn every_change_was_captured_once(
    status: &crossfade_testkit::quiet::Status,
    direction: Direction,
    written: &Counts,
) -> Result<()> {
    let captured = status.number(direction.as_str(), "last_seq");
    ensure!(
        written.uncertain == 0 && captured == written.changes,
        "{} captured {captured} changes, but users made {written:?}",
        direction.as_str()
    );
    Ok(())
}

fn settings(migration: &Migration, side: Side, transactions: u64) -> Settings {
    Settings {
        hot_users: 50,
        rate: Some(250.0),
        limit: Some(transactions),
        ..Settings::new(&migration.schema, side, USERS)
    }
}

#[tokio::test]
async fn p4_both_sides_converge_on_mysql() -> Result<()> {
    both_sides_converge(Flavor::MySql).await
}

#[tokio::test]
async fn p4_both_sides_converge_on_mariadb() -> Result<()> {
    both_sides_converge(Flavor::MariaDb).await
}
