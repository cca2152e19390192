//! What stops a change that goes round: here somebody writes back, as it was, what each side receives.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::process;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);
/// The default of `max_crossings`.
const MOST: u32 = 6;

/// A clock that every write moves, and one that two writes may share.
const STRICT: &str = "TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";
const COARSE: &str = "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP";

fn pool(migration: &Migration, direction: Direction) -> &Pool {
    match direction {
        Direction::Forward => &migration.old,
        Direction::Reverse => &migration.new,
    }
}

/// Waits until everything that `direction` has captured is applied, and at least `last_seq` messages are captured.
async fn until_crossed(migration: &Migration, direction: Direction, last_seq: u64) -> Result<bool> {
    until("the change on the other side", LIMIT, || async {
        let status = migration.status().read().await?;
        let number = |field| status.number(direction.as_str(), field);
        Ok(if all_stopped(&status) {
            Progress::Reached(false)
        } else if number("last_seq") >= last_seq && number("settled_seq") == number("last_seq") {
            Progress::Reached(true)
        } else {
            Progress::NotYet(status.0.to_string())
        })
    })
    .await
    .with_context(|| migration.log_ends())
}

fn all_stopped(status: &Status) -> bool {
    status.streams().iter().all(|stream| stream["state"] == "stopped")
}

/// Deletes the row and inserts it again as it was, in one transaction.
async fn write_back(migration: &Migration, pool: &Pool) -> Result<()> {
    let mut conn = pool.get_conn().await?;
    let table = format!("`{}`.t", migration.schema);
    let (v, clock): (String, String) = conn
        .query_first(format!("SELECT v, CAST(updated_at AS CHAR) FROM {table} WHERE id = 1"))
        .await?
        .context("the row is not there")?;
    conn.query_drop("BEGIN").await?;
    conn.query_drop(format!("DELETE FROM {table} WHERE id = 1")).await?;
    conn.exec_drop(format!("INSERT INTO {table} (id, v, updated_at) VALUES (1, ?, ?)"), (v, clock)).await?;
    conn.query_drop("COMMIT").await?;
    Ok(())
}

async fn a_row_that_goes_round_stops_both(flavor: Flavor, name: &'static str, clock: &str) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, name)).await?;
    migration.expect_lines(&["a row goes round; both directions stop"]);
    let create = format!("CREATE TABLE {{schema}}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, updated_at {clock})");
    migration.on_both(&[&create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 'first'), (2, 'other')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;

    // Users of both sides may answer each other as often as they like.
    let mut seqs = [2, 0];
    for round in 0..2 * u64::from(MOST) {
        let direction = Direction::BOTH[round as usize % 2];
        let update = format!("UPDATE {{schema}}.t SET v = 'round {round}' WHERE id = 1");
        migration.on(pool(&migration, direction), &[&update]).await?;
        seqs[round as usize % 2] += 1;
        ensure!(
            until_crossed(&migration, direction, seqs[round as usize % 2]).await?,
            "users' writes tripped the breaker"
        );
    }

    let mut crossings = 0;
    loop {
        let direction = Direction::BOTH[crossings as usize % 2];
        write_back(&migration, pool(&migration, direction)).await?;
        seqs[crossings as usize % 2] += 2;
        if !until_crossed(&migration, direction, seqs[crossings as usize % 2]).await? {
            break;
        }
        crossings += 1;
        ensure!(crossings <= 2 * MOST, "the row still goes round after {crossings} crossings");
    }
    println!("{flavor:?} {name}: stopped after the row had been carried back and forth {crossings} times");
    ensure!((MOST..=MOST + 2).contains(&crossings), "stopped after {crossings} crossings");

    both_are_stopped_with_the_reason(&migration).await?;
    // Capture goes on, and nothing is applied.
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 'later' WHERE id = 2"]).await?;
    until("captured and not applied", LIMIT, || async {
        let status = migration.status().read().await?;
        let number = |field| status.number("forward", field);
        Ok(match number("last_seq") > seqs[0] && number("settled_seq") < number("last_seq") {
            true => Progress::Reached(()),
            false => Progress::NotYet(status.0.to_string()),
        })
    })
    .await?;
    ensure!(!migration.compare().await?.is_equal(), "something was applied after the stop");

    // A person has found out who did it.
    migration.crossfade(&["start", "forward"]).await?;
    migration.crossfade(&["start", "reverse"]).await?;
    migration.status().until_running(LIMIT).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

async fn both_are_stopped_with_the_reason(migration: &Migration) -> Result<()> {
    let status = migration.status().read().await?;
    for stream in status.streams() {
        let reason = stream["reason"].as_str().unwrap_or_default();
        ensure!(stream["state"] == "stopped" && reason.contains("{\"id\":1}") && reason.contains(".t "), "{stream}");
    }
    let shown = migration.crossfade(&["status"]).await?;
    ensure!(shown.contains("crossed") && shown.contains("crossfade start"), "{shown}");
    let question = format!("SELECT text FROM crossfade.journal WHERE pair = '{}' AND kind = 'breaker'", migration.pair);
    let journal: Vec<String> = migration.new.get_conn().await?.query(question).await?;
    ensure!(journal.len() == 1, "not one line in the journal: {journal:?}");
    let logs = Direction::BOTH.map(|direction| process::log_end(&migration.log(direction), 60));
    let told = logs.iter().filter(|log| log.contains("history of") && log.contains("forward/old:1 insert"));
    ensure!(told.count() >= 1, "no process told the row's history:\n{}", logs.join("\n"));
    Ok(())
}

macro_rules! on_both_brands {
    ($($mysql:ident, $mariadb:ident: $name:literal, $clock:ident;)*) => {$(
        #[tokio::test]
        async fn $mysql() -> Result<()> {
            a_row_that_goes_round_stops_both(Flavor::MySql, $name, $clock).await
        }

        #[tokio::test]
        async fn $mariadb() -> Result<()> {
            a_row_that_goes_round_stops_both(Flavor::MariaDb, $name, $clock).await
        }
    )*};
}

on_both_brands! {
    p3_strict_clock_on_mysql, p3_strict_clock_on_mariadb: "round_strict", STRICT;
    p3_coarse_clock_on_mysql, p3_coarse_clock_on_mariadb: "round_coarse", COARSE;
}
