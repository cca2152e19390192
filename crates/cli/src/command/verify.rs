//! `crossfade verify`: compares both sides.

use std::io::IsTerminal;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::{NewDifference, Store, image_json};
use crossfade_model::{Direction, Row, Side, TableLayout};
use crossfade_throttle::Throttle;
use crossfade_verify::{
    Difference, Filter, Keeper, Options, Progress, RepairReport, Sides, TablePair, TableReport, VerifyError, share,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::messages::table_name;
use super::verify_repair::{self, Captured, Wanted};
use super::{add_row, new_table, open_known_store, print_json, print_table, verify_show};
use crate::args::{VerifyArgs, VerifyCommand};
use crate::failure::{Failure, Kind};
use crate::pair::Pair;
use crate::sync::throttle;

/// Most bytes of a chunk, as the server estimates its rows.
const CHUNK_BYTES: u64 = 64 << 20;

/// Without a terminal, a line this often is enough.
const TELL_EVERY: Duration = Duration::from_secs(60);
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// An image that is larger is not kept.
const LARGEST_IMAGE_BYTES: usize = 1 << 20;

/// So many rows of a table are mended at a time; so many differences are remembered with their values meanwhile.
const REPAIRED_AT_A_TIME: u64 = 100_000;
const REMEMBERED_WHOLE: usize = 1_000;

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
    let pair = Pair::read(settings.clone()).await?;
    let tables = tables(&pair, &args.tables)?;
    let (throttle, _following_limits) = throttle::watch(&settings, &store, &stop).await;
    let options = options(args, throttle)?;
    let sides = Sides {
        pair: settings.pair.clone(),
        old: Servers::new(settings.old.urls()),
        new: Servers::new(settings.new.urls()),
        store: store.clone(),
    };
    let verification = store.begin_verification(&asked(args)).await?;
    let captured = Captured::now(&store).await?;
    let repaired = args.repair.map(|_| Mutex::default());
    let keeper = Arc::new(InStore { store: store.clone(), verification, repaired });
    let progress = Progress::default();
    let comparing = crossfade_verify::compare(&sides, &tables, &options, &progress, keeper.clone());
    let reports = tokio::select! {
        reports = comparing => reports?,
        () = show(&progress) => Vec::new(),
        () = stop.cancelled() => {
            let hint = "run it again; `crossfade verify show` has what was found so far";
            return Err(Failure::new(Kind::Finding, "the comparison was broken off", hint).into());
        }
    };
    store.end_verification(verification, &serde_json::to_string(&reports)?).await?;
    let mut summary = summary(verification, &reports, args.max_mismatch.0);
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

/// The tables that are asked for, or all.
fn tables(pair: &Pair, names: &[String]) -> anyhow::Result<Vec<TablePair>> {
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

/// Shows how far it is, for ever.
async fn show(progress: &Progress) {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = if is_terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{wide_bar:.cyan/blue} {percent} %  {msg}  {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut told = Instant::now();
    loop {
        tokio::time::sleep(DRAW_EVERY).await;
        let view = progress.view();
        bar.set_length(view.rows_expected.max(view.rows_done).max(1));
        bar.set_position(view.rows_done);
        bar.set_message(format!("{} of {} tables, {} rows differ", view.tables_done, view.tables, view.mismatches));
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

/// Keeps differences in the store, and at hand where they are to be mended.
struct InStore {
    store: Store,
    verification: u64,
    repaired: Option<Mutex<Vec<Difference>>>,
}

impl InStore {
    fn to_repair(&self) -> Vec<Difference> {
        let taken =
            |kept: &Mutex<Vec<Difference>>| std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        self.repaired.as_ref().map(taken).unwrap_or_default()
    }

    fn remember(&self, difference: &Difference) {
        let Some(kept) = &self.repaired else { return };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut difference = difference.clone();
        if kept.len() >= REMEMBERED_WHOLE {
            // Their values are read again under locks.
            (difference.old, difference.new) = (None, None);
        }
        kept.push(difference);
    }
}

impl Keeper for InStore {
    fn keep(&self, difference: Difference) -> Pin<Box<dyn Future<Output = Result<(), VerifyError>> + Send + '_>> {
        Box::pin(async move {
            self.remember(&difference);
            let kept = kept(difference);
            Ok(self.store.keep_difference(self.verification, &kept).await?)
        })
    }
}

fn kept(difference: Difference) -> NewDifference {
    let key = difference.row_key();
    let image = |side: &Option<(TableLayout, Row)>| {
        side.as_ref().map(|(layout, row)| image_json(layout, row)).filter(|json| json.len() <= LARGEST_IMAGE_BYTES)
    };
    let columns: Vec<serde_json::Value> =
        difference.columns.iter().map(|names| serde_json::json!({ "old": names.old, "new": names.new })).collect();
    NewDifference {
        table: difference.table,
        kind: difference.kind.as_str(),
        row_key: key,
        columns: serde_json::Value::from(columns).to_string(),
        old_image: image(&difference.old),
        new_image: image(&difference.new),
    }
}
