//! One table's copy: chunk after chunk, several of them under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade_applier::{ChunkEnd, ChunkToWrite, ChunkWritten};
use crossfade_catalog::chunk::{KeyBound, KeyRange};
use crossfade_message::{ChunkDone, CopyCounts, CopyKey, CopyOwner, CopyState, NotedRow, TableCopy};
use crossfade_model::Row;
use crossfade_rules::chunk::row_hash;
use tokio_util::task::AbortOnDropHandle;

use crate::error::BackfillError;
use crate::pace::Pace;
use crate::slot::Busy;
use crate::source::{KEYS_AT_A_TIME, SourceTable};
use crate::windows::Opened;
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
    /// The end of their range; `None` where they were asked for by their keys.
    through: Option<KeyBound>,
    took: Duration,
}

/// A chunk that is written.
struct WrittenChunk {
    through: Option<KeyBound>,
    read: u64,
    left_out: u64,
    written: ChunkWritten,
    /// The rows that were refused or kept, by the places in `written`.
    rows: Vec<Row>,
    took: Duration,
}

/// A table's copy under way.
pub(crate) struct Copy {
    shared: Arc<Shared>,
    table: usize,
    source: Arc<SourceTable>,
    owner: CopyOwner,
    pace: Pace,
    mark_limit: Duration,
}

impl Copy {
    /// `None` where the table cannot be read in chunks.
    pub fn new(shared: Arc<Shared>, table: usize, copy: &TableCopy) -> Option<Copy> {
        let source = Arc::new(SourceTable::new(&shared.mappings[table], shared.source_shapes.get(table)?)?);
        let owner = CopyOwner { table: copy.table.clone(), round: copy.round, epoch: shared.epoch };
        let pace = Pace::new(shared.limits.chunk_time);
        Some(Copy { shared, table, source, owner, pace, mark_limit: FIRST_MARK_LIMIT })
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
        store.set_copy_state(&self.owner, CopyState::Copied, None).await?;
        tracing::info!(table = %self.owner.table, "copied");
        Ok(())
    }

    /// Rows that come after the last one of now come by messages.
    async fn begin(&self) -> Result<Option<KeyBound>, BackfillError> {
        let mut busy = self.shared.slots.take().await?;
        let conn = busy.slot()?.source().await?;
        let end = self.source.last_key(conn).await?;
        let total = self.source.count(conn).await?;
        self.shared.store.begin_copy(&self.owner, end.as_ref().map(shown).as_deref(), total).await?;
        tracing::info!(table = %self.owner.table, rows = total, "copying");
        Ok(end)
    }

    async fn clear(&self) -> Result<(), BackfillError> {
        let mut busy = self.shared.slots.take().await?;
        let mut rows = 0;
        loop {
            let cleared = busy.slot()?.writer.clear_some(self.table).await?;
            rows += cleared;
            if cleared == 0 {
                tracing::info!(table = %self.owner.table, rows, "cleared on the target, to be copied again");
                return Ok(());
            }
        }
    }

    async fn copy_rows(&mut self, mut after: Option<KeyBound>, end: KeyBound) -> Result<(), BackfillError> {
        let mut under_way: VecDeque<AbortOnDropHandle<Result<WrittenChunk, BackfillError>>> = VecDeque::new();
        let mut is_over = false;
        loop {
            while !is_over && under_way.len() < CHUNKS_UNDER_WAY {
                let rest = KeyRange { after: after.clone(), through: Some(end.clone()) };
                let chunk = self.read(rest).await?;
                after = chunk.through.clone();
                is_over = after.as_ref() == Some(&end);
                under_way.push_back(self.finish(chunk));
            }
            let Some(chunk) = under_way.pop_front() else { return Ok(()) };
            let written = chunk.await.map_err(|_| BackfillError::Ended)??;
            self.count(written, &[]).await?;
        }
    }

    /// Reads the next chunk of what is left, between its marks.
    async fn read(&mut self, rest: KeyRange) -> Result<ReadChunk, BackfillError> {
        loop {
            let mut busy = self.shared.slots.take().await?;
            let slot = busy.slot()?;
            let (rows, most_bytes) = (self.pace.rows(), self.shared.limits.chunk_bytes);
            let end = self.source.chunk_end(slot.source().await?, &rest, rows).await;
            if end.is_err() {
                slot.forget_source();
            }
            let range = KeyRange { after: rest.after.clone(), through: end?.or_else(|| rest.through.clone()) };
            let number = self.shared.next_number();
            let window = self.shared.windows.open(self.table, slot.number, number);
            let reading = async {
                slot.mark(number).await?;
                let begun = Instant::now();
                let rows = self.source.read(slot.source().await?, &range, most_bytes).await?;
                let took = begun.elapsed();
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
                self.pace.too_large(rows);
                continue;
            };
            self.pace.fits(&rows_read, most_bytes);
            (self.shared.probe)("chunk-read");
            return Ok(ReadChunk { busy, window, rows: rows_read, through: range.through, took });
        }
    }

    /// Reads rows by their keys, between marks of their own.
    async fn read_again(&self, keys: &[CopyKey]) -> Result<ReadChunk, BackfillError> {
        let mut busy = self.shared.slots.take().await?;
        let number = self.shared.next_number();
        let slot = busy.slot()?;
        let window = self.shared.windows.open(self.table, slot.number, number);
        let reading = async {
            slot.mark(number).await?;
            let rows = self.source.read_keys(slot.source().await?, keys).await?;
            slot.mark(number + 1).await?;
            Ok(rows)
        };
        let read: Result<_, BackfillError> = reading.await;
        if read.is_err() {
            slot.forget_source();
        }
        Ok(ReadChunk { busy, window, rows: read?, through: None, took: Duration::ZERO })
    }

    /// Writes a chunk at its place in the stream, beside the reading of the next ones.
    fn finish(&self, chunk: ReadChunk) -> AbortOnDropHandle<Result<WrittenChunk, BackfillError>> {
        let (shared, table, mark_limit) = (self.shared.clone(), self.table, self.mark_limit);
        AbortOnDropHandle::new(tokio::spawn(write(shared, table, mark_limit, chunk)))
    }

    async fn count(&mut self, chunk: WrittenChunk, tried: &[NotedRow]) -> Result<(), BackfillError> {
        let WrittenChunk { through, read, left_out, written, rows, took } = chunk;
        self.pace.took(usize::try_from(read).unwrap_or(usize::MAX), took);
        self.pace.done(read);
        let kept = written.kept.len() as u64;
        let noted = self.noted(&written, &rows, tried);
        let refused = |hash: u64| noted.iter().any(|row| row.key_hash == hash && row.error.is_some());
        let settled = tried.iter().map(|row| row.key_hash).filter(|hash| !refused(*hash)).collect();
        // Rows that are tried again were counted when they were read first.
        let counts = CopyCounts {
            read: if tried.is_empty() { read } else { 0 },
            filled: written.filled,
            replaced: written.replaced,
            same: written.same,
            kept,
            changed: if tried.is_empty() { left_out + written.concurrent } else { 0 },
        };
        let through = through.as_ref().map(shown);
        let done = ChunkDone { through, counts, rows_per_second: self.pace.rate(), noted, settled };
        Ok(self.shared.store.chunk_done(&self.owner, &done).await?)
    }

    fn noted(&self, written: &ChunkWritten, rows: &[Row], tried: &[NotedRow]) -> Vec<NotedRow> {
        let mapping = &self.shared.mappings[self.table];
        let note = |place: usize, error: Option<String>| {
            let row = rows.get(place)?;
            let key_hash = row_hash(mapping, row);
            let before = tried.iter().find(|noted| noted.key_hash == key_hash).map_or(0, |noted| noted.attempts);
            Some(NotedRow { key_hash, key: self.source.key_of(row), error, attempts: before + 1 })
        };
        let refused = written.refused.iter().filter_map(|(place, refusal)| note(*place, Some(refusal.to_string())));
        refused.chain(written.kept.iter().filter_map(|place| note(*place, None))).collect()
    }

    /// Tries rows again that the target refused, as long as that gets on.
    async fn retry_refused(&mut self) -> Result<(), BackfillError> {
        let mut attempts = None;
        loop {
            let refused = self.shared.store.refused_rows(&self.owner.table, KEYS_AT_A_TIME as u32).await?;
            let Some(least) = refused.first().map(|row| row.attempts) else { return Ok(()) };
            // All have had another attempt.
            if *attempts.get_or_insert(least + 1) < least + 1 {
                return Ok(());
            }
            let keys: Vec<CopyKey> = refused.iter().map(|row| row.key.clone()).collect();
            let chunk = self.read_again(&keys).await?;
            let written = self.finish(chunk).await.map_err(|_| BackfillError::Ended)??;
            self.count(written, &refused).await?;
        }
    }

    /// The chunk is read anew; a reader that is far behind has longer to pass its marks.
    pub fn failed(&mut self, error: &BackfillError) {
        if matches!(error, BackfillError::MarksNotPassed) {
            self.mark_limit *= 2;
        }
    }
}

/// A bound as the store keeps it.
fn shown(bound: &KeyBound) -> String {
    // Texts only, so there is nothing that could fail.
    serde_json::to_string(bound).unwrap_or_default()
}

fn bound(shown: Option<&str>) -> Result<Option<KeyBound>, BackfillError> {
    shown.map(|shown| serde_json::from_str(shown).map_err(|_| BackfillError::Bound)).transpose()
}

async fn write(
    shared: Arc<Shared>,
    table: usize,
    mark_limit: Duration,
    chunk: ReadChunk,
) -> Result<WrittenChunk, BackfillError> {
    let ReadChunk { mut busy, mut window, mut rows, through, took } = chunk;
    let closed = tokio::time::timeout(mark_limit, &mut window.closed).await;
    let Ok(Ok(closed)) = closed else { return Err(BackfillError::MarksNotPassed) };
    let read = rows.len() as u64;
    let left_out = closed.window.leave_out(&shared.mappings[table], &mut rows) as u64;
    let mut applied = shared.applied.clone();
    let place = closed.stop.after();
    let reached = applied.wait_for(|view| view.applied_seq >= place).await;
    let concurrent = reached.map_err(|_| BackfillError::Ended)?.looks_for_concurrent;
    let concurrent = concurrent || shared.wishes.borrow().opposite_declared;
    let begun = Instant::now();
    let to_write = ChunkToWrite {
        table,
        rows: &rows,
        seen: &closed.seen,
        unwritten: &shared.windows.unwritten(),
        concurrent,
        parents_later: shared.order.in_circle[table],
    };
    let written = match rows.is_empty() {
        true => ChunkWritten::default(),
        false => match busy.slot()?.writer.write(&to_write).await? {
            ChunkEnd::Written(written) => written,
            ChunkEnd::OppositeAway => return Err(BackfillError::OppositeAway),
        },
    };
    let took = took + begun.elapsed();
    // The stream goes on, and what the source had seen need not be remembered.
    drop((closed, window));
    Ok(WrittenChunk { through, read, left_out, written, rows, took })
}
