//! Chunks that are read from a replica of the old side, which may be behind.

use std::time::Duration;

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Migration, Setup, account_url};
use mysql_async::prelude::Queryable;

use crate::progress::Copies;

const LIMIT: Duration = Duration::from_secs(60);

async fn run(server: &Server, statement: &str) -> Result<()> {
    Ok(server.connect().await?.query_drop(statement).await?)
}

async fn a_replica_is_waited_for(flavor: Flavor) -> Result<()> {
    let builder = Server::builder(flavor).relaxed();
    let pair = SharedPair::own(builder.clone()).await?;
    let replica = builder.option("read_only", "ON").start().await?;
    replica.follow(pair.old()).await?;
    let settings = format!("[backfill]\nfrom = \"{}\"\n", account_url(&replica));
    let mut migration =
        Migration::on_servers(&Setup { settings, ..Setup::new(flavor, "backfill_replica") }, pair).await?;
    migration
        .on_both(&[
            "CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT, updated_at DATETIME(6) NOT NULL DEFAULT '2026-01-01')",
        ])
        .await?;
    let rows = (1..=1_000).map(|id| format!("({id}, 0)")).collect::<Vec<_>>().join(",");
    migration.on(&migration.old, &[&format!("INSERT INTO {{schema}}.t (id, v) VALUES {rows}")]).await?;
    replica.until_followed(pair.old()).await?;
    let (stop, start) = match flavor {
        Flavor::MySql => ("STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD"),
        Flavor::MariaDb => ("STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD"),
    };
    run(&replica, stop).await?;
    // Before the migration begins, so no message brings it.
    migration
        .on(&migration.old, &["UPDATE {schema}.t SET v = 1 WHERE id <= 500", "DELETE FROM {schema}.t WHERE id > 900"])
        .await?;
    migration.init().await?;
    migration.start(Direction::Forward, &[])?;
    migration.crossfade(&["backfill", "start"]).await?;
    let marks = "SELECT COUNT(*) FROM crossfade.heartbeat WHERE writer LIKE 'chunk:%'";
    until("a low mark on the old side", LIMIT, || async {
        let found: Option<u64> = migration.old.get_conn().await?.query_first(marks).await?;
        Ok(if found > Some(0) { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}")) })
    })
    .await?;
    let copies = Copies::read(&migration).await?;
    ensure!(copies.total("rows") == 0, "the replica was not waited for: {}", copies.0);
    run(&replica, start).await?;
    let copies = Copies::until_copied(&migration, LIMIT).await?;
    let comparison = migration.compare().await?;
    ensure!(comparison.is_equal() && copies.total("filled") == 900, "{comparison}\n{}", copies.0);
    migration.stop(Direction::Forward).await?;
    migration.forget();
    Ok(())
}

#[tokio::test]
async fn p6_a_replica_is_waited_for_on_mysql() -> Result<()> {
    a_replica_is_waited_for(Flavor::MySql).await
}

#[tokio::test]
async fn p6_a_replica_is_waited_for_on_mariadb() -> Result<()> {
    a_replica_is_waited_for(Flavor::MariaDb).await
}
