//! Capture alone: from the binlog to the message table, while applying rests.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_model::Direction;
use mysql_async::prelude::Queryable;

use crate::args::Args;
use crate::contender::{Crossfade, Reverse};
use crate::figures::{CaptureRun, Used};
use crate::recording::Recording;
use crate::stage::{Durability, Stage};

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
    crossfade.rest(Direction::Forward).await?;
    let mut store = stage.target()?.connect().await?;

    let (before, began) = (stage.usage()?, Instant::now());
    crossfade.begin()?;
    let all = recording.messages();
    let captured = crossfade.until_captured(&mut store, Direction::Forward, all, args.limit()).await?;
    let after = stage.usage()?;
    for (part, _) in recording.parts() {
        let is_applied: Option<u8> = store.query_first(part.is_finished()).await?;
        ensure!(is_applied == Some(0), "changes were applied while only capture was to be measured");
    }
    Ok((captured.at - began, Used::between(before, after, Some(crossfade.end().await?))))
}
