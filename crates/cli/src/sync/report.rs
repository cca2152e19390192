//! What a process tells the store of its stream, for `status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade_applier::{Counters, ProgressView};
use crossfade_binlog::Unread;
use crossfade_message::{ConflictCounts, Epoch, Health, Store, StoreError, StreamCounters, StreamReport, WaitCounts};
use crossfade_model::StreamId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::canary::Proof;
use super::capture::CaptureView;
use super::health::Signs;
use super::source_end::SourceEnd;
use super::wishes::Watched;
use crate::failure::with_causes;
use crate::meeting::Source;

const REPORT_EVERY: Duration = Duration::from_millis(250);

/// How long a report waits for the reader to reach what the source had a moment ago.
const READ_WAIT: Duration = Duration::from_millis(300);

/// Behind for longer than this, a stream is catching up; below, it merely has changes under way.
const BEHIND: Duration = Duration::from_secs(5);

pub struct Reporter {
    source: SourceEnd,
    store: Store,
    stream: StreamId,
    counters: Arc<Counters>,
    captured: watch::Receiver<CaptureView>,
    applied: watch::Receiver<ProgressView>,
    wishes: Watched,
    proof: watch::Receiver<Proof>,
    keeps: watch::Receiver<Option<Unread>>,
    /// What earlier processes had counted.
    before: StreamCounters,
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
    pub keeps: watch::Receiver<Option<Unread>>,
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
    pub async fn new(source: Source, store: &Store, stream: &StreamId, observed: Observed) -> anyhow::Result<Reporter> {
        let Observed { epoch, counters, captured, applied, wishes, proof, keeps } = observed;
        let before = last_counters(store, stream).await?;
        Ok(Reporter {
            source: SourceEnd::new(source),
            store: store.clone(),
            stream: stream.clone(),
            counters,
            captured,
            applied,
            wishes,
            proof,
            keeps,
            before,
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
        self.report(false, Some(Health::Stopped { reason: None })).await;
        Ok(())
    }

    async fn report(&mut self, caught_up: bool, health: Option<Health>) {
        let report = self.compose(caught_up, health);
        if let Err(error) = self.store.report(&self.stream, Epoch(self.epoch), &report).await {
            tracing::debug!(%error, "the report could not be kept");
        }
    }

    fn compose(&mut self, caught_up: bool, health: Option<Health>) -> StreamReport {
        let now = self.counters.counted();
        let captured = self.captured.borrow().clone();
        let caught_up = caught_up && self.applied.borrow().held == 0;
        if caught_up {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert_with(Instant::now);
        }
        let health = health.unwrap_or_else(|| self.signs(&captured).health());
        let rows_per_second = self.rate.note(now.applied);
        let lag_ms = self.behind_since.map_or(0, |since| since.elapsed().as_millis() as u64);
        StreamReport {
            health,
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
                unread_kept_s: self.unread_kept(&captured).map(|left| left.as_secs()),
                looks_for_concurrent_epoch: if self.applied.borrow().looks_for_concurrent { self.epoch } else { 0 },
                tag: self.proof.borrow().shown.clone(),
            },
        }
    }

    /// By the files that are unread; where all is in the one that is written now, by how long reading has rested.
    fn unread_kept(&self, captured: &CaptureView) -> Option<Duration> {
        let by_files = self.keeps.borrow().as_ref().and_then(|unread| unread.left);
        by_files.or_else(|| captured.resting.as_ref()?.purged_in)
    }

    fn signs(&self, captured: &CaptureView) -> Signs {
        let applied = self.applied.borrow().clone();
        // Who is told that a direction rests may write at once: a batch that was under way is not told of.
        Signs {
            direction: self.stream.direction(),
            captures: self.wishes.captures() || !applied.rests,
            applies: self.wishes.applies() || !applied.rests,
            stop_reason: self.stop_reason.clone(),
            tag_was_lost: self.proof.borrow().was_lost,
            reader_trouble: captured.trouble.clone(),
            store_trouble: captured.store_trouble.clone(),
            waiting: applied.waiting,
            held: applied.held,
            opposite_knows: self.opposite_knows,
            is_behind: self.behind_since.is_some_and(|since| since.elapsed() > BEHIND),
            resting: captured.resting.as_ref().map(|resting| resting.reason.clone()),
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
        let Some(lease) = super::runner(&self.store, opposite.direction()).await? else { return Ok(true) };
        let counters = last_counters(&self.store, &opposite).await?;
        Ok(counters.looks_for_concurrent_epoch == lease.epoch.0)
    }

    /// What the source had a moment ago is captured, and what is captured is applied.
    async fn is_caught_up(&mut self) -> bool {
        let Some(now) = self.source.position().await else { return false };
        let is_read =
            |view: &CaptureView| view.position.as_ref().is_some_and(|read| crossfade_binlog::is_reached(read, &now));
        let read = async { self.captured.wait_for(is_read).await.ok().map(|view| view.last_seq) };
        let Ok(Some(last_seq)) = tokio::time::timeout(READ_WAIT, read).await else { return false };
        let applied = async { self.applied.wait_for(|view| view.applied_seq >= last_seq).await.is_ok() };
        tokio::time::timeout(READ_WAIT, applied).await.unwrap_or(false)
    }
}

/// Keeps the reason for which a stream has stopped, so that `status` tells it when nobody runs any more.
pub async fn failed(store: &Store, stream: &StreamId, epoch: Epoch, error: &anyhow::Error) {
    if let Err(error) = tell(store, stream, epoch, Health::Stopped { reason: Some(with_causes(error)) }).await {
        tracing::warn!(error = with_causes(&error), "the reason could not be kept in the store");
    }
}

/// Tells that a process has ended as it was asked to, before it ran.
pub async fn ended(store: &Store, stream: &StreamId, epoch: Epoch) {
    if let Err(error) = tell(store, stream, epoch, Health::Stopped { reason: None }).await {
        tracing::debug!(error = format!("{error:#}"), "the report could not be kept");
    }
}

/// Tells that a process is about to run the stream, whatever the last one said when it ended.
pub async fn starting(store: &Store, stream: &StreamId, epoch: Epoch) -> anyhow::Result<()> {
    let reason = "its process takes up where the last one ended".to_owned();
    tell(store, stream, epoch, Health::Starting { reason }).await
}

/// Tells that a process that starts waits for a server. A store that is away hears of it later.
pub async fn retrying(store: &Store, stream: &StreamId, epoch: Epoch, reason: String) {
    waiting(store, stream, epoch, Health::Retrying { reason }).await;
}

/// As [`retrying`], for what a person must mend.
pub async fn to_be_mended(store: &Store, stream: &StreamId, epoch: Epoch, reason: String) {
    waiting(store, stream, epoch, Health::Stopped { reason: Some(reason) }).await;
}

async fn waiting(store: &Store, stream: &StreamId, epoch: Epoch, health: Health) {
    if let Err(error) = tell(store, stream, epoch, health).await {
        tracing::debug!(error = format!("{error:#}"), "the report could not be kept");
    }
}

async fn tell(store: &Store, stream: &StreamId, epoch: Epoch, health: Health) -> anyhow::Result<()> {
    let counters = StreamCounters { caught_up: false, ..last_counters(store, stream).await? };
    store.report(stream, epoch, &StreamReport { health, counters }).await?;
    Ok(())
}

/// What a stream's last report counted; zeros where there was none.
pub async fn last_counters(store: &Store, stream: &StreamId) -> Result<StreamCounters, StoreError> {
    let statuses = store.stream_statuses().await?;
    let report = statuses.into_iter().find(|status| status.stream == stream.as_str()).and_then(|status| status.report);
    Ok(report.map(|report| report.counters).unwrap_or_default())
}
