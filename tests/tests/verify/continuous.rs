//! Both sides compared again and again by the forward process.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;
use serde_json::Value;

use super::{of_table, unseen};

const LIMIT: Duration = Duration::from_secs(60);
const TABLES: [&str; 3] = ["a", "b", "c"];

/// Three tables that are equal on both sides.
async fn equal_tables(flavor: Flavor, name: &'static str, pause: &str) -> Result<Migration> {
    let settings = format!("[verify]\npause = \"{pause}\"\n");
    let migration = Migration::new(&Setup { settings, ..Setup::new(flavor, name) }).await?;
    for table in TABLES {
        let rows = (1..=500).map(|id| format!("({id}, 0, '2026-01-01')")).collect::<Vec<_>>().join(",");
        migration
            .on_both(&[
                &format!(
                    "CREATE TABLE {{schema}}.{table} (id INT PRIMARY KEY, v INT, updated_at DATETIME(6) NOT NULL)"
                ),
                &format!("INSERT INTO {{schema}}.{table} VALUES {rows}"),
            ])
            .await?;
    }
    migration.init().await?;
    Ok(migration)
}

/// Waits until `status` tells of rounds what is waited for.
async fn until_rounds(migration: &Migration, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    until(what, LIMIT, || async {
        let rounds = migration.status().read().await?.0["verify"].clone();
        Ok(if is_it(&rounds) { Progress::Reached(rounds) } else { Progress::NotYet(rounds.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

/// A round that was begun after `number` and has ended.
fn has_ended_after(number: u64) -> impl Fn(&Value) -> bool {
    move |rounds| rounds["last"]["verification"].as_u64().is_some_and(|last| last > number)
}

async fn differences_come_up_and_go(flavor: Flavor) -> Result<()> {
    let mut migration = equal_tables(flavor, "verify_rounds", "1s").await?;
    migration.start_both().await?;
    let off = migration.status().read().await?;
    ensure!(off.0["verify"]["on"] == false && off.0["verify"]["last"].is_null(), "{}", off.0);
    migration.crossfade(&["verify", "--continuous"]).await?;
    let rounds = until_rounds(&migration, "a round that finds nothing", has_ended_after(0)).await?;
    let last = &rounds["last"];
    ensure!(last["rows"] == 1_500 && last["differences"] == 0 && last["tables_done"] == 3, "{rounds}");

    // What nobody can capture is found by the next round that begins, and shown.
    migration.expect_lines(&["rows differ between the sides"]);
    unseen(&migration.new, &migration.schema, &["UPDATE b SET v = 7 WHERE id = 100".to_owned()]).await?;
    let found =
        until_rounds(&migration, "a round that finds the difference", |rounds| rounds["last"]["differences"] == 1);
    let found = found.await?;
    let shown = migration.crossfade(&["verify", "show", "--continuous", "--json"]).await?;
    let shown: Value = serde_json::from_str(&shown)?;
    ensure!(shown["verification"]["continuous"] == true, "{shown}");
    let difference = &shown["differences"][0];
    ensure!(difference["table_name"] == "b" && difference["row_key"]["id"] == 100, "{shown}");
    ensure!(shown["differences"].as_array().is_some_and(|rows| rows.len() == 1), "{shown}");
    let (_, printed, _) = migration.crossfade_any(&["status"]).await?;
    ensure!(printed.contains("comparing in the background") && printed.contains("1 differ"), "{printed}");

    // A person's comparison stands beside the rounds; once it has mended the row, they find nothing again.
    migration.crossfade(&["verify", "--repair", "old-wins"]).await?;
    let asked: Value = serde_json::from_str(&migration.crossfade(&["verify", "show", "--json"]).await?)?;
    ensure!(asked["verification"]["continuous"] == false, "{asked}");
    let number = found["last"]["verification"].as_u64().context("a round has no number")?;
    let mended = |rounds: &Value| has_ended_after(number)(rounds) && rounds["last"]["differences"] == 0;
    until_rounds(&migration, "a round after the repair", mended).await?;

    migration.crossfade(&["verify", "--continuous", "off"]).await?;
    let off = |rounds: &Value| rounds["on"] == false && rounds["running"].is_null();
    until_rounds(&migration, "no round any more", off).await?;
    migration.stop_both().await
}

/// Killed after a table of a round: whoever comes next goes on with the other tables of the same round, be it the same process
/// started again or a standby, and no two rounds are ever under way.
async fn a_round_outlives_its_process(flavor: Flavor) -> Result<()> {
    let killed_after_one = [("CROSSFADE_FAILPOINT", "table-compared:1")];
    let mut migration = equal_tables(flavor, "verify_killed", "1s").await?;
    migration.expect_lines(KILLED);
    migration.start(Direction::Reverse, &[])?;
    migration.crossfade(&["verify", "--continuous", "on"]).await?;
    migration.start(Direction::Forward, &killed_after_one)?;
    migration.process(Direction::Forward)?.wait(LIMIT).await?;
    let first = migration.status().read().await?.0["verify"]["running"].clone();
    migration.start(Direction::Forward, &[])?;
    let number = the_same_ends(&migration, &first).await?;
    migration.crossfade(&["verify", "--continuous", "off"]).await?;
    until_rounds(&migration, "no round any more", |rounds| rounds["running"].is_null()).await?;
    migration.stop(Direction::Forward).await?;

    migration.start(Direction::Forward, &killed_after_one)?;
    migration.status().until_running(LIMIT).await?;
    let standby = migration.standby(Direction::Forward)?;
    until("a standby", LIMIT, || async {
        let line = migration.status().read().await?.0["streams"][0]["standby"].clone();
        Ok(if line[0].is_object() { Progress::Reached(()) } else { Progress::NotYet(line.to_string()) })
    })
    .await?;
    migration.crossfade(&["verify", "--continuous", "on"]).await?;
    migration.process(Direction::Forward)?.wait(LIMIT).await?;
    let second = migration.status().read().await?.0["verify"]["running"].clone();
    ensure!(second["verification"].as_u64() > Some(number), "{second}");
    migration.replace(Direction::Forward, standby);
    the_same_ends(&migration, &second).await?;
    // Each began after the one before had ended.
    let overlapping: Option<u64> = migration
        .new
        .get_conn()
        .await?
        .exec_first(
            "SELECT COUNT(*) FROM crossfade.verification one JOIN crossfade.verification other USING (pair)
             WHERE pair = ? AND one.id < other.id AND (one.ended_at IS NULL OR one.ended_at > other.begun_at)",
            (&migration.pair,),
        )
        .await?;
    ensure!(overlapping == Some(0), "{overlapping:?} rounds were under way together");
    let shown: Value =
        serde_json::from_str(&migration.crossfade(&["verify", "show", "--continuous", "--json"]).await?)?;
    let reports = serde_json::json!({ "tables": shown["verification"]["reports"] });
    for table in TABLES {
        ensure!(of_table(&reports, &format!(".{table}"))["rows_old"] == 500, "{shown}");
    }
    migration.stop_both().await
}

/// A round of which one table was compared ends with all tables; gives its number.
async fn the_same_ends(migration: &Migration, begun: &Value) -> Result<u64> {
    ensure!(begun["tables_done"] == 1 && begun["tables"] == 3, "{begun}");
    let number = begun["verification"].as_u64().context("a round has no number")?;
    let rounds = until_rounds(migration, "the round ends", has_ended_after(number - 1)).await?;
    let last = &rounds["last"];
    ensure!(last["verification"] == number && last["begun_at"] == begun["begun_at"], "another round: {begun} {rounds}");
    ensure!(last["rows"] == 1_500 && last["tables_done"] == 3, "{rounds}");
    Ok(number)
}

/// Rows that are to be copied are not told to differ: a round that has found them when someone asks for a copy does not end. One
/// that begins behind the copying, without a pause, finds nothing.
async fn a_round_gives_way_to_copying(flavor: Flavor) -> Result<()> {
    let mut migration = equal_tables(flavor, "verify_yields", "1h").await?;
    migration.start(Direction::Reverse, &[])?;
    migration.crossfade(&["verify", "--continuous", "on"]).await?;
    unseen(&migration.new, &migration.schema, &["DELETE FROM c".to_owned()]).await?;
    migration.start(Direction::Forward, &[("CROSSFADE_FAILPOINT", "rows-compared:3:stop")])?;
    migration.process(Direction::Forward)?.until_frozen(LIMIT).await?;
    let table = |name: &str| format!("{}.{name}", migration.schema);
    migration.crossfade(&["backfill", "start", "--table", &table("c")]).await?;
    migration.crossfade(&["backfill", "pause"]).await?;
    let first = migration.status().read().await?.0["verify"]["running"].clone();
    ensure!(first["tables_done"] == 2, "{first}");

    let [a, _, _] = TABLES.map(table);
    migration.process(Direction::Forward)?.resume()?;
    migration.process(Direction::Forward)?.until_logged("comparing gives way to copying", LIMIT).await?;
    let rounds = migration.status().read().await?.0["verify"].clone();
    ensure!(rounds["running"].is_null() && rounds["last"].is_null(), "{rounds}");
    let shown = migration.crossfade_any(&["verify", "show", "--continuous"]).await?;
    ensure!(shown.2.contains("no round was begun"), "{shown:?}");

    migration.crossfade(&["backfill", "resume"]).await?;
    let rounds = until_rounds(&migration, "a round behind the copying", |rounds| rounds["last"].is_object()).await?;
    let last = &rounds["last"];
    let number = last["verification"].as_u64().context("a round has no number")?;
    ensure!(Some(number) > first["verification"].as_u64(), "the round of before has ended: {rounds}");
    ensure!(last["rows"] == 1_500 && last["differences"] == 0, "{rounds}");
    migration.crossfade(&["backfill", "start", "--table", &a]).await?;
    until_rounds(&migration, "a round behind the next copying", has_ended_after(number)).await?;
    migration.stop_both().await
}

on_both_brands! {
    a_round_gives_way_to_copying => a_round_gives_way_to_copying,
    differences_come_up_and_go => differences_come_up_and_go,
    p4_a_round_outlives_its_process => a_round_outlives_its_process,
}
