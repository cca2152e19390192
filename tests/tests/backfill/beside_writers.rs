//! Rows are copied while users of both sides change and delete them, and while the process that copies is killed again and
//! again. In the end both sides are equal: nothing older has overwritten anything newer, and nothing that was deleted is back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::workload::Side;
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, is_soak, rounds};

use crate::progress::Copies;
use crate::writers::{Clerks, TABLES, Writers, Written, load};

const LIMIT: Duration = Duration::from_secs(240);
/// What users of a side write at least, however soon all is copied.
const OF_OLD: Written = Written::of(200, 20);
const OF_NEW: Written = Written::of(50, 5);

/// Changes a second on each side. A busy machine that could not carry them would never let a chunk have its place.
fn rate() -> u64 {
    u64::from(rounds(30, 300))
}

fn writers_of(migration: &Migration, side: Side, rows: u64) -> Writers {
    let (pool, name) = match side {
        Side::Old => (&migration.old, "old"),
        Side::New => (&migration.new, "new"),
    };
    let clerks = Clerks { rows, with_families: side == Side::Old, side: name };
    Writers::start(pool, &migration.schema, rate(), clerks)
}

/// Loaded on the old side only. Chunks are small, so that there are many of them.
async fn loaded_on_old(flavor: Flavor, name: &'static str, rows: u64, throttle: &str) -> Result<Migration> {
    let settings = format!("[backfill]\nchunk_bytes = \"64KiB\"\n{throttle}");
    let migration = Migration::new(&Setup { settings, ..Setup::new(flavor, name) }).await?;
    let mut statements = vec!["USE {schema}"];
    statements.extend(TABLES);
    migration.on_both(&statements).await?;
    load(&migration.old, &migration.schema, rows).await?;
    migration.init().await?;
    Ok(migration)
}

async fn copied_while_both_sides_are_written(flavor: Flavor) -> Result<()> {
    let rows = u64::from(rounds(6_000, 60_000));
    let mut migration = loaded_on_old(flavor, "backfill_both", rows, "").await?;
    migration.start_both().await?;
    let old = writers_of(&migration, Side::Old, rows);
    let new = writers_of(&migration, Side::New, rows);
    migration.crossfade(&["backfill", "start"]).await?;
    let copies = Copies::until_copied(&migration, LIMIT).await?;
    let (old, new) = (old.finish_after(OF_OLD).await?, new.finish_after(OF_NEW).await?);
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    println!("{flavor:?}: {} rows, {old:?} {new:?}\n{}", comparison.rows_compared(), copies.0);
    // Something happened: there was much to copy, and users of both sides had written rows before their chunk came.
    ensure!(copies.total("filled") > rows && copies.total("chunks") > 20 && copies.total("same") > 0, "{}", copies.0);
    // The short form has too few rows to be sure that one of them is met while its chunk is on its way.
    let met = copies.total("changed");
    ensure!(!is_soak() || met > 0, "nobody changed a row that was being copied: {}", copies.0);
    ensure!(status.total("open_failures") == 0, "rows were parked: {}", status.0);
    migration.stop_both().await
}

async fn killed_again_and_again(flavor: Flavor) -> Result<()> {
    let rows = u64::from(rounds(8_000, 60_000));
    // So slowly that copying outlasts the kills, however fast the machine is.
    let throttle = format!("[throttle]\nrows_per_second = {}\n", rounds(4_000, 20_000));
    let mut migration = loaded_on_old(flavor, "backfill_kill", rows, &throttle).await?;
    migration.expect_lines(KILLED);
    migration.start(Direction::Reverse, &[])?;
    migration.crossfade(&["backfill", "start"]).await?;
    let old = writers_of(&migration, Side::Old, rows);
    let new = writers_of(&migration, Side::New, rows);
    let mut before = 0;
    for point in ["chunk-read:4", "mid-chunk:4", "after-chunk-commit:4", "after-capture:40", "mid-lane:20"] {
        migration.start(Direction::Forward, &[("CROSSFADE_FAILPOINT", point)])?;
        migration.process(Direction::Forward)?.wait(LIMIT).await.with_context(|| point.to_owned())?;
        let copies = Copies::read(&migration).await?;
        println!("{flavor:?}: killed at {point} with {} rows", copies.total("rows"));
        ensure!(copies.total("rows") >= before, "what was copied is forgotten: {}", copies.0);
        before = copies.total("rows");
    }
    // Whatever those kills left: once more when something is counted.
    migration.start(Direction::Forward, &[])?;
    Copies::until_more_than(&migration, before, LIMIT).await?;
    migration.process(Direction::Forward)?.kill9().await?;
    migration.start(Direction::Forward, &[])?;
    let copies = Copies::until_copied(&migration, LIMIT).await?;
    let (old, new) = (old.finish_after(OF_OLD).await?, new.finish_after(OF_NEW).await?);
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    println!("{flavor:?}: {} rows, {old:?} {new:?}\n{}", comparison.rows_compared(), copies.0);
    ensure!(status.total("open_failures") == 0, "rows were parked: {}", status.0);
    migration.stop_both().await
}

#[tokio::test]
async fn p4_copied_while_both_sides_are_written_on_mysql() -> Result<()> {
    copied_while_both_sides_are_written(Flavor::MySql).await
}

#[tokio::test]
async fn p4_copied_while_both_sides_are_written_on_mariadb() -> Result<()> {
    copied_while_both_sides_are_written(Flavor::MariaDb).await
}

#[tokio::test]
async fn p6_killed_again_and_again_on_mysql() -> Result<()> {
    killed_again_and_again(Flavor::MySql).await
}

#[tokio::test]
async fn p6_killed_again_and_again_on_mariadb() -> Result<()> {
    killed_again_and_again(Flavor::MariaDb).await
}
