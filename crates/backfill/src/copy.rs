//! One table's copy: chunk after chunk, several of them under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade_applier::{ChunkEnd, ChunkToWrite, ChunkWritten};
use crossfade_catalog::chunk::{KeyBound, KeyRange};
use crossfade_message::{CopyKey, CopyOwner, CopyState, TableCopy};
use crossfade_model::Row;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::error::BackfillError;
use crate::ledger::{Ledger, WrittenChunk, bound, shown};
use crate::pace::Pace;
use crate::slot::Busy;
use crate::source::{KEYS_AT_A_TIME, SourceTable};
use crate::windows::{Closed, Opened, Place};
use crate::worker::Shared;

/// Chunks of one table that are under way at a time: one is read while others are written.
const CHUNKS_UNDER_WAY: usize = 3;

/// How long the reader has to pass a chunk's marks at first; each further time twice as long.
const FIRST_MARK_LIMIT: Duration = Duration::from_secs(60);

/// Rows of a chunk, read and between their marks.
struct ReadChunk {
    busy: Busy,
    window: Opened,
    rows: Vec<Row>,
    /// The end of their range.
    through: Option<KeyBound>,
    took: Duration,
}

/// A chunk that counts in the store.
struct CountedChunk {
    read: u64,
    took: Duration,
}

/// A table's copy under way.
pub(crate) struct Copy {
    ledger: Ledger,
    shared: Arc<Shared>,
    table: usize,
    source: Arc<SourceTable>,
    pace: Pace,
    mark_limit: Duration,
}

impl Copy {
    /// `None` where the table cannot be read in chunks.
    pub fn new(shared: Arc<Shared>, table: usize, copy: &TableCopy) -> Option<Copy> {
        let source = Arc::new(SourceTable::new(&shared.mappings[table], shared.source_shapes.get(table)?)?);
        let owner = CopyOwner { table: copy.table.clone(), round: copy.round, epoch: shared.epoch };
        let usual = copy.counts.read / copy.chunks.max(1);
        let pace = Pace::new(shared.limits.chunk_time, usual);
        let ledger = Ledger { shared: shared.clone(), table, source: source.clone(), owner };
        Some(Copy { ledger, shared, table, source, pace, mark_limit: FIRST_MARK_LIMIT })
    }

    /// Goes on where the store says that the copy is, until its end.
    pub async fn run(&mut self, copy: &TableCopy) -> Result<(), BackfillError> {
        let store = self.shared.store.clone();
        match copy.state {
            CopyState::Copied => return self.retry_refused().await,
            CopyState::Clearing => self.clear().await?,
            _ => {}
        }
        let end = match (copy.state, copy.started_at) {
            (CopyState::Copying, Some(_)) => bound(copy.end.as_deref())?,
            _ => self.begin().await?,
        };
        if let Some(end) = end {
            self.copy_rows(bound(copy.through.as_deref())?, end).await?;
        }
        self.retry_refused().await?;
        store.set_copy_state(&self.ledger.owner, CopyState::Copied, None).await?;
        tracing::info!(table = %self.ledger.owner.table, "copied");
        Ok(())
    }

    /// Rows that come after the last one of now come by messages.
    async fn begin(&self) -> Result<Option<KeyBound>, BackfillError> {
        let mut busy = self.shared.slots.take().await?;
        let conn = busy.slot()?.source().await?;
        let end = self.source.last_key(conn).await?;
        let total = self.source.count(conn).await?;
        self.shared.store.begin_copy(&self.ledger.owner, end.as_ref().map(shown).as_deref(), total).await?;
        tracing::info!(table = %self.ledger.owner.table, rows = total, "copying");
        Ok(end)
    }

    async fn clear(&self) -> Result<(), BackfillError> {
        let mut busy = self.shared.slots.take().await?;
        let mut rows = 0;
        loop {
            let cleared = busy.slot()?.writer.clear_some(self.table).await?;
            rows += cleared;
            if cleared == 0 {
                tracing::info!(table = %self.ledger.owner.table, rows, "cleared on the target, to be copied again");
                return Ok(());
            }
        }
    }

    async fn copy_rows(&mut self, mut after: Option<KeyBound>, end: KeyBound) -> Result<(), BackfillError> {
        let mut under_way: VecDeque<AbortOnDropHandle<Result<CountedChunk, BackfillError>>> = VecDeque::new();
        let (begins, mut counted_before) = oneshot::channel();
        // The first one waits for nobody.
        let _ = begins.send(());
        let mut is_over = false;
        loop {
            while !is_over && under_way.len() < CHUNKS_UNDER_WAY {
                let rest = KeyRange { after: after.clone(), through: Some(end.clone()) };
                let chunk = self.read(rest).await?;
                after = chunk.through.clone();
                is_over = after.as_ref() == Some(&end);
                let (counted, counts) = oneshot::channel();
                let turn = (std::mem::replace(&mut counted_before, counts), counted);
                under_way.push_back(self.finish(chunk, turn));
            }
            let Some(chunk) = under_way.pop_front() else { return Ok(()) };
            let counted = chunk.await.map_err(|_| BackfillError::Ended)??;
            self.pace.took(counted.read, counted.took);
            self.pace.done(counted.read);
        }
    }

    /// Reads the next chunk of what is left, between its marks.
    async fn read(&mut self, rest: KeyRange) -> Result<ReadChunk, BackfillError> {
        loop {
            // Before a mark is written: after that, changes wait for the chunk.
            let pass = self.shared.throttle.until_rows_may_pass(self.pace.rows()).await;
            let (rows, most_bytes) = (pass.rows(), self.shared.limits.chunk_bytes);
            let mut busy = self.shared.slots.take().await?;
            let slot = busy.slot()?;
            let end = self.source.chunk_end(slot.reader().await?, &rest, rows).await;
            if end.is_err() {
                slot.forget_source();
            }
            let range = KeyRange { after: rest.after.clone(), through: end?.or_else(|| rest.through.clone()) };
            let number = self.shared.next_number();
            let window = self.shared.windows.open(self.table, self.shared.place_of(self.table), slot.number, number);
            let reading = async {
                slot.mark(number).await?;
                slot.until_reader_has(number).await?;
                let begun = Instant::now();
                let rows = self.source.read(slot.reader().await?, &range, most_bytes).await?;
                let took = begun.elapsed();
                (self.shared.probe)("between-marks");
                if rows.is_some() {
                    slot.mark(number + 1).await?;
                }
                Ok((rows, took))
            };
            let read: Result<_, BackfillError> = reading.await;
            if !matches!(read, Ok((Some(_), _))) {
                slot.forget_source();
            }
            let (read, took) = read?;
            let Some(rows_read) = read else {
                // Its rows are asked for again.
                self.pace.too_large(rows);
                continue;
            };
            pass.used(rows_read.len() as u64);
            self.pace.fits(&rows_read, most_bytes);
            (self.shared.probe)("chunk-read");
            return Ok(ReadChunk { busy, window, rows: rows_read, through: range.through, took });
        }
    }

    /// Writes a chunk at its place in the stream, beside the reading of the next ones, and counts it as soon as all before it
    /// count: whoever is killed writes again what does not.
    fn finish(
        &self,
        chunk: ReadChunk,
        (counted_before, counted): (oneshot::Receiver<()>, oneshot::Sender<()>),
    ) -> AbortOnDropHandle<Result<CountedChunk, BackfillError>> {
        let (mut writing, ledger, rate) = (self.writing(chunk.busy), self.ledger.clone(), self.pace.rate());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let (read, through) = (chunk.rows.len() as u64, chunk.through);
            let doubtful = writing.write(chunk.window, chunk.rows).await?;
            writing.settle(&doubtful).await?;
            let written = writing.written(read, through, chunk.took);
            let took = written.took;
            counted_before.await.map_err(|_| BackfillError::Ended)?;
            ledger.count(written, rate, &[]).await?;
            // The last one has nobody who waits.
            let _ = counted.send(());
            Ok(CountedChunk { read, took })
        }))
    }

    fn writing(&self, busy: Busy) -> Writing {
        let (shared, source) = (self.shared.clone(), self.source.clone());
        let (table, mark_limit) = (self.table, self.mark_limit);
        let (left_out, took) = (0, Duration::ZERO);
        Writing { shared, source, table, mark_limit, busy, left_out, sum: ChunkWritten::default(), rows: vec![], took }
    }

    /// Tries rows again that the target refused, as long as that gets on.
    async fn retry_refused(&mut self) -> Result<(), BackfillError> {
        let mut attempts = None;
        loop {
            let refused = self.shared.store.refused_rows(&self.ledger.owner.table, KEYS_AT_A_TIME as u32).await?;
            let Some(least) = refused.first().map(|row| row.attempts) else { return Ok(()) };
            // All have had another attempt.
            if *attempts.get_or_insert(least + 1) < least + 1 {
                return Ok(());
            }
            let keys: Vec<CopyKey> = refused.iter().map(|row| row.key.clone()).collect();
            let mut writing = self.writing(self.shared.slots.take().await?);
            writing.settle(&keys).await?;
            self.ledger.count(writing.written(0, None, Duration::ZERO), self.pace.rate(), &refused).await?;
        }
    }

    /// The chunk is read anew; a reader that is far behind has longer to pass its marks.
    pub fn failed(&mut self, error: &BackfillError) {
        if matches!(error, BackfillError::MarksNotPassed) {
            self.mark_limit *= 2;
        }
    }
}

/// A chunk that is being written.
struct Writing {
    shared: Arc<Shared>,
    source: Arc<SourceTable>,
    table: usize,
    mark_limit: Duration,
    busy: Busy,
    left_out: u64,
    sum: ChunkWritten,
    /// Those that the places in `sum` mean.
    rows: Vec<Row>,
    took: Duration,
}

impl Writing {
    /// Writes rows at their window's end in the stream, but for those that are doubtful, whose keys are returned.
    async fn write(&mut self, window: Opened, mut rows: Vec<Row>) -> Result<Vec<CopyKey>, BackfillError> {
        let closed = self.close(window, &mut rows).await?;
        let doubtful = closed.1.window.take_doubtful(&self.shared.families, self.table, &mut rows);
        self.put(&closed.1, rows).await?;
        Ok(doubtful.iter().map(|row| self.source.key_of(row)).collect())
    }

    /// Reads rows again while nobody can change them, and writes those that exist.
    async fn settle(&mut self, keys: &[CopyKey]) -> Result<(), BackfillError> {
        for keys in keys.chunks(KEYS_AT_A_TIME) {
            let (number, source) = (self.shared.next_number(), self.source.clone());
            let slot = self.busy.slot()?;
            let window = self.shared.windows.open(self.table, Place::OwnMark, slot.number, number);
            let read = slot.read_held(&source, keys, number).await;
            if read.is_err() {
                slot.forget_source();
            }
            let mut rows = read?;
            // What is not there any more has been changed as well.
            self.left_out += (keys.len() - rows.len()) as u64;
            let closed = self.close(window, &mut rows).await?;
            self.put(&closed.1, rows).await?;
        }
        Ok(())
    }

    /// Waits for the high mark, and for the stream to come to the window's end, where it rests; leaves out what was changed
    /// before that.
    async fn close(&mut self, mut window: Opened, rows: &mut Vec<Row>) -> Result<(Opened, Closed), BackfillError> {
        let passed = tokio::time::timeout(self.mark_limit, window.passed()).await;
        if passed != Ok(true) {
            return Err(BackfillError::MarksNotPassed);
        }
        let mut applied = self.shared.applied.clone();
        let reached = window.reached(&mut applied).await.map_err(|_| BackfillError::Ended)?;
        let closed = reached.ok_or(BackfillError::MarksNotPassed)?;
        self.left_out += closed.window.leave_out(&self.shared.mappings[self.table], rows) as u64;
        Ok((window, closed))
    }

    /// Writes at the window's end, where the stream rests, when no other chunk of the table is being written: they would
    /// stand in each other's way at the border between them.
    async fn put(&mut self, closed: &Closed, rows: Vec<Row>) -> Result<(), BackfillError> {
        if rows.is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        let _turn = shared.turns[self.table].lock().await;
        let concurrent = shared.applied.borrow().looks_for_concurrent || shared.wishes.borrow().opposite_declared;
        let begun = Instant::now();
        let to_write = ChunkToWrite {
            table: self.table,
            rows: &rows,
            seen: &closed.seen,
            unwritten: &self.shared.windows.unwritten(),
            concurrent,
            parents_later: self.shared.order.in_circle[self.table],
        };
        let written = match self.busy.slot()?.writer.write(&to_write).await? {
            ChunkEnd::Written(written) => written,
            ChunkEnd::OppositeAway => return Err(BackfillError::OppositeAway),
        };
        self.took += begun.elapsed();
        self.add(written, rows);
        Ok(())
    }

    fn add(&mut self, written: ChunkWritten, rows: Vec<Row>) {
        let before = self.rows.len();
        self.sum.filled += written.filled;
        self.sum.replaced += written.replaced;
        self.sum.same += written.same;
        self.sum.concurrent += written.concurrent;
        self.sum.kept.extend(written.kept.into_iter().map(|place| before + place));
        self.sum.refused.extend(written.refused.into_iter().map(|(place, why)| (before + place, why)));
        self.rows.extend(rows);
    }

    fn written(self, read: u64, through: Option<KeyBound>, took: Duration) -> WrittenChunk {
        let Writing { left_out, sum, rows, .. } = self;
        WrittenChunk { through, read, left_out, written: sum, rows, took: took + self.took }
    }
}
