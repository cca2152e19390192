//! Capture: messages and the position after them, in one commit.

use crossfade_model::{Message, ResumePoint, Seen, StreamId};
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use crate::block::{self, Block, FORMAT};
use crate::connections::in_time;
use crate::partition::{is_missing_partition, micros_to_time};
use crate::stream::to_json;
use crate::{CaptureError, CapturedAuthority, Store, StoreError, StreamState};

/// Chunks of what does not fit into a payload; below every server's default `max_allowed_packet`.
pub(crate) const LARGE_CHUNK_BYTES: usize = 1 << 20;

/// A heartbeat of the pair that was read from the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedHeartbeat {
    pub writer: String,
    pub counter: u64,
}

/// What was read from the source beside messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed<'p> {
    pub heartbeats: &'p [PassedHeartbeat],
    pub authority: &'p [CapturedAuthority],
}

/// What a capture did.
#[derive(Debug, Clone)]
pub struct Captured {
    /// What the next batch starts from.
    pub state: StreamState,
    pub blocks: usize,
    /// Bytes of payloads when unfolded, and as stored.
    pub raw_bytes: u64,
    pub stored_bytes: u64,
}

const WHAT: &str = "capture a batch";

/// A build that measures what the message table costs.
const WITHOUT_MESSAGES: bool = cfg!(feature = "without-messages");

impl Store {
    /// Writes `batch` and moves the stream to `end`, in one transaction, if the stream still is where `from` says. An empty
    /// batch moves the position only.
    ///
    /// The messages of `batch` carry their numbers, from `from.next_seq()` on without holes. `key_hashes` goes beside them: the
    /// hashes of each change's row key before and after. `seen` is what had been seen at `end`.
    ///
    /// If the connection is lost during the commit, an error is returned although the batch may be there: read the
    /// stream's state again, as after [`CaptureError::Superseded`].
    ///
    /// # Errors
    ///
    /// [`CaptureError::Superseded`] if position, number or epoch have been moved by somebody else; nothing is written then.
    pub async fn capture(
        &self,
        from: &StreamState,
        batch: &[Message],
        key_hashes: &[[u64; 2]],
        end: &ResumePoint,
        seen: &Seen,
        heartbeats: &[PassedHeartbeat],
    ) -> Result<Captured, CaptureError> {
        let passed = Passed { heartbeats, ..Passed::default() };
        self.capture_all(from, batch, key_hashes, end, seen, passed).await
    }

    /// As [`Store::capture`], with all that was read beside messages.
    pub async fn capture_all(
        &self,
        from: &StreamState,
        batch: &[Message],
        key_hashes: &[[u64; 2]],
        end: &ResumePoint,
        seen: &Seen,
        passed: Passed<'_>,
    ) -> Result<Captured, CaptureError> {
        if let Some(first) = batch.first().filter(|first| first.seq != from.next_seq()) {
            return Err(StoreError::NotContiguous { expected: from.next_seq(), found: first.seq }.into());
        }
        let blocks = if WITHOUT_MESSAGES { Vec::new() } else { block::encode(batch, key_hashes)? };
        self.register_layouts(&blocks).await?;
        let end_state = StreamState {
            position: end.clone(),
            seen: seen.clone(),
            last_seq: batch.last().map_or(from.last_seq, |last| last.seq),
            ..from.clone()
        };
        let bytes = blocks.iter().map(|block| stored_bytes(block) as u64).sum();
        match in_time(WHAT, bytes, self.capture_once(from, &end_state, &blocks, passed)).await {
            Err(CaptureError::Store(StoreError::Database { source, .. })) if is_missing_partition(&source) => {
                // The first batch of a day that nobody prepared.
                self.add_partitions().await?;
                in_time(WHAT, bytes, self.capture_once(from, &end_state, &blocks, passed)).await?;
            }
            other => other?,
        }
        self.reached("after-capture");
        Ok(Captured {
            state: end_state,
            blocks: blocks.len(),
            raw_bytes: blocks.iter().map(|block| u64::from(block.raw_bytes)).sum(),
            stored_bytes: blocks.iter().map(|block| stored_bytes(block) as u64).sum(),
        })
    }

    async fn capture_once(
        &self,
        from: &StreamState,
        end: &StreamState,
        blocks: &[Block],
        passed: Passed<'_>,
    ) -> Result<(), CaptureError> {
        let during = || StoreError::during(WHAT);
        let mut connection = self.pool.acquire().await.map_err(during())?;
        let mut transaction = connection.begin().await.map_err(during())?;
        let stream = &from.stream;
        if !self.move_stream(&mut transaction, from, end).await.map_err(during())? {
            transaction.rollback().await.map_err(during())?;
            connection.keep();
            return Err(self.superseded(from).await);
        }
        for block in blocks {
            self.insert_block(&mut transaction, stream, block).await.map_err(during())?;
        }
        for heartbeat in passed.heartbeats {
            self.pass_heartbeat(&mut transaction, stream, heartbeat).await.map_err(during())?;
        }
        self.keep_authority(&mut transaction, stream, passed.authority).await.map_err(during())?;
        self.reached("inside-capture");
        transaction.commit().await.map_err(during())?;
        connection.keep();
        Ok(())
    }

    /// Locks the stream's row and moves it, if it still is where the batch started; `false` if it is not.
    async fn move_stream(
        &self,
        connection: &mut MySqlConnection,
        from: &StreamState,
        end: &StreamState,
    ) -> Result<bool, sqlx::Error> {
        // Rows that match are counted, whether they change or not: sqlx asks for that.
        let moved = sqlx::query(
            "UPDATE stream SET position = ?, seen = ?, last_seq = ?, captured_at = UTC_TIMESTAMP(6)
             WHERE pair = ? AND stream = ? AND epoch = ? AND last_seq = ? AND position = ?",
        )
        .bind(to_json(&end.position))
        .bind(to_json(&end.seen))
        .bind(end.last_seq)
        .bind(&*self.pair)
        .bind(from.stream.as_str())
        .bind(from.epoch.0)
        .bind(from.last_seq)
        .bind(to_json(&from.position))
        .execute(connection)
        .await?;
        Ok(moved.rows_affected() == 1)
    }

    /// What the stream has that the batch did not start from.
    async fn superseded(&self, from: &StreamState) -> CaptureError {
        let stored = match self.stream_state(&from.stream).await {
            Ok(stored) => stored,
            Err(error) => return error.into(),
        };
        let reason = if stored.epoch != from.epoch {
            format!("it has epoch {}, the batch has {}", stored.epoch, from.epoch)
        } else if stored.last_seq != from.last_seq {
            format!("its last message is {}, the batch follows {}", stored.last_seq, from.last_seq)
        } else {
            format!("it stands at {}, the batch starts at {}", stored.position.position, from.position.position)
        };
        CaptureError::Superseded { stream: from.stream.clone(), reason }
    }

    async fn insert_block(
        &self,
        connection: &mut MySqlConnection,
        stream: &StreamId,
        block: &Block,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO message_block (pair, stream, first_seq, last_seq, day, committed_from, committed_to, captured_at,
               source_position, format, raw_bytes, stored_bytes, large_parts, seen, key_filter, payload)
             VALUES (?, ?, ?, ?, UTC_DATE(), ?, ?, UTC_TIMESTAMP(6), ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(block.first_seq)
        .bind(block.last_seq)
        .bind(micros_to_time(block.committed_from))
        .bind(micros_to_time(block.committed_to))
        .bind(&*block.source_position)
        .bind(FORMAT)
        .bind(block.raw_bytes)
        .bind(u32::try_from(stored_bytes(block)).unwrap_or(u32::MAX))
        .bind(block.large.len().div_ceil(LARGE_CHUNK_BYTES) as u32)
        .bind(&block.seen)
        .bind(&block.key_filter)
        .bind(&block.payload)
        .execute(&mut *connection)
        .await?;
        for (part, chunk) in block.large.chunks(LARGE_CHUNK_BYTES).enumerate() {
            sqlx::query(
                "INSERT INTO message_large (pair, stream, first_seq, part, day, bytes) VALUES (?, ?, ?, ?, UTC_DATE(), ?)",
            )
            .bind(&*self.pair)
            .bind(stream.as_str())
            .bind(block.first_seq)
            .bind(part as u32)
            .bind(chunk)
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }

    async fn pass_heartbeat(
        &self,
        connection: &mut MySqlConnection,
        stream: &StreamId,
        heartbeat: &PassedHeartbeat,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO heartbeat_seen (pair, stream, writer, counter) VALUES (?, ?, ?, ?)
             ON DUPLICATE KEY UPDATE counter = GREATEST(counter, VALUES(counter))",
        )
        .bind(&*self.pair)
        .bind(stream.as_str())
        .bind(&heartbeat.writer)
        .bind(heartbeat.counter)
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Keeps the definitions that the store does not have yet. Before the capture's transaction: a definition that no
    /// message uses does no harm.
    async fn register_layouts(&self, blocks: &[Block]) -> Result<(), StoreError> {
        for stored in blocks.iter().flat_map(|block| &block.layouts) {
            if self.known_layout(stored.id).is_some() {
                continue;
            }
            sqlx::query(
                "INSERT INTO layout (pair, id, definition, created_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))
                 ON DUPLICATE KEY UPDATE id = VALUES(id)",
            )
            .bind(&*self.pair)
            .bind(stored.id)
            .bind(&*stored.definition)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("keep the columns of a table"))?;
            self.remember_layout(stored.id, stored.layout.clone());
        }
        Ok(())
    }
}

fn stored_bytes(block: &Block) -> usize {
    block.payload.len() + block.large.len() + block.seen.len() + block.key_filter.len()
}
