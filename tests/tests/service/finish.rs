//! The service changes sides, and the migration ends while it is used: it goes on, on new alone.

use anyhow::{Result, ensure};
use crossfade_tests::{Direction, Flavor, json, on_both_brands};

use crate::instance::USUAL;
use crate::ledger::rows;
use crate::stage::{LIMIT, Stage};

async fn the_service_outlives_the_migration(flavor: Flavor) -> Result<()> {
    let mut stage = Stage::begin(flavor, "service_finish", USUAL).await?;
    for command in ["cutover", "rollback", "cutover"] {
        stage.change_quickly(command).await?;
        stage.writes_for_a_while(200).await?;
    }
    stage.judge().await?;

    let refused = stage.clients.ledger().not_now;
    let report = stage.migration.folder.join("report").to_string_lossy().into_owned();
    let (code, ended) = json(&stage.migration, &["finish", "--report", &report, "--json"]).await?;
    ensure!(code == Some(0) && ended["phase"] == "new_only", "{code:?} {ended:#}");
    let refused = stage.clients.ledger().not_now - refused;
    ensure!(refused == 0, "{refused} writes were refused while the migration ended");
    for direction in Direction::BOTH {
        let status = stage.migration.process(direction)?.wait(LIMIT).await?;
        ensure!(status.success(), "{} ended with {status}\n{}", direction.as_str(), stage.log_ends());
    }
    // Users write on; what they have written by then, and since, is on new.
    stage.writes_for_a_while(300).await?;
    stage.until_all_follow().await?;
    let rest = stage.clients.rest().await?;
    let found = rows(&stage.migration.new, &stage.migration.schema).await?;
    let kept = stage.clients.ledger().is_kept(&found)?;
    let left = rows(&stage.migration.old, &stage.migration.schema).await?;
    ensure!(left != found, "old gets changes after the end");
    println!("{flavor:?}: {} users on new, {} on old, {kept} uncertain ones", found.len(), left.len());
    drop(rest);
    stage.end_without_sync().await
}

on_both_brands! {
    p9_the_service_outlives_the_migration => the_service_outlives_the_migration,
}
