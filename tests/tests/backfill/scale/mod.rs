//! Many rows of many tables, copied under live writes on both sides and with kill -9 every few seconds.
//!
//! Prints what `docs/soak.md` keeps, and how honest the time left was that `backfill status` told meanwhile.

mod honesty;
mod machine;
mod users;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, ServerBuilder, SharedPair};
use crossfade_testkit::shop::{self, Rows};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, is_soak, on_both_brands, rounds};
use mysql_async::prelude::Queryable;
use serde_json::Value;

use self::honesty::{Honesty, TimesTold};
use self::machine::Machine;
use self::users::Shoppers;
use crate::progress::Copies;
use crate::writers::{Writers, Written};

const LIMIT: Duration = Duration::from_secs(1_800);

/// Between two looks at how far the copying is.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// The long form's promise, of each side's users.
const LEAST_CHANGES_PER_SECOND: f64 = 300.0;
/// The long form's promise: the share of the times left, told from half-way on, that are within a quarter.
const LEAST_WITHIN_A_QUARTER: f64 = 0.9;

/// What one run does.
struct Scale {
    rows: u64,
    /// Changes a second that are asked of each side's users.
    rate: u64,
    /// How long users write, where that is not as long as rows are copied: what a slow machine does not keep up with has an end.
    writes_for: Option<Duration>,
    kill_every: Duration,
    most_kills: u64,
    /// `[throttle] rows_per_second`
    most_rows_per_second: Option<u32>,
}

impl Scale {
    /// Copied at a rate that is set, and that leaves room beside users; in the long form with kills, as without such a rate.
    fn bounded() -> Result<Scale> {
        let wanted = Scale::wanted(if is_soak() { u64::MAX } else { 0 })?;
        // So many rows that a time left is told.
        let (rows, rate) = if wanted.most_rows_per_second.is_some() { (6_000, 400) } else { (wanted.rows, 6_000) };
        Ok(Scale { rows, most_rows_per_second: Some(rate), ..wanted })
    }

    /// `CROSSFADE_SCALE_ROWS` asks for another number of rows; a development build does not carry the rate of the long form.
    fn wanted(most_kills: u64) -> Result<Scale> {
        let asked = std::env::var("CROSSFADE_SCALE_ROWS").ok().map(|rows| rows.parse()).transpose();
        let asked: Option<u64> = asked.context("CROSSFADE_SCALE_ROWS is no number")?;
        let is_long = is_soak() || asked.is_some();
        // So slowly that all kills come while it copies.
        let most_rows_per_second = (!is_long).then_some(1_000);
        Ok(Scale {
            rows: asked.unwrap_or_else(|| u64::from(rounds(4_000, 1_000_000))),
            rate: if is_soak() { 330 } else { 40 },
            writes_for: (!is_long).then_some(Duration::from_secs(12)),
            kill_every: Duration::from_secs(if is_long { 5 } else { 1 }),
            most_kills: if is_long { most_kills } else { most_kills.min(4) },
            most_rows_per_second,
        })
    }
}

/// What one run has come to.
struct Outcome {
    flavor: Flavor,
    rows: u64,
    seconds: f64,
    old: Written,
    new: Written,
    kills: u64,
    echoes: u64,
    differences: u64,
    /// Rows that somebody changed while they were copied.
    changed: u64,
    honesty: Option<Honesty>,
    /// The same, at the speed that the machine had when the time was told.
    honesty_at_speed: Option<Honesty>,
}

impl Outcome {
    const HEAD: &str = "| server | rows | seconds | rows/s | changes/s old | changes/s new | deletes old | deletes new | kills \
                        | users of old waited ms: median, 99 %, longest | of new \
                        | echoes recognised | differences | time left told to real: median | worst | within 25 % | at the machine's speed then |";

    fn per_second(&self, number: u64) -> f64 {
        number as f64 / self.seconds
    }

    fn tells_the_time_left(&self) -> Result<()> {
        let honesty = self.honesty.as_ref().context("no time left was told")?;
        ensure!(honesty.within_a_quarter >= LEAST_WITHIN_A_QUARTER && honesty.untold == 0, "{honesty:?}");
        Ok(())
    }

    fn print(&self) {
        let left = match self.honesty {
            Some(Honesty { median, worst, within_a_quarter, told, .. }) => {
                format!("{median:.2} | {worst:.2} | {:.0} % of {told}", within_a_quarter * 100.0)
            }
            None => "- | - | -".to_owned(),
        };
        let at_speed = self.honesty_at_speed.map_or(f64::NAN, |honesty| honesty.within_a_quarter * 100.0);
        println!(
            "{}\n|{}\n| {:?} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} | {} | {} | {} | {left} | {at_speed:.0} % |",
            Self::HEAD,
            "---|".repeat(17),
            self.flavor,
            self.rows,
            self.seconds,
            self.per_second(self.rows),
            self.per_second(self.old.changes),
            self.per_second(self.new.changes),
            self.old.deletes,
            self.new.deletes,
            self.kills,
            waited(self.old),
            waited(self.new),
            self.echoes,
            self.differences,
        );
    }
}

fn waited(written: Written) -> String {
    written.waited.map(|waited| format!("{:.1}", waited.as_secs_f64() * 1_000.0)).join(", ")
}

/// Servers whose memory has room for all rows and their indexes, as anybody would give them: with less, it is the writing back of
/// pages that is measured, which comes and goes.
fn roomy(flavor: Flavor) -> ServerBuilder {
    let redo_log = match flavor {
        Flavor::MySql => "innodb_redo_log_capacity",
        Flavor::MariaDb => "innodb_log_file_size",
    };
    let builder = Server::builder(flavor).relaxed().option("innodb_buffer_pool_size", "1G").option(redo_log, "1G");
    builder.option("innodb_use_native_aio", "ON")
}

async fn loaded_on_old(flavor: Flavor, scale: &Scale) -> Result<(Migration, u64)> {
    // Small chunks in the short form: there are many of them.
    let small = if scale.rows < 50_000 { "[backfill]\nchunk_bytes = \"64KiB\"\n\n" } else { "" };
    let bound = scale.most_rows_per_second.map(|rows| format!("[throttle]\nrows_per_second = {rows}\n"));
    let setup = Setup { settings: format!("{small}{}", bound.unwrap_or_default()), ..Setup::new(flavor, "scale") };
    let migration = match scale.rows < 50_000 {
        true => Migration::new(&setup).await?,
        false => Migration::on_servers(&setup, SharedPair::own(roomy(flavor)).await?).await?,
    };
    let statements: Vec<String> = std::iter::once("USE {schema}".to_owned()).chain(shop::definitions()).collect();
    migration.on_both(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut connection = migration.old.get_conn().await?;
    connection.query_drop(format!("USE `{}`", migration.schema)).await?;
    let loaded = shop::load(&mut connection, Rows::new(scale.rows)).await?;
    migration.init().await?;
    migration.expect_lines(KILLED);
    Ok((migration, loaded))
}

/// Kills and looks until all tables are copied; gives the number of kills. None comes before something was copied since the last one:
/// on a slow machine a process would be killed again before it has begun.
async fn copied_under_kills(migration: &mut Migration, scale: &Scale, told: &mut TimesTold) -> Result<u64> {
    let end = Instant::now() + LIMIT;
    let (mut killed_at, mut killed_with, mut kills) = (Instant::now(), 0, 0);
    let mut turns = Direction::BOTH.into_iter().cycle();
    loop {
        let copies = Copies::read(migration).await?;
        told.note(&copies.0);
        if !copies.tables().is_empty() && copies.tables().iter().all(|table| table["state"] == "copied") {
            return Ok(kills);
        }
        ensure!(Instant::now() < end, "not copied within {LIMIT:?}: {}\n{}", copies.0, migration.log_ends());
        if kills < scale.most_kills && killed_at.elapsed() >= scale.kill_every && copies.total("rows") > killed_with {
            let direction = turns.next().context("there are two")?;
            migration.process(direction)?.kill9().await?;
            migration.start(direction, &[])?;
            (killed_at, killed_with, kills) = (Instant::now(), copies.total("rows"), kills + 1);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn finish(old: Writers, new: Writers) -> Result<(Written, Written)> {
    tokio::try_join!(old.finish(), new.finish())
}

async fn many_rows_beside_users_and_kills(flavor: Flavor) -> Result<()> {
    keeps_the_promises(&copied_beside_users(flavor, Scale::wanted(u64::MAX)?).await?)
}

async fn many_rows_beside_users(flavor: Flavor) -> Result<()> {
    keeps_the_promises(&copied_beside_users(flavor, Scale::wanted(0)?).await?)
}

/// The long form's promises where nothing bounds the copying but the machine.
fn keeps_the_promises(outcome: &Outcome) -> Result<()> {
    if !is_soak() {
        return Ok(());
    }
    ensure!(outcome.changed > 0, "nobody changed a row that was being copied");
    let slower = outcome.per_second(outcome.old.changes.min(outcome.new.changes));
    ensure!(slower >= LEAST_CHANGES_PER_SECOND, "users made only {slower:.0} changes a second");
    outcome.tells_the_time_left()
}

/// At a rate that the machine can keep, though the tables' rows are unlike.
async fn time_left_of_bounded_copying(flavor: Flavor) -> Result<()> {
    let scale = Scale::bounded()?;
    let bound = f64::from(scale.most_rows_per_second.context("it is bounded")?);
    let outcome = copied_beside_users(flavor, scale).await?;
    let reached = outcome.per_second(outcome.rows) / bound;
    // A killed process copies nothing until it is back.
    let least = if outcome.kills > 0 { 0.5 } else { 0.85 };
    ensure!((least..=1.15).contains(&reached), "{reached:.2} of the rate that is set");
    if is_soak() {
        return outcome.tells_the_time_left();
    }
    // Few times are told in the short form.
    let honesty = outcome.honesty.context("no time left was told")?;
    ensure!((0.75..=1.25).contains(&honesty.median), "{honesty:?}");
    Ok(())
}

async fn copied_beside_users(flavor: Flavor, scale: Scale) -> Result<Outcome> {
    let (rows, rate) = (Rows::new(scale.rows), scale.rate);
    let (mut migration, loaded) = loaded_on_old(flavor, &scale).await?;
    // Before changes come, since those of children would be refused for their parents.
    migration.crossfade(&["backfill", "start"]).await?;
    migration.start_both().await?;
    let users = |pool, side| Writers::start(pool, &migration.schema, rate, Shoppers { rows, side });
    let (old, new) = (users(&migration.old, "old"), users(&migration.new, "new"));
    let begun = Instant::now();
    let mut told = TimesTold::default();
    let machine = Machine::watch();
    let copying = async {
        let kills = copied_under_kills(&mut migration, &scale, &mut told).await?;
        anyhow::Ok((kills, Instant::now()))
    };
    let ((kills, ended), written) = match scale.writes_for {
        None => (copying.await?, finish(old, new).await?),
        Some(time) => {
            let writing = async {
                tokio::time::sleep(time).await;
                finish(old, new).await
            };
            tokio::try_join!(copying, writing)?
        }
    };
    let copies = Copies::until_copied(&migration, LIMIT).await?;
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    let (code, output, errors) = migration.crossfade_any(&["verify", "--json"]).await?;
    let verified: Value = serde_json::from_str(&output).with_context(|| format!("{code:?}: {errors}"))?;
    let course = machine.course();
    let outcome = Outcome {
        flavor,
        rows: loaded,
        seconds: (ended - begun).as_secs_f64(),
        old: written.0,
        new: written.1,
        kills,
        echoes: status.total("echoes"),
        differences: verified["mismatches"].as_u64().unwrap_or(u64::MAX),
        changed: copies.total("changed"),
        honesty: told.judge(begun, ended, |at| ended - at),
        honesty_at_speed: told.judge(begun, ended, |at| course.at_speed_of(at, (at - begun) / 3, ended)),
    };
    outcome.print();
    println!("{}", told.course(begun, ended));
    if let Some((lowest, highest)) = course.spread() {
        println!("  the machine's speed: {lowest:.2} to {highest:.2} of its mean, over 10 s each");
    }
    ensure!(code == Some(0) && outcome.differences == 0, "{verified}");
    ensure!(verified["rows_old"].as_u64() == Some(comparison.rows_compared()), "{verified}\n{comparison}");
    ensure!(status.total("open_failures") == 0, "rows were parked: {}", status.0);
    // Something happened: rows were deleted and changed while they were copied, and processes killed.
    ensure!(outcome.kills >= scale.most_kills.min(2), "{} kills", outcome.kills);
    ensure!(copies.total("filled") > loaded / 2, "{}", copies.0);
    ensure!(outcome.old.deletes > 3 && outcome.new.deletes > 0, "{:?} {:?}", outcome.old, outcome.new);
    migration.stop_both().await?;
    Ok(outcome)
}

on_both_brands! {
    p6_many_rows_beside_users_and_kills => many_rows_beside_users_and_kills,
    p6_many_rows_beside_users => many_rows_beside_users,
    p6_time_left_of_bounded_copying => time_left_of_bounded_copying,
}
