//! Rows of a chunk that is copied, written beside the stream at the chunk's place in it.
//!
//! Whoever calls has the stream rest at that place: everything before the chunk's high mark is applied, and nothing after it.
//! Each worker writes under a checkpoint row of its own, which tags and fences its transactions. A row that users of the
//! target have changed without the source having seen it is left alone; that is known for certain before the commit, as with
//! any change: the rows are locked, and the opposite reader has captured what was committed until then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crossfade_model::{FIRST_SIDE_LANE, Row, Seen, Value};
use crossfade_rules::Remedy;
use crossfade_rules::chunk::{Copied, judge_copy};
use crossfade_rules::key::folded_hash;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{ApplyError, is_duplicate_key, row_remedy, with_causes};
use crate::lane::{Lane, Shared, pauses};
use crate::lookup::{Lookup, Subject};
use crate::progress::Waiting;
use crate::read::same_image;
use crate::refusal::Refusal;
use crate::session::{self, SessionId};
use crate::table::TargetTable;

/// Rows that are written together.
const PIECE_ROWS: usize = 512;

/// How long the opposite reader is waited for, with the rows locked and the stream at rest; longer where it is always late.
const HOLD_LIMIT: Duration = Duration::from_secs(2);

/// Deadlocks and lock waits after which a chunk is given back.
const MOST_COLLISIONS: u32 = 8;

/// Rows that go in one transaction where a table is cleared.
const CLEARED_ROWS: u32 = 1_000;

/// One worker's way to write chunks.
pub struct ChunkWriter {
    shared: Arc<Shared>,
    lane: Lane,
    number: u16,
    /// The worker's checkpoint row has been made.
    is_open: bool,
}

/// What is to be written.
pub struct ChunkToWrite<'r> {
    /// Its place among the mappings.
    pub table: usize,
    /// In the order of the mapping's columns.
    pub rows: &'r [Row],
    /// What the source had seen at the chunk's high mark.
    pub seen: &'r Seen,
    /// What it had seen at the high marks of all chunks that are not written yet, this one's included.
    pub unwritten: &'r [Arc<Seen>],
    /// Users of the target may write, and the opposite direction carries that.
    pub concurrent: bool,
    /// Parents may come after their children.
    pub parents_later: bool,
}

/// What became of a chunk.
pub enum ChunkEnd {
    Written(ChunkWritten),
    /// The opposite reader does not get there. Nothing is written.
    OppositeAway,
}

/// What became of the rows of a chunk.
#[derive(Debug, Default)]
pub struct ChunkWritten {
    pub filled: u64,
    pub replaced: u64,
    pub same: u64,
    /// Rows that stay as they are on the target, since they are as new or newer there, or nothing tells: by their places.
    pub kept: Vec<usize>,
    /// Rows that users of the target have changed without the source having seen it.
    pub concurrent: u64,
    /// Rows that the target refuses, by their places.
    pub refused: Vec<(usize, Refusal)>,
}

enum Attempt {
    Committed(ChunkWritten),
    /// Rows turned out to have been changed by users of the target.
    Turned,
    OppositeAway,
}

/// What is written so far, by the rows' places.
#[derive(Default)]
struct Ends {
    copied: BTreeMap<usize, Copied>,
    refused: Vec<(usize, Refusal)>,
}

impl ChunkWriter {
    pub(crate) fn new(shared: Arc<Shared>, worker: u16) -> ChunkWriter {
        ChunkWriter { shared, lane: Lane::new(), number: FIRST_SIDE_LANE + worker, is_open: false }
    }

    /// Writes a chunk; returns when it is committed. Calling it again with the same rows changes nothing more. Dropping the
    /// future rolls back what is open.
    ///
    /// # Errors
    ///
    /// Nothing is written, or nobody knows; the chunk is to be read and written anew.
    pub async fn write(&mut self, chunk: &ChunkToWrite<'_>) -> Result<ChunkEnd, ApplyError> {
        if chunk.concurrent && self.shared.hold.is_stalled() {
            return Ok(ChunkEnd::OppositeAway);
        }
        let (mut users, mut isolate, mut collisions) = (BTreeSet::new(), false, 0);
        let mut backoff = pauses();
        loop {
            let error = match self.attempt(chunk, &mut users, isolate).await {
                Ok(Attempt::Committed(written)) => return Ok(ChunkEnd::Written(written)),
                Ok(Attempt::OppositeAway) => return Ok(ChunkEnd::OppositeAway),
                Ok(Attempt::Turned) => continue,
                Err(error) => error,
            };
            match error.remedy() {
                Remedy::Park if !isolate => isolate = true,
                Remedy::RetryAtOnce if collisions < MOST_COLLISIONS => {
                    collisions += 1;
                    tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(1))).await;
                }
                _ => {
                    self.lane.forget_connection();
                    return Err(error);
                }
            }
        }
    }

    /// Deletes some rows of a table that is to be copied from its beginning; returns how many. Rows that refer to them stay.
    pub async fn clear_some(&mut self, table: usize) -> Result<u64, ApplyError> {
        let shared = self.shared.clone();
        let (number, is_open) = (self.number, std::mem::replace(&mut self.is_open, true));
        let conn = self.lane.connection(&shared).await?;
        let clearing = async {
            if !is_open {
                shared.owner.open_side_lane(conn, number).await?;
            }
            conn.query_drop("SET SESSION foreign_key_checks = 0").await?;
            conn.query_drop("BEGIN").await?;
            shared.owner.tag_side_lane(conn, number).await?;
            let deleted = shared.tables[table].delete_some(conn, CLEARED_ROWS).await?;
            conn.query_drop("COMMIT").await?;
            Ok(deleted)
        };
        let cleared: Result<u64, ApplyError> = session::answered(clearing).await;
        if cleared.is_err() {
            self.lane.forget_connection();
        }
        cleared
    }

    async fn attempt(
        &mut self,
        chunk: &ChunkToWrite<'_>,
        users: &mut BTreeSet<usize>,
        isolate: bool,
    ) -> Result<Attempt, ApplyError> {
        let shared = self.shared.clone();
        let (number, is_open) = (self.number, std::mem::replace(&mut self.is_open, true));
        let moves = shared.target.moves();
        let conn = self.lane.connection(&shared).await?;
        let session = SessionId { id: conn.id(), moves };
        let mut stuck = None;
        let unreachable = |error: Option<&ApplyError>| {
            stuck = error.map(|error| shared.progress.wait(Waiting::Retry(with_causes(error))));
        };
        let attempting = async {
            if !is_open {
                shared.owner.open_side_lane(conn, number).await?;
            }
            Writing { shared: &shared, chunk, number }.attempt(conn, users, isolate).await
        };
        let ended = tokio::select! {
            attempt = attempting => Some(attempt),
            () = session::until_gone(&shared.target, session, unreachable) => None,
        };
        let ended = ended.unwrap_or(Err(ApplyError::SessionGone));
        match &ended {
            Err(error) if error.remedy() == Remedy::OutcomeUnknown => self.lane.forget_connection(),
            Ok(Attempt::Committed(_)) => self.lane.used(),
            _ => {}
        }
        ended
    }
}

/// One attempt's circumstances.
struct Writing<'w> {
    shared: &'w Shared,
    chunk: &'w ChunkToWrite<'w>,
    number: u16,
}

impl Writing<'_> {
    fn target(&self) -> &TargetTable {
        &self.shared.tables[self.chunk.table]
    }

    async fn attempt(
        &self,
        conn: &mut Conn,
        users: &mut BTreeSet<usize>,
        isolate: bool,
    ) -> Result<Attempt, ApplyError> {
        if self.chunk.concurrent {
            let mut lookup = self.shared.lookup.lock().await;
            let parking = self.shared.parking.lock().await;
            lookup.advance_floor(self.chunk.unwritten.iter().map(|seen| &**seen).chain(parking.seen()));
            drop(parking);
            lookup.refresh().await?;
            let open = (0..self.chunk.rows.len()).filter(|place| !users.contains(place)).collect();
            users.extend(self.concurrent(&mut lookup, open, conn).await?);
        }
        let checks = u8::from(!self.chunk.parents_later);
        conn.query_drop(format!("SET SESSION foreign_key_checks = {checks}")).await?;
        conn.query_drop("BEGIN").await?;
        let attempt = self.write(conn, users, isolate).await;
        match &attempt {
            Ok(Attempt::Committed(_)) => {}
            Ok(_) => conn.query_drop("ROLLBACK").await?,
            Err(error) if error.remedy() == Remedy::OutcomeUnknown => {}
            // Where the rollback fails too, the connection is not used again, since the next statement on it fails.
            Err(_) => conn.query_drop("ROLLBACK").await.unwrap_or(()),
        }
        attempt
    }

    async fn write(&self, conn: &mut Conn, users: &mut BTreeSet<usize>, isolate: bool) -> Result<Attempt, ApplyError> {
        self.shared.owner.tag_side_lane(conn, self.number).await?;
        let mut ends = Ends::default();
        let open: Vec<usize> = (0..self.chunk.rows.len()).filter(|place| !users.contains(place)).collect();
        let mut is_careful = isolate;
        for piece in open.chunks(PIECE_ROWS) {
            self.write_piece(conn, piece, isolate, &mut is_careful, &mut ends).await?;
        }
        (self.shared.probe)("mid-chunk");
        // A row that is kept may be what a user of the target has written a moment ago; then it is no finding.
        let open: Vec<usize> =
            ends.copied.iter().filter(|(_, copied)| **copied != Copied::Same).map(|(place, _)| *place).collect();
        if self.chunk.concurrent && !open.is_empty() {
            let limit = HOLD_LIMIT.max(self.shared.hold.enough_under_locks());
            if !self.shared.hold.captured_under_locks(conn, limit).await?.is_enough() {
                return Ok(Attempt::OppositeAway);
            }
            let mut lookup = self.shared.lookup.lock().await;
            lookup.refresh().await?;
            let turned = self.concurrent(&mut lookup, open, conn).await?;
            users.extend(&turned);
            if turned.iter().any(|place| ends.copied.get(place) == Some(&Copied::Replace)) {
                return Ok(Attempt::Turned);
            }
            self.take_back(conn, &turned, &mut ends).await?;
        }
        conn.query_drop("COMMIT").await?;
        (self.shared.probe)("after-chunk-commit");
        Ok(Attempt::Committed(told(ends, users.len() as u64)))
    }

    /// Rows that users of the target had deleted a moment before they were inserted here go again, so that the rest of the chunk
    /// need not be written anew; nobody else has seen them.
    async fn take_back(&self, conn: &mut Conn, turned: &[usize], ends: &mut Ends) -> Result<(), ApplyError> {
        let is_filled = |place: &&usize| ends.copied.get(place) == Some(&Copied::Fill);
        let keys: Vec<Vec<&Value>> =
            turned.iter().filter(is_filled).map(|place| self.target().key_of(&self.chunk.rows[*place])).collect();
        self.target().delete(conn, &keys).await?;
        ends.copied.retain(|place, _| !turned.contains(place));
        Ok(())
    }

    /// Of these rows those that users of the target have changed without the source having seen it.
    async fn concurrent(
        &self,
        lookup: &mut Lookup,
        places: Vec<usize>,
        conn: &mut Conn,
    ) -> Result<Vec<usize>, ApplyError> {
        let (mapping, target) = (&self.shared.mappings[self.chunk.table], self.target());
        let key_of = |place: usize| target.key_of(&self.chunk.rows[place]);
        lookup.prepare(places.iter().map(|place| folded_hash(&mapping.identity, &key_of(*place)))).await?;
        let mut found = Vec::new();
        for place in places {
            let key = key_of(place);
            let subject = Subject { mapping, key: &key, seen: self.chunk.seen };
            if lookup.last_concurrent(&subject, target, conn).await?.is_some() {
                found.push(place);
            }
        }
        Ok(found)
    }

    /// Most often nothing of a chunk is there, and it is simply inserted.
    async fn write_piece(
        &self,
        conn: &mut Conn,
        piece: &[usize],
        isolate: bool,
        is_careful: &mut bool,
        ends: &mut Ends,
    ) -> Result<(), ApplyError> {
        if !*is_careful {
            let rows: Vec<&Row> = piece.iter().map(|place| &self.chunk.rows[*place]).collect();
            conn.query_drop("SAVEPOINT part").await?;
            match self.target().insert(conn, &rows).await {
                Ok(()) => {
                    ends.copied.extend(piece.iter().map(|place| (*place, Copied::Fill)));
                    return Ok(());
                }
                Err(error) if is_duplicate_key(&error) => {
                    conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                    *is_careful = true;
                }
                Err(error) => return Err(self.row_error(error)),
            }
        }
        if !isolate {
            return self.put(conn, piece, ends).await.map_err(|error| self.row_error(error));
        }
        let mut open = vec![piece];
        while let Some(part) = open.pop() {
            conn.query_drop("SAVEPOINT part").await?;
            match self.put(conn, part, ends).await {
                Ok(()) => {}
                Err(error) if row_remedy(&error) == Remedy::Park => {
                    conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
                    ends.copied.retain(|place, _| !part.contains(place));
                    match part {
                        [place] => ends.refused.push((*place, error.into())),
                        _ => {
                            let (first, second) = part.split_at(part.len() / 2);
                            open.extend([second, first]);
                        }
                    }
                }
                Err(error) => return Err(self.row_error(error)),
            }
        }
        Ok(())
    }

    /// Looks what is there, locks it, and writes what is missing or older.
    async fn put(&self, conn: &mut Conn, piece: &[usize], ends: &mut Ends) -> Result<(), mysql_async::Error> {
        let (mapping, target) = (&self.shared.mappings[self.chunk.table], self.target());
        let row_of = |place: &usize| &self.chunk.rows[*place];
        let keys: Vec<Vec<&Value>> = piece.iter().map(|place| target.key_of(row_of(place))).collect();
        let found = target.lock_rows(conn, &keys).await?;
        let (mut absent, mut older) = (Vec::new(), Vec::new());
        for (place, found) in piece.iter().zip(&found) {
            let row = row_of(place);
            let there = found.as_ref().map(|found| (found, same_image(found, row)));
            let copied = judge_copy(mapping, row, there);
            match copied {
                Copied::Fill => absent.push(row),
                Copied::Replace => older.push(row),
                Copied::Same | Copied::Keep => {}
            }
            ends.copied.insert(*place, copied);
        }
        target.overwrite(conn, &older).await?;
        target.insert(conn, &absent).await
    }

    fn row_error(&self, source: mysql_async::Error) -> ApplyError {
        let table = self.shared.mappings[self.chunk.table].target.clone();
        ApplyError::ChunkRow { table, source: source.into() }
    }
}

fn told(ends: Ends, concurrent: u64) -> ChunkWritten {
    let mut written = ChunkWritten { concurrent, refused: ends.refused, ..ChunkWritten::default() };
    for (place, copied) in ends.copied {
        match copied {
            Copied::Fill => written.filled += 1,
            Copied::Replace => written.replaced += 1,
            Copied::Same => written.same += 1,
            Copied::Keep => written.kept.push(place),
        }
    }
    written
}
