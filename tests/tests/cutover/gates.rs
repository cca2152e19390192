//! Each gate is closed, says what would open it, and is opened.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Flavor, Migration, json, on_both_brands, says};
use mysql_async::prelude::Queryable;

use crate::application::{TABLE, acknowledge, flag, forget};
use crate::stage::{LIMIT, change, setup, staged, staged_alone, start_again};

/// The gates that a dry run finds closed.
async fn closed(migration: &Migration, words: &[&str]) -> Result<Vec<String>> {
    let words: Vec<&str> = words.iter().copied().chain(["--dry-run", "--json"]).collect();
    let (code, plan) = json(migration, &words).await?;
    let gates = plan["gates"].as_array().context("no gates")?;
    let closed = gates.iter().filter(|gate| gate["state"] != "open");
    let names: Vec<String> = closed
        .map(|gate| {
            let why = gate["why"].as_str().unwrap_or_default();
            ensure!(gate["remedy"].is_string(), "no remedy: {gate}");
            println!("{}: {why}", gate["name"]);
            Ok(gate["name"].as_str().unwrap_or_default().to_owned())
        })
        .collect::<Result<_>>()?;
    ensure!(code == Some(i32::from(!names.is_empty())), "{code:?} with {names:?}");
    Ok(names)
}

async fn register(migration: &Migration) -> Result<()> {
    let version = flag(migration).await?.version;
    acknowledge(&migration.new, &migration.pair, "web", version, 600_000_000).await
}

async fn two_way_writing_has_gates(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&setup(flavor, "opening", "")).await?;
    migration.expect_lines(KILLED);
    migration.on_both(&[TABLE]).await?;
    migration.init().await?;
    let set = ["flag", "set", "write_both"];
    let found = closed(&migration, &set).await?;
    ensure!(
        ["forward runs", "reverse runs", "verified"].iter().all(|gate| found.contains(&(*gate).to_owned())),
        "{found:?}"
    );
    migration.start_both().await?;
    ensure!(closed(&migration, &set).await? == ["verified"]);
    says(&migration, &set, 1, &["gates are closed: verified", "run `crossfade verify`"]).await?;
    says(&migration, &["cutover"], 1, &["the phase is old_only", "from old_only lead `flag set write_both`"]).await?;
    says(&migration, &["flag", "set", "read_new"], 2, &["`crossfade cutover` leads there"]).await?;
    migration.crossfade(&["verify"]).await?;
    ensure!(closed(&migration, &set).await?.is_empty());
    for _ in 0..2 {
        says(&migration, &set, 0, &["the phase is write_both (flag 1, version 1)"]).await?;
    }
    says(&migration, &["flag", "set", "old_only"], 0, &["the phase is old_only (flag 0, version 2)"]).await?;
    migration.stop_both().await
}

async fn each_gate_is_closed_and_opened(flavor: Flavor) -> Result<()> {
    let mut migration = staged_alone(&setup(flavor, "gates", "max_lag = \"1s\"")).await?;
    migration.expect_lines(KILLED);
    let cutover = ["cutover"];

    ensure!(closed(&migration, &cutover).await? == ["instances"]);
    let refused = change(&migration, &cutover, 1).await?;
    ensure!(refused["state"] == "undone" && refused["reason"] == "gates are closed: instances", "{refused:#}");
    register(&migration).await?;
    ensure!(closed(&migration, &cutover).await?.is_empty());

    // A direction that rests, and one without a process.
    migration.rest(&[Direction::Forward]).await?;
    ensure!(closed(&migration, &cutover).await?.contains(&"forward runs".to_owned()));
    migration.go_on(&[Direction::Forward]).await?;
    migration.process(Direction::Reverse)?.kill9().await?;
    let found = closed(&migration, &cutover).await?;
    ensure!(found.contains(&"reverse runs".to_owned()), "{found:?}");
    start_again(&mut migration, Direction::Reverse).await?;
    until_open(&migration).await?;

    // A table of new that is locked: forward falls behind.
    let mut conn = migration.new.get_conn().await?;
    conn.query_drop(format!("LOCK TABLES `{}`.item WRITE", migration.schema)).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.item (writer, n, v) VALUES ('a', 1, 1)"]).await?;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let found = closed(&migration, &cutover).await?;
    ensure!(found.contains(&"lag".to_owned()), "{found:?}");
    conn.query_drop("UNLOCK TABLES").await?;
    until_open(&migration).await?;

    // XA: what is prepared and not decided.
    let mut xa = migration.old.get_conn().await?;
    xa.query_drop("XA START 'g'").await?;
    xa.query_drop(format!("INSERT INTO `{}`.item (writer, n, v) VALUES ('xa', 1, 1)", migration.schema)).await?;
    xa.query_drop("XA END 'g'").await?;
    xa.query_drop("XA PREPARE 'g'").await?;
    let found = closed(&migration, &cutover).await?;
    ensure!(found.contains(&"no XA transaction".to_owned()), "{found:?}");
    xa.query_drop("XA COMMIT 'g'").await?;
    drop(xa);
    until_open(&migration).await?;

    // A change that new refuses.
    migration.on(&migration.new, &["ALTER TABLE {schema}.item ADD CONSTRAINT small CHECK (v < 100)"]).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.item (writer, n, v) VALUES ('a', 2, 100)"]).await?;
    until("a refused change", LIMIT, || async {
        let status = migration.status().read().await?;
        let is_refused = status.number("forward", "open_failures") == 1;
        Ok(if is_refused { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await?;
    let found = closed(&migration, &cutover).await?;
    ensure!(found == ["forward has nothing aside"], "{found:?}");
    migration.on(&migration.new, &["ALTER TABLE {schema}.item DROP CONSTRAINT small"]).await?;
    migration.crossfade(&["retry", "--all"]).await?;
    until_open(&migration).await?;

    // A comparison that finds a row.
    let unseen = ["SET SESSION sql_log_bin = 0", "INSERT INTO {schema}.item (writer, n, v) VALUES ('b', 1, 1)"];
    migration.on(&migration.new, &unseen).await?;
    migration.crossfade_any(&["verify"]).await?;
    ensure!(closed(&migration, &cutover).await? == ["verified"]);
    migration.crossfade(&["verify", "--repair", "old-wins"]).await?;
    migration.crossfade(&["verify"]).await?;
    ensure!(closed(&migration, &cutover).await?.is_empty());

    forget(&migration.new, &migration.pair, "web").await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A comparison counts from its beginning, and for the tables that it knew and that were not copied since.
async fn a_comparison_counts_for_what_it_saw(flavor: Flavor) -> Result<()> {
    let settings = "require_instances = false\n\n[verify]\nafter_backfill = false";
    let mut migration = staged(&setup(flavor, "compared", settings)).await?;
    let cutover = ["cutover"];
    ensure!(closed(&migration, &cutover).await?.is_empty());
    let long_ago = "UPDATE crossfade.verification SET begun_at = begun_at - INTERVAL 2 HOUR WHERE pair = ?";
    let mut conn = migration.new.get_conn().await?;
    conn.exec_drop(long_ago, (&migration.pair,)).await?;
    drop(conn);
    ensure!(closed(&migration, &cutover).await? == ["verified"]);
    migration.crossfade(&["verify"]).await?;
    ensure!(closed(&migration, &cutover).await?.is_empty());
    let item = format!("{}.item", migration.schema);
    migration.crossfade(&["backfill", "start", "--table", &item]).await?;
    migration.crossfade(&["backfill", "status", "--watch"]).await?;
    ensure!(closed(&migration, &cutover).await? == ["verified"]);
    says(&migration, &cutover, 1, &["item was copied after the last comparison began"]).await?;
    migration.crossfade(&["verify"]).await?;
    ensure!(closed(&migration, &cutover).await?.is_empty());
    let extra = "CREATE TABLE {schema}.extra (id INT PRIMARY KEY, updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))";
    migration.on_both(&[extra]).await?;
    ensure!(closed(&migration, &cutover).await? == ["verified"]);
    says(&migration, &cutover, 1, &["extra came to the configuration after the last comparison"]).await?;
    migration.crossfade(&["verify"]).await?;
    ensure!(closed(&migration, &cutover).await?.is_empty());
    migration.stop_both().await
}

async fn until_open(migration: &Migration) -> Result<()> {
    until("open gates", LIMIT, || async {
        let found = closed(migration, &["cutover"]).await?;
        Ok(if found.is_empty() { Progress::Reached(()) } else { Progress::NotYet(found.join(", ")) })
    })
    .await
}

on_both_brands! {
    p9_two_way_writing_has_gates => two_way_writing_has_gates,
    p9_each_gate_is_closed_and_opened => each_gate_is_closed_and_opened,
    p9_a_comparison_counts_for_what_it_saw => a_comparison_counts_for_what_it_saw,
}
