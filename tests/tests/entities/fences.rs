//! What a fence waits for, and what it does when that does not come.

use anyhow::{Result, ensure};
use crossfade_flag::{EntityClient, Side};
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Flavor, Monitor, Served, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::stage::{LIMIT, entity, nodes_agree, number, on_new, setup, staged, staged_apart};

/// A transaction that was begun before the fence and does not end: the move is undone, and users write on as before.
async fn what_does_not_end_undoes_the_move(flavor: Flavor) -> Result<()> {
    let mut migration = staged_apart(&setup(flavor, "open_one", "fence_timeout = \"4s\"\nattempts = 2"), 3).await?;
    let served = Served::start(&migration).await?;
    let mut open = migration.old.get_conn().await?;
    open.query_drop("BEGIN").await?;
    // Of another user: nobody can know what it will write next.
    open.query_drop(format!("UPDATE `{}`.users SET n = 77 WHERE id = 3", migration.schema)).await?;
    let report = entity(&migration, &["move", "1", "2"], 1).await?;
    ensure!(number(&report, "failed")? == 2 && number(&report, "undone")? == 4, "{report:#}");
    let reason = report["reasons"][0]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("had written something and not committed it") && reason.contains("4s"), "{reason}");
    ensure!(on_new(&migration).await?.is_empty());
    let guard = EntityClient::builder(served.url()).build()?.begin_write("1").await?;
    ensure!(guard.side() == Side::Old);
    open.query_drop("COMMIT").await?;
    entity(&migration, &["move", "--state", "failed"], 0).await?;
    ensure!(on_new(&migration).await? == [1, 2]);
    // Two that were undone, and one that was not; more where the machine is busy.
    let shown = entity(&migration, &["show", "1"], 0).await?;
    let history: Vec<&str> =
        shown["history"].as_array().into_iter().flatten().filter_map(|event| event["state"].as_str()).collect();
    ensure!(history.iter().filter(|state| **state == "copying").count() >= 3, "{history:?}");
    ensure!(history.first() == Some(&"identified") && history.last() == Some(&"moved"), "{history:?}");
    nodes_agree(&migration).await?;

    // Where somebody reads the list all the time, the server shows nobody anything new.
    let monitor = Monitor::start(&migration.old).await?;
    let report = entity(&migration, &["move", "3"], 1).await?;
    let reason = report["reasons"][0]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("did not list its transactions anew") && reason.contains("innodb_trx"), "{reason}");
    monitor.end().await?;
    entity(&migration, &["move", "--state", "failed"], 0).await?;
    ensure!(on_new(&migration).await? == [1, 2, 3]);
    nodes_agree(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A tool is frozen under its fence until that is over: whoever asks lifts it, and the tool has come too late.
async fn a_fence_that_is_over_is_never_decided(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "frozen", "fence_timeout = \"4s\"\nattempts = 1"), 3).await?;
    migration.expect_lines(&["error: 1 have failed", "somebody else has taken"]);
    let served = Served::start(&migration).await?;
    let client = EntityClient::builder(served.url()).build()?;
    let freeze = [("CROSSFADE_FAILPOINT", "entity-decide:1:stop")];
    let mut tool = migration.tool("tool", &["entity", "move", "1"], &freeze)?;
    tool.until_frozen(LIMIT).await?;
    let guard = client.begin_write("1").await?;
    ensure!(guard.side() == Side::Old, "{guard:?}");
    migration.on(&migration.old, &["UPDATE {schema}.users SET n = 7 WHERE id = 1"]).await?;
    tool.resume()?;
    let status = tool.wait(LIMIT).await?;
    ensure!(status.code() == Some(1), "{status}\n{}", tool.log_end());
    ensure!(on_new(&migration).await?.is_empty());
    nodes_agree(&migration).await?;
    entity(&migration, &["move", "--state", "failed"], 0).await?;
    ensure!(on_new(&migration).await? == [1]);
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// Nobody is kept from writing as long as a direction is behind by more than a fence may stand.
async fn who_is_behind_fences_nobody(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "behind", "fence_timeout = \"2s\"\nattempts = 1"), 3).await?;
    entity(&migration, &["add", "1"], 0).await?;
    migration.expect_lines(KILLED);
    migration.process(Direction::Forward)?.pause()?;
    let report = entity(&migration, &["move", "1"], 1).await?;
    let why = report["ended_early"].as_str().unwrap_or_default();
    ensure!(why.contains("forward has not caught up, and nobody was kept") && why.contains("12s"), "{report:#}");
    ensure!(number(&report, "left")? == 1 && number(&report, "undone")? == 0, "{report:#}");
    let shown = entity(&migration, &["show", "1"], 0).await?;
    ensure!(shown["side"] == "old" && shown["attempts"] == 0, "{shown:#}");
    migration.process(Direction::Forward)?.kill9().await?;
    migration.start(Direction::Forward, &[])?;
    migration.status().until_running(LIMIT).await?;
    entity(&migration, &["move", "1"], 0).await?;
    ensure!(on_new(&migration).await? == [1]);
    nodes_agree(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_who_is_behind_fences_nobody => who_is_behind_fences_nobody,
    p9_what_does_not_end_undoes_the_move => what_does_not_end_undoes_the_move,
    p9_a_fence_that_is_over_is_never_decided => a_fence_that_is_over_is_never_decided,
}
