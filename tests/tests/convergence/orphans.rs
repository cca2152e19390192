//! What the random work has found about children whose parents both sides delete, each in as few steps as show it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, Status, until};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

pub const LIMIT: Duration = Duration::from_secs(75);

pub const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

enum At<'s> {
    Old(&'s [&'s str]),
    New(&'s [&'s str]),
}

/// Both sides write while nobody applies; then everything must go through, and both sides be equal.
async fn goes_through(flavor: Flavor, name: &'static str, before: &[&str], written: &[At<'_>]) -> Result<()> {
    settles(&Setup::new(flavor, name), before, written).await?.stop_both().await
}

async fn settles(setup: &Setup, before: &[&str], written: &[At<'_>]) -> Result<Migration> {
    let mut migration = Migration::new(setup).await?;
    let places = format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, v INT, {CLOCK})");
    let child = |table: &str, action: &str| {
        format!(
            "CREATE TABLE {{schema}}.{table} (id INT PRIMARY KEY, place INT, {CLOCK}, \
             FOREIGN KEY (place) REFERENCES {{schema}}.places (id) {action})"
        )
    };
    let (guests, notes) = (child("guests", ""), child("notes", "ON DELETE CASCADE"));
    let seats = child("seats", "ON DELETE SET NULL");
    migration.on_both(&[&places, &guests, &notes, &seats]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, before).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    for at in written {
        match at {
            At::Old(statements) => migration.on(&migration.old, statements).await?,
            At::New(statements) => migration.on(&migration.new, statements).await?,
        }
    }
    migration.go_on(&Direction::BOTH).await?;
    until_nothing_waits(&migration).await?;
    Ok(migration)
}

/// Makes places with a unique code, and children: guests keep their place from ending, notes go with it, seats let go of it.
pub async fn make_coded_places(migration: &Migration) -> Result<()> {
    let child = |table: &str, action: &str| {
        format!(
            "CREATE TABLE {{schema}}.{table} (id INT PRIMARY KEY, place INT, v INT, {CLOCK}, \
             FOREIGN KEY (place) REFERENCES {{schema}}.places (id) {action})"
        )
    };
    migration
        .on_both(&[
            &format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, code VARCHAR(20) UNIQUE, v INT, {CLOCK})"),
            &child("guests", ""),
            &child("notes", "ON DELETE CASCADE"),
            &child("seats", "ON DELETE SET NULL"),
        ])
        .await
}

/// Everything has gone through, nothing is set aside, and both sides are equal.
pub async fn until_nothing_waits(migration: &Migration) -> Result<()> {
    until_status(migration, "nothing set aside", |status| {
        let settled = status.streams().iter().all(|stream| stream["last_seq"] == stream["settled_seq"]);
        settled && status.is_caught_up() && status.total("open_failures") + status.total("held") == 0
    })
    .await?;
    let (_, comparison) = migration.until_quiet_and_equal(LIMIT).await?;
    ensure!(comparison.is_equal());
    Ok(())
}

pub async fn until_status(migration: &Migration, what: &str, is_reached: impl Fn(&Status) -> bool) -> Result<()> {
    let waited = until(what, LIMIT, || async {
        let status = migration.status().read().await?;
        Ok(if is_reached(&status) { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await;
    if let Err(error) = waited {
        let failed = migration.crossfade(&["messages", "list", "--status", "failed"]).await?;
        return Err(error.context(failed)).with_context(|| migration.log_ends());
    }
    Ok(())
}

/// This direction has settled all that it has captured, and that is at least as much as this.
pub async fn until_passed(migration: &Migration, direction: Direction, through: u64) -> Result<()> {
    until_status(migration, "one direction through", |status| {
        let of = |name: &str| status.number(direction.as_str(), name);
        of("settled_seq") == of("last_seq") && of("last_seq") >= through
    })
    .await
}

/// A child came to a parent that the other side had deleted, moved, and went on; the parent was deleted and came back.
async fn a_child_that_moved_on(flavor: Flavor) -> Result<()> {
    let before = [
        "INSERT INTO {schema}.places (id, v) VALUES (1, 1), (2, 1)",
        "INSERT INTO {schema}.guests (id, place) VALUES (7, 1)",
    ];
    let on_new = [
        "UPDATE {schema}.guests SET place = 2 WHERE id = 7",
        "UPDATE {schema}.guests SET id = 8 WHERE id = 7",
        "UPDATE {schema}.guests SET place = 1 WHERE id = 8",
        "DELETE FROM {schema}.places WHERE id = 2",
        "INSERT INTO {schema}.places (id, v) VALUES (2, 2)",
    ];
    let written = [At::Old(&["DELETE FROM {schema}.places WHERE id = 2"]), At::New(&on_new)];
    goes_through(flavor, "moved_on", &before, &written).await
}

/// Children came to a parent that the other side had deleted, and went when the parent was deleted here too.
async fn children_that_went_with_their_parent(flavor: Flavor) -> Result<()> {
    let before = [
        "INSERT INTO {schema}.places (id, v) VALUES (1, 1), (3, 1)",
        "INSERT INTO {schema}.notes (id, place) VALUES (5, 1)",
        "INSERT INTO {schema}.seats (id, place) VALUES (5, 1)",
    ];
    let on_new = [
        "INSERT INTO {schema}.notes (id, place) VALUES (4, 3)",
        "UPDATE {schema}.notes SET place = 3 WHERE id = 5",
        "INSERT INTO {schema}.seats (id, place) VALUES (4, 3)",
        "UPDATE {schema}.seats SET place = 3 WHERE id = 5",
        "DELETE FROM {schema}.places WHERE id = 3",
    ];
    let written = [At::Old(&["DELETE FROM {schema}.places WHERE id = 3"]), At::New(&on_new)];
    goes_through(flavor, "went_too", &before, &written).await
}

/// Children came to a parent and went with it, and the parent came back; the other side had deleted the parent meanwhile.
async fn children_whose_parent_came_back(flavor: Flavor) -> Result<()> {
    let before = [
        "INSERT INTO {schema}.places (id, v) VALUES (9, 1)",
        "INSERT INTO {schema}.notes (id, place) VALUES (8, NULL)",
        "INSERT INTO {schema}.seats (id, place) VALUES (8, NULL)",
    ];
    let came_and_went = [
        "UPDATE {schema}.notes SET place = 9 WHERE id = 8",
        "UPDATE {schema}.seats SET place = 9 WHERE id = 8",
        "BEGIN",
        "DELETE FROM {schema}.places WHERE id = 9",
        "INSERT INTO {schema}.places (id, v) VALUES (9, 2)",
        "COMMIT",
    ];
    let written = [
        At::Old(&came_and_went),
        At::New(&["DELETE FROM {schema}.places WHERE id = 9"]),
        At::Old(&["UPDATE {schema}.places SET v = 3 WHERE id = 9"]),
    ];
    goes_through(flavor, "came_again", &before, &written).await
}

/// A parent left its key while the other side gave it children, and the same the other way round. The parent stays where its
/// children are, and under the new key only where that one has got children too; or the children go.
async fn a_parent_that_left_its_children(flavor: Flavor, rule: &'static str, left: &str) -> Result<()> {
    let settings = format!("[conflict]\nfk_conflict = \"{rule}\"\n");
    let setup = Setup { settings, ..Setup::new(flavor, "left_behind") };
    let before = [
        "INSERT INTO {schema}.places (id, v) VALUES (1, 1), (2, 1), (3, 1), (4, 1)",
        "INSERT INTO {schema}.guests (id, place) VALUES (20, 1)",
        "INSERT INTO {schema}.notes (id, place) VALUES (20, 1), (21, NULL)",
        "INSERT INTO {schema}.seats (id, place) VALUES (20, 1)",
    ];
    let gives = |parent: u32| {
        [
            format!("INSERT INTO {{schema}}.guests (id, place) VALUES ({}, {parent})", 30 + parent),
            format!("INSERT INTO {{schema}}.notes (id, place) VALUES ({}, {parent})", 30 + parent),
            format!("INSERT INTO {{schema}}.seats (id, place) VALUES ({}, {parent})", 30 + parent),
        ]
    };
    let (on_old, on_new) = (gives(3), gives(2));
    let moves_on_old = [
        "UPDATE {schema}.places SET id = 12, v = 2 WHERE id = 2",
        "INSERT INTO {schema}.notes (id, place) VALUES (40, 12)",
    ];
    // In one transaction, so that the keys go round and source order is kept.
    let moves_on_new = [
        "BEGIN",
        "UPDATE {schema}.places SET id = 13, v = 2 WHERE id = 3",
        "UPDATE {schema}.places SET id = 3, v = 2 WHERE id = 4",
        "UPDATE {schema}.places SET id = 4, v = 3 WHERE id = 13",
        "UPDATE {schema}.places SET id = 14, v = 3 WHERE id = 3",
        "COMMIT",
    ];
    let written = [
        At::New(&on_new.each_ref().map(String::as_str)),
        At::Old(&moves_on_old),
        At::Old(&on_old.each_ref().map(String::as_str)),
        At::New(&moves_on_new),
    ];
    let mut migration = settles(&setup, &before, &written).await?;
    let ids = |table: &str| format!("(SELECT GROUP_CONCAT(id ORDER BY id) FROM {{schema}}.{table})");
    let query =
        format!("SELECT CONCAT_WS(' ', {}, {}, {}, {})", ids("places"), ids("guests"), ids("notes"), ids("seats"));
    let query = query.replace("{schema}", &sql::name(&migration.schema));
    let found: Option<String> = migration.new.get_conn().await?.query_first(query).await?;
    ensure!(found.as_deref() == Some(left), "{found:?} are left");
    migration.stop_both().await
}

async fn the_parent_stays(flavor: Flavor) -> Result<()> {
    let left = "1,2,3,4,12 20,32,33 20,21,32,33,40 20,32,33";
    a_parent_that_left_its_children(flavor, "parent-returns", left).await
}

async fn the_children_go(flavor: Flavor) -> Result<()> {
    a_parent_that_left_its_children(flavor, "child-goes", "1,4,12,14 20 20,21,40 20,32,33").await
}

on_both_brands! {
    a_child_that_moved_on: p4_moved_on_on_mysql, p4_moved_on_on_mariadb;
    children_that_went_with_their_parent: p4_went_too_on_mysql, p4_went_too_on_mariadb;
    children_whose_parent_came_back: p4_came_again_on_mysql, p4_came_again_on_mariadb;
    the_parent_stays: p4_stays_on_mysql, p4_stays_on_mariadb;
    the_children_go: p4_children_go_on_mysql, p4_children_go_on_mariadb;
}
