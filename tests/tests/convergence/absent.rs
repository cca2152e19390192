//! A row that loses its delete but is not there any more: nobody inserts it unseen while that is decided.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::Flavor;
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);

/// Shorter than the server waits for a session that says nothing.
const MOMENT: Duration = Duration::from_secs(1);

const TABLES: [&str; 2] = [
    "CREATE TABLE {schema}.places (id INT PRIMARY KEY, \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
    "CREATE TABLE {schema}.guests (id INT PRIMARY KEY, place INT, \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), \
     FOREIGN KEY (place) REFERENCES {schema}.places (id))",
];

/// New deletes a parent with its child; old has given the parent another child, so both return, but has deleted the first one
/// too. Between the look at what returns and the commit, a user of old inserts that one anew.
async fn what_cannot_return_is_not_inserted_unseen(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "absent")).await?;
    migration.on_both(&TABLES).await?;
    migration.init().await?;
    migration.start_both().await?;
    let before =
        ["INSERT INTO {schema}.places (id) VALUES (6)", "INSERT INTO {schema}.guests (id, place) VALUES (1, 6)"];
    migration.on(&migration.old, &before).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let on_new =
        ["BEGIN", "DELETE FROM {schema}.guests WHERE id = 1", "DELETE FROM {schema}.places WHERE id = 6", "COMMIT"];
    migration.on(&migration.new, &on_new).await?;
    let on_old = ["INSERT INTO {schema}.guests (id, place) VALUES (2, 6)", "DELETE FROM {schema}.guests WHERE id = 1"];
    migration.on(&migration.old, &on_old).await?;

    migration.stop(Direction::Reverse).await?;
    migration.start(Direction::Reverse, &[("CROSSFADE_FAILPOINT", "mid-lane:1:stop")])?;
    migration.crossfade(&["start", "reverse"]).await?;
    migration.process(Direction::Reverse)?.until_frozen(LIMIT).await?;
    let insert = format!("INSERT INTO `{}`.guests (id, place) VALUES (1, NULL)", migration.schema);
    let mut user = migration.old.get_conn().await?;
    let inserting = tokio::spawn(async move { user.query_drop(insert).await });
    // Either it must wait, or its clock counts: both sides must have it in the end.
    tokio::time::sleep(MOMENT).await;
    migration.process(Direction::Reverse)?.resume()?;
    inserting.await??;
    migration.go_on(&Direction::BOTH).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let query = format!("SELECT GROUP_CONCAT(id ORDER BY id) FROM `{}`.guests", migration.schema);
    let left: Option<String> = migration.new.get_conn().await?.query_first(query).await?;
    ensure!(left.as_deref() == Some("1,2"), "{left:?} are left");
    migration.stop_both().await
}

#[tokio::test]
async fn p4_what_cannot_return_on_mysql() -> Result<()> {
    what_cannot_return_is_not_inserted_unseen(Flavor::MySql).await
}

#[tokio::test]
async fn p4_what_cannot_return_on_mariadb() -> Result<()> {
    what_cannot_return_is_not_inserted_unseen(Flavor::MariaDb).await
}
