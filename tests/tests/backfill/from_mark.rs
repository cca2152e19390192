//! A direction reads its source again from a mark: nothing is doubled, nothing overwritten, and what was missed is captured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(90);
const TABLE: &str = "(id INT PRIMARY KEY, v VARCHAR(20), updated_at DATETIME(6) NOT NULL DEFAULT '2026-01-01')";

/// What the forward direction's log says of the mark, once it has read again.
async fn until_read_again(migration: &Migration, direction: Direction) -> Result<u64> {
    until("read again from the mark", LIMIT, || async {
        let log = std::fs::read_to_string(migration.log(direction))?;
        let said = log.lines().rfind(|line| line.contains("read again from the mark"));
        let found = said.and_then(|line| line.split("found=").nth(1)?.split_whitespace().next()?.parse().ok());
        Ok(found.map_or_else(|| Progress::NotYet("nothing is said of it".to_owned()), Progress::Reached))
    })
    .await
    .with_context(|| migration.log_ends())
}

/// Changes of both sides from before and after the mark, some of them in conflict, are read again, while users write on.
async fn nothing_is_doubled(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "from_mark")).await?;
    migration.on_both(&[&format!("CREATE TABLE {{schema}}.t {TABLE}")]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let rows = (1..=200).map(|id| format!("({id}, 'before')")).collect::<Vec<_>>().join(",");
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES {rows}")]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.crossfade(&["mark", "take", "half-way"]).await?;
    let of_old = [
        "UPDATE {schema}.t SET v = 'old', updated_at = '2026-02-01' WHERE id <= 100",
        "DELETE FROM {schema}.t WHERE id = 7",
        "UPDATE {schema}.t SET id = 1008 WHERE id = 8",
    ];
    let of_new = [
        "UPDATE {schema}.t SET v = 'new', updated_at = '2026-03-01' WHERE id BETWEEN 50 AND 150",
        "DELETE FROM {schema}.t WHERE id = 151",
        "INSERT INTO {schema}.t (id, v) VALUES (500, 'new')",
    ];
    migration.on(&migration.old, &of_old).await?;
    migration.on(&migration.new, &of_new).await?;
    let (before, _) = migration.until_quiet_and_equal(LIMIT).await?;
    migration
        .on(&migration.new, &["UPDATE {schema}.t SET v = 'newest', updated_at = '2026-04-01' WHERE id = 60"])
        .await?;
    migration.until_quiet_and_equal(LIMIT).await?;

    for direction in Direction::BOTH {
        migration.stop(direction).await?;
        migration.start_with(direction, &["--from-mark", "half-way"], &[])?;
    }
    for direction in Direction::BOTH {
        ensure!(until_read_again(&migration, direction).await? == 0, "{}", migration.log_ends());
    }
    migration.status().until_running(LIMIT).await?;
    // Nobody goes back while a process runs.
    let (code, _, errors) = migration.crossfade_any(&["sync", "forward", "--from-mark", "half-way"]).await?;
    ensure!(code == Some(1) && errors.contains("runs already"), "{code:?}: {errors}");
    migration
        .on(&migration.old, &["UPDATE {schema}.t SET v = 'later', updated_at = '2026-05-01' WHERE id = 1"])
        .await?;
    let (after, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 199, "{comparison}");
    let captured = |direction: &str| (before.number(direction, "last_seq"), after.number(direction, "last_seq"));
    let (forward, reverse) = (captured("forward"), captured("reverse"));
    ensure!(forward.1 == forward.0 + 1 && reverse.1 == reverse.0 + 1, "doubled: {forward:?} {reverse:?}");
    let asked = format!("SELECT v FROM `{}`.t WHERE id IN (1, 49, 60, 100, 150, 1008) ORDER BY id", migration.schema);
    let values: Vec<String> = migration.old.get_conn().await?.query(asked).await?;
    ensure!(values == ["later", "old", "newest", "new", "new", "old"], "{values:?}");
    migration.stop_both().await
}

/// A table came to the configuration later, with five changes of its users since the mark `start`; no process runs.
async fn with_a_table_that_was_left_out(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let without = "[[table]]\nname = \"{schema}.late\"\nskip = true\n\n[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\n";
    let setup = Setup { tables: without.to_owned(), ..Setup::new(flavor, name) };
    let mut migration = Migration::new(&setup).await?;
    for table in ["t", "late"] {
        migration.on_both(&[&format!("CREATE TABLE {{schema}}.{table} {TABLE}")]).await?;
    }
    migration.init().await?;
    migration.start(Direction::Forward, &[])?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id) VALUES (1), (2)"]).await?;
    let changes = [
        "INSERT INTO {schema}.late (id, v) VALUES (1, 'a'), (2, 'a'), (3, 'a')",
        "UPDATE {schema}.late SET v = 'b' WHERE id = 2",
        "DELETE FROM {schema}.late WHERE id = 3",
        "INSERT INTO {schema}.t (id) VALUES (3)",
    ];
    migration.on(&migration.old, &changes).await?;
    until("all of table t", LIMIT, || async {
        let status = migration.status().read().await?;
        let done = status.number("forward", "settled_seq") == 3;
        Ok(if done { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await?;
    migration.stop(Direction::Forward).await?;
    let with = Setup::new(flavor, name);
    std::fs::write(migration.config(), migration.configuration(&with))?;
    migration.init().await?;
    Ok(migration)
}

/// All five rows are on both sides, each change was captured once.
async fn all_has_crossed(mut migration: Migration) -> Result<()> {
    migration.start(Direction::Reverse, &[])?;
    let (status, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.rows_compared() == 5 && status.number("forward", "last_seq") == 8, "{comparison}\n{}", status.0);
    migration.stop_both().await
}

/// What users of a table that was left out did since the mark is captured.
async fn a_table_that_was_left_out_comes_in(flavor: Flavor) -> Result<()> {
    let mut migration = with_a_table_that_was_left_out(flavor, "from_mark_table").await?;
    migration.start_with(Direction::Forward, &["--from-mark", "start"], &[])?;
    ensure!(until_read_again(&migration, Direction::Forward).await? == 5, "{}", migration.log_ends());
    all_has_crossed(migration).await
}

/// Killed before what was missing is captured, and after that: begun again, it captures each change once.
async fn it_is_begun_again_where_it_was_killed(flavor: Flavor) -> Result<()> {
    let mut migration = with_a_table_that_was_left_out(flavor, "from_mark_kill").await?;
    migration.expect_lines(KILLED);
    for (point, captured) in [("after-read", 3), ("inside-capture", 3), ("after-capture", 8)] {
        migration.start_with(Direction::Forward, &["--from-mark", "start"], &[("CROSSFADE_FAILPOINT", point)])?;
        let status = migration.process(Direction::Forward)?.wait(LIMIT).await.with_context(|| point.to_owned())?;
        ensure!(!status.success(), "the process has not died at {point}");
        let status = migration.status().read().await?;
        ensure!(status.number("forward", "last_seq") == captured, "killed at {point}: {}", status.0);
    }
    migration.start_with(Direction::Forward, &["--from-mark", "start"], &[])?;
    ensure!(until_read_again(&migration, Direction::Forward).await? == 0, "{}", migration.log_ends());
    all_has_crossed(migration).await
}

/// Each refusal says why, and what to do.
async fn marks_that_do_not_serve_are_refused(flavor: Flavor) -> Result<()> {
    let servers = SharedPair::own(Server::builder(flavor).relaxed()).await?;
    let mut migration = Migration::on_servers(&Setup::new(flavor, "from_mark_no"), servers).await?;
    let other = Migration::on_servers(&Setup::new(flavor, "from_mark_other"), servers).await?;
    for pair in [&migration, &other] {
        pair.on_both(&[&format!("CREATE TABLE {{schema}}.t {TABLE}")]).await?;
        pair.init().await?;
    }
    other.crossfade(&["mark", "take", "theirs"]).await?;
    let refused = async |migration: &Migration, mark: &str, why: &str| {
        let words = ["sync", "forward", "--until-caught-up", "--from-mark", mark];
        let (code, _, errors) = migration.crossfade_any(&words).await?;
        ensure!(code == Some(1) && errors.contains(why) && errors.contains("hint"), "{mark}: {code:?}: {errors}");
        anyhow::Ok(())
    };
    refused(&migration, "nowhere", "there is no mark `nowhere`").await?;
    refused(&migration, "theirs", "belongs to the pair").await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id) VALUES (1)"]).await?;
    migration.crossfade(&["mark", "take", "ahead"]).await?;
    refused(&migration, "ahead", "it has not come to the mark").await?;

    // Refused, it has left nothing out.
    migration.crossfade(&["sync", "forward", "--until-caught-up"]).await?;
    ensure!(migration.compare().await?.rows_compared() == 1);
    let mut connection = servers.old().connect().await?;
    connection.query_drop("FLUSH BINARY LOGS").await?;
    let file: Option<mysql_async::Row> = connection
        .query_first(if flavor == Flavor::MySql { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" })
        .await?;
    let file: String = file.and_then(|row| row.get(0)).context("no binlog")?;
    until("the older binlog is purged", LIMIT, || async {
        let mut connection = servers.old().connect().await?;
        connection.query_drop(format!("PURGE BINARY LOGS TO '{file}'")).await?;
        let files: Vec<mysql_async::Row> = connection.query("SHOW BINARY LOGS").await?;
        let first: Option<String> = files.first().and_then(|row| row.get(0));
        Ok(if first.as_deref() == Some(&*file) {
            Progress::Reached(())
        } else {
            Progress::NotYet(format!("{first:?}"))
        })
    })
    .await?;
    migration.expect_lines(&["error: the source has purged"]);
    refused(&migration, "start", "has purged what followed the mark").await?;
    migration.crossfade(&["sync", "forward", "--until-caught-up"]).await?;
    other.forget();
    migration.start_both().await?;
    migration.stop_both().await
}

on_both_brands! {
    p2_nothing_is_doubled => nothing_is_doubled,
    p1_a_table_that_was_left_out_comes_in => a_table_that_was_left_out_comes_in,
    p1_it_is_begun_again_where_it_was_killed => it_is_begun_again_where_it_was_killed,
    p1_marks_that_do_not_serve_are_refused => marks_that_do_not_serve_are_refused,
}
