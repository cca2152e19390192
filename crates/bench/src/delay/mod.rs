//! How long a change takes from its commit on the source until a reader of the target sees it.

mod watch;
mod write;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::args::Args;
use crate::contender::Contender;
use crate::figures::{DelayRun, Used, quantile};
use crate::recording::{binlog_end, init};
use crate::stage::{Side, Stage};
use write::{Committed, Kind};

/// Rows that updates go round, so that no row changes twice before its first change is seen.
const UPDATED_ROWS: u64 = 1_000;
/// Written before counting begins: connections open, caches fill.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the last changes may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

const TABLE: &str = "CREATE TABLE bench.beat (
    id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    number BIGINT UNSIGNED NOT NULL,
    email VARCHAR(100) NOT NULL,
    profile JSON,
    note VARCHAR(200) NOT NULL,
    updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    UNIQUE KEY email (email),
    KEY number (number)
 ) ENGINE=InnoDB";

/// Writes at a steady rate on fresh servers and watches the target.
pub async fn measure(flavor: Flavor, contender: Contender, round: u32, args: &Args) -> Result<DelayRun> {
    let mut stage = Stage::set(flavor, &args.folder, None).await?;
    let measured = measure_on(&stage, contender, args).await;
    let kept = |error: anyhow::Error| error.context(format!("logs are in {}", stage.keep_logs().display()));
    let (changes, used) = measured.map_err(kept)?;
    let delays = |kind: Option<Kind>| {
        let of_kind = changes.iter().filter(|change| kind.is_none_or(|kind| change.kind == kind));
        sorted(of_kind.map(|change| change.delay))
    };
    let all = delays(None);
    let commits = sorted(changes.iter().map(|change| change.commit));
    let at = |sorted: &[f64], share| quantile(sorted, share).context("nothing was written");
    Ok(DelayRun {
        flavor: flavor.to_string(),
        contender: contender.to_string(),
        round,
        changes: changes.len(),
        rate: changes.len() as f64 / f64::from(args.delay_seconds),
        median_ms: at(&all, 0.5)?,
        percentile_99_ms: at(&all, 0.99)?,
        worst_ms: at(&all, 1.0)?,
        insert_median_ms: at(&delays(Some(Kind::Insert)), 0.5)?,
        update_median_ms: at(&delays(Some(Kind::Update)), 0.5)?,
        commit_median_ms: at(&commits, 0.5)?,
        used,
    })
}

/// One change that was seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    kind: Kind,
    /// How long the commit took its writer.
    commit: Duration,
    /// From there until a reader of the target saw the change.
    delay: Duration,
}

async fn measure_on(stage: &Stage, contender: Contender, args: &Args) -> Result<(Vec<Seen>, Used)> {
    for side in Side::BOTH {
        create(&mut stage.server(side)?.connect().await?).await?;
    }
    if contender.is_crossfade() {
        init(&args.crossfade()?, &stage.write_config(&args.settings)?).await?;
    }
    let source = stage.source()?;
    let (file, offset) = binlog_end(source, &mut source.connect().await?).await?;
    let mut ready = contender.prepare(stage, args, (&file, offset)).await?;
    ready.begin().await?;

    // The watcher asks from here on; what is written to warm up is not counted.
    let before = stage.usage()?;
    let watcher = watch::Watcher::start(stage.target()?.connect().await?);
    let lasts = WARM_UP + Duration::from_secs(args.delay_seconds.into());
    let began = Instant::now();
    let committed = write::steadily(source, args.rate, lasts).await?;
    ready.must_run().await?;
    let seen = watcher.until_seen(committed.len() as u64, DRAIN_LIMIT).await?;
    let after = stage.usage()?;
    let used = Used::between(before, after, ready.end().await?);

    let counted = committed.iter().filter(|change| change.committed_at >= began + WARM_UP);
    let changes: Vec<Seen> = counted.filter_map(|change| matched(change, &seen)).collect();
    let wanted = f64::from(args.rate) * f64::from(args.delay_seconds);
    ensure!(
        changes.len() as f64 >= wanted * 0.8,
        "the source took only {} of {wanted} changes in time: it is too slow for this rate",
        changes.len()
    );
    Ok((changes, used))
}

fn matched(change: &Committed, seen: &[Instant]) -> Option<Seen> {
    let seen = seen.get(usize::try_from(change.number).ok()?)?;
    Some(Seen { kind: change.kind, commit: change.took, delay: seen.saturating_duration_since(change.committed_at) })
}

/// The table with the rows that are updated, without a trace in the binlog.
async fn create(conn: &mut Conn) -> Result<()> {
    for statement in ["SET sql_log_bin = 0", "CREATE DATABASE bench", TABLE] {
        conn.query_drop(statement).await?;
    }
    let rows: Vec<String> = (1..=UPDATED_ROWS).map(|id| write::row(id, 0)).collect();
    conn.query_drop(format!("{} {}", write::INSERT, rows.join(","))).await?;
    Ok(())
}

/// In milliseconds.
fn sorted(durations: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut milliseconds: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1_000.0).collect();
    milliseconds.sort_by(f64::total_cmp);
    milliseconds
}
