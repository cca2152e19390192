//! `crossfade verify`: compares both sides.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::Store;
use crossfade_model::{Direction, Side};
use crossfade_throttle::Throttle;
use crossfade_verify::{Filter, Options, Progress, RepairReport, Sides, TablePair, TableReport, share};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::messages::table_name;
use super::verify_repair::{self, Captured, Wanted};
use super::{add_row, new_table, open_known_store, print_json, print_table, refuse_ended, verify_show};
use crate::args::{Switch, VerifyArgs, VerifyCommand};
use crate::differences::InStore;
use crate::failure::{Failure, Kind};
use crate::pair::Pair;
use crate::sync::{runner, throttle};

/// Most bytes of a chunk, as the server estimates its rows.
pub const CHUNK_BYTES: u64 = 64 << 20;

/// Without a terminal, a line this often is enough.
const TELL_EVERY: Duration = Duration::from_secs(60);
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// Where nobody has said otherwise: how long both directions may take to pass a mark, and rows of a table that are kept.
const PATIENCE: Duration = Duration::from_secs(60);
const KEPT_PER_TABLE: u64 = 1_000;

/// So many rows of a table are mended at a time.
const REPAIRED_AT_A_TIME: u64 = 100_000;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Summary<'r> {
    verification: u64,
    rows_old: u64,
    rows_new: u64,
    mismatches: u64,
    unconfirmed: u64,
    percent: f64,
    /// No table has more rows that are missing or different than allowed, and none that could not be confirmed.
    passed: bool,
    tables: &'r [TableReport],
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<RepairReport>,
}

/// Gives the exit code.
pub async fn run(settings: Arc<Settings>, args: &VerifyArgs, stop: CancellationToken) -> anyhow::Result<u8> {
    if let Some(VerifyCommand::Show(args)) = &args.command {
        verify_show::run(&settings, args).await?;
        return Ok(0);
    }
    let store = open_known_store(&settings).await?;
    if let Some(wish) = args.continuous {
        continuous(&store, wish).await?;
        return Ok(0);
    }
    refuse_ended(&store).await?;
    let pair = Pair::read(settings.clone()).await?;
    let tables = tables(&pair, &args.tables)?;
    let (throttle, _following_limits) = throttle::watch(&settings, &store, &stop).await;
    let options = options(args, throttle.clone())?;
    let sides = sides(&settings, &store);
    let verification = store.begin_verification(&asked(args), None, None).await?;
    let captured = Captured::now(&store).await?;
    let keeper = Arc::new(InStore::new(&store, verification, args.repair.is_some()));
    let progress = Progress::default();
    let comparing = crossfade_verify::compare(&sides, &tables, &options, &progress, keeper.clone());
    let reports = tokio::select! {
        reports = comparing => reports?,
        () = show(&progress, &throttle) => Vec::new(),
        () = stop.cancelled() => {
            let hint = "run it again; `crossfade verify show` has what was found so far";
            return Err(Failure::new(Kind::Finding, "the comparison was broken off", hint).into());
        }
    };
    store.end_verification(verification, &serde_json::to_string(&reports)?).await?;
    let mut summary = summary(verification.id, &reports, args.max_mismatch.0);
    if let Some(winner) = args.repair {
        let wanted = Wanted { winner, dry_run: args.dry_run };
        let found = (keeper.to_repair(), captured);
        let repairing = verify_repair::run(&pair, &sides, &tables, &options, found, wanted);
        let report = tokio::select! {
            report = repairing => report?,
            () = stop.cancelled() => {
                let hint = "what was mended stays so; run it again for the rest";
                return Err(Failure::new(Kind::Finding, "the repair was broken off", hint).into());
            }
        };
        if !args.dry_run {
            summary.passed =
                summary.unconfirmed == 0 && report.still_different == 0 && report.written() == summary.mismatches;
        }
        summary.repair = Some(report);
    }
    if args.output.json {
        print_json(&summary)?;
    } else {
        print(&summary);
    }
    Ok(u8::from(!summary.passed))
}

/// Compares all rows of all tables, as `crossfade verify` does without options; gives the comparison's number, and what was found.
pub async fn compare_all(
    pair: &Pair,
    store: &Store,
    stop: &CancellationToken,
) -> anyhow::Result<(u64, Vec<TableReport>)> {
    let settings = &pair.settings;
    let (throttle, _following_limits) = throttle::watch(settings, store, stop).await;
    let options = Options {
        filter: Filter { condition: None, since: None },
        sample: None,
        chunk_time: settings.verify.chunk_time,
        chunk_bytes: CHUNK_BYTES,
        share: 1.0,
        parallel: 2,
        throttle: throttle.clone(),
        patience: PATIENCE,
        keep_per_table: KEPT_PER_TABLE,
    };
    let sides = sides(settings, store);
    let verification = store.begin_verification("", None, None).await?;
    let keeper = Arc::new(InStore::new(store, verification, false));
    let (tables, progress) = (tables(pair, &[])?, Progress::default());
    let comparing = crossfade_verify::compare(&sides, &tables, &options, &progress, keeper);
    let reports = tokio::select! {
        reports = comparing => reports?,
        () = show(&progress, &throttle) => Vec::new(),
        () = stop.cancelled() => anyhow::bail!("the comparison was broken off"),
    };
    store.end_verification(verification, &serde_json::to_string(&reports)?).await?;
    Ok((verification.id, reports))
}

fn sides(settings: &Settings, store: &Store) -> Sides {
    Sides {
        pair: settings.pair.clone(),
        old: Servers::new(settings.old.urls()),
        new: Servers::new(settings.new.urls()),
        store: store.clone(),
    }
}

/// What the forward process is wished to do; it obeys within a second.
async fn continuous(store: &Store, wish: Switch) -> anyhow::Result<()> {
    let on = wish == Switch::On;
    store.set_verify_wish(on).await?;
    store.journal("verify", if on { "comparing in the background was begun" } else { "… was ended" }).await?;
    let is_served = runner(store, Direction::Forward).await?.is_some();
    match (on, is_served) {
        (true, true) => eprintln!(
            "the forward process compares all tables again and again; `crossfade status` tells of the last round, \
             `crossfade verify show --continuous` shows its differences"
        ),
        (true, false) => eprintln!("nothing is compared before the forward process runs: `crossfade sync forward`"),
        (false, _) => eprintln!("nothing is compared in the background until `crossfade verify --continuous`"),
    }
    Ok(())
}

/// The tables that are asked for, or all.
pub fn tables(pair: &Pair, names: &[String]) -> anyhow::Result<Vec<TablePair>> {
    let mappings = pair.mappings(Direction::Forward);
    let mut wanted = Vec::new();
    for name in names {
        let name = table_name(name)?;
        let found = mappings.iter().find(|mapping| mapping.source == name || mapping.target == name);
        wanted.push(found.ok_or_else(|| {
            let known: Vec<String> = mappings.iter().map(|mapping| mapping.source.to_string()).collect();
            Failure::new(Kind::Usage, format!("{name} is not synced"), format!("synced tables: {}", known.join(", ")))
        })?);
    }
    if names.is_empty() {
        wanted.extend(mappings);
    }
    let pairs = wanted.into_iter().filter_map(|mapping| {
        let old = pair.side(Side::Old).shapes.get(&mapping.source)?.clone();
        let new = pair.side(Side::New).shapes.get(&mapping.target)?.clone();
        Some(TablePair { mapping: mapping.clone(), old, new })
    });
    Ok(pairs.collect())
}

fn options(args: &VerifyArgs, throttle: Throttle) -> anyhow::Result<Options> {
    if args.sample.is_some_and(|share| share.0 <= 0.0) {
        return Err(Failure::new(Kind::Usage, "a sample of 0% compares nothing", "ask for more than that").into());
    }
    let since = match args.since {
        None => None,
        Some(since) => {
            let too_long = || Failure::new(Kind::Usage, "`--since` is too long", "leave it out to compare all rows");
            let since = chrono::Duration::from_std(*since).ok().and_then(|since| Utc::now().checked_sub_signed(since));
            Some(since.ok_or_else(too_long)?.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
        }
    };
    Ok(Options {
        filter: Filter { condition: args.condition.clone(), since },
        sample: args.sample.map(|share| share.0 / 100.0),
        chunk_time: *args.chunk_time,
        chunk_bytes: CHUNK_BYTES,
        share: 1.0,
        parallel: args.parallel.into(),
        throttle,
        patience: *args.wait,
        keep_per_table: if args.repair.is_some() { REPAIRED_AT_A_TIME } else { args.keep.into() },
    })
}

/// The options that decide which rows are compared.
fn asked(args: &VerifyArgs) -> String {
    let mut words: Vec<String> = args.tables.iter().map(|table| format!("--table {table}")).collect();
    // The condition itself may hold values.
    words.extend(args.condition.is_some().then(|| "--where …".to_owned()));
    words.extend(args.sample.map(|share| format!("--sample {}%", share.0)));
    words.extend(args.since.map(|since| format!("--since {since}")));
    words.join(" ")
}

fn summary(verification: u64, reports: &[TableReport], most_percent: f64) -> Summary<'_> {
    let sum = |of: fn(&TableReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (mismatches, unconfirmed) = (sum(TableReport::mismatches), sum(|report| report.unconfirmed));
    Summary {
        verification,
        rows_old: sum(|report| report.rows_old),
        rows_new: sum(|report| report.rows_new),
        mismatches,
        unconfirmed,
        percent: share(mismatches, sum(TableReport::rows)),
        passed: unconfirmed == 0 && reports.iter().all(|report| report.percent <= most_percent),
        tables: reports,
        repair: None,
    }
}

fn print(summary: &Summary<'_>) {
    let header = [
        "table",
        "rows old",
        "rows new",
        "chunks",
        "missing on old",
        "missing on new",
        "different",
        "unconfirmed",
        "percent",
        "seconds",
    ];
    let mut table = new_table(&header);
    for report in summary.tables {
        add_row(
            &mut table,
            [
                report.table.clone(),
                report.rows_old.to_string(),
                report.rows_new.to_string(),
                report.chunks.to_string(),
                report.missing_on_old.to_string(),
                report.missing_on_new.to_string(),
                report.different.to_string(),
                report.unconfirmed.to_string(),
                format!("{:.4}", report.percent),
                format!("{:.1}", report.seconds),
            ],
        );
    }
    print_table(&table);
    for report in summary.tables {
        if let Some(why) = &report.skipped {
            eprintln!("{} was skipped: {why}", report.table);
        }
        if let Some(why) = &report.unconfirmed_reason {
            eprintln!("{}: {} rows differ and could not be confirmed: {why}", report.table, report.unconfirmed);
        }
    }
    if let Some(report) = &summary.repair {
        verify_repair::print(report);
    }
    match summary.mismatches {
        0 => eprintln!("no row is known to differ"),
        _ if summary.passed && summary.repair.is_some() => eprintln!("all rows that differed were mended"),
        1 => eprintln!("1 row differs; `crossfade verify show` shows it"),
        rows => eprintln!("{rows} rows differ; `crossfade verify show` shows them column by column"),
    }
}

/// Shows how far it is, and why it waits, for ever.
async fn show(progress: &Progress, throttle: &Throttle) {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = if is_terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{wide_bar:.cyan/blue} {percent} %  {msg}  {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut told = Instant::now();
    let mut waits_for: Option<String> = None;
    loop {
        let reason = throttle.reason().map(|reason| reason.to_string());
        if reason != waits_for {
            match &reason {
                Some(reason) => bar.suspend(|| tracing::info!(reason, "comparing waits for the databases")),
                None => bar.suspend(|| tracing::info!("comparing goes on")),
            }
            waits_for = reason;
        }
        tokio::time::sleep(DRAW_EVERY).await;
        let view = progress.view();
        bar.set_length(view.rows_expected.max(view.rows_done).max(1));
        bar.set_position(view.rows_done);
        let waits = waits_for.as_ref().map(|reason| format!("; waits: {reason}")).unwrap_or_default();
        let (done, tables, mismatches) = (view.tables_done, view.tables, view.mismatches);
        bar.set_message(format!("{done} of {tables} tables, {mismatches} rows differ{waits}"));
        if !is_terminal && told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tracing::info!(
                rows = view.rows_done,
                of_about = view.rows_expected,
                tables_done = view.tables_done,
                tables = view.tables,
                at_work = view.at_work.join(", "),
                mismatches = view.mismatches,
                "comparing"
            );
        }
    }
}
