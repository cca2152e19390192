//! Users change sides while they write, go back, and change again; and then the migration ends.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossfade_testkit::quiet::{Progress, until};
use serde_json::Value;

use super::application::{Application, Ledger, RATE};
use super::display::{Display, grouped};
use super::stage::{Pair, Stage};

/// Users write for so long before each change, and after the last one.
const BETWEEN: Duration = Duration::from_secs(2);
/// What users have just written on new is on old after much less.
const FLOWS_BACK_WITHIN: Duration = Duration::from_secs(30);

/// What became of it.
#[derive(Debug)]
pub struct Crossed {
    pub pauses: Vec<Pause>,
    pub acknowledged: Ledger,
    /// What users wrote on new and old got.
    pub flowed_back: u64,
}

/// Of one change.
#[derive(Debug, Clone, Copy)]
pub struct Pause {
    pub change: &'static str,
    /// Users wrote nowhere for so long, by the tool's account.
    pub ms: u64,
    /// How long the longest write was waited for meanwhile, by the application's.
    pub longest_write: Duration,
}

pub async fn there_and_back(display: &Display, stage: &Stage) -> Result<Crossed> {
    display
        .say("telling applications the flag: crossfade serve; opening two-way writing: crossfade flag set write_both");
    let served = stage.serve().await?;
    stage.crossfade(&["flag", "set", "write_both"]).await?;
    let application = Application::start(stage, &served.address).await?;
    display.say(&format!(
        "an application in three instances follows the flag, and writes about {RATE} times a second on the side that it names: old"
    ));
    let mut pauses = Vec::new();
    let mut flowed_back = 0;
    for (change, what) in [
        ("cutover", "users change to new"),
        ("rollback", "users go back to old, with everything that they wrote on new"),
        ("cutover", "users change to new once more"),
    ] {
        tokio::time::sleep(BETWEEN).await;
        let before = captured_on_new(stage).await?;
        display.say(&format!("under load, {what}: crossfade {change}"));
        pauses.push(carry_out(display, stage, &application, change).await?);
        if change == "cutover" {
            flowed_back += flows_back(display, stage, before).await?;
        }
    }
    tokio::time::sleep(BETWEEN).await;
    let acknowledged = application.finish().await?;
    Ok(Crossed { pauses, acknowledged, flowed_back })
}

async fn carry_out(display: &Display, stage: &Stage, application: &Application, change: &'static str) -> Result<Pause> {
    let (old, new) = application.acknowledged();
    // Whatever came before.
    application.longest_write();
    let report = stage.crossfade(&[change, "--json"]).await?;
    let report: Value = serde_json::from_str(&report)
        .with_context(|| format!("`crossfade {change} --json` gave something else than JSON"))?;
    let Some(ms) = report["pause_ms"].as_u64() else { bail!("nobody has measured the pause: {report}") };
    // Until all who waited have written.
    let written = |now: (u64, u64)| if change == "cutover" { now.1 - new } else { now.0 - old };
    until("writes on the other side", FLOWS_BACK_WITHIN, || async {
        let written = written(application.acknowledged());
        Ok(if written >= u64::from(RATE) / 10 { Progress::Reached(()) } else { Progress::NotYet(written.to_string()) })
    })
    .await?;
    let longest_write = application.longest_write();
    display.say(&format!(
        "users wrote nowhere for {ms} ms; the longest write took {} ms, and none failed",
        longest_write.as_millis()
    ));
    Ok(Pause { change, ms, longest_write })
}

async fn captured_on_new(stage: &Stage) -> Result<u64> {
    Ok(stage.status().read().await?.number("reverse", "last_seq"))
}

/// Waits until writes on new are on old; gives how many.
async fn flows_back(display: &Display, stage: &Stage, before: u64) -> Result<u64> {
    let arrived = until("writes on new that flow back", FLOWS_BACK_WITHIN, || async {
        let arrived = stage.status().read().await?.number("reverse", "settled_seq").saturating_sub(before);
        let enough = u64::from(RATE) / 2;
        Ok(if arrived >= enough { Progress::Reached(arrived) } else { Progress::NotYet(arrived.to_string()) })
    })
    .await?;
    display.say(&format!("what users write on new flows back: {} changes are on old already", grouped(arrived)));
    Ok(arrived)
}

/// Ends the migration; both directions end by themselves.
pub async fn finish(display: &Display, stage: &Stage, pair: &mut Pair) -> Result<()> {
    display.say("nothing speaks against staying on new: crossfade finish");
    let folder = stage.folder.to_string_lossy();
    stage.crossfade(&["finish", "--report", &folder, "--json"]).await.context("`crossfade finish` failed")?;
    pair.until_ended().await?;
    display.say("the migration has ended: users read and write new alone, and both directions have ended");
    let report = stage.folder.join("crossfade-report-demo.md");
    let lines = std::fs::read_to_string(&report).with_context(|| format!("{} is missing", report.display()))?;
    display.say(&format!(
        "its report has {} lines: {} (gone with the servers, unless `--keep` is given)",
        lines.lines().count(),
        report.display()
    ));
    Ok(())
}
