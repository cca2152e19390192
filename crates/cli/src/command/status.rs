//! `crossfade status`: where both directions stand.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use crossfade_binlog::BinlogError;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_control::{Change, name};
use crossfade_message::{
    ConflictCounts, Flag, Health, LeaseStatus, Standby, Store, StreamStatus, SwitchRun, TagProof, Wish,
};
use crossfade_model::{Direction, StreamId};
use crossfade_server::{EndLine, FlagLine, GroupLine, StandbyLine, Status, StoreLine, StreamLine};

use super::rounds;
use super::{add_row, new_table, open_known_store, open_store, print_json, print_table, wait};
use crate::args::StatusArgs;
use crate::failure::with_causes;
use crate::meeting::Source;
use crate::output::out;
use crate::sync::{is_dead, is_held, is_silent};

/// A source that does not answer so long is away.
const SOURCE_LIMIT: Duration = Duration::from_secs(5);

pub async fn run(settings: &Settings, args: &StatusArgs) -> anyhow::Result<()> {
    let store = match args.wait {
        Some(limit) => {
            let store = open_known_store(settings).await?;
            wait::until_caught_up(settings, &store, *limit).await?;
            store
        }
        None => open_store(settings),
    };
    store.version_check().await?;
    loop {
        let mut status = read(settings, &store).await?;
        if args.wait.is_some() {
            status.streams.iter_mut().for_each(|stream| stream.caught_up = true);
        }
        look_at_sources(settings, &store, &mut status).await;
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

/// Where nobody reads, nobody says how long the source keeps what is unread: the source is asked.
async fn look_at_sources(settings: &Settings, store: &Store, status: &mut Status) {
    for line in status.streams.iter_mut().filter(|line| line.holder.is_none() && line.state != "off") {
        let Ok(stream) = line.stream.parse::<StreamId>() else { continue };
        let side = stream.direction().source();
        let source = Source::new(settings, side, Servers::new(settings.side(side).urls()));
        let asking = async {
            let state = store.stream_state(&stream).await?;
            source.unread(&state.position.position).await
        };
        match tokio::time::timeout(SOURCE_LIMIT, asking).await {
            Ok(Ok(unread)) => {
                line.unread_kept_seconds = unread.and_then(|unread| Some(unread.left?.as_secs()));
            }
            Ok(Err(error)) if is_purged(&error) => {
                let told = with_causes(&error);
                line.reason = Some(match line.reason.take() {
                    Some(reason) if reason.contains(&told) => reason,
                    Some(reason) => format!("{reason}; {told}"),
                    None => told,
                });
            }
            // A source that is away says nothing.
            _ => {}
        }
    }
}

fn is_purged(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<BinlogError>(), Some(BinlogError::Purged { .. }))
}

/// What the store knows of the pair now.
pub async fn read(settings: &Settings, store: &Store) -> anyhow::Result<Status> {
    let leases = store.leases().await?;
    let standbys = store.standbys().await?;
    let mut streams = Vec::new();
    for stream in store.stream_statuses().await? {
        let direction = stream.stream.parse::<StreamId>().context("the store names an unknown stream")?.direction();
        let wish = store.wish(direction).await?;
        let lease = leases.iter().find(|lease| lease.subject == direction.as_str());
        let mut line = stream_line(stream, direction, lease, wish);
        line.standby = standby_lines(&standbys, direction);
        // A process that runs says so itself.
        if line.holder.is_none()
            && let Some(reason) = store.stop_reason(direction).await?
        {
            line.reason = Some(line.reason.map_or(reason.clone(), |ended| format!("{ended}; {reason}")));
        }
        streams.push(line);
    }
    let end = store.ending().await?.as_ref().map(end_line);
    if end.is_some() {
        streams.iter_mut().for_each(end_stream);
    }
    let size = store.size().await?;
    let mut groups = Vec::new();
    for group in settings.groups() {
        let (phase, flag) = flag_line(&store.of_group(Some(group)), None).await?;
        groups.push(GroupLine { group: group.to_owned(), phase, flag });
    }
    let change = store.open_switch_run().await?.map(|(run, _)| format!("{} (step `{}`)", name(&run), run.step));
    let (phase, flag) = flag_line(store, change).await?;
    Ok(Status {
        pair: settings.pair.clone(),
        phase,
        flag,
        groups,
        end,
        streams,
        store: StoreLine { bytes: size.bytes, messages: size.messages, growth_per_day: size.growth_bytes_per_day },
        verify: rounds::read(settings, store).await?,
    })
}

/// The phase, and what applications are told.
async fn flag_line(store: &Store, change: Option<String>) -> anyhow::Result<(String, FlagLine)> {
    let (flag, instances) = (store.flag().await?, store.flag_instances().await?.len());
    let Flag { version, phase, fenced } = flag;
    Ok((phase.to_string(), FlagLine { value: phase.flag(), version, fenced, instances, change }))
}

fn end_line(run: &SwitchRun) -> EndLine {
    EndLine { word: if run.kind == Change::Abort.as_str() { "aborted" } else { "finished" }, at: run.ended_at }
}

/// Nothing is the matter with it: there is nothing to do.
fn end_stream(line: &mut StreamLine) {
    let health = Health::Off { reason: "the migration has ended".to_owned() };
    (line.state, line.reason) = (health.word().to_owned(), health.reason().map(str::to_owned));
    line.failed = false;
}

fn stream_line(
    status: StreamStatus,
    direction: Direction,
    lease: Option<&LeaseStatus>,
    wish: Option<Wish>,
) -> StreamLine {
    let counters = status.report.as_ref().map(|report| report.counters.clone()).unwrap_or_default();
    let health = health(&status, direction, lease, wish);
    let lease = lease.filter(|lease| is_held(lease));
    let alive = lease.is_some();
    let failed = status.report.as_ref().is_some_and(|report| report.health.has_failed());
    StreamLine {
        since: status.since.map(|since| since.to_rfc3339()),
        holder: lease.map(|lease| lease.holder.clone()),
        standby: Vec::new(),
        position: status.position.position.to_string(),
        lag_seconds: alive.then_some(counters.lag_ms as f64 / 1000.0),
        unread_kept_seconds: counters.unread_kept_s.filter(|_| alive),
        lag_messages: status.last_seq.saturating_sub(status.settled_seq),
        rows_per_second: if alive { counters.rows_per_second } else { 0 },
        last_seq: status.last_seq,
        settled_seq: status.settled_seq,
        captured: counters.captured,
        applied: counters.applied,
        echoes: counters.echoes,
        conflicts_won: counters.conflicts_won,
        conflicts_lost: counters.conflicts_lost,
        judged_by_sight: counters.judged_by_sight,
        judged_by_look_up: counters.judged_by_look_up,
        judged_by_waiting: counters.judged_by_waiting,
        waits: counters.waits,
        conflicts: counters.conflicts,
        tag: counters.tag,
        slowest_ms: counters.slowest_ms,
        open_failures: status.open_failures,
        held: status.held,
        caught_up: alive && counters.caught_up && status.last_seq == status.settled_seq && status.held == 0,
        stream: status.stream,
        state: health.word().to_owned(),
        reason: health.reason().map(str::to_owned),
        failed,
    }
}

/// What the process says, unless there is none.
fn health(status: &StreamStatus, direction: Direction, lease: Option<&LeaseStatus>, wish: Option<Wish>) -> Health {
    let said = status.report.as_ref().map(|report| &report.health);
    let stopped = |reason: String| Health::Stopped { reason: Some(reason) };
    let is_silent = lease.is_some_and(is_silent);
    match (said, lease.filter(|lease| is_held(lease))) {
        (None, None) if wish.is_none() => {
            Health::Off { reason: format!("not started yet; `crossfade sync {direction}` starts it") }
        }
        (_, None) if wish.is_some_and(|wish| !wish.declared) => {
            Health::Off { reason: format!("declared off by `stop --capture`; `crossfade start {direction}` ends that") }
        }
        (Some(health), Some(_)) => health.clone(),
        (Some(Health::Stopped { reason: Some(reason) }), None) => stopped(reason.clone()),
        (Some(Health::Stopped { reason: None }), None) => {
            stopped(format!("its process has ended; `crossfade sync {direction}` goes on"))
        }
        (Some(_), None) if is_silent => stopped(format!(
            "its process has died without a word, or the store takes nothing from it, as its log then tells; where it has died, \
             `crossfade sync {direction}` goes on"
        )),
        (Some(_), None) => {
            stopped(format!("its process has died without a word; `crossfade sync {direction}` goes on"))
        }
        (None, None) => stopped(format!("no process runs it; `crossfade sync {direction}` starts it")),
        (None, Some(_)) => Health::Starting { reason: "its process has not reported yet".to_owned() },
    }
}

/// Who stands by for a direction. One that is dead on this machine is passed over, as a dead holder is.
fn standby_lines(standbys: &[Standby], direction: Direction) -> Vec<StandbyLine> {
    let of_direction = standbys.iter().filter(|standby| standby.subject == direction.as_str());
    let lines = of_direction.filter(|standby| !is_dead(&standby.holder)).map(|standby| StandbyLine {
        holder: standby.holder.clone(),
        since: standby.since.to_rfc3339(),
        waits: Duration::from_secs((chrono::Utc::now() - standby.since).num_seconds().max(0).unsigned_abs()),
    });
    lines.collect()
}

fn print(status: &Status, clear: bool) {
    if clear {
        // Home and clear to the end of the screen.
        crate::output::part("\x1b[H\x1b[J");
    }
    out!("pair {}: {}", status.pair, phase(status));
    for line in &status.groups {
        out!("group {}: {}", line.group, told(&line.phase, &line.flag));
    }
    if status.streams.is_empty() {
        out!("nothing is known of this pair yet: run `crossfade init`");
        return;
    }
    let mut table = new_table(&[
        "stream", "state", "lag", "behind", "rows/s", "captured", "applied", "echoes", "won", "lost", "failed",
        "slowest",
    ]);
    for line in &status.streams {
        add_row(
            &mut table,
            [
                line.stream.clone(),
                line.state.clone(),
                line.lag_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s")),
                line.lag_messages.to_string(),
                line.rows_per_second.to_string(),
                // Of the store's own counts, no kill makes it forget one.
                line.last_seq.to_string(),
                line.settled_seq.saturating_sub(line.open_failures + line.held).to_string(),
                line.echoes.to_string(),
                line.conflicts_won.to_string(),
                line.conflicts_lost.to_string(),
                line.open_failures.to_string(),
                slowest(line.slowest_ms),
            ],
        );
    }
    print_table(&table);
    for line in &status.streams {
        if let Some(reason) = &line.reason {
            out!("{}: {reason}", line.stream);
        }
    }
    for line in &status.streams {
        if let Some(seconds) = line.unread_kept_seconds {
            let left = humantime::format_duration(Duration::from_secs(seconds));
            out!("{}: the source may purge what is not read yet in {left}", line.stream);
        }
    }
    for line in status.streams.iter().filter(|line| line.open_failures + line.held > 0) {
        let (stream, failed, held) = (&line.stream, line.open_failures, line.held);
        out!(
            "{stream}: set aside: {failed} refused by the target, {held} held; see `crossfade messages list --status failed`, `--status held`"
        );
    }
    for line in &status.streams {
        for standby in &line.standby {
            let (holder, waits) = (&standby.holder, humantime::format_duration(standby.waits));
            out!("{}: standby: {holder} is ready to take over (for {waits})", line.stream);
        }
    }
    for line in status.streams.iter().filter(|line| line.holder.is_some()) {
        out!("{}: {}", line.stream, tag(&line.tag));
    }
    for line in status.streams.iter().filter(|line| !line.conflicts.is_empty()) {
        out!("{}: conflicts {}", line.stream, conflicts(&line.conflicts));
    }
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    out!(
        "store: {:.1} MiB, {} messages, growing {:.1} MiB a day",
        mebibytes(status.store.bytes),
        status.store.messages,
        mebibytes(status.store.growth_per_day)
    );
    rounds::print(&status.verify);
}

fn phase(status: &Status) -> String {
    let end = status.end.as_ref().map(|end| match end.at {
        Some(at) => format!("{} at {} UTC, ", end.word, at.format("%Y-%m-%d %H:%M:%S")),
        None => format!("{}, ", end.word),
    });
    format!("{}{}", end.unwrap_or_default(), told(&status.phase, &status.flag))
}

/// What applications are told.
fn told(phase: &str, flag: &FlagLine) -> String {
    let FlagLine { value, version, fenced, instances, change } = flag;
    let follow = match instances {
        0 => String::new(),
        1 => ", 1 instance follows it".to_owned(),
        more => format!(", {more} instances follow it"),
    };
    let fence = if *fenced { ", users write nowhere for a moment" } else { "" };
    let change = change.as_ref().map(|change| format!("; {change} is not over")).unwrap_or_default();
    format!("phase {phase}, flag {value} (version {version}{follow}){fence}{change}")
}

fn tag(proof: &TagProof) -> String {
    let last = proof.proved_at.map(|at| {
        let ago = (chrono::Utc::now() - at).num_seconds().max(0);
        format!("proved {} ago", humantime::format_duration(Duration::from_secs(ago.unsigned_abs())))
    });
    match (&proof.open, last) {
        (None, Some(last)) => format!("what it writes is recognised on the other side ({last})"),
        (None, None) => "not yet proved that what it writes is recognised".to_owned(),
        (Some(why), None) => format!("not yet proved that what it writes is recognised: {why}"),
        (Some(why), Some(last)) => format!("not proved now that what it writes is recognised: {why} (last {last})"),
    }
}

fn conflicts(by_table: &BTreeMap<String, ConflictCounts>) -> String {
    let of_table = |(table, counts): (&String, &ConflictCounts)| {
        let ConflictCounts { won, lost, stale, authority } = counts;
        let of_these = if *authority == 0 { String::new() } else { format!(" ({authority} for want of authority)") };
        format!("{table} {won} won, {lost} lost, {stale} stale{of_these}")
    };
    by_table.iter().map(of_table).collect::<Vec<_>>().join("; ")
}

fn slowest(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1_000.0) }
}
