//! What is remembered of deleted rows: written with the delete, forgotten when nothing still to come can need it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

const LIMIT: Duration = Duration::from_secs(60);

const CREATE: &str = "CREATE TABLE {schema}.t (a INT, b VARCHAR(20), v VARCHAR(20), PRIMARY KEY (a, b), \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";

/// Row keys with the stream and number of the delete, in the order of the numbers.
async fn tombstones(pool: &Pool, pair: &str) -> Result<Vec<(String, String, u64)>> {
    let query =
        "SELECT row_key, stream, seq FROM crossfade.tombstone WHERE pair = ? AND clock IS NOT NULL ORDER BY seq";
    Ok(pool.get_conn().await?.exec(query, (pair,)).await?)
}

async fn tombstones_stand_as_long_as_needed(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "tombstones")).await?;
    migration.on_both(&[CREATE]).await?;
    migration.init().await?;
    migration.start_both().await?;
    let insert = "INSERT INTO {schema}.t (a, b, v) VALUES (1, 'x', ''), (2, 'y', ''), (3, 'z', ''), (4, 'w', '')";
    migration.on(&migration.old, &[insert]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let statements = ["DELETE FROM {schema}.t WHERE a = 1", "UPDATE {schema}.t SET a = 20 WHERE a = 2"];
    migration.on(&migration.old, &statements).await?;
    migration.on(&migration.new, &["DELETE FROM {schema}.t WHERE a = 3"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let found = tombstones(&migration.new, &migration.pair).await?;
    let stone = |key: &str, stream: &str, seq| (key.to_owned(), stream.to_owned(), seq);
    let expected = [stone(r#"{"a":1,"b":"x"}"#, "forward/old", 5), stone(r#"{"a":2,"b":"y"}"#, "forward/old", 6)];
    ensure!(found == expected, "on new: {found:?}");
    let found = tombstones(&migration.old, &migration.pair).await?;
    ensure!(found == [stone(r#"{"a":3,"b":"z"}"#, "reverse/new", 1)], "on old: {found:?}");

    // Two are old enough, one is young.
    let age = "UPDATE crossfade.tombstone SET deleted_at = deleted_at - INTERVAL 2 HOUR WHERE pair = ?";
    migration.new.get_conn().await?.exec_drop(age, (&migration.pair,)).await?;
    migration.on(&migration.old, &["DELETE FROM {schema}.t WHERE a = 4"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop(Direction::Forward).await?;
    migration.start(Direction::Forward, &[])?;
    until("old tombstones purged, the young one kept", LIMIT, || async {
        let found = tombstones(&migration.new, &migration.pair).await?;
        let reached = found == [stone(r#"{"a":4,"b":"w"}"#, "forward/old", 7)];
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}")) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

#[tokio::test]
async fn p6_tombstones_on_mysql() -> Result<()> {
    tombstones_stand_as_long_as_needed(Flavor::MySql).await
}

#[tokio::test]
async fn p6_tombstones_on_mariadb() -> Result<()> {
    tombstones_stand_as_long_as_needed(Flavor::MariaDb).await
}
