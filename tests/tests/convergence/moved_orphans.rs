//! P4 for children whose parent is not there on the other side, so that they are set aside there, and which their users have moved
//! to other keys since. The moves lose to rows that came to those keys later, and so what was inserted is to be where it was.

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration, Setup, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::orphans::{CLOCK, LIMIT, until_nothing_waits, until_status};

/// What becomes of a child whose parent goes.
const CHILDREN: [(&str, &str); 3] = [("guests", ""), ("notes", "ON DELETE CASCADE"), ("seats", "ON DELETE SET NULL")];

/// Place 3 on both sides, and both directions at rest. A batch has one change: if the insert of a row and its move were in one,
/// they would be one change of the new key.
async fn resting(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let settings = "[apply]\nbatch_rows = 1\n".to_owned();
    let mut migration = Migration::new(&Setup { settings, ..Setup::new(flavor, name) }).await?;
    let places =
        format!("CREATE TABLE {{schema}}.places (id INT PRIMARY KEY, code VARCHAR(9) NOT NULL UNIQUE, {CLOCK})");
    migration.on_both(&[&places]).await?;
    for (table, action) in CHILDREN {
        let child = format!(
            "CREATE TABLE {{schema}}.{table} (id INT PRIMARY KEY, v INT, place INT, {CLOCK}, \
             FOREIGN KEY (place) REFERENCES {{schema}}.places (id) {action})"
        );
        migration.on_both(&[&child]).await?;
    }
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.places (id, code) VALUES (3, 'c')"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    Ok(migration)
}

/// Every child comes to this parent as row 7, is changed, and moved to key 8, where the other side has a row later.
async fn children_come_and_move(migration: &Migration, parent: u32) -> Result<()> {
    for (table, _) in CHILDREN {
        let come = [
            &*format!("INSERT INTO {{schema}}.{table} (id, v, place) VALUES (7, 1, {parent})"),
            &*format!("UPDATE {{schema}}.{table} SET v = 2 WHERE id = 7"),
            &*format!("UPDATE {{schema}}.{table} SET id = 8 WHERE id = 7"),
        ];
        migration.on(&migration.new, &come).await?;
        let other = format!("INSERT INTO {{schema}}.{table} (id, v) VALUES (8, 9)");
        migration.on(&migration.old, &[&other]).await?;
    }
    migration.go_on(&[Direction::Forward]).await?;
    until("the other rows have won", LIMIT, || async {
        let left = left(migration).await?;
        Ok(if left == "8:9> 8:9> 8:9>" { Progress::Reached(()) } else { Progress::NotYet(left) })
    })
    .await
}

/// All children on the new side, by table.
async fn left(migration: &Migration) -> Result<String> {
    let schema = sql::name(&migration.schema);
    let rows = |(table, _)| {
        format!("(SELECT GROUP_CONCAT(id, ':', v, '>', COALESCE(place, '') ORDER BY id) FROM {schema}.{table})")
    };
    let query = format!("SELECT CONCAT_WS(' ', {})", CHILDREN.map(rows).join(", "));
    let left: Option<String> = migration.new.get_conn().await?.query_first(query).await?;
    Ok(left.unwrap_or_default())
}

/// Nobody refers to the parent any more when its delete arrives, and so that goes through. What was refused for the parent has
/// nothing to wait for: it goes with the parent, or lets go of it.
async fn whose_parent_is_gone(flavor: Flavor) -> Result<()> {
    let mut migration = resting(flavor, "parent_gone").await?;
    children_come_and_move(&migration, 3).await?;
    migration.on(&migration.old, &["DELETE FROM {schema}.places WHERE id = 3"]).await?;
    migration.go_on(&[Direction::Reverse]).await?;
    until_nothing_waits(&migration).await?;
    let left = left(&migration).await?;
    ensure!(left == "8:9> 8:9> 7:2>,8:9>", "{left} are left");
    migration.stop_both().await
}

/// The parent waits for a person, since the other side has given its unique value to another row. What was refused for it
/// waits as well.
async fn whose_parent_waits(flavor: Flavor) -> Result<()> {
    let mut migration = resting(flavor, "parent_waits").await?;
    migration.on(&migration.new, &["INSERT INTO {schema}.places (id, code) VALUES (4, 'x')"]).await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.places (id, code) VALUES (5, 'x')"]).await?;
    children_come_and_move(&migration, 4).await?;
    migration.go_on(&[Direction::Reverse]).await?;
    // Both parents, and all that was done to three children.
    until_status(&migration, "all are set aside", |status| status.total("open_failures") == 11).await?;
    // They are all tried again, and remain.
    migration.crossfade_any(&["retry", "--all"]).await?;
    until_status(&migration, "all are set aside", |status| status.total("open_failures") == 11).await?;
    migration.rest(&[Direction::Reverse]).await?;
    migration.on(&migration.old, &["UPDATE {schema}.places SET code = 'y' WHERE id = 5"]).await?;
    migration.go_on(&[Direction::Reverse]).await?;
    until_nothing_waits(&migration).await?;
    let left = left(&migration).await?;
    ensure!(left == "7:2>4,8:9> 7:2>4,8:9> 7:2>4,8:9>", "{left} are left");
    migration.stop_both().await
}

on_both_brands! {
    whose_parent_is_gone: p4_moved_orphans_whose_parent_is_gone_on_mysql, p4_moved_orphans_whose_parent_is_gone_on_mariadb;
    whose_parent_waits: p4_moved_orphans_whose_parent_waits_on_mysql, p4_moved_orphans_whose_parent_waits_on_mariadb;
}
