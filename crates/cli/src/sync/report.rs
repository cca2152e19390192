//! What a process tells the store of its stream, for `status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade_applier::{Counters, ProgressView, Waiting};
use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::{ConflictCounts, Store, StoreError, StreamCounters, StreamReport, WaitCounts};
use crossfade_model::{Position, Side, StreamId};
use mysql_async::Conn;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::canary::Proof;
use super::capture::CaptureView;
use super::wishes::Watched;
use crate::failure::with_causes;
use crate::pair::{Pair, connect_side};

const REPORT_EVERY: Duration = Duration::from_millis(250);

/// How long a report waits for the reader to reach what the source had a moment ago.
const READ_WAIT: Duration = Duration::from_millis(300);

/// A source that does not tell its position for so long does not answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Behind for longer than this, a stream is catching up; below, it merely has changes under way.
const BEHIND: Duration = Duration::from_secs(5);

pub struct Reporter {
    settings: Arc<Settings>,
    store: Store,
    stream: StreamId,
    side: Side,
    counters: Arc<Counters>,
    captured: watch::Receiver<CaptureView>,
    applied: watch::Receiver<ProgressView>,
    wishes: Watched,
    proof: watch::Receiver<Proof>,
    /// What earlier processes had counted.
    before: StreamCounters,
    source: Option<Conn>,
    epoch: u64,
    /// The opposite process knows of this direction, so its users may write.
    opposite_knows: bool,
    /// Why crossfade itself has stopped the direction, if it has.
    stop_reason: Option<String>,
    behind_since: Option<Instant>,
    rate: Rate,
}

/// What a report is made of.
pub struct Observed {
    /// Of the direction's lease.
    pub epoch: u64,
    pub counters: Arc<Counters>,
    pub captured: watch::Receiver<CaptureView>,
    pub applied: watch::Receiver<ProgressView>,
    pub wishes: Watched,
    pub proof: watch::Receiver<Proof>,
}

/// Changes applied per second, over the last whole second.
struct Rate {
    since: Instant,
    applied: u64,
    per_second: u64,
}

impl Rate {
    fn new() -> Rate {
        Rate { since: Instant::now(), applied: 0, per_second: 0 }
    }

    fn note(&mut self, applied: u64) -> u64 {
        let elapsed = self.since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            self.per_second = (applied.saturating_sub(self.applied) as f64 / elapsed.as_secs_f64()).round() as u64;
            (self.since, self.applied) = (Instant::now(), applied);
        }
        self.per_second
    }
}

impl Reporter {
    pub async fn new(pair: &Pair, store: &Store, stream: &StreamId, observed: Observed) -> anyhow::Result<Reporter> {
        let Observed { epoch, counters, captured, applied, wishes, proof } = observed;
        let before = last_counters(store, stream).await?;
        Ok(Reporter {
            settings: pair.settings.clone(),
            store: store.clone(),
            stream: stream.clone(),
            side: stream.direction().source(),
            counters,
            captured,
            applied,
            wishes,
            proof,
            before,
            source: None,
            epoch,
            opposite_knows: false,
            stop_reason: None,
            behind_since: None,
            rate: Rate::new(),
        })
    }

    /// Reports four times a second, and once more at the end. An unchanged report writes nothing.
    pub async fn run(mut self, running: CancellationToken) -> anyhow::Result<()> {
        loop {
            let caught_up = self.is_caught_up().await;
            self.stop_reason = self.stop_reason().await;
            self.opposite_knows = self.opposite_knows || self.does_opposite_know().await.unwrap_or(false);
            self.report(caught_up, None).await;
            tokio::select! {
                () = running.cancelled() => break,
                () = tokio::time::sleep(REPORT_EVERY) => {}
            }
        }
        self.report(false, Some("stopped")).await;
        Ok(())
    }

    async fn report(&mut self, caught_up: bool, state: Option<&str>) {
        let report = self.compose(caught_up, state);
        if let Err(error) = self.store.report(&self.stream, &report).await {
            tracing::debug!(%error, "the report could not be kept");
        }
    }

    fn compose(&mut self, caught_up: bool, state: Option<&str>) -> StreamReport {
        let now = self.counters.counted();
        let captured = self.captured.borrow().clone();
        let waiting = self.applied.borrow().waiting.clone();
        if caught_up {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert_with(Instant::now);
        }
        let (state, reason) = match (state, &waiting) {
            (Some(state), _) => (state, None),
            (None, _) if !self.wishes.captures() => (
                "off",
                Some(format!(
                    "declared off by `stop --capture`; `crossfade start {}` ends that",
                    self.stream.direction()
                )),
            ),
            (None, _) if !self.wishes.applies() => (
                "paused",
                Some(self.stop_reason.clone().unwrap_or_else(|| {
                    let direction = self.stream.direction();
                    format!("applying rests since `crossfade stop`; `crossfade start {direction}` lets it go on")
                })),
            ),
            (None, _) if self.proof.borrow().was_lost => (
                "held",
                Some(format!(
                    "what it wrote was not recognised on the {} side; applying waits until a canary is",
                    self.stream.direction().target()
                )),
            ),
            (None, Some(Waiting::OppositeReader)) => (
                "held",
                Some(format!(
                    "waits until the {} process has read what users wrote to the {} side",
                    self.stream.direction().opposite(),
                    self.stream.direction().target()
                )),
            ),
            (None, None) if captured.trouble.is_some() => ("retrying", captured.trouble.clone()),
            (None, Some(Waiting::Retry(reason))) => ("retrying", Some(reason.clone())),
            (None, None) if !self.opposite_knows => (
                "starting",
                Some(format!(
                    "users of the {} side should wait: the {} process does not yet look for their changes",
                    self.side,
                    self.stream.direction().opposite()
                )),
            ),
            (None, None) if self.behind_since.is_some_and(|since| since.elapsed() > BEHIND) => ("catching-up", None),
            (None, None) => ("running", None),
        };
        let rows_per_second = self.rate.note(now.applied);
        let lag_ms = self.behind_since.map_or(0, |since| since.elapsed().as_millis() as u64);
        StreamReport {
            state: state.to_owned(),
            reason,
            counters: StreamCounters {
                captured: self.before.captured + captured.captured,
                applied: self.before.applied + now.applied,
                echoes: self.before.echoes + captured.echoes,
                conflicts_won: self.before.conflicts_won + now.conflicts_won,
                conflicts_lost: self.before.conflicts_lost + now.conflicts_lost,
                conflicts: self.conflicts(),
                judged_by_sight: self.before.judged_by_sight + now.by_sight,
                judged_by_look_up: self.before.judged_by_look_up + now.by_look_up,
                judged_by_waiting: self.before.judged_by_waiting + now.by_waiting,
                waits: self.waits(now.waits),
                slowest_ms: self.before.slowest_ms.max(now.slowest_micros / 1_000),
                lag_ms,
                caught_up,
                rows_per_second,
                looks_for_concurrent_epoch: if self.applied.borrow().looks_for_concurrent { self.epoch } else { 0 },
                tag: self.proof.borrow().shown.clone(),
            },
        }
    }

    async fn stop_reason(&self) -> Option<String> {
        if self.wishes.applies() {
            return None;
        }
        self.store.stop_reason(self.stream.direction()).await.unwrap_or_else(|_| self.stop_reason.clone())
    }

    fn waits(&self, now: WaitCounts) -> WaitCounts {
        let mut waits = self.before.waits;
        waits.add(now);
        waits
    }

    fn conflicts(&self) -> BTreeMap<String, ConflictCounts> {
        let mut conflicts = self.before.conflicts.clone();
        for (table, counts) in self.counters.conflicts() {
            conflicts.entry(table.to_string()).or_default().add(counts);
        }
        conflicts
    }

    /// Whether the opposite process looks for changes by users of this direction's source before it overwrites them.
    /// One that does not run will know when it starts.
    async fn does_opposite_know(&self) -> Result<bool, StoreError> {
        let opposite = crossfade_applier::opposite_stream(&self.stream);
        let leases = self.store.leases().await?;
        let lease = leases.iter().find(|lease| lease.live && lease.subject == opposite.direction().as_str());
        let Some(lease) = lease else { return Ok(true) };
        let counters = last_counters(&self.store, &opposite).await?;
        Ok(counters.looks_for_concurrent_epoch == lease.epoch.0)
    }

    /// What the source had a moment ago is captured, and what is captured is applied.
    async fn is_caught_up(&mut self) -> bool {
        let Some(now) = self.source_position().await else { return false };
        let is_read =
            |view: &CaptureView| view.position.as_ref().is_some_and(|read| crossfade_binlog::is_reached(read, &now));
        let read = async { self.captured.wait_for(is_read).await.ok().map(|view| view.last_seq) };
        let Ok(Some(last_seq)) = tokio::time::timeout(READ_WAIT, read).await else { return false };
        let applied = async { self.applied.wait_for(|view| view.applied_seq >= last_seq).await.is_ok() };
        tokio::time::timeout(READ_WAIT, applied).await.unwrap_or(false)
    }

    async fn source_position(&mut self) -> Option<Position> {
        if self.source.is_none() {
            self.source = connect_side(&self.settings, self.side, Purpose::Binlog).await.ok();
        }
        let conn = self.source.as_mut()?;
        let asked = crossfade_binlog::current_position(conn, self.side.as_str());
        let position = tokio::time::timeout(ANSWER_LIMIT, asked).await.ok().and_then(Result::ok);
        if position.is_none() {
            self.source = None;
        }
        position
    }
}

/// Keeps the reason for which a stream has stopped, so that `status` tells it when nobody runs any more.
pub async fn stopped(store: &Store, stream: &StreamId, error: &anyhow::Error) -> anyhow::Result<()> {
    let counters = last_counters(store, stream).await?;
    let reason = Some(with_causes(error));
    store.report(stream, &StreamReport { state: "stopped".to_owned(), reason, counters }).await?;
    Ok(())
}

/// What a stream's last report counted; zeros where there was none.
pub async fn last_counters(store: &Store, stream: &StreamId) -> Result<StreamCounters, StoreError> {
    let statuses = store.stream_statuses().await?;
    let report = statuses.into_iter().find(|status| status.stream == stream.as_str()).and_then(|status| status.report);
    Ok(report.map(|report| report.counters).unwrap_or_default())
}
