//! Cutover, rollback, and cutover again, under load.

use anyhow::{Result, ensure};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, on_both_brands, rounds, says};
use serde_json::Value;

use crate::application::{Application, flag};
use crate::stage::{LIMIT, THREE, change, conclude, setup, staged, until_mirrored};

/// Far more than a pause should take, also on a machine that does much else.
const LONGEST_PAUSE_MS: u64 = 5_000;

async fn nothing_acknowledged_is_lost(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup(flavor, "there_and_back", "")).await?;
    let application = Application::start(&migration, &THREE).await?;
    let mut pauses = Vec::new();
    for round in 0..rounds(2, 10) {
        writes_for_a_while(&migration, 400).await?;
        let cut = change(&migration, &["cutover"], 0).await?;
        pauses.push(pause(&cut)?);
        if round == 0 {
            println!("{flavor:?}: {cut:#}");
            let told = says(&migration, &["status"], 0, &["phase read_new, flag 2", "3 instances follow it"]).await?;
            ensure!(!told.contains("is not over"), "{told}");
        }
        writes_for_a_while(&migration, 400).await?;
        pauses.push(pause(&change(&migration, &["rollback"], 0).await?)?);
    }
    writes_for_a_while(&migration, 400).await?;
    pauses.push(pause(&change(&migration, &["cutover"], 0).await?)?);
    writes_for_a_while(&migration, 400).await?;
    until_mirrored(&migration).await?;
    let ledger = conclude(&mut migration, application).await?;
    println!(
        "{flavor:?}: {} acknowledged writes, pauses {pauses:?} ms, the longest gap of a writer {} ms",
        ledger.writes,
        ledger.longest_gap.as_millis()
    );
    ensure!(pauses.iter().all(|ms| *ms < LONGEST_PAUSE_MS), "{pauses:?}");
    // Once more where users are already: that is told, and nothing happens.
    let before = flag(&migration).await?;
    says(&migration, &["cutover"], 1, &["phase is read_new", "`rollback`"]).await?;
    ensure!(flag(&migration).await? == before);
    migration.stop_both().await
}

fn pause(report: &Value) -> Result<u64> {
    ensure!(report["state"] == "done" && report["reason"].is_null(), "{report:#}");
    report["pause_ms"].as_u64().ok_or_else(|| anyhow::anyhow!("no pause in {report:#}"))
}

/// Waits until the side in charge has so many more rows than now.
async fn writes_for_a_while(migration: &Migration, more: u64) -> Result<()> {
    let captured = || async {
        let status = migration.status().read().await?;
        anyhow::Ok(status.number("forward", "last_seq") + status.number("reverse", "last_seq"))
    };
    let before = captured().await?;
    until("writes", LIMIT, || async {
        let now = captured().await?;
        Ok(if now >= before + more { Progress::Reached(()) } else { Progress::NotYet(now.to_string()) })
    })
    .await
}

on_both_brands! {
    p9_nothing_acknowledged_is_lost_there_and_back => nothing_acknowledged_is_lost,
}
