//! One side's clock is five minutes off: concurrent changes are then decided by a wrong clock, and nothing else is wrong.
//!
//! On MariaDB only: MySQL 9.7 takes minutes to start where libfaketime stands between it and the clock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::userdb::{CLOCK, UserDb};
use crossfade_testkit::workload::{self, Mix, Settings, Side, Workload};
use crossfade_tests::{Migration, Setup, is_soak};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::judge::Judge;
use crate::stand::{LIMIT, until_changes_cross};

const USERS: u64 = 200;
const OFF_SECONDS: i64 = 300;

/// What lets a server see another time: put there by `scripts/servers.sh --clock`, or installed.
fn library() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let places = [
        workspace.join("target/servers/faketime/libfaketimeMT.so.1"),
        PathBuf::from("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"),
    ];
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(place.clone()),
        None => anyhow::bail!("libfaketime is missing; install it with: scripts/servers.sh --clock"),
    }
}

/// Seconds since the epoch, as a server sees them.
async fn now(pool: &Pool) -> Result<i64> {
    let now: Option<i64> = pool.get_conn().await?.query_first("SELECT UNIX_TIMESTAMP()").await?;
    now.context("the server knows no time")
}

/// New's clock goes `seconds` before the machine's; old's is right. The store is on new, so leases follow that clock.
async fn a_clock_that_is_off(flavor: Flavor, seconds: i64) -> Result<()> {
    let clock = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library()?.canonicalize()?.display()),
        format!("FAKETIME={seconds:+}s"),
        // Waits and measured times are not by the clock on the wall.
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    // Such a server takes its time to start.
    let right = Server::builder(flavor).relaxed().start_time_out(Duration::from_secs(180));
    let servers = SharedPair::own_of(right.clone(), right.launcher(clock)).await?;
    let tables = format!(
        "[[table]]\nname = \"{{schema}}.{}\"\nskip = true\n\n[[table]]\nname = \"{{schema}}.*\"\nclock = \"{CLOCK}\"\n",
        workload::LEDGER
    );
    let mut migration = Migration::on_servers(&Setup { tables, ..Setup::new(flavor, "clock_off") }, servers).await?;
    let data = UserDb { schema: migration.schema.clone(), users: USERS, seed: 1 };
    for pool in [&migration.old, &migration.new] {
        data.create(pool).await?;
        data.load(pool, |_| ()).await?;
        workload::create_ledger(pool, &migration.schema).await?;
    }
    let (old, new) = tokio::try_join!(now(&migration.old), now(&migration.new))?;
    ensure!((new - old - seconds).abs() < 60, "new's clock is off by {} s instead of {seconds} s", new - old);
    migration.init().await?;
    migration.start_both().await?;
    let settings = |side| Settings {
        hot_users: 20,
        rate: Some(60.0),
        ledger: true,
        mix: Mix { hot_users: 50, ..Mix::default() },
        ..Settings::new(&migration.schema, side, USERS)
    };
    let old = Workload::start(&migration.old, &settings(Side::Old))?;
    let new = Workload::start(&migration.new, &settings(Side::New))?;
    let mut decided = 0;
    while decided < if is_soak() { 500 } else { 20 } {
        until_changes_cross(&migration, &migration.new).await?;
        decided = migration.status().read().await?.total("conflicts_lost");
    }
    let written = old.finish().await?.plus(&new.finish().await?);
    let status = migration.status().until_quiet(LIMIT).await?;
    let comparison = crate::stand::compare(&migration).await?;
    ensure!(comparison.is_equal(), "the sides differ when all is quiet\n{comparison}");
    ensure!(status.total("open_failures") + status.total("held") == 0, "rows are set aside: {}", status.0);
    let decided = status.total("conflicts_lost");
    let verdict = Judge::default().judge(&migration, &migration.new, &status).await?;
    verdict.ensure_clean()?;
    println!(
        "{}",
        verdict.line(
            flavor,
            &format!("new's clock off by {seconds:+} s, with the store's"),
            "both sides equal; concurrent changes decided, by the wrong clock",
            &format!("{decided} decided against of {} changes", written.changes)
        )
    );
    migration.stop_both().await
}

#[tokio::test]
async fn p4_a_clock_that_is_off_on_mariadb() -> Result<()> {
    a_clock_that_is_off(Flavor::MariaDb, -OFF_SECONDS).await?;
    if is_soak() { a_clock_that_is_off(Flavor::MariaDb, OFF_SECONDS).await } else { Ok(()) }
}
