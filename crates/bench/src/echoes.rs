//! Echoes: how fast the reverse process passes what forward has written, beside how fast it captures the very same rows where they
//! are a user's to it.
//!
//! To a second pair on the same servers nothing of what the first one has written is tagged. Each pair has its reverse process read
//! the same binlog. What a user of the target wrote before the echoes, and behind them, tells in the message table when they come
//! there: starting is not counted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_model::Direction;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::args::Args;
use crate::contender::{Crossfade, Ready, Reverse, until_complete};
use crate::figures::EchoRun;
use crate::recording::{Recording, init};
use crate::stage::{Durability, PAIR, Side, Stage};
use crate::workload;

const STRANGER: &str = "stranger";
/// A user's changes up to where the echoes begin. Two, so that the one that starts the clock is not the first to be captured.
const BEFORE: u64 = 2;
/// With the one behind the echoes.
const ALL: u64 = 3;

/// Lets forward capture and apply a recording, and the reverse processes of both pairs read what that has left in the target's binlog.
/// `None` where there are so few rows that beginning and end are captured together.
pub async fn measure(recording: &Recording, round: u32, args: &Args) -> Result<Option<EchoRun>> {
    let mut stage = Stage::set(recording.flavor, Durability::Durable, &args.folder, Some(&recording.folder)).await?;
    let measured = measure_on(&stage, recording, round, args).await;
    measured.with_context(|| {
        let logs = stage.keep_logs().display();
        format!("the echoes of {} on {}; logs are in {logs}", recording.workload, recording.flavor)
    })
}

async fn measure_on(stage: &Stage, recording: &Recording, round: u32, args: &Args) -> Result<Option<EchoRun>> {
    let mut store = stage.target()?.connect().await?;
    init(&args.crossfade()?, &stage.write_config_of(STRANGER, &args.settings)?).await?;
    write_echoes(stage, &mut store, recording, args).await?;

    let Some(passed) = read(stage, PAIR, &mut store, ALL, args).await? else { return Ok(None) };
    ensure!(passed.messages == ALL, "{} messages where users wrote {ALL}: echoes were captured", passed.messages);
    let rows = passed.echoes;
    let Some(captured) = read(stage, STRANGER, &mut store, ALL + rows, args).await? else { return Ok(None) };
    let messages = captured.messages;
    ensure!(
        messages == ALL + rows,
        "{rows} echoes were recognised, but with {ALL} changes of users {messages} rows are there"
    );
    Ok(Some(EchoRun {
        flavor: recording.flavor.to_string(),
        workload: recording.workload.to_string(),
        round,
        changes: recording.changes,
        echoes: rows,
        passed_per_second: rows as f64 / passed.took.as_secs_f64(),
        captured_per_second: captured.timed_messages as f64 / captured.took.as_secs_f64(),
    }))
}

/// Captured before any of it is applied: what capturing writes lies before the echoes.
async fn write_echoes(stage: &Stage, store: &mut Conn, recording: &Recording, args: &Args) -> Result<()> {
    let mut forward = Crossfade::prepare(stage, args, Reverse::Off).await?;
    forward.rest(Direction::Forward).await?;
    store.query_drop(workload::mark(Side::Target, 1)).await?;
    forward.begin()?;
    forward.until_captured(store, Direction::Forward, recording.messages(), args.limit()).await?;
    store.query_drop(workload::mark(Side::Target, BEFORE)).await?;
    forward.go_on(Direction::Forward).await?;
    let mut forward = Ready::Crossfade(forward);
    until_complete(stage, recording, &mut forward, args.limit()).await?;
    forward.end().await?;
    Ok(store.query_drop(workload::mark(Side::Target, ALL)).await?)
}

/// What a pair's reverse process has read.
struct Read {
    messages: u64,
    echoes: u64,
    /// From when the echoes' beginning was seen in the message table until their end was.
    took: Duration,
    /// Captured within that.
    timed_messages: u64,
}

/// Has a pair's reverse process read all, applying nothing. `None` as in [`measure`].
async fn read(stage: &Stage, pair: &'static str, store: &mut Conn, all: u64, args: &Args) -> Result<Option<Read>> {
    let mut reverse = Crossfade::prepare_pair(stage, pair, args, Reverse::Alone).await?;
    reverse.rest(Direction::Reverse).await?;
    reverse.begin()?;
    let began = reverse.until_captured(store, Direction::Reverse, BEFORE, args.limit()).await?;
    let ended = reverse.until_captured(store, Direction::Reverse, all, args.limit()).await?;
    reverse.end().await?;
    if began.messages >= all {
        return Ok(None);
    }
    let status = reverse.status().await?;
    let number = |field| status.number(Direction::Reverse.as_str(), field);
    Ok(Some(Read {
        messages: number("last_seq"),
        echoes: number("echoes"),
        took: ended.at - began.at,
        timed_messages: ended.messages - began.messages,
    }))
}
