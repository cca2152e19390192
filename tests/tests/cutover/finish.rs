//! The end of a migration, on the new side.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Flavor, Migration, json, on_both_brands, says};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::application::{Application, acknowledge, flag, has_all};
use crate::stage::{LIMIT, THREE, change, conclude, mirrored, setup, staged, until_flag, until_mirrored};

/// There, back, there again, and the end, while the application writes on.
async fn the_end_under_load(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "finish", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    for word in ["cutover", "rollback", "cutover"] {
        writes_more(&migration, 200).await?;
        change(&migration, &[word], 0).await?;
    }
    writes_more(&migration, 200).await?;
    let folder = migration.folder.join("reports");
    let ended = change(&migration, &["finish", "--report", &folder.to_string_lossy()], 0).await?;
    println!("{flavor:?}: {ended:#}");
    ensure!(ended["phase"] == "new_only" && ended["state"] == "done", "{ended:#}");
    both_end(&mut migration).await?;
    ensure!(flag(&migration).await?.value == 3);
    until_mirrored(&migration).await?;

    // Users write on, and nothing crosses.
    let before = rows(&migration, &migration.new).await?;
    until("more rows of new", LIMIT, || async {
        let now = rows(&migration, &migration.new).await?;
        Ok(if now > before + 50 { Progress::Reached(()) } else { Progress::NotYet(now.to_string()) })
    })
    .await?;
    let ledger = application.finish().await?;
    has_all(&migration, &migration.new, &ledger).await?;
    ensure!(rows(&migration, &migration.old).await? < rows(&migration, &migration.new).await?);

    says(&migration, &["status"], 0, &["finished at", "phase new_only, flag 3", "the migration has ended"]).await?;
    for words in [
        &["rollback"][..],
        &["cutover"],
        &["sync", "forward"],
        &["sync", "reverse"],
        &["start", "forward"],
        &["flag", "set", "old_only"],
        &["verify"],
        &["init"],
    ] {
        says(&migration, words, 2, &["the migration has ended", "nothing leads back"]).await?;
    }
    says(&migration, &["abort", "--yes"], 1, &["by `crossfade finish`"]).await?;
    let (report, page) = read_report(&migration, &folder)?;
    tells_all(&report, &page)?;

    // Once more: the report is there again, and nothing else happens.
    std::fs::remove_dir_all(&folder)?;
    let again = change(&migration, &["finish", "--report", &folder.to_string_lossy()], 0).await?;
    ensure!(again["run"] == ended["run"], "{again:#}");
    let report = read_report(&migration, &folder)?.0;
    ensure!(report["ended_at"].is_string(), "{report:#}");

    removed_without_others(&migration, &folder).await?;
    migration.forget();
    Ok(())
}

/// What was counted agrees with what has happened.
fn tells_all(report: &Value, page: &str) -> Result<()> {
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let kinds: Vec<String> =
        list("runs").iter().map(|run| run["kind"].as_str().unwrap_or_default().to_owned()).collect();
    ensure!(kinds == ["cutover", "rollback", "cutover", "finish"], "{kinds:?}");
    ensure!(list("runs")[..3].iter().all(|run| run["pause_ms"].is_u64() && run["state"] == "done"), "{report:#}");
    ensure!(report["comparison"]["mismatches"] == 0, "{report:#}");
    let compared = &report["comparison"]["tables"][0];
    ensure!(compared["rows_new"].as_u64().is_some_and(|rows| rows > 400), "{compared:#}");
    ensure!(report["changes"]["not_counted"] == 0, "{:#}", report["changes"]);
    for stream in ["forward/old", "reverse/new"] {
        let counted =
            report["changes"]["tables"].as_array().into_iter().flatten().find(|count| count["stream"] == stream);
        let counted = counted.with_context(|| format!("no changes of {stream}"))?;
        let captured = list("streams").into_iter().find(|one| one["stream"] == stream).context("no stream")?;
        let number = |name: &str| counted[name].as_u64().unwrap_or_default();
        ensure!(number("inserts") > 0 && number("updates") > 0, "{counted:#}");
        let all = number("inserts") + number("updates") + number("deletes");
        ensure!(captured["captured"].as_u64() == Some(all), "{captured:#}\n{counted:#}");
    }
    let marks: Vec<String> =
        list("marks").iter().map(|mark| mark["name"].as_str().unwrap_or_default().to_owned()).collect();
    ensure!(
        marks.iter().any(|name| name == "start") && marks.iter().any(|name| name.starts_with("finish-")),
        "{marks:?}"
    );
    let lines = list("timeline");
    ensure!(lines.first().is_some_and(|line| line["kind"] == "init"), "{lines:#?}");
    ensure!(
        lines.iter().any(|line| line["text"].as_str().is_some_and(|text| text.contains("forward was declared off")))
    );
    for title in [
        "# Migration",
        "## Changes of sides",
        "| cutover",
        "## The last comparison",
        "## Captured changes",
        "## Timeline",
    ] {
        ensure!(page.contains(title), "no `{title}` in\n{page}");
    }
    Ok(())
}

/// Only this pair's rows go where others have some, too.
async fn removed_without_others(migration: &Migration, folder: &std::path::Path) -> Result<()> {
    let folder = folder.to_string_lossy();
    says(migration, &["finish", "--report", &folder, "--drop-schemas"], 2, &["add --yes"]).await?;
    let other = format!("other-{}", migration.pair);
    for pool in [&migration.old, &migration.new] {
        let beat = format!("INSERT INTO crossfade.heartbeat VALUES ('{other}', 'test', 1, UTC_TIMESTAMP(6))");
        migration.on(pool, &[&beat]).await?;
    }
    let kill = [("CROSSFADE_FAILPOINT", "schemas-dropped:2")];
    let words = ["finish", "--report", &*folder, "--drop-schemas", "--yes"];
    let (code, output) = migration.crossfade_with(&words, &kill).await?;
    ensure!(code.is_none(), "it was not killed: {output}");
    migration.crossfade(&words).await?;
    for pool in [&migration.old, &migration.new] {
        ensure!(rows_of_pair(pool, &migration.pair).await? == 0, "rows are left");
        ensure!(rows_of_pair(pool, &other).await? == 1, "another pair's row is gone");
        migration.on(pool, &[&format!("DELETE FROM crossfade.heartbeat WHERE pair = '{other}'")]).await?;
    }
    says(migration, &["status", "--wait", "1s"], 1, &["nothing is known of the pair"]).await?;
    Ok(())
}

/// Rows of a pair in all tables of the schema `crossfade`.
pub async fn rows_of_pair(pool: &Pool, pair: &str) -> Result<u64> {
    let mut conn = pool.get_conn().await?;
    let tables: Vec<String> = conn
        .query(
            "SELECT c.table_name AS name FROM information_schema.columns c JOIN information_schema.tables t
               ON t.table_schema = c.table_schema AND t.table_name = c.table_name
             WHERE c.table_schema = 'crossfade' AND c.column_name = 'pair' AND t.table_type = 'BASE TABLE'",
        )
        .await?;
    let mut rows = 0;
    for table in tables {
        let count: Option<u64> =
            conn.exec_first(format!("SELECT COUNT(*) FROM crossfade.`{table}` WHERE pair = ?"), (pair,)).await?;
        rows += count.unwrap_or_default();
    }
    Ok(rows)
}

/// Killed at one step after the other, the same command goes on to the end.
async fn the_same_finish_goes_on(flavor: Flavor) -> Result<()> {
    const POINTS: [&str; 12] = [
        "switch-gates",
        "switch-start",
        "switch-canary",
        "switch-compare",
        "switch-flip",
        "switch-flipped",
        "switch-acknowledge",
        "switch-end_forward",
        "switch-end_reverse",
        "switch-mark",
        "switch-report",
        "switch-end",
    ];
    let mut migration = staged(&setup(flavor, "killed_finish", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    change(&migration, &["cutover"], 0).await?;
    let folder = migration.folder.join("reports");
    let words = ["finish", "--report", &folder.to_string_lossy()];
    for point in POINTS {
        let (code, output) = migration.crossfade_with(&words, &[("CROSSFADE_FAILPOINT", point)]).await?;
        ensure!(code.is_none(), "it was not killed at {point}: {code:?}\n{output}");
        println!("{flavor:?}: killed at {point}, flag {:?}", flag(&migration).await?);
    }
    let done = change(&migration, &words, 0).await?;
    ensure!(done["resumed"] == true && done["phase"] == "new_only", "{done:#}");
    both_end(&mut migration).await?;
    let ledger = application.finish().await?;
    has_all(&migration, &migration.new, &ledger).await?;
    let report = read_report(&migration, &folder)?.0;
    ensure!(report["runs"].as_array().is_some_and(|runs| runs.len() == 2), "{:#}", report["runs"]);
    migration.forget();
    Ok(())
}

/// Who must go back after all finds the way open, whatever step a finish has died at.
async fn a_finish_that_died_is_gone_back_from(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "left_finish", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    for point in ["switch-flipped", "switch-end_reverse", "switch-report"] {
        change(&migration, &["cutover"], 0).await?;
        let words = ["finish", "--report", &*migration.folder.to_string_lossy()];
        let (code, output) = migration.crossfade_with(&words, &[("CROSSFADE_FAILPOINT", point)]).await?;
        ensure!(code.is_none() && flag(&migration).await?.value == 3, "{point}: {output}");
        // Both directions have just been started again: where they are late, a gate says so, and it is tried again.
        until("rollback", LIMIT, || async {
            let (code, back) = json(&migration, &["rollback", "--json"]).await?;
            let is_late = back["reason"].as_str().is_some_and(|reason| reason.starts_with("gates are closed: "));
            ensure!(code == Some(0) || is_late, "{point}: {back:#}");
            Ok(if code == Some(0) { Progress::Reached(()) } else { Progress::NotYet(back.to_string()) })
        })
        .await?;
        until_flag(&migration, 1).await?;
    }
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

async fn it_ends_only_what_is_complete(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "not_yet", "timeout = \"2s\"")).await?;
    let folder = migration.folder.to_string_lossy().into_owned();
    let finish = ["finish", "--report", &*folder];
    says(&migration, &["finish", "--dry-run"], 1, &["the phase is write_both", "`cutover`", "compare all rows"])
        .await?;
    says(&migration, &["finish", "--report", "/dev/null/x"], 3, &["the report cannot be written to /dev/null/x"])
        .await?;
    let application = Application::start(&migration, &THREE).await?;
    change(&migration, &["cutover"], 0).await?;

    // A row that only new has.
    let unseen = ["SET SESSION sql_log_bin = 0", "INSERT INTO {schema}.item (writer, n, v) VALUES ('b', 1, 1)"];
    migration.on(&migration.new, &unseen).await?;
    let undone = change(&migration, &finish, 1).await?;
    let reason = undone["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("keeps it from ending: 1 rows are missing or different"), "{reason}");
    ensure!(flag(&migration).await?.value == 2);
    migration
        .on(&migration.new, &["SET SESSION sql_log_bin = 0", "DELETE FROM {schema}.item WHERE writer = 'b'"])
        .await?;

    // An instance that has not heard of the end; forward had been stopped, and rests again.
    migration.rest(&[crossfade_tests::Direction::Forward]).await?;
    let now = flag(&migration).await?;
    acknowledge(&migration.new, &migration.pair, "hanging", now.version, 600_000_000).await?;
    let undone = change(&migration, &finish, 1).await?;
    let reason = undone["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("hanging had not acknowledged the flag"), "{reason}");
    ensure!(undone["phase"] == "read_new" && flag(&migration).await?.value == 2, "{undone:#}");
    until("forward rests as before", LIMIT, || async {
        let status = migration.status().read().await?;
        let state = status.state("forward").unwrap_or_default().to_owned();
        Ok(if state == "paused" { Progress::Reached(()) } else { Progress::NotYet(state) })
    })
    .await?;
    acknowledge(&migration.new, &migration.pair, "hanging", now.version, 200_000).await?;

    // What was written on old meanwhile crosses after all.
    migration
        .on(&migration.old, &["INSERT INTO {schema}.item (id, writer, n, v) VALUES (900001, 'late', 1, 7)"])
        .await?;
    let done = change(&migration, &finish, 0).await?;
    ensure!(done["phase"] == "new_only", "{done:#}");
    let mut conn = migration.new.get_conn().await?;
    let question = format!("SELECT v FROM `{}`.item WHERE writer = 'late'", migration.schema);
    let late: Option<i32> = conn.query_first(question).await?;
    ensure!(late == Some(7), "{late:?}");
    drop(conn);
    migration.on(&migration.new, &["DELETE FROM {schema}.item WHERE writer = 'late'"]).await?;
    both_end(&mut migration).await?;
    let ledger = application.finish().await?;
    has_all(&migration, &migration.new, &ledger).await?;
    ensure!(mirrored(&migration, &migration.old).await?.is_some_and(|(_, value, _)| value == 3));
    migration.forget();
    Ok(())
}

/// Both processes end by themselves, well.
pub async fn both_end(migration: &mut Migration) -> Result<()> {
    for direction in Direction::BOTH {
        let status = migration.process(direction)?.wait(Duration::from_secs(20)).await?;
        ensure!(status.success(), "{} ended with {status}\n{}", direction.as_str(), migration.log_ends());
    }
    Ok(())
}

fn read_report(migration: &Migration, folder: &std::path::Path) -> Result<(Value, String)> {
    let file = |ending: &str| -> PathBuf { folder.join(format!("crossfade-report-{}.{ending}", migration.pair)) };
    let json = std::fs::read_to_string(file("json"))?;
    Ok((serde_json::from_str(&json)?, std::fs::read_to_string(file("md"))?))
}

async fn rows(migration: &Migration, pool: &Pool) -> Result<u64> {
    let mut conn = pool.get_conn().await?;
    let question = format!("SELECT COUNT(*) FROM `{}`.item", migration.schema);
    conn.query_first(question).await?.context("no count")
}

/// Waits until so many more changes are captured.
async fn writes_more(migration: &Migration, more: u64) -> Result<()> {
    let captured = || async {
        let status = migration.status().read().await?;
        anyhow::Ok(status.number("forward", "last_seq") + status.number("reverse", "last_seq"))
    };
    let before = captured().await?;
    until("writes", LIMIT, || async {
        let now = captured().await?;
        Ok(if now >= before + more { Progress::Reached(()) } else { Progress::NotYet(now.to_string()) })
    })
    .await
}

on_both_brands! {
    p9_the_end_under_load => the_end_under_load,
    p9_the_same_finish_goes_on => the_same_finish_goes_on,
    p9_a_finish_that_died_is_gone_back_from => a_finish_that_died_is_gone_back_from,
    p9_it_ends_only_what_is_complete => it_ends_only_what_is_complete,
}
