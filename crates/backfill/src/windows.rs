//! The windows of chunks that are under way: what is changed between their marks, as the source's reader passes it by.
//!
//! Whoever reads a chunk opens a window first and then commits the low mark, so the reader cannot have passed it. The reader's
//! side never waits: it notes, and at the high mark it has the stream stop there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossfade_applier::{Feed, Stop};
use crossfade_binlog::EchoKey;
use crossfade_model::{RowChange, Seen};
use crossfade_rules::TableMapping;
use crossfade_rules::chunk::{TouchedRows, Window};
use tokio::sync::oneshot;

/// The heartbeats that are marks bear names that begin like this.
const MARK: &str = "chunk:";

/// All windows of a stream. Shared by the workers, the reader and the capture.
pub struct Windows {
    /// How many are open: what is read most often.
    open_count: AtomicUsize,
    touched: Mutex<TouchedRows>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<u64, Open>,
    /// What the source had seen at the high marks of chunks that are not written yet.
    unwritten: BTreeMap<u64, Arc<Seen>>,
}

struct Open {
    table: usize,
    writer: String,
    /// The low mark has been passed: what is changed from now on counts.
    begun: Option<Window>,
    closed: oneshot::Sender<Closed>,
}

/// A window whose high mark has been passed.
pub struct Closed {
    pub window: Window,
    /// The applier goes no further than the high mark's place while this lives.
    pub stop: Stop,
    /// What the source had seen at the high mark.
    pub seen: Arc<Seen>,
}

/// A window that was opened; it is given up when dropped.
pub struct Opened {
    windows: Arc<Windows>,
    number: u64,
    pub closed: oneshot::Receiver<Closed>,
}

impl Windows {
    pub fn new(mappings: Arc<[TableMapping]>) -> Windows {
        Windows {
            open_count: AtomicUsize::new(0),
            touched: Mutex::new(TouchedRows::new(mappings)),
            inner: Mutex::default(),
        }
    }

    /// Opens a window over a table. `number` is the counter of its low mark and the next one that of its high mark; no other
    /// window of the pair ever has these.
    pub fn open(self: &Arc<Self>, table: usize, worker: u16, number: u64) -> Opened {
        let (closed, receiver) = oneshot::channel();
        let open = Open { table, writer: mark_writer(worker), begun: None, closed };
        self.inner().open.insert(number, open);
        self.open_count.fetch_add(1, Ordering::SeqCst);
        Opened { windows: self.clone(), number, closed: receiver }
    }

    /// Somebody wants to know which rows are touched.
    pub fn are_open(&self) -> bool {
        self.open_count.load(Ordering::SeqCst) > 0
    }

    /// What the source had seen at the high marks of all chunks that are not written yet.
    pub fn unwritten(&self) -> Vec<Arc<Seen>> {
        self.inner().unwritten.values().cloned().collect()
    }

    /// Appends the rows that a change touches, and those that the server may have changed with them.
    pub fn keys_of(&self, change: &RowChange, keys: &mut Vec<EchoKey>) {
        let mut rows = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        keys.extend(rows.of(change).into_iter().flat_map(|touched| touched.keys.map(|key| (touched.table, key))));
        rows.children_of(change, keys);
    }

    /// The reader has passed changes of these rows, by whomever.
    pub fn note(&self, keys: &[EchoKey]) {
        let mut inner = self.inner();
        for open in inner.open.values_mut() {
            let table = open.table;
            if let Some(window) = &mut open.begun {
                keys.iter().filter(|(of, _)| *of == table).for_each(|(_, key)| window.note(*key));
            }
        }
    }

    /// The reader has passed a heartbeat; `false` if it is no mark. `captured` is the last message before it; none after it
    /// has been captured yet.
    pub fn pass(&self, writer: &str, counter: u64, captured: u64, seen: &Arc<Seen>, feed: &Arc<Feed>) -> bool {
        if !writer.starts_with(MARK) {
            return false;
        }
        let mut inner = self.inner();
        if let Some(open) = inner.open.get_mut(&counter).filter(|open| open.writer == writer) {
            // Passed once more after a reader has begun anew: what was noted is read again.
            open.begun = Some(Window::default());
            return true;
        }
        let number = counter.wrapping_sub(1);
        let is_high = |open: &Open| open.writer == writer && open.begun.is_some();
        if !inner.open.get(&number).is_some_and(is_high) {
            return true;
        }
        if let Some(Open { begun: Some(window), closed, .. }) = inner.open.remove(&number) {
            self.open_count.fetch_sub(1, Ordering::SeqCst);
            inner.unwritten.insert(number, seen.clone());
            drop(inner);
            // Whoever waited may have given up; the stop then ends at once.
            let _ = closed.send(Closed { window, stop: feed.stop_after(captured), seen: seen.clone() });
        }
        true
    }

    /// The stream was put back or taken over: no window can be trusted.
    pub fn abandon(&self) {
        let mut inner = self.inner();
        let dropped = std::mem::take(&mut inner.open);
        self.open_count.fetch_sub(dropped.len(), Ordering::SeqCst);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut inner = self.windows.inner();
        if inner.open.remove(&self.number).is_some() {
            self.windows.open_count.fetch_sub(1, Ordering::SeqCst);
        }
        inner.unwritten.remove(&self.number);
    }
}

/// The name of a worker's marks.
pub fn mark_writer(worker: u16) -> String {
    format!("{MARK}{worker}")
}
