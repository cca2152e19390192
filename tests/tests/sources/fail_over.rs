//! Under live writes on both sides, one side's primary is killed and its replica takes its place.

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, ServerBuilder};
use crossfade_tests::Direction;
use crossfade_tests::lines::KILLED;

use crate::ledger::{User, settle, tables};
use crate::stage::{Named, Stage, ask, builder, run, stream};

/// Transactions of each side's users before and after.
const WRITTEN: u64 = 150;

/// A commit is acknowledged once the replica has it, so that a crash of the primary loses nothing that users were told.
fn acknowledged_by_replica(builder: ServerBuilder, flavor: Flavor) -> ServerBuilder {
    match flavor {
        Flavor::MySql => builder.option("plugin_load_add", "semisync_source.so;semisync_replica.so"),
        Flavor::MariaDb => builder,
    }
}

async fn wait_for_replica(stage: &Stage) -> Result<()> {
    let (on_primary, on_replica): (&[&str], &[&str]) = match stage.primary().flavor() {
        Flavor::MySql => (
            &["SET GLOBAL rpl_semi_sync_source_timeout = 3600000", "SET GLOBAL rpl_semi_sync_source_enabled = ON"],
            &["STOP REPLICA IO_THREAD", "SET GLOBAL rpl_semi_sync_replica_enabled = ON", "START REPLICA IO_THREAD"],
        ),
        Flavor::MariaDb => (
            &[
                "SET GLOBAL rpl_semi_sync_master_timeout = 3600000",
                "SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'",
                "SET GLOBAL rpl_semi_sync_master_enabled = ON",
            ],
            &["STOP SLAVE IO_THREAD", "SET GLOBAL rpl_semi_sync_slave_enabled = ON", "START SLAVE IO_THREAD"],
        ),
    };
    run(&stage.replica, on_replica).await?;
    run(stage.primary(), on_primary).await
}

async fn replica_takes_over(flavor: Flavor, name: &'static str, named: Named) -> Result<()> {
    let alike = acknowledged_by_replica(builder(flavor), flavor);
    let replica = alike.clone().option("read_only", "ON");
    let tables = tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut stage = Stage::new(name, alike, &[], replica, named, &tables).await?;
    wait_for_replica(&stage).await?;
    stage.migration.start_both().await?;
    let standby = stage.migration.standby(Direction::Forward)?;
    let servers = stage.migration.servers;
    let old = User::start("old", &stage.migration.schema, servers.old());
    let new = User::start("new", &stage.migration.schema, servers.new());
    let (mut moved, mut other) = if named == Named::OnNew { (new, old) } else { (old, new) };
    moved.until_wrote(WRITTEN).await?;
    other.until_wrote(WRITTEN).await?;

    stage.primary().kill9().await?;
    let down = std::time::Instant::now();
    // Users of the other side go on meanwhile, and their changes wait.
    other.until_wrote(WRITTEN / 3).await?;
    stage.promote().await?;
    moved.goes_to(&stage.replica);
    moved.until_wrote(WRITTEN).await?;
    other.until_wrote(WRITTEN).await?;
    stage
        .until_status("both run", |status| {
            // Users do not rest, so that one may still be catching up.
            let runs = |state: &serde_json::Value| state == "running" || state == "catching-up";
            Direction::BOTH.iter().all(|direction| runs(&stream(status, *direction)["state"]))
        })
        .await?;
    // Who stands by has followed, too.
    stage.migration.expect_lines(KILLED);
    stage.migration.process(Direction::Forward)?.kill9().await?;
    stage.migration.replace(Direction::Forward, standby);
    moved.until_wrote(20).await?;
    other.until_wrote(20).await?;
    println!("{flavor:?}: both run again {:.1} s after the primary was killed", down.elapsed().as_secs_f64());

    // The former primary comes back: nobody may write to it, not even an account that could.
    run_former_primary(&stage).await?;
    moved.until_wrote(20).await?;
    let sets = former_primary_stands_still(&stage).await?;
    moved.until_wrote(20).await?;
    ensure!(former_primary_stands_still(&stage).await? == sets, "the former primary was written to");
    settle(&stage, vec![moved, other]).await?;
    ensure!(former_primary_stands_still(&stage).await? == sets, "the former primary was written to");
    stage.migration.stop_both().await
}

/// What it had over, unacknowledged, would make it a second primary that went apart: so it comes back as well-kept servers do.
async fn run_former_primary(stage: &Stage) -> Result<()> {
    stage.primary().restart_with(&[("read_only", "ON")]).await.context("the former primary does not start")
}

async fn former_primary_stands_still(stage: &Stage) -> Result<String> {
    let question = match stage.primary().flavor() {
        Flavor::MySql => "SELECT @@GLOBAL.gtid_executed",
        Flavor::MariaDb => "SELECT @@GLOBAL.gtid_binlog_state",
    };
    ask(stage.primary(), question).await
}

/// A planned change of roles: nothing is lost, and what is read moves with what is written.
async fn roles_change(flavor: Flavor) -> Result<()> {
    let tables = tables();
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let replica = builder(flavor).option("super_read_only", "ON");
    let mut stage = Stage::new("roles", builder(flavor), &[], replica, Named::PrimaryFirst, &tables).await?;
    stage.migration.start_both().await?;
    let mut old = User::start("old", &stage.migration.schema, stage.primary());
    let mut new = User::start("new", &stage.migration.schema, stage.migration.servers.new());
    old.until_wrote(WRITTEN / 3).await?;
    // Even root cannot write then.
    run(stage.primary(), &["SET GLOBAL super_read_only = ON"]).await?;
    stage.replica.until_followed(stage.primary()).await?;
    stage.promote().await?;
    old.goes_to(&stage.replica);
    stage.primary().follow_on(&stage.replica).await?;
    old.until_wrote(WRITTEN).await?;
    new.until_wrote(WRITTEN).await?;
    settle(&stage, vec![old, new]).await?;
    let replicates: u64 =
        ask(stage.primary(), &format!("SELECT COUNT(*) FROM `{}`.of_old", stage.migration.schema)).await?;
    ensure!(replicates > 0, "the former primary does not follow");
    stage.migration.stop_both().await
}

#[tokio::test]
async fn p1_p2_p3_replica_takes_over_on_mysql() -> Result<()> {
    replica_takes_over(Flavor::MySql, "fail_over", Named::ReplicaFirst).await
}

#[tokio::test]
async fn p1_p2_p3_replica_takes_over_on_mariadb() -> Result<()> {
    replica_takes_over(Flavor::MariaDb, "fail_over", Named::ReplicaFirst).await
}

#[tokio::test]
async fn p1_p2_p3_roles_change_on_mysql() -> Result<()> {
    roles_change(Flavor::MySql).await
}

/// The store goes along: it is on the side whose primary dies.
#[tokio::test]
async fn p1_p2_p3_replica_of_new_takes_over_on_mysql() -> Result<()> {
    replica_takes_over(Flavor::MySql, "store_moves", Named::OnNew).await
}

#[tokio::test]
async fn p1_p2_p3_replica_of_new_takes_over_on_mariadb() -> Result<()> {
    replica_takes_over(Flavor::MariaDb, "store_moves", Named::OnNew).await
}
