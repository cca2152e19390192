//! From the source's binlog to the message table and the feed.
//!
//! Two tasks: one reads and decodes, one captures what has been read meanwhile as one batch. So batches grow by
//! themselves while the store is busy, and a single change at an idle time is captured at once. After a capture, changes alone
//! wait a little for more of them, so that many single ones cost fewer commits. What the other direction or a change of sides
//! waits for goes at once, with the changes before it, and so does a full batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossfade_applier::{Feed, canary_writer, opposite_stream};
use crossfade_backfill::Windows;
use crossfade_binlog::{BinlogError, BinlogReader, ReaderOptions, TransactionPart};
use crossfade_message::{
    BacklogBlock, CaptureError, CapturedAuthority, Passed, PassedHeartbeat, Store, StoreError, StreamState,
};
use crossfade_model::{Clock, Message, Origin, Position, ResumePoint, RowChange, Seen, TransactionHead};
use crossfade_rules::EffectiveClocks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::clocks::settled_through;
use super::failpoint::Probe;
use super::gate::Gate;
use super::memory::Shares;
use super::queue;
use crate::failure::{Failure, Kind, with_causes};

/// One capture's bound, beside that in bytes.
const BATCH_ROWS: usize = 2_000;

/// Changes alone wait after a capture for so many times as long as it took, …
const PAUSE_BY_CAPTURE: u32 = 2;

/// … and at most so long.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// A position that moves without messages is saved at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// So much later it is saved while users change sides: they are kept from writing until it is known how far all is read.
const SAVE_SOON: Duration = Duration::from_millis(20);

/// How often a silent reader is asked whether it is connected.
const TROUBLE_EVERY: Duration = Duration::from_millis(500);

/// The store is asked again so late, where it is away or does not say yet what is awaited.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// How long the process of the other direction has to put this stream back, when both are started after a fail-over.
const PUT_BACK_WITHIN: Duration = Duration::from_secs(10);

/// A reader that rests keeps its connection for so long, since often more is wanted of it soon.
const KEEP_CONNECTED: Duration = Duration::from_secs(5);
/// How often a reader that rests tells anew how soon the source may purge what is unread.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Transactions that touch only schema `crossfade` (the store may be on this server) are not worth saving a position
/// for, until so much binlog has passed that reading it again would take a while.
const CROSSFADE_BYTES_UNSAVED: u64 = 4 << 20;

/// What is known of the capture, for reports.
#[derive(Debug, Clone, Default)]
pub struct CaptureView {
    /// Everything before this has been read, and what it held is captured.
    pub position: Option<Position>,
    pub last_seq: u64,
    pub captured: u64,
    pub echoes: u64,
    /// Why the source is not connected at the moment, if it is not.
    pub trouble: Option<String>,
    /// Why the store takes nothing until a person has mended it, and what to do.
    pub store_trouble: Option<String>,
    /// Why reading rests, if it does, and how soon the source may purge what is unread.
    pub resting: Option<Resting>,
    /// Counter of the last canary that was read without its tag.
    pub untagged_canary: u64,
}

/// Reading rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resting {
    pub reason: String,
    pub purged_in: Option<Duration>,
}

pub struct Capture {
    pub store: Store,
    pub gate: Gate,
    pub state: StreamState,
    pub clocks: EffectiveClocks,
    pub feed: Arc<Feed>,
    /// Of chunks that are being copied.
    pub windows: Arc<Windows>,
    pub shares: Shares,
    /// A store that a person must mend is waited for; else it ends the run.
    pub waits: bool,
    pub view: watch::Sender<CaptureView>,
    /// The change of sides that is under way.
    pub switching: watch::Receiver<Option<u64>>,
    pub probe: Probe,
    pub stop: CancellationToken,
    /// No capture of changes alone begins before; set after each capture.
    pub changes_wait_until: Instant,
}

/// What was read and is not yet captured.
#[derive(Default)]
struct Pending {
    messages: Vec<Message>,
    key_hashes: Vec<[u64; 2]>,
    heartbeats: Vec<PassedHeartbeat>,
    authority: Vec<CapturedAuthority>,
    bytes: usize,
    end: Option<(ResumePoint, Seen)>,
    /// Since when the position has moved past something other than schema `crossfade` without being saved.
    unsaved_since: Option<Instant>,
    crossfade_bytes: u64,
    echoes: u64,
}

impl Capture {
    /// Reads and captures until stopped. Whoever else moves the stream makes it start over from what the store says.
    pub async fn run(&mut self, options: ReaderOptions) -> anyhow::Result<()> {
        loop {
            let options =
                ReaderOptions { start: self.state.position.clone(), seen: self.state.seen.clone(), ..options.clone() };
            let ended = match self.read_and_capture(options).await {
                Err(error) if is_ahead(&error) => self.until_put_back(error).await?,
                ended => ended?,
            };
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Closed if self.rest(None).await => {}
                Ended::Closed => return Ok(()),
                Ended::Superseded(reason) => {
                    self.windows.abandon();
                    let epoch = self.state.epoch;
                    let Some(state) = self.stored_state().await? else { return Ok(()) };
                    if state.last_seq < self.state.last_seq {
                        return Err(lost_by_store(&state, self.state.last_seq));
                    }
                    self.state = state;
                    self.store_takes_again();
                    // A count that is a little too low bounds a little less.
                    if let Err(error) = self.gate.moved(&self.state).await {
                        tracing::warn!(error = with_causes(&error.into()), "the backlog could not be measured anew");
                    }
                    if self.state.epoch != epoch {
                        let message = format!("another process has taken the stream over: {reason}");
                        let hint = "nothing to do: start this process again and it stands by";
                        return Err(Failure::new(Kind::Internal, message, hint).into());
                    }
                    tracing::warn!(reason, "the stream has moved on meanwhile; reading again from there");
                    self.tell_moved();
                }
            }
        }
    }

    /// A source that has lost transactions is told apart by the process of the other direction, which applies there and puts
    /// this stream back to what the source still has. Where nobody does so soon, `error` it is.
    async fn until_put_back(&self, error: anyhow::Error) -> anyhow::Result<Ended> {
        let end = Instant::now() + PUT_BACK_WITHIN;
        loop {
            let Some(state) = self.stored_state().await? else { return Ok(Ended::Stopped) };
            if state.position != self.state.position {
                return Ok(Ended::Superseded("it was put back to what the source has".to_owned()));
            }
            if Instant::now() >= end {
                return Err(error);
            }
            if !self.pause(STORE_PAUSE).await {
                return Ok(Ended::Stopped);
            }
        }
    }

    /// Waits until reading may go on; `false` when asked to stop, or when that takes longer than `limit`.
    async fn rest(&mut self, limit: Option<Duration>) -> bool {
        let end = limit.map(|limit| Instant::now() + limit);
        loop {
            let resting = Resting { reason: self.gate.reason(), purged_in: self.gate.purged_in().await };
            self.view.send_if_modified(|view| view.resting.replace(resting.clone()).as_ref() != Some(&resting));
            tokio::select! {
                () = self.stop.cancelled() => {
                    self.view.send_modify(|view| view.resting = None);
                    return false;
                }
                () = sleep_until(end) => return false,
                () = self.gate.opens() => return true,
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
        }
    }

    /// Reading up to what somebody waits for ends no rest.
    fn tell_reading(&mut self) {
        if self.gate.has_room() {
            self.view.send_if_modified(|view| view.resting.take().is_some());
        }
    }

    /// What the store says of the stream; waits for a store that is away. `None` when asked to stop meanwhile.
    async fn stored_state(&self) -> anyhow::Result<Option<StreamState>> {
        loop {
            match self.store.stream_state(&self.state.stream).await {
                Ok(state) => return Ok(Some(state)),
                Err(error) => {
                    if !self.wait_for_store(error, STORE_PAUSE).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Waits after an error of the store's that may be over later; `false` when asked to stop meanwhile. Any other error is
    /// given back.
    async fn wait_for_store(&self, error: StoreError, pause: Duration) -> anyhow::Result<bool> {
        if error.is_to_be_mended() && self.waits {
            self.store.begin_sessions_anew();
            let hint = error.hint().unwrap_or_default();
            let what = with_causes(&error.into());
            let trouble = Some(format!("{what}; {hint}; what waits is then captured by itself"));
            if self.view.send_if_modified(|view| std::mem::replace(&mut view.store_trouble, trouble.clone()) != trouble)
            {
                tracing::error!(hint, "{what}; nothing is captured meanwhile");
            }
        } else if error.is_transient() {
            tracing::warn!(error = with_causes(&error.into()), "the store is away; trying again");
        } else {
            return Err(error.into());
        }
        Ok(self.pause(pause).await)
    }

    fn store_takes_again(&self) {
        if self.view.send_if_modified(|view| view.store_trouble.take().is_some()) {
            tracing::info!(stream = %self.state.stream, "the store takes changes again");
        }
    }

    /// `false` when asked to stop meanwhile.
    async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// The stream's end is not where this process left it: a capture has happened whose answer was lost. Its messages are
    /// in the store alone, and nobody else tells the applier of them.
    fn tell_moved(&self) {
        self.feed.moved(self.state.last_seq);
        self.view.send_modify(|view| {
            view.captured += self.state.last_seq.saturating_sub(view.last_seq);
            view.last_seq = self.state.last_seq;
            view.position = Some(self.state.position.position.clone());
        });
    }

    async fn read_and_capture(&mut self, options: ReaderOptions) -> anyhow::Result<Ended> {
        let stop_reading = self.stop.child_token();
        let (parts, queue) = queue::bounded(self.shares.queue_bytes);
        let reading = read(options, parts, stop_reading.clone(), self.view.clone());
        let reading = AbortOnDropHandle::new(tokio::spawn(reading));
        let captured = self.capture_parts(queue).await;
        stop_reading.cancel();
        let read = reading.await.context("the reader's task ended")?;
        let ended = captured?;
        match read {
            Err(error) if matches!(ended, Ended::Stopped) && !self.stop.is_cancelled() => Err(error.into()),
            _ => Ok(ended),
        }
    }

    async fn capture_parts(&mut self, mut queue: queue::Receiver) -> anyhow::Result<Ended> {
        let mut pending = Pending::default();
        loop {
            // The source drops a connection that nobody reads from; it is made again when reading goes on.
            if !self.gate.is_open() && !self.rest(Some(KEEP_CONNECTED)).await {
                return Ok(if self.stop.is_cancelled() { Ended::Stopped } else { Ended::Closed });
            }
            self.tell_reading();
            let is_switching = self.switching.borrow_and_update().is_some();
            let capture_later = pending.due_at(self.changes_wait_until, is_switching);
            let part = tokio::select! {
                part = queue.recv() => part,
                () = changed(&mut self.switching) => continue,
                () = sleep_until(capture_later) => {
                    if let Some(ended) = self.capture(&mut pending).await? {
                        return Ok(ended);
                    }
                    continue;
                }
            };
            // The reader has ended, by request or by an error that its task returns. What it has read before is kept.
            let Some(part) = part else {
                let ended = if pending.may_wait() { self.capture(&mut pending).await? } else { None };
                return Ok(ended.unwrap_or(Ended::Stopped));
            };
            let mut next = Some(part);
            while let Some(mut part) = next {
                let Some(returned) = self.fetch_returned(&mut part).await? else { return Ok(Ended::Stopped) };
                self.take(&mut pending, part, returned);
                next = if self.has_room(&pending) { queue.try_recv() } else { None };
            }
            let waits = pending.may_wait() && self.has_room(&pending) && Instant::now() < self.changes_wait_until;
            if !waits
                && pending.is_worth_saving()
                && let Some(ended) = self.capture(&mut pending).await?
            {
                return Ok(ended);
            }
        }
    }

    fn has_room(&self, pending: &Pending) -> bool {
        pending.messages.len() < BATCH_ROWS && pending.bytes < self.shares.capture_bytes
    }

    /// What goes back to the other side becomes changes at the place of its mark. `None` when asked to stop meanwhile.
    async fn fetch_returned(&self, part: &mut TransactionPart) -> anyhow::Result<Option<Vec<Message>>> {
        let mut returned = Vec::new();
        for token in std::mem::take(&mut part.returned) {
            loop {
                match self.store.returned(&self.state.stream, token).await {
                    Ok(changes) => {
                        self.store_takes_again();
                        returned.extend(changes);
                        break;
                    }
                    Err(error) => {
                        if !self.wait_for_store(error, STORE_PAUSE).await? {
                            return Ok(None);
                        }
                    }
                }
            }
        }
        Ok(Some(returned))
    }

    fn take(&mut self, pending: &mut Pending, part: TransactionPart, returned: Vec<Message>) {
        let TransactionPart {
            head,
            changes,
            echoes,
            echo_keys,
            heartbeats,
            authority,
            only_crossfade,
            bytes,
            resume,
            ..
        } = part;
        if self.windows.are_open() {
            let mut touched = echo_keys;
            let captured = changes.iter().chain(returned.iter().map(|message| &message.change));
            captured.for_each(|change| self.windows.keys_of(change, &mut touched));
            self.windows.note(&touched);
        }
        let captured = changes.into_iter().map(|change| (change, Origin::User, None));
        let returned =
            returned.into_iter().map(|Message { change, origin, effective, .. }| (change, origin, effective));
        for (change, origin, at_least) in captured.chain(returned) {
            self.add(pending, &head, (change, origin), at_least);
        }
        let canary = (head.origin == Origin::User && !heartbeats.is_empty())
            .then(|| canary_writer(&opposite_stream(&self.state.stream)));
        let captured = self.state.next_seq() + pending.messages.len() as u64 - 1;
        for beat in heartbeats {
            if self.windows.pass(&beat.writer, beat.counter, captured, &head.seen, &self.feed) {
                continue;
            }
            // A canary that has lost its tag proves nothing.
            if canary.as_ref().is_some_and(|canary| *canary == beat.writer) {
                self.view.send_modify(|view| view.untagged_canary = view.untagged_canary.max(beat.counter));
            } else {
                pending.heartbeats.push(PassedHeartbeat { writer: beat.writer, counter: beat.counter });
            }
        }
        // It holds for what comes after this place, so whoever reads this again says the same.
        let from_seq = self.state.next_seq() + pending.messages.len() as u64;
        pending.authority.extend(authority.into_iter().map(|given| CapturedAuthority { given, from_seq }));
        pending.echoes += echoes;
        if only_crossfade && head.origin == Origin::User {
            pending.crossfade_bytes += bytes;
        } else if pending.unsaved_since.is_none() {
            pending.unsaved_since = Some(Instant::now());
        }
        pending.end = Some((resume, (*head.seen).clone()));
        if !pending.is_worth_saving() {
            self.publish(pending);
        }
    }

    /// A change becomes a message of the batch.
    fn add(
        &mut self,
        pending: &mut Pending,
        head: &TransactionHead,
        (change, origin): (RowChange, Origin),
        at_least: Option<Clock>,
    ) {
        let seq = self.state.next_seq() + pending.messages.len() as u64;
        let judged = self.clocks.judge_at_least(&change, seq, head.committed_at_micros, at_least);
        pending.bytes += change.memory_bytes();
        pending.key_hashes.push(judged.key_hashes);
        pending.messages.push(Message {
            seq,
            change,
            origin,
            seen: head.seen.clone(),
            committed_at_micros: head.committed_at_micros,
            source_position: head.source_position.clone(),
            effective: judged.effective,
        });
    }

    /// Captures changes that should have been captured long ago. Where the stream is read on does not change.
    pub(super) async fn capture_late(&mut self, parts: Vec<TransactionPart>) -> anyhow::Result<()> {
        let mut pending = Pending::default();
        for part in parts {
            for change in part.changes {
                self.add(&mut pending, &part.head, (change, Origin::User), None);
            }
        }
        if pending.messages.is_empty() {
            return Ok(());
        }
        pending.end = Some((self.state.position.clone(), self.state.seen.clone()));
        match self.capture(&mut pending).await? {
            None => Ok(()),
            Some(_) => anyhow::bail!("the stream was moved, or the process was asked to stop, before all was captured"),
        }
    }

    async fn capture(&mut self, pending: &mut Pending) -> anyhow::Result<Option<Ended>> {
        let batch = std::mem::take(pending);
        let Some((end, seen)) = &batch.end else { return Ok(None) };
        (self.probe)("after-read");
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        let stored_bytes = loop {
            let passed = Passed { heartbeats: &batch.heartbeats, authority: &batch.authority };
            let captured =
                self.store.capture_all(&self.state, &batch.messages, &batch.key_hashes, end, seen, passed).await;
            match captured {
                Ok(captured) => {
                    self.state = captured.state;
                    self.store_takes_again();
                    break captured.stored_bytes;
                }
                Err(CaptureError::Superseded { reason, .. }) => return Ok(Some(Ended::Superseded(reason))),
                Err(CaptureError::Store(error)) => {
                    if !self.wait_for_store(error, pause).await? {
                        return Ok(Some(Ended::Stopped));
                    }
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        };
        self.changes_wait_until = Instant::now() + (begun.elapsed() * PAUSE_BY_CAPTURE).min(LONGEST_PAUSE);
        let block = batch.messages.last().map(|last| BacklogBlock {
            last_seq: last.seq,
            bytes: stored_bytes,
            committed_to_micros: last.committed_at_micros,
        });
        self.gate.captured(block, &batch.heartbeats);
        let captured = batch.messages.len() as u64;
        self.view.send_modify(|view| {
            view.captured += captured;
            view.echoes += batch.echoes;
            view.last_seq = self.state.last_seq;
            view.position = Some(end.position.clone());
        });
        self.feed.push(batch.messages);
        if self.clocks.is_to_be_settled() {
            self.settle_clocks().await;
        }
        Ok(None)
    }

    /// Clocks that are not settled in time are not lost, but decide less exactly.
    async fn settle_clocks(&mut self) {
        let settled = settled_through(&self.store, &self.state).await.unwrap_or_else(|error| {
            tracing::warn!(error = with_causes(&error.into()), "the store could not say which clocks still matter");
            0
        });
        self.clocks.settle(settled);
    }

    /// What needs no save has nevertheless been read.
    fn publish(&self, pending: &Pending) {
        if let Some((end, _)) = &pending.end
            && pending.messages.is_empty()
        {
            self.view.send_modify(|view| view.position = Some(end.position.clone()));
        }
    }
}

impl Pending {
    /// When what is here is captured, if nothing more comes.
    fn due_at(&self, wait_until: Instant, is_switching: bool) -> Option<Instant> {
        if self.may_wait() { Some(wait_until) } else { self.save_at(is_switching) }
    }

    /// Changes alone: more of them may go into the same commit.
    fn may_wait(&self) -> bool {
        !self.messages.is_empty() && !self.is_awaited()
    }

    /// The other direction, or somebody who changes sides, waits until this is captured.
    fn is_awaited(&self) -> bool {
        !self.heartbeats.is_empty() || !self.authority.is_empty()
    }

    /// When what only moves the position is saved. While users change sides, that it moves past schema `crossfade` counts as well.
    fn save_at(&self, is_switching: bool) -> Option<Instant> {
        match (self.unsaved_since, is_switching) {
            (Some(since), true) => Some(since + SAVE_SOON),
            (None, true) => self.end.is_some().then(|| Instant::now() + SAVE_SOON),
            (since, false) => since.map(|since| since + SAVE_EVERY),
        }
    }

    fn is_worth_saving(&self) -> bool {
        !self.messages.is_empty()
            || self.is_awaited()
            || self.crossfade_bytes >= CROSSFADE_BYTES_UNSAVED
            || self.unsaved_since.is_some_and(|since| since.elapsed() >= SAVE_EVERY)
    }
}

enum Ended {
    Stopped,
    /// The backlog is full, and nobody waits for more.
    Closed,
    Superseded(String),
}

/// Reading again would give the changes their numbers again, but not the clocks that they were judged by.
fn lost_by_store(state: &StreamState, last_seq: u64) -> anyhow::Error {
    let StreamState { stream, last_seq: kept, .. } = state;
    Failure::new(
        Kind::Finding,
        format!(
            "the store has lost messages {} to {last_seq} of {stream} (a restore, or a crash without \
             `innodb_flush_log_at_trx_commit = 1`)",
            kept + 1
        ),
        "start the process again: it goes on where none of them was applied, and else says what to do",
    )
    .into()
}

fn is_ahead(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(BinlogError::PositionAhead { .. }))
}

/// Reading begins anew in the middle of a run as well, so a source that is away at that moment is waited for.
async fn open(options: ReaderOptions, view: &watch::Sender<CaptureView>) -> Result<BinlogReader, BinlogError> {
    loop {
        match BinlogReader::open(options.clone()).await {
            Err(error) if error.is_transient() => {
                let trouble = Some(with_causes(&error.into()));
                if view.send_if_modified(|view| std::mem::replace(&mut view.trouble, trouble.clone()) != trouble) {
                    tracing::warn!(error = trouble, "the source cannot be read; trying again");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            opened => return opened,
        }
    }
}

async fn read(
    options: ReaderOptions,
    parts: queue::Sender,
    stop: CancellationToken,
    view: watch::Sender<CaptureView>,
) -> Result<(), BinlogError> {
    let fail_over = options.fail_over.clone();
    let mut reader = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        reader = open(options, &view) => reader?,
    };
    loop {
        let part = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            part = reader.next_within(TROUBLE_EVERY) => part?,
        };
        // Each was logged when it was made.
        drop(reader.take_notices());
        if fail_over.as_ref().is_some_and(|servers| servers.is_stale(reader.server())) {
            reader.reconnect_elsewhere();
        }
        let trouble = reader.trouble();
        view.send_if_modified(|view| std::mem::replace(&mut view.trouble, trouble.clone()) != trouble);
        let Some(part) = part else { continue };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            sent = parts.send(part) => if !sent { return Ok(()) },
        }
    }
}

/// Whoever tells it has ended with the process.
async fn changed<T>(told: &mut watch::Receiver<T>) {
    if told.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use crossfade_model::{ColumnKind, RowOp, TableLayout, TableName, Value};

    use super::*;

    fn changes() -> Pending {
        let layout = TableLayout {
            name: TableName::new("shop", "orders"),
            columns: vec!["id".into()],
            kinds: vec![ColumnKind::Double],
            row_key: vec![0],
        };
        let change = RowChange {
            layout: Arc::new(layout),
            op: RowOp::Insert,
            before: None,
            after: Some(vec![Value::Null]),
            event_index: 0,
        };
        let message = Message {
            seq: 1,
            change,
            origin: Origin::User,
            seen: Arc::default(),
            committed_at_micros: 0,
            source_position: "1".into(),
            effective: None,
        };
        Pending { messages: vec![message], ..Pending::default() }
    }

    #[test]
    fn changes_alone_wait_for_more_of_them() {
        let wait_until = Instant::now() + LONGEST_PAUSE;
        assert!(changes().is_worth_saving() && changes().may_wait());
        assert_eq!(changes().due_at(wait_until, false), Some(wait_until));
        assert_eq!(Pending::default().due_at(wait_until, false), None, "nothing is there");
    }

    #[test]
    fn what_somebody_waits_for_is_captured_at_once_with_the_changes_before_it() {
        let beat = PassedHeartbeat { writer: "forward/old".to_owned(), counter: 1 };
        let awaited = Pending { heartbeats: vec![beat], ..changes() };
        assert!(awaited.is_worth_saving() && !awaited.may_wait());
    }

    #[test]
    fn a_position_that_moves_past_no_change_waits_for_no_changes() {
        let wait_until = Instant::now() + LONGEST_PAUSE;
        let since = Instant::now();
        let moved = Pending { unsaved_since: Some(since), ..Pending::default() };
        assert_eq!(moved.due_at(wait_until, false), Some(since + SAVE_EVERY));
        assert!(!moved.may_wait());
    }
}
