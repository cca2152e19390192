//! An idle pair whose store is on the new side does not feed itself: what it writes by itself is its leases, and a canary
//! from time to time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::binlog_window;
use crossfade_testkit::workload::{Settings, Side, Workload};
use crossfade_tests::{Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

const USERS: u64 = 100;
const LIMIT: Duration = Duration::from_secs(60);
/// Two leases renewed every 3 s are 40 small transactions a minute; a pair that fed itself would write thousands.
const MOST_BYTES_A_MINUTE: u64 = 64 << 10;
/// On old there are canaries alone.
const MOST_BYTES_A_MINUTE_ON_OLD: u64 = 8 << 10;
/// Holds a canary of each direction, which by default come every minute.
const WATCHED: Duration = Duration::from_secs(62);

/// Bytes of all binlog files of a server.
async fn binlog_bytes(pool: &Pool) -> Result<u64> {
    let mut connection = pool.get_conn().await?;
    let files: Vec<mysql_async::Row> = connection.query("SHOW BINARY LOGS").await?;
    let sizes = files.iter().map(|row| row.get::<u64, _>(1).context("a binlog file without a size"));
    sizes.sum()
}

async fn quiet_minute(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::of_users(&Setup::new(flavor, "idle"), USERS).await?;
    migration.start_both().await?;
    let settings = |side| Settings { limit: Some(200), ..Settings::new(&migration.schema, side, USERS) };
    let old = Workload::start(&migration.old, &settings(Side::Old))?;
    let new = Workload::start(&migration.new, &settings(Side::New))?;
    let (old, new) = tokio::try_join!(old.complete(LIMIT), new.complete(LIMIT))?;
    ensure!(old.changes > 100 && new.changes > 100, "the pair had too little to do: {old:?} {new:?}");
    migration.until_quiet_and_equal(LIMIT).await?;

    // The silence itself is what is measured here, so this wait is for a time and not for a state.
    let since = (binlog_window::now(&migration.old).await?, binlog_window::now(&migration.new).await?);
    let before = (binlog_bytes(&migration.old).await?, binlog_bytes(&migration.new).await?);
    tokio::time::sleep(WATCHED).await;
    let after = (binlog_bytes(&migration.old).await?, binlog_bytes(&migration.new).await?);
    let a_minute = |before: u64, after: u64| (after - before) * 60 / WATCHED.as_secs();
    let grown = (a_minute(before.0, after.0), a_minute(before.1, after.1));
    let rows = binlog_window::row_events(&migration.new, &since.1, &[]).await?;
    let rows_on_old = binlog_window::row_events(&migration.old, &since.0, &[]).await?;
    println!(
        "{flavor:?}: an idle pair writes {} bytes a minute into old's binlog and {} into new's (in {WATCHED:?}: {rows_on_old:?}, {rows:?})",
        grown.0, grown.1
    );
    ensure!(grown.0 < MOST_BYTES_A_MINUTE_ON_OLD, "nothing else has a reason to write on old: {rows_on_old:?}");
    let canaries = ["crossfade.checkpoint", "crossfade.heartbeat"];
    ensure!(rows_on_old.keys().all(|table| canaries.contains(&table.as_str())), "not canaries alone: {rows_on_old:?}");
    ensure!(canaries.iter().all(|table| rows_on_old.contains_key(*table)), "no canary was sent: {rows_on_old:?}");
    ensure!(grown.1 < MOST_BYTES_A_MINUTE, "the pair feeds itself: {rows:?}");
    ensure!(rows.contains_key("crossfade.lease"), "the leases were not renewed: {rows:?}");
    migration.stop_both().await
}

#[tokio::test]
async fn p8_an_idle_pair_does_not_feed_itself_on_mysql() -> Result<()> {
    quiet_minute(Flavor::MySql).await
}

#[tokio::test]
async fn p8_an_idle_pair_does_not_feed_itself_on_mariadb() -> Result<()> {
    quiet_minute(Flavor::MariaDb).await
}
