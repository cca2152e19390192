//! What a migration came to, for those who must answer for it: as JSON, and for people.

mod page;

use std::path::Path;

use anyhow::Context;
use chrono::{DateTime, Utc};
use crossfade_config::Settings;
use crossfade_control::{Memory, name};
use crossfade_message::{
    ChangeCounts, DiscardedMessage, JournalEntry, OutcomeCount, Store, SwitchRun, SwitchState, Verification,
};
use crossfade_verify::TableReport;
use serde::Serialize;

use super::rounds;

/// Of each stream the newest messages are counted by table.
const COUNTED: u64 = 20_000_000;
/// More are not listed one by one.
const LISTED: u32 = 1_000;

#[derive(Debug, Serialize)]
struct FinalReport {
    pair: String,
    written_at: DateTime<Utc>,
    phase: String,
    flag_version: u64,
    began_at: Option<DateTime<Utc>>,
    /// `None`: it is written just before.
    ended_at: Option<DateTime<Utc>>,
    streams: Vec<StreamEnd>,
    /// The last comparison of all rows.
    comparison: Option<ComparisonEnd>,
    changes: ChangeCounts,
    outcomes: Vec<OutcomeCount>,
    /// Rows that were there before, and were copied.
    copies: Vec<CopyEnd>,
    discarded: Vec<DiscardedMessage>,
    /// Cutovers, rollbacks, and the end; also those that were undone.
    runs: Vec<RunEnd>,
    marks: Vec<MarkEnd>,
    /// The journal, oldest line first.
    timeline: Vec<JournalEntry>,
}

#[derive(Debug, Serialize)]
struct StreamEnd {
    stream: String,
    captured: u64,
    settled: u64,
    refused: u64,
    held: u64,
    position: String,
}

#[derive(Debug, Serialize)]
struct ComparisonEnd {
    verification: u64,
    begun_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    mismatches: u64,
    unconfirmed: u64,
    tables: Vec<TableReport>,
}

#[derive(Debug, Serialize)]
struct CopyEnd {
    table: String,
    read: u64,
    inserted: u64,
    replaced: u64,
    copied_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize)]
struct RunEnd {
    run: String,
    kind: String,
    state: SwitchState,
    begun_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    /// Users wrote nowhere for so long.
    pause_ms: Option<u64>,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct MarkEnd {
    name: String,
    taken_at: DateTime<Utc>,
    old_position: String,
    new_position: String,
    note: Option<String>,
}

/// Whether files can be written there; makes the folder.
pub fn probe(folder: &Path) -> anyhow::Result<()> {
    let cannot = || format!("the report cannot be written to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    let file = folder.join(format!(".crossfade-report-{}", std::process::id()));
    std::fs::write(&file, b"").with_context(cannot)?;
    std::fs::remove_file(&file).with_context(cannot)
}

/// Writes both files, and gives them. Whoever reads one finds all of it, or what was there before.
pub async fn write(settings: &Settings, store: &Store, folder: &Path) -> anyhow::Result<Vec<String>> {
    let report = gather(settings, store).await?;
    let stem: String =
        settings.pair.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    let mut files = Vec::new();
    for (ending, text) in [("json", serde_json::to_string_pretty(&report)? + "\n"), ("md", page::of(&report))] {
        let file = folder.join(format!("crossfade-report-{stem}.{ending}"));
        let unfinished = folder.join(format!(".crossfade-report-{stem}.{ending}.{}", std::process::id()));
        let cannot = || format!("{} cannot be written", file.display());
        std::fs::write(&unfinished, text).with_context(cannot)?;
        std::fs::rename(&unfinished, &file).with_context(cannot)?;
        files.push(file.display().to_string());
    }
    Ok(files)
}

async fn gather(settings: &Settings, store: &Store) -> anyhow::Result<FinalReport> {
    let mut timeline = store.journal_entries(u32::MAX).await?;
    timeline.reverse();
    let flag = store.flag().await?;
    let runs = store.switch_runs().await?;
    let streams = store.stream_statuses().await?.into_iter().map(|status| StreamEnd {
        captured: status.last_seq,
        settled: status.settled_seq,
        refused: status.open_failures,
        held: status.held,
        position: status.position.position.to_string(),
        stream: status.stream,
    });
    let copies = store.copies().await?.into_iter().map(|copy| CopyEnd {
        table: copy.table.to_string(),
        read: copy.counts.read,
        inserted: copy.counts.filled,
        replaced: copy.counts.replaced,
        copied_at: copy.copied_at,
    });
    let marks = store.marks().await?.into_iter().map(|mark| MarkEnd {
        name: mark.name,
        taken_at: mark.taken_at,
        old_position: mark.old_position.to_string(),
        new_position: mark.new_position.to_string(),
        note: mark.note,
    });
    Ok(FinalReport {
        pair: settings.pair.clone(),
        written_at: Utc::now(),
        phase: flag.phase.to_string(),
        flag_version: flag.version,
        began_at: timeline.first().map(|line| line.written_at),
        ended_at: store.ending().await?.and_then(|run| run.ended_at),
        streams: streams.collect(),
        comparison: rounds::last_whole(store).await?.as_ref().map(comparison),
        changes: store.count_changes(COUNTED).await?,
        outcomes: store.count_outcomes().await?,
        copies: copies.collect(),
        discarded: store.discarded(LISTED).await?,
        runs: runs.iter().map(run_end).collect(),
        marks: marks.collect(),
        timeline,
    })
}

fn comparison(last: &Verification) -> ComparisonEnd {
    let tables = rounds::reports(last);
    ComparisonEnd {
        verification: last.id,
        begun_at: last.begun_at,
        ended_at: last.ended_at,
        mismatches: tables.iter().map(TableReport::mismatches).sum(),
        unconfirmed: tables.iter().map(|table| table.unconfirmed).sum(),
        tables,
    }
}

/// What another version has kept is not known.
fn run_end(run: &SwitchRun) -> RunEnd {
    let memory = Memory::of(run).unwrap_or_default();
    RunEnd {
        run: name(run),
        kind: run.kind.clone(),
        state: run.state,
        begun_at: run.begun_at,
        ended_at: run.ended_at,
        pause_ms: memory.pause_ms,
        reason: memory.reason,
    }
}
