//! P3: each process has it proved that the other one recognises what it writes, and stops when that is not so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::binlog_window;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_testkit::workload::Side;
use crossfade_tests::lines::AWAY;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use serde_json::Value;

/// What both processes say of a tag that is lost.
const LOST: &[&str] =
    &["error: what this process writes is not recognised", "the opposite process's tag does not arrive"];

const LIMIT: Duration = Duration::from_secs(60);
const CREATE: &str = "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(20) NOT NULL, \
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";
const OFTEN: &str = "[apply]\ncanary_every = \"1s\"\n";

fn setup(flavor: Flavor, name: &'static str) -> Setup {
    Setup { settings: OFTEN.to_owned(), ..Setup::new(flavor, name) }
}

fn stream(status: &Status, direction: Direction) -> &Value {
    let found = status.streams().iter().find(|stream| {
        stream["stream"].as_str().is_some_and(|name| name.starts_with(&format!("{}/", direction.as_str())))
    });
    found.unwrap_or(&Value::Null)
}

async fn until_status(migration: &Migration, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<Status> {
    until(what, LIMIT, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(status) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

fn is_proved(status: &Status, direction: Direction) -> bool {
    let tag = &stream(status, direction)["tag"];
    tag["proved_at"].is_string() && tag["open"].is_null()
}

fn open_because(status: &Status, direction: Direction, word: &str) -> bool {
    stream(status, direction)["tag"]["open"].as_str().is_some_and(|why| why.contains(word))
}

async fn proof_is_shown_and_renewed(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&setup(flavor, "canary")).await?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    migration.start(Direction::Forward, &[])?;
    // Alone, a direction can prove nothing, and works nevertheless.
    until_status(&migration, "open without the other direction", |status| {
        open_because(status, Direction::Forward, "reverse") && stream(status, Direction::Forward)["state"] == "running"
    })
    .await?;
    migration.start(Direction::Reverse, &[])?;
    let both = |status: &Status| Direction::BOTH.iter().all(|direction| is_proved(status, *direction));
    let first = until_status(&migration, "both proved", both).await?;
    let proved_at = |status: &Status| stream(status, Direction::Forward)["tag"]["proved_at"].to_string();
    until_status(&migration, "proved again", |status| proved_at(status) > proved_at(&first)).await?;
    let shown = migration.crossfade(&["status"]).await?;
    ensure!(shown.matches("is recognised on the other side (proved ").count() == 2, "{shown}");

    migration.process(Direction::Reverse)?.kill9().await?;
    let open = until_status(&migration, "open again", |status| {
        open_because(status, Direction::Forward, "reverse does not run")
    })
    .await?;
    ensure!(stream(&open, Direction::Forward)["tag"]["proved_at"].is_string(), "the last proof is told: {}", open.0);
    migration.start(Direction::Reverse, &[])?;
    until_status(&migration, "proved when it is back", both).await?;
    migration.crossfade(&["stop", "reverse", "--capture"]).await?;
    until_status(&migration, "declared off", |status| {
        open_because(status, Direction::Forward, "reverse is declared off")
    })
    .await?;
    migration.crossfade(&["start", "reverse"]).await?;
    until_status(&migration, "proved when it is on", both).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A server that begins to hide crossfade's schema from its binlog, after `check` has passed.
async fn a_hidden_tag_stops_the_direction(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::own(Server::builder(flavor).relaxed()).await?;
    let mut migration = Migration::on_servers(&setup(flavor, "hidden"), servers).await?;
    migration.expect_lines(AWAY);
    migration.expect_lines(LOST);
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let rows: Vec<String> = (1..=20).map(|id| format!("({id}, 'x')")).collect();
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES {}", rows.join(","))]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    until_status(&migration, "proved", |status| is_proved(status, Direction::Forward)).await?;

    servers.new().restart_with(&[("binlog-ignore-db", "crossfade")]).await?;
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 'untagged' WHERE id <= 10"]).await?;
    let process = migration.process(Direction::Forward)?;
    let ended = process.wait(LIMIT).await?;
    ensure!(ended.code() == Some(1), "ended with {ended}\n{}", migration.log_ends());
    let status =
        until_status(&migration, "stopped", |status| stream(status, Direction::Forward)["state"] == "stopped").await?;
    let reason = stream(&status, Direction::Forward)["reason"].as_str().unwrap_or_default();
    for word in ["not recognised on the new side", "without finding it", "binlog filter"] {
        ensure!(reason.contains(word), "the reason does not say `{word}`: {reason}");
    }
    nothing_goes_round(&migration).await?;

    // Started again too early, it applies nothing until it is recognised.
    migration.on(&migration.old, &["UPDATE {schema}.t SET v = 'waits' WHERE id = 20"]).await?;
    migration.start(Direction::Forward, &[])?;
    let ended = migration.process(Direction::Forward)?.wait(LIMIT).await?;
    ensure!(ended.code() == Some(1), "ended with {ended}\n{}", migration.log_ends());
    ensure!(value(&migration.new, &migration.schema, 20).await? == "x", "applied before it was recognised");

    servers.new().restart_with(&[("binlog-ignore-db", "nothing")]).await?;
    migration.start(Direction::Forward, &[])?;
    migration.status().until_running(LIMIT).await.with_context(|| migration.log_ends())?;
    migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(value(&migration.new, &migration.schema, 20).await? == "waits", "not applied at last");
    until_status(&migration, "proved again", |status| is_proved(status, Direction::Forward)).await?;
    migration.stop_both().await
}

async fn run(server: &Server, statements: &[&str]) -> Result<()> {
    let mut conn = server.connect().await?;
    for statement in statements {
        conn.query_drop(*statement).await.with_context(|| format!("cannot run: {statement}"))?;
    }
    Ok(())
}

/// The binlog of new is read from a replica, which begins to leave out the checkpoint rows and nothing else.
async fn a_tag_that_is_taken_off_stops_the_direction(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::own(Server::builder(flavor).relaxed()).await?;
    let replica = Server::builder(flavor).relaxed().start().await?;
    replica.follow(servers.new()).await?;
    let mut migration = Migration::on_servers(&setup(flavor, "untagged"), servers).await?;
    migration.expect_lines(AWAY);
    migration.expect_lines(LOST);
    let configuration = std::fs::read_to_string(migration.config())?;
    let of_new = format!("[new]\nurl = \"{}\"\n", migration.url(Side::New));
    ensure!(configuration.contains(&of_new), "{configuration}");
    let with_replica = format!("{of_new}binlog_url = \"{}\"\n", replica.root_url());
    std::fs::write(migration.config(), configuration.replace(&of_new, &with_replica))?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 'x')"]).await?;
    until_status(&migration, "proved through the replica", |status| is_proved(status, Direction::Forward)).await?;

    let filter: &[&str] = match flavor {
        Flavor::MySql => &[
            "STOP REPLICA SQL_THREAD",
            "CHANGE REPLICATION FILTER REPLICATE_IGNORE_TABLE = (crossfade.checkpoint)",
            "START REPLICA SQL_THREAD",
        ],
        Flavor::MariaDb => &["STOP SLAVE", "SET GLOBAL replicate_ignore_table = 'crossfade.checkpoint'", "START SLAVE"],
    };
    run(&replica, filter).await?;
    let ended = migration.process(Direction::Forward)?.wait(LIMIT).await?;
    ensure!(ended.code() == Some(1), "ended with {ended}\n{}", migration.log_ends());
    let status =
        until_status(&migration, "stopped", |status| stream(status, Direction::Forward)["state"] == "stopped").await?;
    let reason = stream(&status, Direction::Forward)["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("without the checkpoint row"), "{reason}");
    nothing_goes_round(&migration).await?;
    migration.stop(Direction::Reverse).await?;
    migration.forget();
    Ok(())
}

async fn value(pool: &Pool, schema: &str, id: u32) -> Result<String> {
    let question = format!("SELECT v FROM `{schema}`.t WHERE id = {id}");
    pool.get_conn().await?.query_first(question).await?.context("the row is not there")
}

/// What was written without the tag may have come back once, and must not go on.
async fn nothing_goes_round(migration: &Migration) -> Result<()> {
    until("the other direction at rest", LIMIT, || async {
        let status = migration.status().read().await?;
        let number = |field| status.number("reverse", field);
        Ok(match number("last_seq") == number("settled_seq") {
            true => Progress::Reached(()),
            false => Progress::NotYet(status.0.to_string()),
        })
    })
    .await?;
    let since = (binlog_window::now(&migration.old).await?, binlog_window::now(&migration.new).await?);
    // The silence itself is what is measured here, so this wait is for a time and not for a state.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let on_old = binlog_window::row_events(&migration.old, &since.0, &["crossfade"]).await?;
    let on_new = binlog_window::row_events(&migration.new, &since.1, &["crossfade"]).await?;
    ensure!(on_old.is_empty() && on_new.is_empty(), "changes go round: {on_old:?} {on_new:?}");
    let status = migration.status().read().await?;
    println!(
        "{:?}: {} changes came back untagged, and rest now",
        migration.servers.flavor(),
        status.number("reverse", "last_seq")
    );
    Ok(())
}

#[tokio::test]
async fn p3_proof_on_mysql() -> Result<()> {
    proof_is_shown_and_renewed(Flavor::MySql).await
}

#[tokio::test]
async fn p3_proof_on_mariadb() -> Result<()> {
    proof_is_shown_and_renewed(Flavor::MariaDb).await
}

#[tokio::test]
async fn p3_hidden_on_mysql() -> Result<()> {
    a_hidden_tag_stops_the_direction(Flavor::MySql).await
}

#[tokio::test]
async fn p3_hidden_on_mariadb() -> Result<()> {
    a_hidden_tag_stops_the_direction(Flavor::MariaDb).await
}

#[tokio::test]
async fn p3_untagged_on_mysql() -> Result<()> {
    a_tag_that_is_taken_off_stops_the_direction(Flavor::MySql).await
}

#[tokio::test]
async fn p3_untagged_on_mariadb() -> Result<()> {
    a_tag_that_is_taken_off_stops_the_direction(Flavor::MariaDb).await
}
