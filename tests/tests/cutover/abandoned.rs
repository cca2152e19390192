//! A tool that dies and is not started again, and two tools at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use crossfade_tests::{Flavor, on_both_brands, says};

use crate::application::{Application, flag};
use crate::stage::{LIMIT, THREE, change, conclude, setup, staged, until_flag, until_mirrored};

/// Users are kept waiting for as long as the fence lasts, and no longer.
async fn a_fence_ends_by_itself(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "abandoned", "timeout = \"2s\"")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let begun = Instant::now();
    let (code, output) =
        migration.crossfade_with(&["cutover"], &[("CROSSFADE_FAILPOINT", "switch-acknowledge")]).await?;
    ensure!(code.is_none() && flag(&migration).await?.fenced, "{output}");
    until_flag(&migration, 1).await?;
    until_mirrored(&migration).await?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    says(&migration, &["status"], 0, &["phase write_both", "(step `acknowledge`) is not over"]).await?;
    says(&migration, &["cutover", "--dry-run"], 0, &["was left behind at step `acknowledge`", "fence:"]).await?;
    says(&migration, &["flag", "set", "old_only"], 1, &["no other change", "goes on or undoes it"]).await?;
    // Another command brings it to its end, too.
    says(&migration, &["rollback"], 1, &["was left behind at step `acknowledge`", "the phase is write_both"]).await?;
    change(&migration, &["cutover"], 0).await?;
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

async fn two_tools_do_not_meet(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "two_tools", "timeout = \"30s\"")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let freeze = [("CROSSFADE_FAILPOINT", "switch-acknowledge:1:stop")];
    let mut frozen = migration.tool("frozen", &["cutover"], &freeze)?;
    frozen.until_frozen(LIMIT).await?;
    // It does not say that it still has it in hand: the second one undoes it, and does it itself.
    change(&migration, &["cutover"], 0).await?;
    let after = flag(&migration).await?;
    migration.expect_lines(&["error: somebody else has taken cutover"]);
    frozen.resume()?;
    let status = frozen.wait(LIMIT).await?;
    ensure!(status.code() == Some(3), "{status}: {}", frozen.log_end());
    ensure!(flag(&migration).await? == after, "the first one has changed the flag");
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

/// A person has second thoughts.
async fn who_breaks_it_off_has_all_as_before(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "broken_off", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let before = flag(&migration).await?;
    let freeze = [("CROSSFADE_FAILPOINT", "switch-drain:1:stop")];
    let mut tool = migration.tool("tool", &["cutover"], &freeze)?;
    tool.until_frozen(LIMIT).await?;
    tool.terminate()?;
    tool.resume()?;
    let status = tool.wait(LIMIT).await?;
    let log = tool.log_end();
    ensure!(
        status.code() == Some(1) && log.contains("users write on old as before: it was broken off"),
        "{status}: {log}"
    );
    let after = flag(&migration).await?;
    ensure!(after.value == before.value && !after.fenced, "{after:?}");
    migration.expect_lines(&["error: cutover"]);
    conclude(&mut migration, application).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_who_breaks_it_off_has_all_as_before => who_breaks_it_off_has_all_as_before,
    p9_a_fence_ends_by_itself => a_fence_ends_by_itself,
    p9_two_tools_do_not_meet => two_tools_do_not_meet,
}
