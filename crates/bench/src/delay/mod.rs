//! How long a change takes from its commit on the source until a reader of the target sees it.

mod trip;
mod watch;
mod write;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::args::Args;
use crate::contender::Contender;
use crate::figures::{DELAY_BOUNDS_MS, DelayRun, Delays, RoundTrip, Used, quantile};
use crate::recording::{Starts, binlog_end, init};
use crate::stage::{Durability, Side, Stage};
use write::{Committed, Kind};

/// Rows that updates go round, so that no row changes twice before its first change is seen. A multiple of any number of
/// [writers](write::writers).
const UPDATED_ROWS: u64 = 40_000;
/// Written before counting begins: connections open, caches fill.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the last changes may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(180);

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

/// Writes at a steady rate on fresh servers and watches the target. That it cannot be measured is a result too.
pub async fn measure(flavor: Flavor, contender: Contender, rate: u32, round: u32, args: &Args) -> Result<DelayRun> {
    let mut stage = Stage::set(flavor, Durability::Durable, &args.folder, None).await?;
    let measured = measure_on(&stage, contender, rate, args).await;
    let (delays, failure) = match measured {
        Ok((delays, failure)) => (Some(delays), failure),
        Err(error) => (None, Some(error)),
    };
    let failure = failure.map(|error| format!("{error:#}; logs are in {}", stage.keep_logs().display()));
    let (flavor, contender) = (flavor.to_string(), contender.to_string());
    Ok(DelayRun { flavor, contender, round, wanted_rate: rate, delays, failure })
}

fn summary(changes: &[Seen], rate: f64, round_trip: Option<RoundTrip>, used: Used) -> Result<Delays> {
    let delays = |kind: Option<Kind>| {
        let of_kind = changes.iter().filter(|change| kind.is_none_or(|kind| change.kind == kind));
        sorted(of_kind.map(|change| change.delay))
    };
    let all = delays(None);
    let commits = sorted(changes.iter().map(|change| change.commit));
    Ok(Delays {
        changes: changes.len(),
        rate,
        median_ms: at(&all, 0.5)?,
        percentile_99_ms: at(&all, 0.99)?,
        worst_ms: at(&all, 1.0)?,
        insert_median_ms: at(&delays(Some(Kind::Insert)), 0.5)?,
        update_median_ms: at(&delays(Some(Kind::Update)), 0.5)?,
        commit_median_ms: at(&commits, 0.5)?,
        histogram: histogram(&all),
        round_trip,
        used,
    })
}

fn at(sorted: &[f64], share: f64) -> Result<f64> {
    quantile(sorted, share).context("nothing was written")
}

/// How many are at most each bound and above the one before; then those above all.
fn histogram(sorted: &[f64]) -> Vec<u64> {
    let mut counts = Vec::with_capacity(DELAY_BOUNDS_MS.len() + 1);
    let mut below = 0;
    for bound in DELAY_BOUNDS_MS {
        let up_to = sorted.partition_point(|delay| *delay <= f64::from(bound));
        counts.push((up_to - below) as u64);
        below = up_to;
    }
    counts.push((sorted.len() - below) as u64);
    counts
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

/// The delays, and why there are no round trips where there should be.
async fn measure_on(
    stage: &Stage,
    contender: Contender,
    rate: u32,
    args: &Args,
) -> Result<(Delays, Option<anyhow::Error>)> {
    for side in Side::BOTH {
        create(&mut stage.server(side)?.connect().await?).await?;
    }
    if contender.is_crossfade() {
        init(&args.crossfade()?, &stage.write_config(&args.settings)?).await?;
    }
    let source = stage.source()?;
    let starts = Starts { source: binlog_end(source, &mut source.connect().await?).await?, target: None };
    let mut ready = contender.prepare(stage, args, &starts).await?;
    ready.begin().await?;

    // The watcher asks from here on; what is written to warm up is not counted.
    let before = stage.usage()?;
    let watcher = watch::Watcher::start(stage.target()?.connect().await?);
    let lasts = WARM_UP + Duration::from_secs(args.delay_seconds.into());
    let began = Instant::now();
    let committed = write::steadily(source, rate, lasts).await?;
    ready.must_run().await?;
    let seen = watcher.until_seen(committed.len() as u64, DRAIN_LIMIT).await?;
    let used = Used::between(before, stage.usage()?, ready.usage()?);
    let (round_trip, failure) = match contender {
        Contender::CrossfadePair => match trip::measure(stage, committed.len() as u64).await {
            Ok(round_trip) => (Some(round_trip), None),
            Err(error) => (None, Some(error.context("there and back"))),
        },
        _ => (None, None),
    };
    ready.end().await?;

    let counted: Vec<&Committed> = committed.iter().filter(|change| change.committed_at >= began + WARM_UP).collect();
    let last = counted.iter().map(|change| change.committed_at).max().context("nothing was written")?;
    let written = counted.len() as f64 / (last - (began + WARM_UP)).as_secs_f64();
    ensure!(
        written >= f64::from(rate) * 0.8,
        "the source took only {written:.0} of {rate} changes a second: this machine is too slow for the rate"
    );
    let changes: Vec<Seen> = counted.iter().filter_map(|change| matched(change, &seen)).collect();
    Ok((summary(&changes, written, round_trip, used)?, failure))
}

fn matched(change: &Committed, seen: &[Instant]) -> Option<Seen> {
    let seen = seen.get(usize::try_from(change.number).ok()?)?;
    Some(Seen { kind: change.kind, commit: change.took, delay: seen.saturating_duration_since(change.committed_at) })
}

/// The table with the rows that are updated, and row 0 for [round trips](trip), without a trace in the binlog.
async fn create(conn: &mut Conn) -> Result<()> {
    for statement in ["SET sql_log_bin = 0", "CREATE DATABASE bench", TABLE] {
        conn.query_drop(statement).await?;
    }
    let ids: Vec<u64> = (0..=UPDATED_ROWS).collect();
    for some in ids.chunks(1_000) {
        let rows: Vec<String> = some.iter().map(|id| write::row(*id, 0)).collect();
        conn.query_drop(format!("{} {}", write::INSERT, rows.join(","))).await?;
    }
    Ok(())
}

/// In milliseconds.
fn sorted(durations: impl Iterator<Item = Duration>) -> Vec<f64> {
    let mut milliseconds: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1_000.0).collect();
    milliseconds.sort_by(f64::total_cmp);
    milliseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delay_is_counted_once_and_bounds_belong_to_what_is_below() {
        let counts = histogram(&[0.5, 2.0, 2.1, 250.0, 256.0, 9_000.0]);
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 2, 1]);
        assert_eq!(counts.len(), DELAY_BOUNDS_MS.len() + 1);
    }
}
