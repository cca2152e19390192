//! The windows of chunks that are under way: what is changed between their marks, as the source's reader passes it by.
//!
//! Whoever reads a chunk opens a window first and then commits the low mark, so the reader cannot have passed it. The reader's
//! side never waits: it notes, and at the high mark it has the stream stop there.
//!
//! The applier may be far behind the reader. Chunks that wait for it are then written at one place, that of the last high mark: a
//! window may end later than its chunk's own mark, since what is changed until then is left out of the chunk as well. Every row
//! that remains stood at that later mark as it was read. So the applier rests once for several chunks, which are written beside
//! each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossfade_applier::{Feed, ProgressView, Stop};
use crossfade_binlog::EchoKey;
use crossfade_model::{RowChange, Seen};
use crossfade_rules::TableMapping;
use crossfade_rules::chunk::{TouchedRows, Window};
use tokio::sync::watch::error::RecvError;
use tokio::sync::{Notify, oneshot, watch};

/// The heartbeats that are marks bear names that begin like this.
const MARK: &str = "chunk:";

/// All windows of a stream. Shared by the workers, the reader and the capture.
pub struct Windows {
    /// How many are noted in, or may be moved: what is read most often.
    open_count: AtomicUsize,
    touched: Mutex<TouchedRows>,
    inner: Mutex<Inner>,
    given_up: Notify,
}

#[derive(Default)]
struct Inner {
    open: BTreeMap<u64, Open>,
    marked: BTreeMap<u64, Marked>,
    /// What the source had seen at the ends of the windows whose chunks are not written yet.
    unwritten: BTreeMap<u64, Arc<Seen>>,
}

/// Where a chunk is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At its own high mark: what is changed later might be in no binlog.
    OwnMark,
    /// There, or at the high mark of a later chunk.
    AnyMark,
}

/// A window that has been moved so often stays where it is: its chunk is to be written some day.
const MOST_MOVES: u8 = 8;

/// And so does one behind which so many rows were touched, since they are kept in memory.
const MOST_NOTED_BEHIND: usize = 100_000;

struct Open {
    table: usize,
    place: Place,
    writer: String,
    /// The low mark has been passed: what is changed from now on counts.
    begun: Option<Window>,
    passed: oneshot::Sender<()>,
}

/// The high mark has been passed, and the applier has not come to the window's end yet.
struct Marked {
    table: usize,
    end: Closed,
    /// What was touched after the end, as long as that may move.
    behind: Option<Window>,
    moves: u8,
}

impl Marked {
    fn note(&mut self, key: u64) {
        if let Some(behind) = &mut self.behind {
            behind.note(key);
            if behind.len() >= MOST_NOTED_BEHIND {
                self.behind = None;
            }
        }
    }

    /// The window lasts until another high mark, at which the source had seen `seen`.
    fn move_to(&mut self, stop: Stop, seen: &Arc<Seen>) {
        self.end.window.extend(self.behind.take().unwrap_or_default());
        (self.end.stop, self.end.seen) = (stop, seen.clone());
        self.moves += 1;
        self.behind = (self.moves < MOST_MOVES).then(Window::default);
    }
}

/// A window whose end the applier has come to.
pub struct Closed {
    pub window: Window,
    /// The applier goes no further than the window's end while this lives.
    stop: Stop,
    /// What the source had seen there.
    pub seen: Arc<Seen>,
}

/// A window that was opened; it is given up when dropped.
pub struct Opened {
    windows: Arc<Windows>,
    number: u64,
    passed: oneshot::Receiver<()>,
}

impl Opened {
    /// Returns once the high mark has been passed; `false` where that will not be.
    pub async fn passed(&mut self) -> bool {
        (&mut self.passed).await.is_ok()
    }

    /// Returns once the applier has come to the window's end, where it rests. `None` where the window was given up.
    pub async fn reached(&self, applied: &mut watch::Receiver<ProgressView>) -> Result<Option<Closed>, RecvError> {
        loop {
            let given_up = self.windows.given_up.notified();
            tokio::pin!(given_up);
            given_up.as_mut().enable();
            let stop = |marked: &Marked| marked.end.stop.after();
            let Some(place) = self.windows.inner().marked.get(&self.number).map(stop) else { return Ok(None) };
            let reached = tokio::select! {
                () = given_up => continue,
                reached = applied.wait_for(|view| view.applied_seq >= place) => reached?.applied_seq,
            };
            // Another chunk may have moved the end meanwhile.
            if let Some(closed) = self.windows.take(self.number, reached) {
                return Ok(Some(closed));
            }
        }
    }
}

impl Windows {
    pub fn new(mappings: Arc<[TableMapping]>) -> Windows {
        Windows {
            open_count: AtomicUsize::new(0),
            touched: Mutex::new(TouchedRows::new(mappings)),
            inner: Mutex::default(),
            given_up: Notify::new(),
        }
    }

    /// Opens a window over a table. `number` is the counter of its low mark and the next one that of its high mark; no other
    /// window of the pair ever has these.
    pub fn open(self: &Arc<Self>, table: usize, place: Place, worker: u16, number: u64) -> Opened {
        let (sender, passed) = oneshot::channel();
        let open = Open { table, place, writer: mark_writer(worker), begun: None, passed: sender };
        self.inner().open.insert(number, open);
        self.open_count.fetch_add(1, Ordering::SeqCst);
        Opened { windows: self.clone(), number, passed }
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
        for marked in inner.marked.values_mut() {
            let table = marked.table;
            keys.iter().filter(|(of, _)| *of == table).for_each(|(_, key)| marked.note(*key));
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
        if let Some(Open { table, place, begun: Some(window), passed, .. }) = inner.open.remove(&number) {
            let may_move = place == Place::AnyMark;
            let Inner { marked, unwritten, .. } = &mut *inner;
            for (number, earlier) in marked.iter_mut().filter(|(_, earlier)| may_move && earlier.behind.is_some()) {
                earlier.move_to(feed.stop_after(captured), seen);
                unwritten.insert(*number, seen.clone());
            }
            unwritten.insert(number, seen.clone());
            let end = Closed { window, stop: feed.stop_after(captured), seen: seen.clone() };
            marked.insert(number, Marked { table, end, behind: may_move.then(Window::default), moves: 0 });
            // Whoever has given up has dropped what is marked, or does so now.
            let _ = passed.send(());
        }
        true
    }

    /// The window's end, if the applier has come there.
    fn take(&self, number: u64, reached: u64) -> Option<Closed> {
        let mut inner = self.inner();
        inner.marked.get(&number).filter(|marked| marked.end.stop.after() <= reached)?;
        let taken = inner.marked.remove(&number)?;
        self.open_count.fetch_sub(1, Ordering::SeqCst);
        Some(taken.end)
    }

    /// The stream was put back or taken over: no window can be trusted.
    pub fn abandon(&self) {
        let mut inner = self.inner();
        let (open, marked) = (std::mem::take(&mut inner.open), std::mem::take(&mut inner.marked));
        self.open_count.fetch_sub(open.len() + marked.len(), Ordering::SeqCst);
        self.given_up.notify_waiters();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut inner = self.windows.inner();
        let (open, marked) = (inner.open.remove(&self.number), inner.marked.remove(&self.number));
        if open.is_some() || marked.is_some() {
            self.windows.open_count.fetch_sub(1, Ordering::SeqCst);
        }
        inner.unwritten.remove(&self.number);
    }
}

/// The name of a worker's marks.
pub fn mark_writer(worker: u16) -> String {
    format!("{MARK}{worker}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TABLE: usize = 0;
    const MANY_BYTES: usize = 1 << 20;

    struct Stream {
        windows: Arc<Windows>,
        feed: Arc<Feed>,
        applied: watch::Sender<ProgressView>,
    }

    impl Stream {
        fn new() -> Stream {
            let windows = Arc::new(Windows::new(Arc::from(Vec::new())));
            let (applied, _) = watch::channel(ProgressView::default());
            Stream { windows, feed: Arc::new(Feed::new(0, MANY_BYTES)), applied }
        }

        /// A window whose low mark is passed.
        fn begun(&self, place: Place, worker: u16, number: u64) -> Opened {
            let opened = self.windows.open(TABLE, place, worker, number);
            self.pass(worker, number, 0);
            opened
        }

        fn pass(&self, worker: u16, counter: u64, captured: u64) {
            assert!(self.windows.pass(&mark_writer(worker), counter, captured, &Arc::default(), &self.feed));
        }

        fn is_applied(&self, seq: u64) {
            self.applied.send_modify(|view| view.applied_seq = seq);
        }

        /// What was noted in the window, if the applier has come to its end.
        async fn noted(&self, opened: &Opened) -> Option<usize> {
            let mut applied = self.applied.subscribe();
            let reached = tokio::time::timeout(Duration::from_millis(20), opened.reached(&mut applied)).await;
            reached.ok()?.expect("the applier lives").map(|closed| closed.window.len())
        }
    }

    #[tokio::test]
    async fn p6_chunks_that_wait_for_the_applier_are_written_at_one_place() {
        let stream = Stream::new();
        let mut first = stream.begun(Place::AnyMark, 1, 10);
        let second = stream.begun(Place::AnyMark, 2, 20);
        stream.windows.note(&[(TABLE, 7)]);
        stream.pass(1, 11, 100);
        assert!(first.passed().await);
        // It comes after the first one's high mark, and before the place where both are written.
        stream.windows.note(&[(TABLE, 8)]);
        stream.pass(2, 21, 120);
        stream.is_applied(100);
        assert_eq!(stream.noted(&first).await, None);
        stream.is_applied(120);
        assert_eq!((stream.noted(&first).await, stream.noted(&second).await), (Some(2), Some(2)));
        drop((first, second));
        assert!(!stream.windows.are_open() && stream.windows.unwritten().is_empty());
    }

    #[tokio::test]
    async fn p6_rows_that_were_held_are_written_at_their_own_mark() {
        let stream = Stream::new();
        let held = stream.begun(Place::OwnMark, 1, 10);
        let chunk = stream.begun(Place::AnyMark, 2, 20);
        stream.pass(1, 11, 100);
        stream.windows.note(&[(TABLE, 8)]);
        stream.pass(2, 21, 120);
        stream.is_applied(100);
        assert_eq!((stream.noted(&held).await, stream.noted(&chunk).await), (Some(0), None));
        stream.is_applied(120);
        assert_eq!(stream.noted(&chunk).await, Some(1));
    }

    #[tokio::test]
    async fn a_window_that_the_applier_has_come_to_ends_there() {
        let stream = Stream::new();
        let first = stream.begun(Place::AnyMark, 1, 10);
        stream.pass(1, 11, 100);
        stream.is_applied(100);
        let mut applied = stream.applied.subscribe();
        let closed = first.reached(&mut applied).await.unwrap().expect("it is there");
        let second = stream.begun(Place::AnyMark, 2, 20);
        stream.windows.note(&[(TABLE, 8)]);
        stream.pass(2, 21, 120);
        assert_eq!((closed.stop.after(), closed.window.len()), (100, 0));
        stream.is_applied(120);
        assert_eq!(stream.noted(&second).await, Some(1));
    }

    #[tokio::test]
    async fn what_is_given_up_or_abandoned_stops_nobody() {
        let stream = Stream::new();
        let given_up = stream.begun(Place::AnyMark, 1, 10);
        stream.pass(1, 11, 100);
        drop(given_up);
        let marked = stream.begun(Place::AnyMark, 1, 20);
        let mut open = stream.begun(Place::AnyMark, 2, 30);
        stream.pass(1, 21, 100);
        let mut applied = stream.applied.subscribe();
        let waiting = async { marked.reached(&mut applied).await.unwrap().is_none() };
        let abandoning = async {
            tokio::task::yield_now().await;
            stream.windows.abandon();
        };
        // The applier need not come there.
        let (is_given_up, ()) = tokio::join!(waiting, abandoning);
        assert!(is_given_up && !open.passed().await);
        drop((marked, open));
        assert!(!stream.windows.are_open() && stream.windows.unwritten().is_empty());
    }

    #[tokio::test]
    async fn what_is_touched_after_a_windows_end_does_not_count() {
        let stream = Stream::new();
        let first = stream.begun(Place::AnyMark, 1, 10);
        stream.pass(1, 11, 100);
        stream.windows.note(&[(TABLE, 7)]);
        stream.is_applied(100);
        assert_eq!(stream.noted(&first).await, Some(0));
    }

    #[tokio::test]
    async fn p8_a_window_stays_where_it_is_when_too_much_is_touched_behind_it() {
        let stream = Stream::new();
        let first = stream.begun(Place::AnyMark, 1, 10);
        let second = stream.begun(Place::AnyMark, 2, 20);
        stream.pass(1, 11, 100);
        (0..MOST_NOTED_BEHIND as u64).for_each(|key| stream.windows.note(&[(TABLE, key)]));
        stream.pass(2, 21, 120);
        stream.is_applied(100);
        assert_eq!((stream.noted(&first).await, stream.noted(&second).await), (Some(0), None));
    }

    #[tokio::test]
    async fn a_window_is_not_moved_for_ever() {
        let stream = Stream::new();
        let first = stream.begun(Place::AnyMark, 0, 10);
        stream.pass(0, 11, 100);
        let later: Vec<Opened> = (1..=u16::from(MOST_MOVES) + 1)
            .map(|worker| {
                let number = 100 * u64::from(worker);
                let opened = stream.begun(Place::AnyMark, worker, number);
                stream.pass(worker, number + 1, 100 + u64::from(worker));
                opened
            })
            .collect();
        stream.is_applied(100 + u64::from(MOST_MOVES));
        assert_eq!(stream.noted(&first).await, Some(0));
        assert_eq!(stream.noted(&later[0]).await, None);
    }
}
