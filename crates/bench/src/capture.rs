//! Capture alone: from the binlog to the message table, while applying rests.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_testkit::process;
use mysql_async::prelude::Queryable;

use crate::args::Args;
use crate::contender::{Crossfade, Reverse};
use crate::figures::{CaptureRun, Used};
use crate::recording::Recording;
use crate::stage::{Durability, Stage};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// The last of the workload's changes and the one that says that it is over.
const CAPTURED: &str =
    "SELECT CAST(COALESCE(MAX(last_seq), 0) AS UNSIGNED) FROM crossfade.stream WHERE stream LIKE 'forward%'";

/// Lets crossfade capture a recording, and apply nothing.
pub async fn measure(recording: &Recording, round: u32, args: &Args) -> Result<CaptureRun> {
    let mut stage = Stage::set(recording.flavor, Durability::Durable, &args.folder, Some(&recording.folder)).await?;
    let measured = measure_on(&stage, recording, args).await;
    let (took, used) = measured.with_context(|| {
        format!("capturing {} on {}; logs are in {}", recording.workload, recording.flavor, stage.keep_logs().display())
    })?;
    Ok(CaptureRun {
        flavor: recording.flavor.to_string(),
        workload: recording.workload.to_string(),
        round,
        changes: recording.changes,
        rows_per_second: recording.changes as f64 / took.as_secs_f64(),
        used,
    })
}

async fn measure_on(stage: &Stage, recording: &Recording, args: &Args) -> Result<(Duration, Used)> {
    let mut crossfade = Crossfade::prepare(stage, args, Reverse::Off).await?;
    let config = stage.config().display().to_string();
    process::run(&args.crossfade()?, &["--config", &config, "stop", "forward"], &[], COMMAND_LIMIT).await?;
    let mut store = stage.target()?.connect().await?;
    let all = recording.changes + 1;

    let (before, began) = (stage.usage()?, Instant::now());
    crossfade.begin()?;
    let took = loop {
        let asked = began.elapsed();
        let captured: Option<u64> = store.query_first(CAPTURED).await?;
        if captured.is_some_and(|captured| captured >= all) {
            break asked;
        }
        crossfade.must_run()?;
        ensure!(asked < args.limit(), "only {captured:?} of {all} changes were captured after {:?}", args.limit());
        tokio::time::sleep(POLL).await;
    };
    let after = stage.usage()?;
    for (part, _) in recording.parts() {
        let is_applied: Option<u8> = store.query_first(part.is_finished()).await?;
        ensure!(is_applied == Some(0), "changes were applied while only capture was to be measured");
    }
    Ok((took, Used::between(before, after, Some(crossfade.end().await?))))
}
