//! A migration is left before users have changed sides.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_tests::{Flavor, Migration, on_both_brands, says};
use mysql_async::prelude::Queryable;
use mysql_async::{Pool, Row};

use crate::application::{Application, flag, has_all};
use crate::finish::{both_end, rows_of_pair};
use crate::stage::{THREE, change, setup, staged, staged_alone};

/// Something that is not quiet shows within this time: an idle pair writes its canaries and heartbeats more often.
const QUIET_FOR: Duration = Duration::from_secs(3);

async fn old_is_as_it_was(flavor: Flavor) -> Result<()> {
    let mut migration = staged_alone(&setup(flavor, "abort", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    // What a pilot has written on new comes to old first.
    migration
        .on(&migration.new, &["INSERT INTO {schema}.item (id, writer, n, v) VALUES (900001, 'pilot', 1, 7)"])
        .await?;
    says(&migration, &["abort", "--dry-run"], 0, &["remove from old", "nobody has changed sides"]).await?;
    says(&migration, &["abort"], 2, &["add --yes"]).await?;
    change(&migration, &["cutover"], 0).await?;
    says(&migration, &["abort", "--yes"], 1, &["`crossfade rollback` first"]).await?;
    change(&migration, &["rollback"], 0).await?;

    let done = change(&migration, &["abort", "--yes"], 0).await?;
    println!("{flavor:?}: {done:#}");
    ensure!(done["state"] == "done" && done["phase"] == "old_only", "{done:#}");
    both_end(&mut migration).await?;
    ensure!(!has_schema(&migration.old).await?, "the schema is still on old");
    let mut conn = migration.old.get_conn().await?;
    let question = format!("SELECT v FROM `{}`.item WHERE writer = 'pilot'", migration.schema);
    ensure!(conn.query_first::<i32, _>(question).await? == Some(7), "what a pilot wrote has not come to old");
    drop(conn);
    migration.on(&migration.old, &["DELETE FROM {schema}.item WHERE writer = 'pilot'"]).await?;
    let ledger = application.finish().await?;
    has_all(&migration, &migration.old, &ledger).await?;

    let before = binlog_end(&migration, flavor).await?;
    tokio::time::sleep(QUIET_FOR).await;
    ensure!(binlog_end(&migration, flavor).await? == before, "old's binlog is not quiet");
    ensure!(!has_schema(&migration.old).await?);

    says(&migration, &["status"], 0, &["aborted at", "phase old_only"]).await?;
    for words in [&["sync", "forward"][..], &["cutover"], &["init"], &["start", "reverse"]] {
        says(&migration, words, 2, &["the migration was aborted"]).await?;
    }
    says(&migration, &["abort", "--yes"], 0, &["the migration was left"]).await?;
    says(&migration, &["finish"], 1, &["by `crossfade abort`"]).await?;
    ensure!(has_schema(&migration.new).await?, "what is on new stays until somebody wants it away");
    migration.crossfade(&["abort", "--yes", "--drop-schemas"]).await?;
    ensure!(!has_schema(&migration.new).await?, "the schema is still on new");

    // It can begin anew.
    migration.crossfade(&["init"]).await?;
    migration.forget();
    Ok(())
}

/// Killed at one step after the other, the same command goes on; what another pair has on the server stays.
async fn the_same_abort_goes_on(flavor: Flavor) -> Result<()> {
    const POINTS: [&str; 9] = [
        "switch-gates",
        "switch-flip",
        "switch-flipped",
        "switch-acknowledge",
        "switch-end_reverse",
        "switch-end_forward",
        "switch-leave",
        "switch-remove",
        "switch-end",
    ];
    let mut migration = staged(&setup(flavor, "killed_abort", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let other = format!("other-{}", migration.pair);
    let beat = format!("INSERT INTO crossfade.heartbeat VALUES ('{other}', 'test', 1, UTC_TIMESTAMP(6))");
    migration.on(&migration.old, &[&beat]).await?;
    for point in POINTS {
        let (code, output) = migration.crossfade_with(&["abort", "--yes"], &[("CROSSFADE_FAILPOINT", point)]).await?;
        ensure!(code.is_none(), "it was not killed at {point}: {code:?}\n{output}");
        println!("{flavor:?}: killed at {point}, flag {:?}", flag(&migration).await?);
        match point {
            // All of it is undone by whoever wants something else.
            "switch-end_reverse" => drop(change(&migration, &["cutover"], 0).await?),
            // From here on nothing leads back.
            "switch-remove" => {
                migration.expect_lines(&["error: abort"]);
                says(&migration, &["cutover"], 2, &["the migration is left by abort"]).await?;
            }
            _ => {}
        }
        if point == "switch-end_reverse" {
            change(&migration, &["rollback"], 0).await?;
        }
    }
    let done = change(&migration, &["abort", "--yes"], 0).await?;
    ensure!(done["resumed"] == true && done["phase"] == "old_only", "{done:#}");
    both_end(&mut migration).await?;
    let ledger = application.finish().await?;
    has_all(&migration, &migration.old, &ledger).await?;
    ensure!(rows_of_pair(&migration.old, &migration.pair).await? == 0, "rows are left on old");
    ensure!(rows_of_pair(&migration.old, &other).await? == 1, "another pair's row is gone");
    migration.on(&migration.old, &[&format!("DELETE FROM crossfade.heartbeat WHERE pair = '{other}'")]).await?;
    migration.forget();
    Ok(())
}

/// Before anything has begun, nobody needs to run.
async fn what_never_ran_is_left_at_once(flavor: Flavor) -> Result<()> {
    let migration = Migration::new(&setup(flavor, "never_ran", "")).await?;
    migration.on_both(&[crate::application::TABLE]).await?;
    migration.init().await?;
    let done = change(&migration, &["abort", "--yes"], 0).await?;
    ensure!(done["state"] == "done", "{done:#}");
    ensure!(rows_of_pair(&migration.old, &migration.pair).await? == 0, "rows are left on old");
    migration.crossfade(&["abort", "--yes", "--drop-schemas"]).await?;
    ensure!(rows_of_pair(&migration.new, &migration.pair).await? == 0, "rows are left on new");
    migration.forget();
    Ok(())
}

async fn has_schema(pool: &Pool) -> Result<bool> {
    let mut conn = pool.get_conn().await?;
    let found: Option<String> = conn.query_first("SHOW DATABASES LIKE 'crossfade'").await?;
    Ok(found.is_some())
}

async fn binlog_end(migration: &Migration, flavor: Flavor) -> Result<(String, u64)> {
    let mut conn = migration.old.get_conn().await?;
    let question = if flavor == Flavor::MySql { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let row: Row = conn.query_first(question).await?.context("no binlog")?;
    Ok((row.get("File").context("no file")?, row.get("Position").context("no position")?))
}

on_both_brands! {
    p9_abort_leaves_old_as_it_was => old_is_as_it_was,
    p9_the_same_abort_goes_on => the_same_abort_goes_on,
    p9_what_never_ran_is_left_at_once => what_never_ran_is_left_at_once,
}
