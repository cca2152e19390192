//! Captured messages on their way from the reader to the applier of the same process.
//!
//! The message table is the truth; this is a bounded window on its end, so that what was just captured need not be read
//! back. Where the applier is behind the window, it reads from the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossfade_message::{Store, StoreError};
use crossfade_model::{Message, StreamId};
use tokio::sync::Notify;

/// Bounds of one batch. A source transaction or block that does not fit is split.
#[derive(Debug, Clone, Copy)]
pub struct BatchBounds {
    pub rows: usize,
    pub bytes: usize,
}

pub struct Feed {
    window: Mutex<Window>,
    arrived: Notify,
    bytes_bound: usize,
}

#[derive(Default)]
struct Window {
    /// Contiguous messages, oldest first, ending with `last_seq`; empty when the window was overrun.
    messages: VecDeque<Message>,
    bytes: usize,
    last_seq: u64,
    /// What was read from the store and did not fit into one batch.
    read_ahead: VecDeque<Message>,
    /// Messages that none after is handed out, and how many want that.
    stops: BTreeMap<u64, usize>,
}

/// While it lives, the feed hands out no message after its place.
#[must_use = "the feed goes on when the stop is dropped"]
pub struct Stop {
    feed: Arc<Feed>,
    after: u64,
}

impl Stop {
    /// The last message that is handed out.
    pub fn after(&self) -> u64 {
        self.after
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        let mut window = self.feed.window();
        if let Some(wanted) = window.stops.get_mut(&self.after) {
            *wanted -= 1;
            if *wanted == 0 {
                window.stops.remove(&self.after);
            }
        }
        drop(window);
        self.feed.arrived.notify_waiters();
    }
}

impl Feed {
    /// `last_seq` is the stream's last captured message; at most `bytes_bound` of messages are kept in memory.
    pub fn new(last_seq: u64, bytes_bound: usize) -> Feed {
        Feed { window: Mutex::new(Window { last_seq, ..Window::default() }), arrived: Notify::new(), bytes_bound }
    }

    /// Hands over what was just captured. Never waits: what does not fit is read from the store later.
    pub fn push(&self, messages: Vec<Message>) {
        let mut window = self.window();
        let Some(last) = messages.last() else { return };
        let added = memory_bytes(&messages);
        let follows = messages.first().is_some_and(|first| first.seq == window.last_seq + 1);
        window.last_seq = last.seq;
        if !follows || window.bytes + added > self.bytes_bound {
            window.messages.clear();
            window.bytes = 0;
        }
        if added <= self.bytes_bound {
            window.bytes += added;
            window.messages.extend(messages);
        }
        drop(window);
        self.arrived.notify_waiters();
    }

    /// The stream goes up to `last_seq`, by messages that are to be read from the store.
    pub fn moved(&self, last_seq: u64) {
        let mut window = self.window();
        if last_seq > window.last_seq {
            (window.last_seq, window.bytes) = (last_seq, 0);
            window.messages.clear();
        }
        drop(window);
        self.arrived.notify_waiters();
    }

    /// Has the applier come to rest after message `after` for as long as the [`Stop`] lives: what is to be written at that place
    /// of the stream is written then. It must not yet be captured what comes after.
    pub fn stop_after(self: &Arc<Self>, after: u64) -> Stop {
        *self.window().stops.entry(after).or_default() += 1;
        Stop { feed: self.clone(), after }
    }

    /// The stream's last message as far as this process knows.
    pub fn last_seq(&self) -> u64 {
        self.window().last_seq
    }

    /// Returns when message `seq` has been captured.
    pub async fn reaches(&self, seq: u64) {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if self.last_seq() >= seq {
                return;
            }
            arrived.await;
        }
    }

    /// The batch that starts with `from_seq`; waits until there is one.
    pub async fn next(
        &self,
        store: &Store,
        stream: &StreamId,
        from_seq: u64,
        bounds: BatchBounds,
    ) -> Result<Vec<Message>, StoreError> {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            match self.take(from_seq, bounds) {
                Taken::Batch(batch) => return Ok(batch),
                Taken::InStore => {
                    let read = store.read_messages(stream, from_seq, bounds.rows, bounds.bytes).await?;
                    self.window().read_ahead = read.into();
                }
                Taken::Nothing => arrived.await,
            }
        }
    }

    fn take(&self, from_seq: u64, bounds: BatchBounds) -> Taken {
        let mut window = self.window();
        window.forget_before(from_seq);
        // The applier has come to the first stop that is not behind it.
        let stop = window.stops.range(from_seq.saturating_sub(1)..).next().map_or(u64::MAX, |(after, _)| *after);
        if stop < from_seq {
            return Taken::Nothing;
        }
        let rows = usize::try_from(stop - from_seq).unwrap_or(usize::MAX).saturating_add(1);
        let bounds = BatchBounds { rows: bounds.rows.min(rows), ..bounds };
        let starts_at = |messages: &VecDeque<Message>| messages.front().is_some_and(|first| first.seq == from_seq);
        if starts_at(&window.read_ahead) {
            return Taken::Batch(take(&mut window.read_ahead, bounds));
        }
        if starts_at(&window.messages) {
            let batch = take(&mut window.messages, bounds);
            window.bytes = window.bytes.saturating_sub(memory_bytes(&batch));
            return Taken::Batch(batch);
        }
        if window.last_seq >= from_seq { Taken::InStore } else { Taken::Nothing }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // Every change of the window leaves it whole, so a panic elsewhere does not spoil it.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Taken {
    Batch(Vec<Message>),
    InStore,
    Nothing,
}

impl Window {
    fn forget_before(&mut self, seq: u64) {
        while self.read_ahead.front().is_some_and(|message| message.seq < seq) {
            self.read_ahead.pop_front();
        }
        while self.messages.front().is_some_and(|message| message.seq < seq) {
            if let Some(message) = self.messages.pop_front() {
                self.bytes = self.bytes.saturating_sub(message.change.memory_bytes());
            }
        }
    }
}

fn take(messages: &mut VecDeque<Message>, bounds: BatchBounds) -> Vec<Message> {
    let mut bytes = 0;
    let fitting = messages
        .iter()
        .take(bounds.rows)
        .take_while(|message| {
            let fits = bytes < bounds.bytes;
            bytes += message.change.memory_bytes();
            fits
        })
        .count();
    messages.drain(..fitting.max(1).min(messages.len())).collect()
}

fn memory_bytes(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.change.memory_bytes()).sum()
}
