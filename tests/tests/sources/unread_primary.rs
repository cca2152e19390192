//! A primary whose binlog cannot be read, since it logs statements or has no GTIDs, and a replica that is read in its place.

use anyhow::{Result, ensure};
use crossfade_servers::{Flavor, ServerBuilder};
use crossfade_testkit::quiet::Status;
use crossfade_tests::Direction;
use mysql_async::prelude::Queryable;

use crate::ledger::{User, settle, tables};
use crate::stage::{Named, Stage, ask, builder, run, stream};

const WRITTEN: u64 = 120;

async fn read_from_the_replica(
    name: &'static str,
    flavor: Flavor,
    of_primary: &[(&str, &str)],
    replica: ServerBuilder,
) -> Result<()> {
    let tables = tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut stage = Stage::new(name, builder(flavor), of_primary, replica, Named::BinlogUrl, &tables).await?;
    the_primary_is_of_no_use(&mut stage).await?;
    stage.migration.start_both().await?;
    let mut old = User::start("old", &stage.migration.schema, stage.primary());
    let mut new = User::start("new", &stage.migration.schema, stage.migration.servers.new());
    old.until_wrote(WRITTEN).await?;
    new.until_wrote(WRITTEN).await?;
    stage.until_status("both tags proved", |status| Direction::BOTH.iter().all(|way| is_proved(status, *way))).await?;
    a_replica_that_rests_is_lag(&mut stage, &mut old).await?;
    settle(&stage, vec![old, new]).await?;
    stage.migration.stop_both().await?;
    users_wrote_statements_and_crossfade_rows(&stage).await?;

    // What was committed on the primary before the call is carried, and then it ends.
    let row = "UPDATE {schema}.hot SET v = 'at the end' WHERE id = 1";
    stage.migration.on(&stage.migration.old, &[row]).await?;
    stage.migration.crossfade(&["sync", "forward", "--until-caught-up"]).await?;
    let question = format!("SELECT v FROM `{}`.hot WHERE id = 1", stage.migration.schema);
    let value: String = ask(stage.migration.servers.new(), &question).await?;
    ensure!(value == "at the end", "--until-caught-up ended before: {value}");
    Ok(())
}

/// Statements of users are statements in its binlog: the test would otherwise prove nothing.
async fn the_primary_is_of_no_use(stage: &mut Stage) -> Result<()> {
    let format: String = ask(stage.primary(), "SELECT @@GLOBAL.binlog_format").await?;
    let gtids: String = match stage.primary().flavor() {
        Flavor::MySql => ask(stage.primary(), "SELECT @@GLOBAL.gtid_mode").await?,
        Flavor::MariaDb => "ON".to_owned(),
    };
    ensure!(format == "STATEMENT" || gtids == "OFF", "{format}, {gtids}");
    let of_replica: String = ask(&stage.replica, "SELECT @@GLOBAL.binlog_format").await?;
    ensure!(of_replica == "ROW", "{of_replica}");
    Ok(())
}

/// In the primary's binlog; in the replica's all are rows, else the stream would have stopped.
async fn users_wrote_statements_and_crossfade_rows(stage: &Stage) -> Result<()> {
    let mut conn = stage.primary().connect().await?;
    let files: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await?;
    let (mut statements, mut rows) = (0, 0);
    for file in files.iter().filter_map(|row| row.get::<String, _>(0)) {
        let events: Vec<mysql_async::Row> = conn.query(format!("SHOW BINLOG EVENTS IN '{file}'")).await?;
        for event in &events {
            let text = |at: usize| event.get::<Option<String>, _>(at).flatten().unwrap_or_default();
            let (kind, info) = (text(2), text(5));
            statements += u64::from(kind == "Query" && info.contains("INSERT INTO") && info.contains("of_old"));
            rows += u64::from(kind == "Table_map" && info.contains("crossfade.checkpoint"));
        }
    }
    ensure!(statements > WRITTEN && rows > 5, "{statements} statements of users, {rows} checkpoint rows");
    println!("{:?}: {statements} statements of users, {rows} checkpoint rows", stage.primary().flavor());
    Ok(())
}

/// While the replica replays nothing, the stream is behind, and says so.
async fn a_replica_that_rests_is_lag(stage: &mut Stage, old: &mut User) -> Result<()> {
    let (stop, start) = match stage.primary().flavor() {
        Flavor::MySql => ("STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD"),
        Flavor::MariaDb => ("STOP SLAVE SQL_THREAD", "START SLAVE SQL_THREAD"),
    };
    run(&stage.replica, &[stop]).await?;
    old.until_wrote(5).await?;
    let is_behind = |status: &Status| {
        let forward = stream(status, Direction::Forward);
        forward["caught_up"] == false && forward["lag_seconds"].as_f64().is_some_and(|seconds| seconds > 2.0)
    };
    stage.until_status("behind", is_behind).await?;
    let (code, _, _) = stage.migration.crossfade_any(&["status", "--wait", "1s"]).await?;
    ensure!(code == Some(1), "what the replica has not replayed has not crossed: {code:?}");
    run(&stage.replica, &[start]).await
}

fn is_proved(status: &Status, direction: Direction) -> bool {
    let tag = &stream(status, direction)["tag"];
    tag["proved_at"].is_string() && tag["open"].is_null()
}

const STATEMENTS: (&str, &str) = ("binlog_format", "STATEMENT");

#[tokio::test]
async fn p1_p3_statements_on_mysql() -> Result<()> {
    read_from_the_replica("statements", Flavor::MySql, &[STATEMENTS], builder(Flavor::MySql)).await
}

#[tokio::test]
async fn p1_p3_statements_on_mariadb() -> Result<()> {
    read_from_the_replica("statements", Flavor::MariaDb, &[STATEMENTS], builder(Flavor::MariaDb)).await
}

#[tokio::test]
async fn p1_p3_no_gtids_on_mysql() -> Result<()> {
    let without = [("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")];
    let replica = without.iter().fold(builder(Flavor::MySql), |builder, (name, value)| builder.option(name, value));
    read_from_the_replica("no_gtids", Flavor::MySql, &[STATEMENTS, without[0], without[1]], replica).await
}
