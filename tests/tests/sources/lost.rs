//! Fail-overs that lost something, or that nobody can follow: each stops with what is missing and what can be done.

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server};
use crossfade_tests::Direction;

use crate::ledger::{User, settle, tables};
use crate::stage::{LIMIT, Named, Stage, ask, builder, run, stream};

async fn stage(name: &'static str, flavor: Flavor) -> Result<Stage> {
    let tables = tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let replica = builder(flavor).option("read_only", "ON");
    let mut stage = Stage::new(name, builder(flavor), &[], replica, Named::PrimaryFirst, &tables).await?;
    stage.migration.start_both().await?;
    stage.migration.status().until_quiet(LIMIT).await?;
    Ok(stage)
}

fn stop_replication(flavor: Flavor) -> &'static str {
    if flavor == Flavor::MySql { "STOP REPLICA" } else { "STOP SLAVE" }
}

/// The next transaction that the replica would get: `<uuid>:<number>` or `<domain>-<server>-<number>`, without the number, and it.
async fn next_of_primary(stage: &Stage) -> Result<(String, u64)> {
    match stage.primary().flavor() {
        Flavor::MySql => {
            let uuid: String = ask(stage.primary(), "SELECT @@server_uuid").await?;
            let executed: String = ask(&stage.replica, "SELECT @@GLOBAL.gtid_executed").await?;
            let of_primary = executed.split(',').map(str::trim).find(|set| set.starts_with(&uuid));
            let last = of_primary.and_then(|set| set.rsplit(['-', ':']).next()?.parse::<u64>().ok());
            Ok((format!("{uuid}:"), last.context("the replica has nothing of its primary")? + 1))
        }
        Flavor::MariaDb => {
            let position: String = ask(&stage.replica, "SELECT @@GLOBAL.gtid_binlog_pos").await?;
            let (domain, last) = position.rsplit_once('-').context("a GTID")?;
            Ok((format!("{domain}-"), last.parse::<u64>()? + 1))
        }
    }
}

async fn what_was_captured_is_missing(flavor: Flavor) -> Result<()> {
    let mut stage = stage("lost", flavor).await?;
    run(&stage.replica, &[stop_replication(flavor)]).await?;
    let (prefix, first) = next_of_primary(&stage).await?;
    for id in 1_000_001..=1_000_003 {
        let row = format!("INSERT INTO {{schema}}.of_old (id, v) VALUES ({id}, 'only on the primary')");
        stage.migration.on(&stage.migration.old, &[&row]).await?;
    }
    stage.migration.status().until_quiet(LIMIT).await?;
    stage.primary().kill9().await?;

    // A replica may yet catch up.
    let status = stage
        .until_status("forward waits", |status| {
            let reason = stream(status, Direction::Forward)["reason"].as_str().unwrap_or_default();
            reason.contains("no server has what was captured") && reason.contains("lacks")
        })
        .await?;
    ensure!(stream(&status, Direction::Forward)["state"] == "retrying", "{}", status.0);
    ensure!(stage.migration.process(Direction::Reverse)?.exit_status()?.is_none(), "{}", stage.migration.log_ends());

    // One that was promoted cannot.
    stage.replica.promote().await?;
    for direction in Direction::BOTH {
        let reason = stage.until_stopped(direction).await?;
        let (_, missing) =
            reason.split_once("lacks transactions that were captured before: ").with_context(|| reason.clone())?;
        let range = missing.strip_prefix(&prefix).with_context(|| format!("{missing} is not of {prefix}"))?;
        let numbers: Vec<u64> = range.split(['-', ' ']).filter_map(|number| number.parse().ok()).collect();
        ensure!(numbers[0] == first && numbers[1] >= first + 2, "{direction:?}: {missing} does not begin at {first}");
        println!("{flavor:?}: {}: {reason}", direction.as_str());
    }

    // What the hint says: the former primary's binlog has them.
    stage.primary().restart_with(&[("read_only", "ON")]).await?;
    stage.replica.follow_on(stage.primary()).await?;
    stage.replica.until_followed(stage.primary()).await?;
    stage.promote().await?;
    stage.migration.start_both().await?;
    let mut old = User::start("old", &stage.migration.schema, &stage.replica);
    let mut new = User::start("new", &stage.migration.schema, stage.migration.servers.new());
    old.until_wrote(20).await?;
    new.until_wrote(20).await?;
    settle(&stage, vec![old, new]).await?;
    stage.migration.stop_both().await
}

/// The replica is read, and gets nothing any more: what users write to the primary must cross nevertheless.
async fn a_stale_replica_is_left(flavor: Flavor) -> Result<()> {
    let tables = tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let replica = builder(flavor).option("read_only", "ON");
    let mut stage = Stage::new("stale", builder(flavor), &[], replica, Named::ReplicaFirst, &tables).await?;
    stage.migration.start_both().await?;
    let mut old = User::start("old", &stage.migration.schema, stage.primary());
    let new = User::start("new", &stage.migration.schema, stage.migration.servers.new());
    old.until_wrote(20).await?;
    run(&stage.replica, &[stop_replication(flavor)]).await?;
    old.until_wrote(20).await?;
    settle(&stage, vec![old, new]).await?;
    let log = std::fs::read_to_string(stage.migration.log(Direction::Forward))?;
    ensure!(log.contains("a replica does not get what its primary has"), "{log}");
    stage.migration.stop_both().await
}

/// The primary lives on, and users write to a replica that somebody has promoted beside it.
async fn two_take_writes(flavor: Flavor) -> Result<()> {
    let mut stage = stage("split", flavor).await?;
    run(&stage.replica, &[stop_replication(flavor)]).await?;
    let row = |id| format!("INSERT INTO {{schema}}.of_old (id, v) VALUES ({id}, 'x')");
    stage.migration.on(&stage.migration.old, &[&row(1)]).await?;
    stage.migration.status().until_quiet(LIMIT).await?;
    stage.replica.promote().await?;
    let beside = row(2).replace("{schema}", &stage.migration.schema);
    run(&stage.replica, &[&beside]).await?;
    let before = executed(&stage.replica).await?;
    for direction in Direction::BOTH {
        let reason = stage.until_stopped(direction).await?;
        for word in ["both take writes and have gone apart", &format!("127.0.0.1:{}", stage.replica.port())] {
            ensure!(reason.contains(word), "{}: `{word}` is not in: {reason}", direction.as_str());
        }
        println!("{flavor:?}: {}: {reason}", direction.as_str());
    }
    ensure!(executed(&stage.replica).await? == before, "crossfade wrote to the second primary");
    // Nor does one begin while it is so.
    let (code, _, errors) = stage.migration.crossfade_any(&["sync", "forward"]).await?;
    ensure!(
        code == Some(3) && errors.contains("gone apart") && errors.contains("hint: let one take writes"),
        "{errors}"
    );
    stage.migration.forget();
    Ok(())
}

async fn executed(server: &Server) -> Result<String> {
    let question = match server.flavor() {
        Flavor::MySql => "SELECT @@GLOBAL.gtid_executed",
        Flavor::MariaDb => "SELECT @@GLOBAL.gtid_binlog_state",
    };
    ask(server, question).await
}

#[tokio::test]
async fn p1_what_was_captured_is_missing_on_mysql() -> Result<()> {
    what_was_captured_is_missing(Flavor::MySql).await
}

#[tokio::test]
async fn p1_what_was_captured_is_missing_on_mariadb() -> Result<()> {
    what_was_captured_is_missing(Flavor::MariaDb).await
}

#[tokio::test]
async fn p1_two_take_writes_on_mysql() -> Result<()> {
    two_take_writes(Flavor::MySql).await
}

#[tokio::test]
async fn p1_two_take_writes_on_mariadb() -> Result<()> {
    two_take_writes(Flavor::MariaDb).await
}

#[tokio::test]
async fn p1_a_stale_replica_is_left_on_mysql() -> Result<()> {
    a_stale_replica_is_left(Flavor::MySql).await
}

#[tokio::test]
async fn p1_a_stale_replica_is_left_on_mariadb() -> Result<()> {
    a_stale_replica_is_left(Flavor::MariaDb).await
}
