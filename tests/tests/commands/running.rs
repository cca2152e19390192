//! `sync`, `start`, `stop`: a direction rests, goes on, is taken over, drains, and ends when asked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::process::Process;
use crossfade_testkit::quiet::{self, Progress};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, binary};

use crate::{LIMIT, create_table, insert, rows, says, state, until_status};

/// A direction's process is taken over, and ends, within this.
const TEN_SECONDS: Duration = Duration::from_secs(10);

async fn running_pair(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let mut migration = Migration::new(&Setup::new(flavor, name)).await?;
    create_table(&migration).await?;
    migration.init().await?;
    migration.start_both().await?;
    Ok(migration)
}

/// `stop` ends applying and nothing else; `start` applies the rest.
async fn a_stopped_direction_goes_on_capturing(flavor: Flavor) -> Result<()> {
    let mut migration = running_pair(flavor, "stop").await?;
    insert(&migration, &migration.old, 1..11).await?;
    migration.until_quiet_and_equal(LIMIT).await?;

    migration.crossfade(&["stop", "forward"]).await?;
    // Nothing is under way any more.
    let status = migration.status().read().await?;
    ensure!(state(&status, "forward") == "paused", "{}", status.0);
    ensure!(state(&status, "reverse") == "running", "{}", status.0);
    insert(&migration, &migration.old, 11..61).await?;
    insert(&migration, &migration.new, 1_001..1_011).await?;
    let captured = |status: &quiet::Status| status.number("forward", "last_seq") == 60;
    let status = until_status(&migration, "forward captures", captured).await?;
    ensure!(status.number("forward", "settled_seq") == 10, "a stopped direction applied: {}", status.0);
    ensure!(rows(&migration, &migration.new).await? == 20, "rows came to new");
    // A process that is started again obeys the wish, and the other direction goes on meanwhile.
    migration.stop(Direction::Forward).await?;
    migration.start(Direction::Forward, &[])?;
    // What forward's absence made it hold is tried again.
    let reverse = |status: &quiet::Status| status.number("reverse", "settled_seq") == 10 && status.total("held") == 0;
    until_status(&migration, "reverse goes on", reverse).await?;
    until_status(&migration, "forward still rests", |status| state(status, "forward") == "paused").await?;
    ensure!(
        rows(&migration, &migration.new).await? == 20 && rows(&migration, &migration.old).await? == 70,
        "not at rest"
    );

    migration.crossfade(&["start", "forward"]).await?;
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 70 && status.number("forward", "settled_seq") == 60, "{}", status.0);
    migration.stop_both().await
}

/// `stop --capture` declares a direction off: nobody waits for it. Begun again, it misses nothing.
async fn a_direction_is_declared_off(flavor: Flavor) -> Result<()> {
    let mut migration = running_pair(flavor, "off").await?;
    migration.crossfade(&["stop", "reverse", "--capture"]).await?;
    until_status(&migration, "reverse is off", |status| state(status, "reverse") == "off").await?;
    migration.stop(Direction::Reverse).await?;
    insert(&migration, &migration.old, 1..21).await?;
    insert(&migration, &migration.new, 1_001..1_011).await?;
    let applied = |status: &quiet::Status| status.number("forward", "settled_seq") == 20;
    let status = until_status(&migration, "forward goes on alone", applied).await?;
    ensure!(status.number("reverse", "last_seq") == 0, "what is off captured: {}", status.0);
    ensure!(rows(&migration, &migration.old).await? == 20, "rows came to old");

    migration.crossfade(&["start", "reverse"]).await?;
    migration.start(Direction::Reverse, &[])?;
    let reverse = |status: &quiet::Status| status.number("reverse", "settled_seq") == 10;
    until_status(&migration, "reverse catches up", reverse).await?;
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 30, "{comparison}");
    migration.stop_both().await
}

/// Without the other process: everything that the source has at the start is applied, then the process ends.
async fn until_caught_up_drains(flavor: Flavor) -> Result<()> {
    let migration = Migration::new(&Setup::new(flavor, "drain")).await?;
    create_table(&migration).await?;
    migration.init().await?;
    for last in [300_u32, 301] {
        let first = u32::try_from(rows(&migration, &migration.old).await?)? + 1;
        insert(&migration, &migration.old, first..last + 1).await?;
        migration.crossfade(&["sync", "forward", "--until-caught-up"]).await?;
        let comparison = migration.compare().await?;
        ensure!(comparison.is_equal() && comparison.rows_compared() == u64::from(last), "{comparison}");
        let status = migration.status().read().await?;
        ensure!(status.number("forward", "settled_seq") == u64::from(last), "not settled: {}", status.0);
    }
    // What is set aside has not crossed, and the run says so.
    migration.on(&migration.new, &["ALTER TABLE {schema}.users ADD CONSTRAINT CHECK (v <> 'row 303')"]).await?;
    insert(&migration, &migration.old, 302..305).await?;
    let told = ["not all has crossed", "1 refused by the new side", "messages list --status failed"];
    says(&migration, &["sync", "forward", "--until-caught-up"], 1, &told).await?;
    ensure!(rows(&migration, &migration.new).await? == 303, "the others have not crossed");
    migration.forget();
    Ok(())
}

/// A second process of a direction waits, takes over from one that died, and ends when asked.
async fn a_second_process_takes_over(flavor: Flavor) -> Result<()> {
    let mut migration = running_pair(flavor, "standby").await?;
    let mut second = start_another(&migration, "second")?;
    let mut third = start_another(&migration, "third")?;
    for process in [&second, &third] {
        process.until_logged("standing by", LIMIT).await?;
    }
    insert(&migration, &migration.old, 1..6).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    // One that stands by ends at once.
    let asked = Instant::now();
    third.terminate()?;
    ensure!(
        third.wait(TEN_SECONDS).await?.success() && asked.elapsed() < Duration::from_secs(3),
        "{}",
        third.log_end()
    );

    migration.expect_lines(KILLED);
    migration.process(Direction::Forward)?.kill9().await?;
    let killed = Instant::now();
    insert(&migration, &migration.old, 6..11).await?;
    let arrived = async || {
        let rows = rows(&migration, &migration.new).await?;
        Ok(if rows == 10 { Progress::Reached(()) } else { Progress::NotYet(format!("{rows} rows")) })
    };
    quiet::until("rows across after the take-over", LIMIT, arrived).await?;
    let took = killed.elapsed();
    ensure!(took < TEN_SECONDS, "the take-over took {took:?}\n{}", second.log_end());
    println!("{flavor:?}: taken over within {took:?} of kill -9");
    migration.until_quiet_and_equal(LIMIT).await?;
    second.terminate()?;
    ensure!(second.wait(TEN_SECONDS).await?.success(), "{}", second.log_end());
    migration.stop(Direction::Reverse).await?;
    migration.forget();
    Ok(())
}

fn start_another(migration: &Migration, name: &str) -> Result<Process> {
    let config = migration.config();
    let words = ["--config", &config.to_string_lossy(), "sync", "forward"].map(str::to_owned);
    Process::start(&binary(), &words, &[], &migration.folder.join(format!("{name}.log.txt")))
}

/// Both end within ten seconds with exit code 0 while both sides are written, and nothing is lost or doubled.
async fn sigterm_under_load(flavor: Flavor) -> Result<()> {
    let mut migration = running_pair(flavor, "sigterm").await?;
    let writer = |pool: &mysql_async::Pool, first: u32| {
        let (pool, schema) = (pool.clone(), migration.schema.clone());
        tokio::spawn(async move {
            use mysql_async::prelude::Queryable;
            let mut conn = pool.get_conn().await?;
            for id in first..first + 1_500 {
                conn.query_drop(format!("INSERT INTO `{schema}`.users (id, v) VALUES ({id}, 'under load')")).await?;
            }
            anyhow::Ok(())
        })
    };
    let writers = [writer(&migration.old, 1), writer(&migration.new, 100_001)];
    let flowing = |status: &quiet::Status| ["forward", "reverse"].iter().all(|d| status.number(d, "settled_seq") > 20);
    let status = until_status(&migration, "both flow", flowing).await?;
    ensure!(status.total("last_seq") < 3_000, "the writers were done too early: {}", status.0);
    let asked = Instant::now();
    migration.stop_both().await?;
    let took = asked.elapsed();
    ensure!(took < TEN_SECONDS, "the end took {took:?}");
    for writer in writers {
        writer.await.context("a writer panicked")??;
    }
    migration.start_both().await?;
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 3_000 && status.total("last_seq") == 3_000, "{}", status.0);
    println!("{flavor:?}: both ended {took:?} after SIGTERM under load");
    migration.stop_both().await
}

#[tokio::test]
async fn running_on_mysql() -> Result<()> {
    running(Flavor::MySql).await
}

#[tokio::test]
async fn running_on_mariadb() -> Result<()> {
    running(Flavor::MariaDb).await
}

async fn running(flavor: Flavor) -> Result<()> {
    tokio::try_join!(
        a_stopped_direction_goes_on_capturing(flavor),
        a_direction_is_declared_off(flavor),
        until_caught_up_drains(flavor),
        a_second_process_takes_over(flavor),
        sigterm_under_load(flavor),
    )
    .map(drop)
}
