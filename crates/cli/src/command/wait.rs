//! `crossfade status --wait`: until everything that users had committed on either source when it was called has crossed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::{Store, StoreError, StreamStatus, Wish};
use crossfade_model::{Direction, StreamId};
use crossfade_server::{Status, StreamLine};

use super::status::read;
use crate::failure::{Failure, Kind};
use crate::pair::{connect_side, stream_of};

/// The heartbeat row that is written on a source.
const HEARTBEAT_WRITER: &str = "status";

const POLL_EVERY: Duration = Duration::from_millis(20);

/// Reports come four times a second.
const REPORT_WAIT: Duration = Duration::from_secs(2);

/// How often states are looked at, and how long one that nobody is about to leave must last: a process that was started a
/// moment ago has not yet said so.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const GRACE: Duration = Duration::from_secs(2);

/// Waits for every direction that is not declared off, also for one that has yet to be started.
///
/// # Errors
///
/// A finding: `limit` has passed; or, without waiting for it, a direction has stopped with an error, only captures while
/// messages wait to be applied, or there is no direction to wait for.
pub async fn until_caught_up(settings: &Settings, store: &Store, limit: Duration) -> anyhow::Result<()> {
    let directions = awaited(store).await?;
    let crossed = async {
        let mut waits = Vec::new();
        for &direction in &directions {
            until_started(store, direction).await?;
            waits.push((stream_of(direction), beat(settings, direction).await?));
        }
        for (stream, counter) in &waits {
            until_crossed(store, stream, *counter).await?;
            until_none_aside(store, stream).await?;
        }
        until_told(settings, store).await
    };
    tokio::select! {
        done = tokio::time::timeout(limit, crossed) => match done {
            Ok(done) => done,
            Err(_) => Err(too_late(&read(settings, store).await?, limit)),
        },
        stuck = until_stuck(settings, store, &directions) => stuck,
    }
}

/// The directions to wait for. Those that are declared off carry nothing, and a person is told so.
async fn awaited(store: &Store) -> anyhow::Result<Vec<Direction>> {
    let mut directions = Vec::new();
    for direction in [Direction::Forward, Direction::Reverse] {
        if store.wish(direction).await?.is_some_and(|wish| !wish.declared) {
            eprintln!("{direction} is declared off: nothing of the {} side crosses", direction.source());
        } else {
            directions.push(direction);
        }
    }
    if directions.is_empty() {
        let hint = "`crossfade start forward` and `crossfade start reverse` declare them on";
        return Err(Failure::new(Kind::Finding, "both directions are declared off: nothing crosses", hint).into());
    }
    Ok(directions)
}

/// Until a process has run the direction: the first one wishes it to run.
async fn until_started(store: &Store, direction: Direction) -> Result<(), StoreError> {
    while store.wish(direction).await?.is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn beat(settings: &Settings, direction: Direction) -> anyhow::Result<u64> {
    let mut conn = connect_side(settings, direction.source(), Purpose::Apply).await?;
    Ok(crossfade_applier::beat(&mut conn, &settings.pair, HEARTBEAT_WRITER).await?)
}

/// When a stream's reader has passed a heartbeat, all that was committed on its source before is in the message table.
async fn until_crossed(store: &Store, stream: &StreamId, counter: u64) -> Result<(), StoreError> {
    while store.heartbeat_passed(stream, HEARTBEAT_WRITER).await? < counter {
        tokio::time::sleep(POLL_EVERY).await;
    }
    let last_seq = store.last_seq(stream).await?;
    while store.stream_state(stream).await?.settled_seq < last_seq {
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

/// What was set aside is tried again by itself, or when a person has mended it; until then it has not crossed.
async fn until_none_aside(store: &Store, stream: &StreamId) -> Result<(), StoreError> {
    let is_aside = |status: &StreamStatus| status.stream == stream.as_str() && status.open_failures + status.held > 0;
    while store.stream_statuses().await?.iter().any(is_aside) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The processes say so too, with their counts, within moments; more changes may already be under way, though.
async fn until_told(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    let told = async {
        while !read(settings, store).await?.streams.iter().all(|line| line.caught_up || line.state == "off") {
            tokio::time::sleep(POLL_EVERY).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(REPORT_WAIT, told).await.unwrap_or(Ok(()))
}

/// Until a direction is in a state that only a person ends: that is the error.
async fn until_stuck(settings: &Settings, store: &Store, directions: &[Direction]) -> anyhow::Result<()> {
    let mut since: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let status = read(settings, store).await?;
        for direction in directions {
            let stream = stream_of(*direction);
            let Some(line) = status.streams.iter().find(|line| line.stream == stream.as_str()) else { continue };
            match stuck(line, store.wish(*direction).await?) {
                None => drop(since.remove(&line.stream)),
                Some(hint) => {
                    if since.entry(line.stream.clone()).or_insert_with(Instant::now).elapsed() >= GRACE {
                        let message = format!("what is committed does not cross: {}", described(line));
                        return Err(Failure::new(Kind::Finding, message, hint).into());
                    }
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why a stream will not go on by itself: what a person can do.
fn stuck(line: &StreamLine, wish: Option<Wish>) -> Option<String> {
    let direction = line.stream.split('/').next().unwrap_or_default();
    if line.lag_messages > 0 && wish.is_some_and(|wish| wish.declared && !wish.apply) {
        Some(format!("`crossfade start {direction}` lets it apply again"))
    } else if line.failed && line.holder.is_none() {
        Some(format!("remove the reason, then run `crossfade sync {direction}` again: it goes on where it was"))
    } else if line.failed {
        Some("remove the reason: its process then goes on by itself within a minute".to_owned())
    } else {
        None
    }
}

fn too_late(status: &Status, limit: Duration) -> anyhow::Error {
    let states: Vec<String> = status.streams.iter().map(described).collect();
    let hint = if status.streams.iter().any(|line| line.open_failures > 0) {
        "`crossfade messages list --status failed` shows each change that was set aside, with the reason to remove"
    } else {
        "see that both sync processes run; `crossfade status` shows what each waits for"
    };
    let limit = humantime::format_duration(limit);
    Failure::new(Kind::Finding, format!("not caught up within {limit}: {}", states.join("; ")), hint).into()
}

fn described(line: &StreamLine) -> String {
    let reason = line.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let waiting = match (line.lag_messages, line.open_failures + line.held) {
        (0, 0) => "no captured message waits, but its source may not be read to the end".to_owned(),
        (0, 1) => "1 change is set aside".to_owned(),
        (0, aside) => format!("{aside} changes are set aside"),
        (1, aside) => format!("1 captured message waits to be applied, {aside} are set aside"),
        (more, aside) => format!("{more} captured messages wait to be applied, {aside} are set aside"),
    };
    format!("{} is {}{reason}, {waiting}", line.stream, line.state)
}
