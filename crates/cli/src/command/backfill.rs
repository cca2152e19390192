//! `crossfade backfill`: having the rows copied that were there before the migration began. The forward process does it.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crossfade_backfill::History;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::{
    BackfillWish, CopyCounts, CopyState, DeferredIndex, DeferredState, NotedRow, Store, StreamStatus, TableCopy,
};
use crossfade_model::{Direction, TableName};
use serde::Serialize;

use super::messages::table_name;
use super::rounds;
use super::{new_table, open_known_store, print_json, print_table};
use crate::args::{BackfillRestartArgs, BackfillStartArgs, BackfillStatusArgs};
use crate::failure::{Failure, Kind};
use crate::output::{one_line, out};
use crate::pair::Pair;
use crate::sync::runner;

/// Rows of a table that are listed for a person to look at.
const LISTED_ROWS: u32 = 20;

/// Cells of a bar.
const BAR: u64 = 20;

/// How far the copying is.
#[derive(Serialize)]
struct Progress {
    /// `run`, `pause`, or nothing before anybody has started it.
    wish: Option<&'static str>,
    /// Whether a process runs that copies.
    is_served: bool,
    /// Why the copying waits, where it does.
    waits_for: Option<String>,
    rows: u64,
    total_rows: u64,
    percent: f64,
    /// In the second half of the time so far, with what stops and crashes have cost.
    rows_per_second: f64,
    /// Changes that are captured and not applied yet; chunks wait for them.
    changes_to_apply: u64,
    /// Until all is copied and applied. Unknown where nothing is known of the rate, or nothing is copied at the moment.
    seconds_left: Option<u64>,
    tables: Vec<TableLine>,
}

#[derive(Serialize)]
struct TableLine {
    table: String,
    state: &'static str,
    reason: Option<String>,
    rows: u64,
    total_rows: Option<u64>,
    percent: f64,
    rows_per_second: f64,
    seconds_left: Option<u64>,
    filled: u64,
    replaced: u64,
    same: u64,
    kept: u64,
    changed: u64,
    refused: u64,
    /// Rows that the last comparison of all rows found on the new side alone, and those that were missing there or
    /// differed; unknown before there was one since the table was copied.
    only_on_new: Option<u64>,
    differ: Option<u64>,
    /// Of the indexes that were deferred, those that are not built yet, and those that are.
    indexes_to_build: u64,
    indexes_built: u64,
    /// Why indexes were not dropped, or cannot be built.
    index_reasons: Vec<IndexReason>,
    chunks: u64,
    started_at: Option<String>,
    copied_at: Option<String>,
    refused_rows: Vec<RowLine>,
    kept_rows: Vec<RowLine>,
}

#[derive(Serialize)]
struct IndexReason {
    index: String,
    /// `left` where it was not dropped, `failed` where it cannot be built.
    state: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct RowLine {
    key: Box<serde_json::value::RawValue>,
    error: Option<String>,
    attempts: u32,
}

pub async fn start(settings: Arc<Settings>, args: &BackfillStartArgs) -> anyhow::Result<()> {
    let store = open_known_store(&settings).await?;
    let pair = Pair::read(settings).await?;
    let mut tables: Vec<TableName> = Vec::new();
    for name in &args.tables {
        tables.push(table_of(&pair, name)?);
    }
    if tables.is_empty() {
        tables = pair.mappings(Direction::Forward).iter().map(|mapping| mapping.source.clone()).collect();
    }
    for mapping in pair.mappings(Direction::Forward).iter().filter(|mapping| mapping.keyless) {
        if tables.contains(&mapping.source) {
            eprintln!("{}: has no key, so it cannot be copied in chunks; load it before `init`", mapping.source);
        }
        tables.retain(|table| *table != mapping.source);
    }
    let deferred =
        if args.defer_secondary_indexes { super::deferral::indexes(&pair, &store, &tables).await? } else { Vec::new() };
    let old = Servers::new(pair.settings.old.urls());
    let expected = crossfade_backfill::expected_rows(&old, &tables).await?;
    let tables: Vec<(TableName, Option<u64>)> = tables.into_iter().zip(expected).collect();
    let added = store.add_copies(&tables, &deferred).await?;
    store.resume_copies().await?;
    store.set_backfill_wish(BackfillWish::Run).await?;
    store.journal("backfill", &format!("started, {added} tables more are to be copied")).await?;
    eprintln!("{added} of {} tables are new and will be copied", tables.len());
    if !deferred.is_empty() {
        let count = deferred.len();
        store
            .journal("backfill", &format!("{count} secondary indexes are dropped, and built when rows are copied"))
            .await?;
        eprintln!("{count} secondary indexes are dropped first, and built when the rows are copied");
    }
    tell_who_does_it(&store).await
}

pub async fn pause(settings: &Settings) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    store.set_backfill_wish(BackfillWish::Pause).await?;
    store.journal("backfill", "paused").await?;
    eprintln!("the copying rests until `crossfade backfill resume`; changes are carried all the same");
    Ok(())
}

pub async fn resume(settings: &Settings) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    store.resume_copies().await?;
    store.set_backfill_wish(BackfillWish::Run).await?;
    store.journal("backfill", "resumed").await?;
    tell_who_does_it(&store).await
}

pub async fn restart(settings: Arc<Settings>, args: &BackfillRestartArgs) -> anyhow::Result<()> {
    let store = open_known_store(&settings).await?;
    let pair = Pair::read(settings).await?;
    // What users have written on the new side and the old side has not got yet would be deleted with the rest.
    if store.wish(Direction::Reverse).await?.is_some_and(|wish| wish.declared) {
        let message = "a table is cleared before it is copied again, and users may write on the new side";
        let hint =
            "once nobody writes there and reverse has caught up, declare it off: `crossfade stop reverse --capture`";
        return Err(Failure::new(Kind::Finding, message, hint).into());
    }
    for name in &args.tables {
        let table = &table_of(&pair, name)?;
        if !store.restart_copy(table).await? {
            let message = format!("{table} has never been copied");
            return Err(Failure::new(Kind::Finding, message, "run `crossfade backfill start --table`").into());
        }
        store.journal("backfill", &format!("{table} is cleared and copied again")).await?;
        eprintln!("{table}: is cleared on the new side and copied again; the others stay");
    }
    store.set_backfill_wish(BackfillWish::Run).await?;
    tell_who_does_it(&store).await
}

/// Exit code 1 where something needs a person: a table is stopped, or rows are refused or differ.
pub async fn status(settings: &Settings, args: &BackfillStatusArgs) -> anyhow::Result<ExitCode> {
    let store = open_known_store(settings).await?;
    loop {
        let progress = read(&store).await?;
        let is_over = progress.tables.iter().all(|line| line.state == "copied" || line.is_stuck());
        if args.json {
            print_json(&progress)?;
        } else {
            print(&progress, args.watch && std::io::stdout().is_terminal());
        }
        if !args.watch || is_over {
            let needs_a_person = progress.tables.iter().any(TableLine::needs_a_person);
            return Ok(ExitCode::from(u8::from(needs_a_person)));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The old side's name of a table that either side's name is given of.
fn table_of(pair: &Pair, name: &str) -> anyhow::Result<TableName> {
    let wanted = table_name(name)?;
    let found =
        pair.mappings(Direction::Forward).iter().find(|mapping| [&mapping.source, &mapping.target].contains(&&wanted));
    let unknown = || Failure::new(Kind::Usage, format!("{wanted} is not synced"), "name a table of the configuration");
    Ok(found.ok_or_else(unknown)?.source.clone())
}

async fn tell_who_does_it(store: &Store) -> anyhow::Result<()> {
    if store.wish(Direction::Forward).await?.is_some_and(|wish| wish.declared && !wish.apply) {
        eprintln!("forward rests, and nothing is copied until `crossfade start forward`");
    } else if is_served(store).await? {
        eprintln!("the forward process copies; `crossfade backfill status --watch` shows how far it is");
    } else {
        eprintln!("nothing is copied before the forward process runs: `crossfade sync forward`");
    }
    Ok(())
}

async fn is_served(store: &Store) -> anyhow::Result<bool> {
    Ok(runner(store, Direction::Forward).await?.is_some())
}

async fn read(store: &Store) -> anyhow::Result<Progress> {
    let mut tables = Vec::new();
    let compared = rounds::last_whole(store).await?;
    let indexes = store.deferred_indexes().await?;
    for copy in store.copies().await? {
        let refused = match copy.refused {
            0 => Vec::new(),
            _ => store.refused_rows(&copy.table, LISTED_ROWS).await?,
        };
        let kept = match copy.counts.kept {
            0 => Vec::new(),
            _ => store.kept_rows(&copy.table, LISTED_ROWS).await?,
        };
        let found = compared.as_ref().filter(|one| copy.copied_at.is_some_and(|at| one.begun_at >= at));
        let found = found.and_then(|one| {
            let name = copy.table.to_string();
            rounds::reports(one).into_iter().find(|report| report.table == name && report.skipped.is_none())
        });
        let mine: Vec<&DeferredIndex> = indexes.iter().filter(|index| index.table == copy.table).collect();
        tables.push(TableLine {
            only_on_new: found.as_ref().map(|report| report.missing_on_old),
            differ: found.as_ref().map(|report| report.missing_on_new + report.different),
            ..line(copy, &refused, &kept, &mine)
        });
    }
    let wish = store.backfill_wish().await?.map(BackfillWish::as_str);
    let is_served = is_served(store).await?;
    let rows = tables.iter().map(|line| line.rows).sum();
    let total_rows = tables.iter().map(|line| line.total_rows.unwrap_or(0).max(line.rows)).sum();
    let is_open = tables.iter().any(|line| !["copied", "stopped"].contains(&line.state));
    let is_copying = is_open && wish == Some("run") && is_served;
    let history = History::parse(store.copy_history().await?.as_deref());
    let speed = history.speed(chrono::Utc::now().timestamp_micros()).filter(|_| is_copying);
    let rows_per_second = speed.map_or(0.0, |speed| speed.rows_per_second);
    let changes_to_apply = to_apply(&store.stream_statuses().await?);
    let seconds_left = match is_open {
        true => speed.and_then(|speed| {
            // Chunks wait for the changes before them, so both go on together.
            let copying = speed.seconds_left?.ceil() as u64;
            Some(copying.max(seconds(changes_to_apply, speed.applied_per_second).unwrap_or(0)))
        }),
        false => Some(0),
    };
    let throttled = store.throttled().await?;
    let waits = throttled.into_iter().find(|waits| waits.subject == Direction::Forward.as_str());
    Ok(Progress {
        wish,
        is_served,
        waits_for: waits.map(|waits| waits.reason).filter(|_| is_copying),
        rows,
        total_rows,
        percent: percent(rows, total_rows),
        rows_per_second,
        changes_to_apply,
        seconds_left,
        tables,
    })
}

/// What the forward direction has captured and not applied.
fn to_apply(streams: &[StreamStatus]) -> u64 {
    let forward = streams.iter().find(|stream| stream.stream.starts_with(Direction::Forward.as_str()));
    forward.map_or(0, |stream| stream.last_seq.saturating_sub(stream.settled_seq))
}

fn line(copy: TableCopy, refused: &[NotedRow], kept: &[NotedRow], indexes: &[&DeferredIndex]) -> TableLine {
    use DeferredState::{Built, Failed, ToBuild, ToDrop};
    let count = |states: &[DeferredState]| indexes.iter().filter(|index| states.contains(&index.state)).count() as u64;
    let indexes_to_build = count(&[ToDrop, ToBuild, Failed]);
    let reason = |index: &&DeferredIndex| {
        Some(IndexReason { index: index.name.clone(), state: index.state.as_str(), reason: index.reason.clone()? })
    };
    let CopyCounts { read, filled, replaced, same, kept: kept_count, changed } = copy.counts;
    let is_over = copy.state == CopyState::Copied;
    // Of a table that is copied all rows are, however many were there when it began.
    let total = if is_over { Some(read) } else { copy.total_rows.map(|total| total.max(read)) };
    let rows_per_second = if copy.state == CopyState::Copying { copy.rows_per_second } else { 0.0 };
    TableLine {
        table: copy.table.to_string(),
        state: if is_over && indexes_to_build > 0 { "indexing" } else { copy.state.as_str() },
        reason: copy.reason,
        rows: read,
        total_rows: total,
        percent: if is_over { 100.0 } else { percent(read, total.unwrap_or(0)) },
        rows_per_second,
        seconds_left: total.and_then(|total| seconds(total - read, rows_per_second)),
        filled,
        replaced,
        same,
        kept: kept_count,
        changed,
        refused: copy.refused,
        only_on_new: None,
        differ: None,
        indexes_to_build,
        indexes_built: count(&[Built]),
        index_reasons: indexes.iter().filter_map(reason).collect(),
        chunks: copy.chunks,
        started_at: copy.started_at.map(|at| at.to_rfc3339()),
        copied_at: copy.copied_at.map(|at| at.to_rfc3339()),
        refused_rows: refused.iter().filter_map(row_line).collect(),
        kept_rows: kept.iter().filter_map(row_line).collect(),
    }
}

fn row_line(row: &NotedRow) -> Option<RowLine> {
    let key = serde_json::value::RawValue::from_string(row.key.to_json()).ok()?;
    Some(RowLine { key, error: row.error.clone(), attempts: row.attempts })
}

impl TableLine {
    /// It does not go on by itself.
    fn is_stuck(&self) -> bool {
        let is_failed = |index: &IndexReason| index.state == DeferredState::Failed.as_str();
        self.state == "stopped" || self.index_reasons.iter().any(is_failed)
    }

    /// Kept rows do not, once a comparison has found that none differs any more.
    fn needs_a_person(&self) -> bool {
        let differs = self.differ.unwrap_or(self.kept) > 0 || self.only_on_new > Some(0);
        self.is_stuck() || self.refused > 0 || differs
    }
}

/// Of nothing, nothing is copied yet.
fn percent(rows: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { (rows as f64 * 1000.0 / total as f64).floor() / 10.0 }
}

fn seconds(rows: u64, per_second: f64) -> Option<u64> {
    (rows == 0 || per_second > 0.0).then(|| if rows == 0 { 0 } else { (rows as f64 / per_second).ceil() as u64 })
}

fn print(progress: &Progress, clear: bool) {
    if clear {
        // Home and clear to the end of the screen.
        crate::output::part("\x1b[H\x1b[J");
    }
    if progress.tables.is_empty() {
        out!("nothing is to be copied: run `crossfade backfill start`");
        return;
    }
    let mut table = new_table(&[
        "table", "state", "", "rows", "of", "%", "rows/s", "left", "replaced", "same", "kept", "changed", "refused",
        "only new", "differ",
    ]);
    let found = |rows: Option<u64>| rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string());
    for line in &progress.tables {
        table.add_row([
            line.table.clone(),
            line.state.to_owned(),
            bar(line.percent),
            line.rows.to_string(),
            line.total_rows.map_or_else(|| "-".to_owned(), |total| total.to_string()),
            format!("{:.1}", line.percent),
            format!("{:.0}", line.rows_per_second),
            left(line.seconds_left.filter(|_| line.state == "copying")),
            line.replaced.to_string(),
            line.same.to_string(),
            line.kept.to_string(),
            line.changed.to_string(),
            line.refused.to_string(),
            found(line.only_on_new),
            found(line.differ),
        ]);
    }
    print_table(&table);
    out!(
        "in all: {} {} of {} rows, {:.1} %, {:.0} rows/s, {} changes to apply, left {}",
        bar(progress.percent),
        progress.rows,
        progress.total_rows,
        progress.percent,
        progress.rows_per_second,
        progress.changes_to_apply,
        left(progress.seconds_left)
    );
    let states: BTreeSet<&str> = progress.tables.iter().map(|line| line.state).collect();
    let is_open = states.iter().any(|state| ["waiting", "clearing", "copying", "indexing"].contains(state));
    if is_open && progress.wish == Some("pause") {
        out!("paused: `crossfade backfill resume` lets it go on");
    } else if is_open && !progress.is_served {
        out!("no process copies: run `crossfade sync forward`");
    }
    if progress.tables.iter().any(|line| line.only_on_new > Some(0) || line.differ > Some(0)) {
        out!(
            "the new side has rows of its own, or differs: `crossfade verify show --continuous` shows them; with both directions \
             running, `crossfade verify --repair newest` copies back what is on new alone and takes the newer row of those that \
             differ (--dry-run first); `crossfade verify` then looks again"
        );
    }
    if let Some(reason) = progress.waits_for.as_ref().filter(|_| is_open) {
        out!("waits: {reason}; `crossfade throttle` shows and sets the limits");
    }
    for line in &progress.tables {
        if let Some(reason) = &line.reason {
            out!("{}: stopped: {reason}; mend it, then run `crossfade backfill resume`", line.table);
        }
        if line.indexes_to_build > 0 {
            let (left, built) = (line.indexes_to_build, line.indexes_built);
            out!("{}: {left} of {} secondary indexes are to be built", line.table, left + built);
        }
        for IndexReason { index, state, reason } in &line.index_reasons {
            match *state {
                "failed" => out!(
                    "{}: the index `{}` cannot be built: {reason}; mend it, then run `crossfade backfill resume`",
                    line.table,
                    one_line(index)
                ),
                _ => out!("{}: the index `{}` was not dropped: {reason}", line.table, one_line(index)),
            }
        }
        for row in &line.refused_rows {
            let error = row.error.as_deref().unwrap_or_default();
            out!("{}: {} is refused ({} attempts): {error}", line.table, row.key, row.attempts);
        }
        for row in &line.kept_rows {
            out!("{}: {} differs, and is kept as the new side has it", line.table, row.key);
        }
    }
}

fn bar(percent: f64) -> String {
    let full = ((percent / 100.0) * BAR as f64) as u64;
    let cells = |cell: &str, count: u64| cell.repeat(usize::try_from(count).unwrap_or(0));
    format!("{}{}", cells("#", full.min(BAR)), cells(".", BAR.saturating_sub(full)))
}

fn left(seconds: Option<u64>) -> String {
    seconds
        .map_or_else(|| "-".to_owned(), |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string())
}
