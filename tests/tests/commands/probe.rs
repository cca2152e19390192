//! `check --probe-load` tells what the new side takes, leaves nothing behind, and nothing of it crosses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_testkit::process::Process;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, Setup, binary};
use mysql_async::prelude::Queryable;

use crate::{LIMIT, create_table, insert, json, says};

const PROBE: [&str; 5] = ["check", "--probe-load", "--seconds", "2", "--json"];

/// How many rows the load has written so far; `None` where its table is not there.
async fn rows_of_load(migration: &Migration) -> Result<Option<u64>> {
    let mut conn = migration.new.get_conn().await?;
    let asked =
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'crossfade' AND table_name LIKE 'probe%'";
    if conn.query_first::<u64, _>(asked).await? != Some(2) {
        return Ok(None);
    }
    // It may be dropped by now.
    Ok(conn.query_first("SELECT COUNT(*) FROM crossfade.probe").await.unwrap_or_default())
}

async fn p3_a_load_is_measured_and_leaves_nothing(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "probe_load")).await?;
    create_table(&migration).await?;
    migration.init().await?;
    migration.start_both().await?;
    let mut written = 0;
    let writing = async {
        loop {
            insert(&migration, &migration.old, written..written + 1).await?;
            written += 1;
        }
    };
    let (code, told) = tokio::select! {
        told = json(&migration, &PROBE) => told?,
        failed = writing => return failed,
    };
    let load = &told["probe_load"];
    println!("{flavor:?}: {code:?} {load}");
    let number = |name: &str| load[name].as_f64().with_context(|| format!("no {name}: {load}"));
    ensure!(number("target_changes_per_second")? > 100.0 && number("seconds")? >= 2.0, "{load}");
    ensure!(number("target_binlog_bytes_per_second")? > 10_000.0, "{load}");
    ensure!(number("source_changes_per_second")? > 1.0, "the old side's own writes are not seen: {load}");
    ensure!(number("headroom")? > 0.0, "{load}");
    let is_told = |finding: &serde_json::Value| finding["code"] == "probe-load";
    ensure!(told["findings"].as_array().is_some_and(|findings| findings.iter().any(is_told)), "{told:#}");
    ensure!(rows_of_load(&migration).await?.is_none(), "its tables are left");

    // A kill leaves them, and the next one clears them away.
    let config = migration.config().display().to_string();
    let words = ["--config", &config, "check", "--probe-load", "--seconds", "120"];
    let mut process = Process::start(&binary(), &words, &[], &migration.folder.join("probe.txt"))?;
    until("rows of the load", LIMIT, || async {
        let rows = rows_of_load(&migration).await?;
        Ok(if rows > Some(100) { Progress::Reached(()) } else { Progress::NotYet(format!("{rows:?}")) })
    })
    .await?;
    let busy = says(&migration, &["check", "--probe-load"], 3, &["another load test runs", "hint:"]).await?;
    ensure!(!busy.contains("panicked"), "{busy}");
    process.kill9().await?;
    ensure!(rows_of_load(&migration).await? > Some(100), "a kill cleared it away");
    json(&migration, &PROBE).await?;
    ensure!(rows_of_load(&migration).await?.is_none(), "what the kill has left is left");
    // One that is asked to end does, and clears away.
    let mut process = Process::start(&binary(), &words, &[], &migration.folder.join("probe.txt"))?;
    until("rows of the load", LIMIT, || async {
        let rows = rows_of_load(&migration).await?;
        Ok(if rows > Some(100) { Progress::Reached(()) } else { Progress::NotYet(format!("{rows:?}")) })
    })
    .await?;
    process.terminate()?;
    process.wait(Duration::from_secs(30)).await?;
    ensure!(rows_of_load(&migration).await?.is_none(), "its tables are left");

    // Both streams went on, and have seen users' rows alone.
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    // The insert that was under way when the command ended may have been committed.
    let captured = status.number("forward", "captured");
    ensure!([written, written + 1].map(u64::from).contains(&captured), "{captured} of {written}: {}", status.0);
    ensure!(status.number("reverse", "captured") == 0, "{}", status.0);
    migration.stop_both().await
}

crossfade_tests::on_both_brands! {
    p3_a_load_is_measured_and_leaves_nothing => p3_a_load_is_measured_and_leaves_nothing,
}
