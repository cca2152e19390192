//! A new side that was restored from a backup of the old one, and marks.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, SharedPair};
use crossfade_tests::{Migration, Setup};
use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::progress::Copies;

const LIMIT: Duration = Duration::from_secs(60);
const TABLE: &str =
    "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT, updated_at DATETIME(6) NOT NULL DEFAULT '2026-01-01')";

async fn a_restored_side_goes_on_where_its_backup_was_taken(flavor: Flavor) -> Result<()> {
    // Nobody else writes, so that the position is that of the backup.
    let servers = SharedPair::own(crossfade_servers::Server::builder(flavor).relaxed()).await?;
    let mut migration = Migration::on_servers(&Setup::new(flavor, "seeded"), servers).await?;
    // What was restored.
    migration.on_both(&[TABLE, "INSERT INTO {schema}.t (id, v) VALUES (1, 0), (2, 0), (3, 0)"]).await?;
    let asked = match flavor {
        Flavor::MySql => "SELECT @@GLOBAL.gtid_executed",
        Flavor::MariaDb => "SELECT @@GLOBAL.gtid_binlog_pos",
    };
    let position: Option<String> = migration.old.get_conn().await?.query_first(asked).await?;
    let position = position.context("the old side has no position")?.replace('\n', "");
    let since = [
        "UPDATE {schema}.t SET v = 1, updated_at = '2026-02-01' WHERE id = 1",
        "DELETE FROM {schema}.t WHERE id = 2",
        "INSERT INTO {schema}.t (id, v) VALUES (4, 1)",
    ];
    migration.on(&migration.old, &since).await?;
    let (code, _, errors) = migration.crossfade_any(&["init", "--seeded-at", "nowhere"]).await?;
    ensure!(code == Some(1) && errors.contains("is no position"), "{code:?}: {errors}");
    migration.crossfade(&["init", "--seeded-at", &position]).await?;
    let (code, _, errors) = migration.crossfade_any(&["init", "--seeded-at", &position]).await?;
    ensure!(code == Some(1) && errors.contains("was taken before"), "{code:?}: {errors}");
    migration.start_both().await?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(status.number("forward", "last_seq") == 3, "{}", status.0);
    migration.stop_both().await
}

async fn marks_are_taken(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "marks")).await?;
    migration.on_both(&[TABLE]).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.t (id, v) VALUES (1, 0), (2, 0)"]).await?;
    migration.init().await?;
    migration.crossfade(&["mark", "take", "before", "--note", "history"]).await?;
    let (code, _, errors) = migration.crossfade_any(&["mark", "take", "before"]).await?;
    ensure!(code == Some(1) && errors.contains("exists already"), "{code:?}: {errors}");
    migration.start_both().await?;
    migration.crossfade(&["backfill", "start"]).await?;
    Copies::until_copied(&migration, LIMIT).await?;
    let marks = crossfade_testkit::quiet::until("the mark of the end", LIMIT, || async {
        let marks: Value = serde_json::from_str(&migration.crossfade(&["mark", "list", "--json"]).await?)?;
        let names: Vec<&str> =
            marks.as_array().into_iter().flatten().filter_map(|mark| mark["name"].as_str()).collect();
        let done = names == ["start", "before", "backfill-1"];
        Ok(if done {
            crossfade_testkit::quiet::Progress::Reached(marks.clone())
        } else {
            crossfade_testkit::quiet::Progress::NotYet(marks.to_string())
        })
    })
    .await?;
    let is_whole = |mark: &Value| ["old_position", "new_position", "taken_at"].iter().all(|key| mark[key].is_string());
    ensure!(
        marks.as_array().is_some_and(|marks| marks.iter().all(is_whole)) && marks[1]["note"] == "history",
        "{marks}"
    );
    migration.stop_both().await
}

#[tokio::test]
async fn p1_a_restored_side_goes_on_where_its_backup_was_taken_on_mysql() -> Result<()> {
    a_restored_side_goes_on_where_its_backup_was_taken(Flavor::MySql).await
}

#[tokio::test]
async fn p1_a_restored_side_goes_on_where_its_backup_was_taken_on_mariadb() -> Result<()> {
    a_restored_side_goes_on_where_its_backup_was_taken(Flavor::MariaDb).await
}

#[tokio::test]
async fn marks_are_taken_on_mysql() -> Result<()> {
    marks_are_taken(Flavor::MySql).await
}

#[tokio::test]
async fn marks_are_taken_on_mariadb() -> Result<()> {
    marks_are_taken(Flavor::MariaDb).await
}
