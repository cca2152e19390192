//! What a change leaves behind that was undone, and what a store that was restored is told.

use anyhow::{Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Direction, Flavor, on_both_brands};
use mysql_async::prelude::Queryable;

use crate::application::{Application, acknowledge, flag};
use crate::stage::{LIMIT, THREE, change, conclude, setup, staged, until_flag, until_mirrored};

/// Forward had been stopped for a trial: it rests again where going back was undone.
async fn an_undone_rollback_leaves_forward_as_it_was(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "undone_back", "timeout = \"5s\"")).await?;
    let application = Application::start(&migration, &THREE).await?;
    change(&migration, &["cutover"], 0).await?;
    migration.rest(&[Direction::Forward]).await?;
    let before = flag(&migration).await?;
    acknowledge(&migration.new, &migration.pair, "hanging", before.version, 600_000_000).await?;
    let undone = change(&migration, &["rollback"], 1).await?;
    ensure!(undone["reason"].as_str().is_some_and(|reason| reason.contains("hanging")), "{undone:#}");
    until("forward rests again", LIMIT, || async {
        let status = migration.status().read().await?;
        let state = status.state("forward").unwrap_or_default().to_owned();
        Ok(if state == "paused" { Progress::Reached(()) } else { Progress::NotYet(state) })
    })
    .await?;
    acknowledge(&migration.new, &migration.pair, "hanging", before.version, 200_000).await?;
    change(&migration, &["rollback"], 0).await?;
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

/// Applications that were told of a later version are told the same phase again, in a version that is later still.
async fn a_restored_store_takes_the_later_flag_over(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "restored_flag", "require_instances = false")).await?;
    migration.expect_lines(&["the store had an earlier flag than"]);
    change(&migration, &["cutover"], 0).await?;
    until_mirrored(&migration).await?;
    let told = flag(&migration).await?;
    let mut conn = migration.new.get_conn().await?;
    let restore = "UPDATE crossfade.flag_state SET version = 1, flag = 1, fenced_until = NULL WHERE pair = ?";
    conn.exec_drop(restore, (&migration.pair,)).await?;
    drop(conn);
    // Whoever looks at it next: the processes write a version that is new to them.
    until_flag(&migration, 2).await?;
    let after = flag(&migration).await?;
    ensure!(after.version > told.version, "{told:?} {after:?}");
    until_mirrored(&migration).await?;
    change(&migration, &["rollback"], 0).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_an_undone_rollback_leaves_forward_as_it_was => an_undone_rollback_leaves_forward_as_it_was,
    p9_a_restored_store_takes_the_later_flag_over => a_restored_store_takes_the_later_flag_over,
}
