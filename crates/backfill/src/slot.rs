//! Workers: each has a connection to the source and a way to write to the target, and carries one chunk at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossfade_applier::{ChunkWriter, beat_seen, read_session};
use crossfade_catalog::chunk::KeySpace;
use crossfade_catalog::{Purpose, ServerFacts, Servers};
use crossfade_message::CopyKey;
use crossfade_model::Row;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::BackfillError;
use crate::source::SourceTable;
use crate::windows::mark_writer;

/// A mark is a single row, and is written at once or not at all.
const MARK_LIMIT: Duration = Duration::from_secs(20);

/// A replica that is further behind is waited for by beginning again.
const REPLICA_LIMIT: Duration = Duration::from_secs(60);
const REPLICA_LOOK_EVERY: Duration = Duration::from_millis(20);

/// The workers of a process.
pub(crate) struct Slots {
    free: Mutex<Vec<Slot>>,
    count: Arc<Semaphore>,
}

/// One worker.
pub(crate) struct Slot {
    pub number: u16,
    pub writer: ChunkWriter,
    source: Servers,
    /// Where chunks are read instead.
    replica: Option<Servers>,
    pair: String,
    conn: Option<(Conn, u64)>,
    replica_conn: Option<Conn>,
    /// Holds rows still while the other one commits a mark.
    holding: Option<(Conn, u64)>,
}

/// A worker that is at work; free again when dropped.
pub(crate) struct Busy {
    slots: Arc<Slots>,
    slot: Option<Slot>,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    pub fn new(writers: Vec<ChunkWriter>, source: &Servers, replica: Option<&Servers>, pair: &str) -> Slots {
        let count = writers.len();
        let slot = |(number, writer)| {
            let (source, replica, pair) = (source.clone(), replica.cloned(), pair.to_owned());
            Slot { number, writer, source, replica, pair, conn: None, replica_conn: None, holding: None }
        };
        let free = (0..).zip(writers).map(slot).collect();
        Slots { free: Mutex::new(free), count: Arc::new(Semaphore::new(count)) }
    }

    /// Waits for a free worker.
    pub async fn take(self: &Arc<Self>) -> Result<Busy, BackfillError> {
        let permit = self.count.clone().acquire_owned().await.map_err(|_| BackfillError::Ended)?;
        let slot = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Busy { slots: self.clone(), slot, _permit: permit })
    }
}

impl Busy {
    pub fn slot(&mut self) -> Result<&mut Slot, BackfillError> {
        self.slot.as_mut().ok_or(BackfillError::Ended)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.slots.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.slot.take());
    }
}

impl Slot {
    /// A connection to the source's primary.
    pub async fn source(&mut self) -> Result<&mut Conn, BackfillError> {
        connected(&self.source, &mut self.conn).await
    }

    /// A connection to where chunks are read: a replica of the source, if one is named, else the source's primary.
    pub async fn reader(&mut self) -> Result<&mut Conn, BackfillError> {
        let Some(replica) = &self.replica else { return self.source().await };
        if self.replica_conn.is_none() {
            let mut conn = replica.connect(Purpose::Apply).await?;
            if !ServerFacts::read(&mut conn).await?.binlog.keeps_commit_order {
                return Err(BackfillError::ReplicaUnordered);
            }
            read_session(&mut conn).await?;
            KeySpace::prepare(&mut conn).await?;
            self.replica_conn = Some(conn);
        }
        self.replica_conn.as_mut().ok_or(BackfillError::Ended)
    }

    /// Waits until the reader sees all that is before a mark. What it sees besides is before the next one, since only what the
    /// source has can get there.
    pub async fn until_reader_has(&mut self, counter: u64) -> Result<(), BackfillError> {
        if self.replica.is_none() {
            return Ok(());
        }
        let (pair, writer) = (self.pair.clone(), mark_writer(self.number));
        let conn = self.reader().await?;
        let waiting = async {
            while beat_seen(conn, &pair, &writer).await? < counter {
                tokio::time::sleep(REPLICA_LOOK_EVERY).await;
            }
            Ok(())
        };
        tokio::time::timeout(REPLICA_LIMIT, waiting).await.unwrap_or(Err(BackfillError::ReplicaBehind))
    }

    /// Reads the rows of these keys that exist, between marks of their own, the second of which is committed while nobody can
    /// change them: they stand at it as they were read, whatever the binlog tells of what a server does by itself.
    pub async fn read_held(
        &mut self,
        table: &SourceTable,
        keys: &[CopyKey],
        number: u64,
    ) -> Result<Vec<Row>, BackfillError> {
        self.mark(number).await?;
        // Dropped where anything fails, and with it what it holds.
        let mut holding = self.holding.take();
        let conn = connected(&self.source, &mut holding).await?;
        conn.query_drop("BEGIN").await?;
        let rows = table.hold_keys(conn, keys).await?;
        self.mark(number + 1).await?;
        conn.query_drop("ROLLBACK").await?;
        self.holding = holding;
        Ok(rows)
    }

    /// The next work begins with a connection of its own.
    pub fn forget_source(&mut self) {
        self.conn = None;
        self.replica_conn = None;
        self.holding = None;
    }

    /// Commits a mark on the source. When this has returned, a snapshot that is opened sees all that is before the mark in
    /// the binlog.
    pub async fn mark(&mut self, counter: u64) -> Result<(), BackfillError> {
        let (pair, writer) = (self.pair.clone(), mark_writer(self.number));
        let conn = self.source().await?;
        let writing = conn.exec_drop(
            "INSERT INTO crossfade.heartbeat (pair, writer, counter, beat_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6)) \
             ON DUPLICATE KEY UPDATE counter = VALUES(counter), beat_at = VALUES(beat_at)",
            (pair, writer, counter),
        );
        match tokio::time::timeout(MARK_LIMIT, writing).await {
            Ok(written) => Ok(written?),
            Err(_) => {
                self.forget_source();
                Err(BackfillError::MarksNotPassed)
            }
        }
    }
}

async fn connected<'c>(source: &Servers, known: &'c mut Option<(Conn, u64)>) -> Result<&'c mut Conn, BackfillError> {
    if let Some((conn, moves)) = known
        && !source.still_takes_writes(conn, *moves).await
    {
        *known = None;
    }
    if known.is_none() {
        let moves = source.moves();
        let mut conn = source.connect(Purpose::Apply).await?;
        read_session(&mut conn).await?;
        KeySpace::prepare(&mut conn).await?;
        let ordered: Option<(String, String)> =
            conn.query_first("SHOW GLOBAL VARIABLES LIKE 'binlog_order_commits'").await?;
        if ordered.is_some_and(|(_, value)| value == "OFF") {
            return Err(BackfillError::CommitsUnordered);
        }
        *known = Some((conn, moves));
    }
    match known {
        Some((conn, _)) => Ok(conn),
        None => Err(BackfillError::Ended),
    }
}
