//! There and back: a change of one side that is answered on the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::{at, sorted};
use crate::figures::RoundTrip;
use crate::stage::Stage;

const TRIPS: u32 = 200;
const TRIP_LIMIT: Duration = Duration::from_secs(10);
/// Between two trips, so that each meets an idle pair.
const PAUSE: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_micros(500);

/// One trip after the other by row 0; `written` changes were captured before. Numbers of trips are even there, odd back.
pub async fn measure(stage: &Stage, written: u64) -> Result<RoundTrip> {
    let (mut source, mut target) = (stage.source()?.connect().await?, stage.target()?.connect().await?);
    let mut took = Vec::new();
    for trip in 1..=u64::from(TRIPS) {
        tokio::time::sleep(PAUSE).await;
        set(&mut source, 2 * trip).await?;
        let began = Instant::now();
        until(&mut target, 2 * trip, began).await?;
        set(&mut target, 2 * trip + 1).await?;
        until(&mut source, 2 * trip + 1, began).await?;
        took.push(began.elapsed());
    }
    let captured: Option<u64> =
        target.query_first("SELECT CAST(SUM(last_seq) AS UNSIGNED) FROM crossfade.stream").await?;
    let (captured, made) = (captured.context("no stream is known")?, written + 2 * u64::from(TRIPS));
    let took = sorted(took.into_iter());
    Ok(RoundTrip {
        trips: TRIPS,
        median_ms: at(&took, 0.5)?,
        percentile_99_ms: at(&took, 0.99)?,
        worst_ms: at(&took, 1.0)?,
        echoes: captured.checked_sub(made).context("changes were not captured")?,
    })
}

async fn set(conn: &mut Conn, number: u64) -> Result<()> {
    Ok(conn.query_drop(format!("UPDATE bench.beat SET number = {number} WHERE id = 0")).await?)
}

async fn until(conn: &mut Conn, number: u64, began: Instant) -> Result<()> {
    while conn.query_first("SELECT number FROM bench.beat WHERE id = 0").await? != Some(number) {
        ensure!(began.elapsed() < TRIP_LIMIT, "change {number} of row 0 has not arrived within {TRIP_LIMIT:?}");
        // The runtime's own timer is too coarse: it counts whole milliseconds.
        tokio::task::block_in_place(|| std::thread::sleep(POLL));
    }
    Ok(())
}
