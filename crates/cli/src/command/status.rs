//! `crossfade status`: where both directions stand.

use std::time::Duration;

use anyhow::Context;
use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::{LeaseStatus, Store, StreamStatus, Wish};
use crossfade_model::{Direction, StreamId};
use serde::Serialize;

use super::{new_table, open_store, print_json};
use crate::args::StatusArgs;
use crate::failure::{Failure, Kind};
use crate::pair::{connect_side, stream_of};

/// The heartbeat row that `--wait` writes on a source.
const HEARTBEAT_WRITER: &str = "status";

/// Reports come four times a second.
const REPORT_WAIT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Status {
    pair: String,
    streams: Vec<StreamLine>,
    store: StoreLine,
}

#[derive(Serialize)]
struct StreamLine {
    stream: String,
    state: String,
    reason: Option<String>,
    since: Option<String>,
    holder: Option<String>,
    position: String,
    lag_seconds: f64,
    lag_messages: u64,
    rows_per_second: u64,
    last_seq: u64,
    settled_seq: u64,
    captured: u64,
    applied: u64,
    echoes: u64,
    conflicts_won: u64,
    conflicts_lost: u64,
    slowest_ms: u64,
    open_failures: u64,
    held: u64,
    caught_up: bool,
}

#[derive(Serialize)]
struct StoreLine {
    bytes: u64,
    messages: u64,
    growth_per_day: u64,
}

pub async fn run(settings: &Settings, args: &StatusArgs) -> anyhow::Result<()> {
    let store = open_store(settings);
    store.version_check().await?;
    if let Some(limit) = args.wait {
        wait_until_caught_up(settings, &store, *limit).await?;
    }
    loop {
        let mut status = read(settings, &store).await?;
        if args.wait.is_some() {
            status.streams.iter_mut().for_each(|stream| stream.caught_up = true);
        }
        match (args.json, args.watch) {
            (true, _) => print_json(&status)?,
            (false, watch) => print(&status, watch),
        }
        if !args.watch {
            return Ok(());
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn read(settings: &Settings, store: &Store) -> anyhow::Result<Status> {
    let leases = store.leases().await?;
    let mut streams = Vec::new();
    for stream in store.stream_statuses().await? {
        let direction = stream.stream.parse::<StreamId>().context("the store names an unknown stream")?.direction();
        let wish = store.wish(direction).await?.unwrap_or(Wish::OFF);
        let lease = leases.iter().find(|lease| lease.subject == direction.as_str() && lease.live);
        streams.push(stream_line(stream, lease, wish));
    }
    let size = store.size().await?;
    Ok(Status {
        pair: settings.pair.clone(),
        streams,
        store: StoreLine { bytes: size.bytes, messages: size.messages, growth_per_day: size.growth_bytes_per_day },
    })
}

fn stream_line(status: StreamStatus, lease: Option<&LeaseStatus>, wish: Wish) -> StreamLine {
    let counters = status.report.as_ref().map(|report| report.counters.clone()).unwrap_or_default();
    let (state, reason) = state(&status, lease, wish);
    let alive = lease.is_some() && state != "stopped";
    StreamLine {
        since: status.since.map(|since| since.to_rfc3339()),
        holder: lease.map(|lease| lease.holder.clone()),
        position: status.position.position.to_string(),
        lag_seconds: counters.lag_ms as f64 / 1000.0,
        lag_messages: status.last_seq.saturating_sub(status.settled_seq),
        rows_per_second: if alive { counters.rows_per_second } else { 0 },
        last_seq: status.last_seq,
        settled_seq: status.settled_seq,
        captured: counters.captured,
        applied: counters.applied,
        echoes: counters.echoes,
        conflicts_won: counters.conflicts_won,
        conflicts_lost: counters.conflicts_lost,
        slowest_ms: counters.slowest_ms,
        open_failures: status.open_failures,
        held: status.held,
        caught_up: alive && counters.caught_up && status.last_seq == status.settled_seq && status.held == 0,
        stream: status.stream,
        state,
        reason,
    }
}

/// What the process says, unless there is none.
fn state(status: &StreamStatus, lease: Option<&LeaseStatus>, wish: Wish) -> (String, Option<String>) {
    match (&status.report, lease) {
        (_, None) if !wish.declared => ("off".to_owned(), Some("declared off; `crossfade start` begins it".to_owned())),
        (Some(report), Some(_)) => (report.state.clone(), report.reason.clone()),
        (Some(report), None) if report.state == "stopped" => {
            ("stopped".to_owned(), Some(report.reason.clone().unwrap_or_else(|| "its process has ended".to_owned())))
        }
        (Some(_), None) => ("stopped".to_owned(), Some("its process has died without a word".to_owned())),
        (None, _) => ("stopped".to_owned(), Some("no process has run it yet".to_owned())),
    }
}

/// Waits until everything that users had committed on either source when this was called is captured and applied.
///
/// Proved by a heartbeat on each source: when a stream's reader has passed it, all that was committed before is in the
/// message table.
async fn wait_until_caught_up(settings: &Settings, store: &Store, limit: Duration) -> anyhow::Result<()> {
    let both = async {
        let directions = [Direction::Forward, Direction::Reverse];
        let mut waits = Vec::new();
        for direction in directions {
            if store.wish(direction).await?.is_some_and(|wish| wish.declared) {
                waits.push((stream_of(direction), beat(settings, direction).await?));
            }
        }
        for (stream, counter) in waits {
            while store.heartbeat_passed(&stream, HEARTBEAT_WRITER).await? < counter {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let last_seq = store.last_seq(&stream).await?;
            while store.stream_state(&stream).await?.settled_seq < last_seq {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // The processes say so too, with their counts, within moments; more changes may already be under way, though.
        let told = async {
            while !read(settings, store).await?.streams.iter().all(|line| line.caught_up || line.state == "off") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(REPORT_WAIT, told).await.unwrap_or(Ok(()))
    };
    match tokio::time::timeout(limit, both).await {
        Ok(done) => done,
        Err(_) => {
            let status = read(settings, store).await?;
            let states: Vec<String> = status
                .streams
                .iter()
                .map(|line| {
                    let reason = line.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                    format!("{} is {}{reason}, {} messages behind", line.stream, line.state, line.lag_messages)
                })
                .collect();
            Err(Failure::new(
                Kind::Finding,
                format!("not caught up within {}: {}", humantime::format_duration(limit), states.join("; ")),
                "see that both sync processes run; `crossfade status` shows what each waits for",
            )
            .into())
        }
    }
}

async fn beat(settings: &Settings, direction: Direction) -> anyhow::Result<u64> {
    let mut conn = connect_side(settings, direction.source(), Purpose::Apply).await?;
    Ok(crossfade_applier::beat(&mut conn, &settings.pair, HEARTBEAT_WRITER).await?)
}

fn print(status: &Status, clear: bool) {
    if clear {
        // Home and clear to the end of the screen.
        print!("\x1b[H\x1b[J");
    }
    println!("pair {}", status.pair);
    if status.streams.is_empty() {
        println!("nothing is known of this pair yet: run `crossfade init`");
        return;
    }
    let mut table = new_table(&[
        "stream", "state", "lag", "behind", "rows/s", "captured", "applied", "echoes", "won", "lost", "failed",
        "slowest",
    ]);
    for line in &status.streams {
        table.add_row([
            line.stream.clone(),
            line.state.clone(),
            format!("{:.1} s", line.lag_seconds),
            line.lag_messages.to_string(),
            line.rows_per_second.to_string(),
            line.captured.to_string(),
            line.applied.to_string(),
            line.echoes.to_string(),
            line.conflicts_won.to_string(),
            line.conflicts_lost.to_string(),
            line.open_failures.to_string(),
            format!("{} ms", line.slowest_ms),
        ]);
    }
    println!("{table}");
    for line in &status.streams {
        if let Some(reason) = &line.reason {
            println!("{}: {reason}", line.stream);
        }
    }
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "store: {:.1} MiB, {} messages, growing {:.1} MiB a day",
        mebibytes(status.store.bytes),
        status.store.messages,
        mebibytes(status.store.growth_per_day)
    );
}
