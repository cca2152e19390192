//! How far the copying of each table is.
//!
//! A chunk counts once: its rows are added in the commit that moves the table's key on, and only for the process that holds
//! the lease, in the round that the chunk was read in.

use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime, Utc};
use crossfade_model::{Message, Origin, Row as Values, RowChange, RowOp, TableLayout, TableName};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, Row};

use crate::block::{self, PackedBlock, image_json};
use crate::connections::in_time;
use crate::deferred::{DeferredIndex, keep_indexes};
use crate::stream::utc;
use crate::{Store, StoreError};

/// Rows of a table that were kept as they are on the target are listed up to this number.
const LISTED_KEPT: i64 = 1_000;

/// Where the copying of a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// Set by a person's request. Nothing is read yet.
    Waiting,
    /// Set by a restart. The target's rows are being deleted, and are then copied from the beginning.
    Clearing,
    /// Set when the first chunk is about to be read.
    Copying,
    /// Set when the last key is reached. Rows that the target refused may be left.
    Copied,
    /// Set at an error that does not pass by itself; `backfill resume` tries again.
    Stopped,
}

impl CopyState {
    pub fn as_str(self) -> &'static str {
        match self {
            CopyState::Waiting => "waiting",
            CopyState::Clearing => "clearing",
            CopyState::Copying => "copying",
            CopyState::Copied => "copied",
            CopyState::Stopped => "stopped",
        }
    }

    fn parse(text: &str) -> Result<CopyState, StoreError> {
        let all = [CopyState::Waiting, CopyState::Clearing, CopyState::Copying, CopyState::Copied, CopyState::Stopped];
        let unknown =
            || StoreError::Unreadable { what: "backfill", reason: format!("`{text}` is no state of a table") };
        all.into_iter().find(|state| state.as_str() == text).ok_or_else(unknown)
    }
}

/// What the process that copies is wished to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillWish {
    Run,
    Pause,
}

impl BackfillWish {
    pub fn as_str(self) -> &'static str {
        match self {
            BackfillWish::Run => "run",
            BackfillWish::Pause => "pause",
        }
    }
}

/// A key with the names of its columns, as the source has them.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyKey {
    pub layout: Arc<TableLayout>,
    pub values: Values,
}

/// What has become of rows so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyCounts {
    pub read: u64,
    pub filled: u64,
    pub replaced: u64,
    pub same: u64,
    pub kept: u64,
    pub changed: u64,
}

/// How far one table is.
#[derive(Debug, Clone)]
pub struct TableCopy {
    /// As the source names it.
    pub table: TableName,
    pub state: CopyState,
    pub reason: Option<String>,
    pub round: u64,
    /// JSON, as the owner of the copy has written it.
    pub through: Option<String>,
    pub end: Option<String>,
    pub total_rows: Option<u64>,
    pub counts: CopyCounts,
    pub chunks: u64,
    pub rows_per_second: f64,
    /// Rows that the target refuses and that are tried again.
    pub refused: u64,
    pub started_at: Option<DateTime<Utc>>,
    pub copied_at: Option<DateTime<Utc>>,
    pub changed_at: DateTime<Utc>,
}

/// Which table's copy a process goes on with.
#[derive(Debug, Clone)]
pub struct CopyOwner {
    pub table: TableName,
    pub round: u64,
    /// Of the direction's lease.
    pub epoch: u64,
}

/// A row that a person may want to look at.
#[derive(Debug, Clone)]
pub struct NotedRow {
    /// Tells the table's rows apart.
    pub key_hash: u64,
    pub key: CopyKey,
    /// Why the target refused it; `None` for a row that was kept.
    pub error: Option<String>,
    pub attempts: u32,
}

/// What a chunk comes to.
#[derive(Debug, Clone, Default)]
pub struct ChunkDone {
    /// Rows up to and including this key are copied, JSON; `None` where rows were tried again.
    pub through: Option<String>,
    pub counts: CopyCounts,
    pub rows_per_second: f64,
    pub noted: Vec<NotedRow>,
    /// Rows that were refused before, by their hashes, and are not any more.
    pub settled: Vec<u64>,
}

impl Store {
    pub async fn set_backfill_wish(&self, wish: BackfillWish) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO backfill_wish (pair, wish, changed_at) VALUES (?, ?, UTC_TIMESTAMP(6))
             ON DUPLICATE KEY UPDATE wish = VALUES(wish), changed_at = VALUES(changed_at)",
        )
        .bind(&*self.pair)
        .bind(wish.as_str())
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("keep a wish"))?;
        Ok(())
    }

    /// `None` before anybody has wished anything.
    pub async fn backfill_wish(&self) -> Result<Option<BackfillWish>, StoreError> {
        let wish: Option<String> = sqlx::query_scalar("SELECT wish FROM backfill_wish WHERE pair = ?")
            .bind(&*self.pair)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::during("read a wish"))?;
        Ok(wish.map(|wish| if wish == "run" { BackfillWish::Run } else { BackfillWish::Pause }))
    }

    /// Has tables copied that are not known yet, each with the rows that it may have; the others stay as they are. Returns how
    /// many are new.
    ///
    /// `deferred` are indexes that are to be dropped first: known together with their tables, or not at all.
    pub async fn add_copies(
        &self,
        tables: &[(TableName, Option<u64>)],
        deferred: &[DeferredIndex],
    ) -> Result<u64, StoreError> {
        let during = || StoreError::during("keep what is to be copied");
        let mut added = 0;
        // All at once: a child that were known before its parent would be copied before it.
        let mut transaction = self.patient.begin().await.map_err(during())?;
        for (table, expected_rows) in tables {
            let done = sqlx::query(
                "INSERT INTO backfill (pair, table_schema, table_name, total_rows, state, epoch, round, read_rows, filled_rows,
                   replaced_rows, same_rows, kept_rows, changed_rows, chunks, rows_per_second, changed_at)
                 VALUES (?, ?, ?, ?, 'waiting', 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, UTC_TIMESTAMP(6))
                 ON DUPLICATE KEY UPDATE pair = VALUES(pair)",
            )
            .bind(&*self.pair)
            .bind(&*table.schema)
            .bind(&*table.table)
            .bind(expected_rows)
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
            added += u64::from(done.rows_affected() == 1);
        }
        keep_indexes(&mut transaction, &self.pair, deferred).await?;
        transaction.commit().await.map_err(during())?;
        Ok(added)
    }

    /// Has a table copied from its beginning, after its rows on the target were deleted. `false` for one that is not copied.
    pub async fn restart_copy(&self, table: &TableName) -> Result<bool, StoreError> {
        let during = || StoreError::during("restart a copy");
        let mut transaction = self.patient.begin().await.map_err(during())?;
        let done = sqlx::query(
            "UPDATE backfill SET state = 'clearing', reason = NULL, round = round + 1, through_bound = NULL,
               end_bound = NULL, read_rows = 0, filled_rows = 0, replaced_rows = 0, same_rows = 0, kept_rows = 0, changed_rows = 0, chunks = 0, rows_per_second = 0,
               started_at = NULL, copied_at = NULL, changed_at = UTC_TIMESTAMP(6)
             WHERE pair = ? AND table_schema = ? AND table_name = ?",
        )
        .bind(&*self.pair)
        .bind(&*table.schema)
        .bind(&*table.table)
        .execute(&mut *transaction)
        .await
        .map_err(during())?;
        sqlx::query("DELETE FROM backfill_row WHERE pair = ? AND table_schema = ? AND table_name = ?")
            .bind(&*self.pair)
            .bind(&*table.schema)
            .bind(&*table.table)
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
        transaction.commit().await.map_err(during())?;
        Ok(done.rows_affected() == 1)
    }

    /// Tables that were stopped by an error are tried again where they were, and so are indexes that could not be built.
    pub async fn resume_copies(&self) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE backfill SET state = CASE WHEN started_at IS NOT NULL THEN 'copying' WHEN round > 1 THEN 'clearing' ELSE 'waiting' END,
               reason = NULL, changed_at = UTC_TIMESTAMP(6) WHERE pair = ? AND state = 'stopped'",
        )
        .bind(&*self.pair)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("resume copies"))?;
        self.resume_deferred().await
    }

    /// Claims all copies for the holder of a lease, so that those of an older one count no more.
    pub async fn adopt_copies(&self, epoch: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE backfill SET epoch = ? WHERE pair = ? AND epoch < ?")
            .bind(epoch)
            .bind(&*self.pair)
            .bind(epoch)
            .execute(&self.pool)
            .await
            .map_err(StoreError::during("adopt copies"))?;
        Ok(())
    }

    /// All tables that are or were to be copied, by name.
    pub async fn copies(&self) -> Result<Vec<TableCopy>, StoreError> {
        let during = || StoreError::during("read how far copies are");
        let rows = sqlx::query(
            "SELECT b.*, (SELECT COUNT(*) FROM backfill_row r WHERE r.pair = b.pair AND r.table_schema = b.table_schema
               AND r.table_name = b.table_name AND r.kind = 'refused') AS refused
             FROM backfill b WHERE b.pair = ? ORDER BY b.table_schema, b.table_name",
        )
        .bind(&*self.pair)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        rows.iter().map(copy_of).collect()
    }

    /// Begins a table's copy, or the next round of it.
    pub async fn begin_copy(&self, owner: &CopyOwner, end: Option<&str>, total_rows: u64) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE backfill SET state = 'copying', end_bound = ?, total_rows = ?,
               started_at = UTC_TIMESTAMP(6), changed_at = UTC_TIMESTAMP(6)
             WHERE pair = ? AND table_schema = ? AND table_name = ? AND round = ? AND epoch = ?",
        )
        .bind(end)
        .bind(total_rows)
        .bind(&*self.pair)
        .bind(&*owner.table.schema)
        .bind(&*owner.table.table)
        .bind(owner.round)
        .bind(owner.epoch)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("begin a copy"))?;
        owner.check(done.rows_affected())
    }

    /// Ends a table's copy: it is copied, it begins after having been cleared, or it stops for a reason.
    pub async fn set_copy_state(
        &self,
        owner: &CopyOwner,
        state: CopyState,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE backfill SET state = ?, reason = ?, copied_at = IF(? = 'copied', UTC_TIMESTAMP(6), copied_at),
               changed_at = UTC_TIMESTAMP(6)
             WHERE pair = ? AND table_schema = ? AND table_name = ? AND round = ? AND epoch = ?",
        )
        .bind(state.as_str())
        .bind(reason)
        .bind(state.as_str())
        .bind(&*self.pair)
        .bind(&*owner.table.schema)
        .bind(&*owner.table.table)
        .bind(owner.round)
        .bind(owner.epoch)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("tell how far a copy is"))?;
        owner.check(done.rows_affected())
    }

    /// A chunk is written: the table's key moves on, and its rows count.
    ///
    /// # Errors
    ///
    /// [`StoreError::Overtaken`] where the table is another process's, or begins anew.
    pub async fn chunk_done(&self, owner: &CopyOwner, chunk: &ChunkDone) -> Result<(), StoreError> {
        let during = || StoreError::during("tell how far a copy is");
        let work = async {
            let mut connection = self.pool.acquire().await.map_err(during())?;
            let mut transaction = connection.begin().await.map_err(during())?;
            let CopyCounts { read, filled, replaced, same, kept, changed } = chunk.counts;
            let done = sqlx::query(
                "UPDATE backfill SET through_bound = COALESCE(?, through_bound), read_rows = read_rows + ?, filled_rows = filled_rows + ?, replaced_rows = replaced_rows + ?,
                   same_rows = same_rows + ?, kept_rows = kept_rows + ?, changed_rows = changed_rows + ?,
                   chunks = chunks + 1, rows_per_second = ?, changed_at = UTC_TIMESTAMP(6)
                 WHERE pair = ? AND table_schema = ? AND table_name = ? AND round = ? AND epoch = ?",
            )
            .bind(chunk.through.as_deref())
            .bind(read)
            .bind(filled)
            .bind(replaced)
            .bind(same)
            .bind(kept)
            .bind(changed)
            .bind(chunk.rows_per_second)
            .bind(&*self.pair)
            .bind(&*owner.table.schema)
            .bind(&*owner.table.table)
            .bind(owner.round)
            .bind(owner.epoch)
            .execute(&mut *transaction)
            .await
            .map_err(during())?;
            owner.check(done.rows_affected())?;
            self.forget_noted(&mut transaction, owner, &chunk.settled).await?;
            self.note_rows(&mut transaction, owner, &chunk.noted).await?;
            transaction.commit().await.map_err(during())?;
            connection.keep();
            Ok(())
        };
        in_time("tell how far a copy is", 0, work).await
    }

    async fn forget_noted(
        &self,
        connection: &mut MySqlConnection,
        owner: &CopyOwner,
        settled: &[u64],
    ) -> Result<(), StoreError> {
        for hash in settled {
            sqlx::query(
                "DELETE FROM backfill_row WHERE pair = ? AND table_schema = ? AND table_name = ? AND key_hash = ?",
            )
            .bind(&*self.pair)
            .bind(&*owner.table.schema)
            .bind(&*owner.table.table)
            .bind(hash)
            .execute(&mut *connection)
            .await
            .map_err(StoreError::during("tell how far a copy is"))?;
        }
        Ok(())
    }

    async fn note_rows(
        &self,
        connection: &mut MySqlConnection,
        owner: &CopyOwner,
        rows: &[NotedRow],
    ) -> Result<(), StoreError> {
        let during = || StoreError::during("tell how far a copy is");
        let listed: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM backfill_row WHERE pair = ? AND table_schema = ? AND table_name = ? AND kind = 'kept'",
        )
        .bind(&*self.pair)
        .bind(&*owner.table.schema)
        .bind(&*owner.table.table)
        .fetch_one(&mut *connection)
        .await
        .map_err(during())?;
        let mut room = LISTED_KEPT - listed;
        for row in rows {
            if row.error.is_none() {
                room -= 1;
                if room < 0 {
                    continue;
                }
            }
            let (key, bytes) = packed(&row.key)?;
            sqlx::query(
                "INSERT INTO backfill_row (pair, table_schema, table_name, key_hash, kind, row_key, key_block, error_text,
                   attempts, noted_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))
                 ON DUPLICATE KEY UPDATE kind = VALUES(kind), error_text = VALUES(error_text),
                   attempts = VALUES(attempts), noted_at = VALUES(noted_at)",
            )
            .bind(&*self.pair)
            .bind(&*owner.table.schema)
            .bind(&*owner.table.table)
            .bind(row.key_hash)
            .bind(if row.error.is_some() { "refused" } else { "kept" })
            .bind(key)
            .bind(bytes)
            .bind(row.error.as_deref())
            .bind(row.attempts)
            .execute(&mut *connection)
            .await
            .map_err(during())?;
        }
        Ok(())
    }

    /// Rows of a table that the target refused, those first that were tried least.
    pub async fn refused_rows(&self, table: &TableName, limit: u32) -> Result<Vec<NotedRow>, StoreError> {
        self.noted_rows(table, "refused", limit).await
    }

    /// Rows of a table that differ and were kept as the target has them.
    pub async fn kept_rows(&self, table: &TableName, limit: u32) -> Result<Vec<NotedRow>, StoreError> {
        self.noted_rows(table, "kept", limit).await
    }

    async fn noted_rows(&self, table: &TableName, kind: &str, limit: u32) -> Result<Vec<NotedRow>, StoreError> {
        let during = || StoreError::during("read rows of a copy");
        let rows = sqlx::query(
            "SELECT key_hash, key_block, error_text, attempts FROM backfill_row
             WHERE pair = ? AND table_schema = ? AND table_name = ? AND kind = ? ORDER BY attempts, key_hash LIMIT ?",
        )
        .bind(&*self.pair)
        .bind(&*table.schema)
        .bind(&*table.table)
        .bind(kind)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        let read = |row: &MySqlRow| -> Result<Option<NotedRow>, StoreError> {
            let block: Option<Vec<u8>> = row.try_get("key_block").map_err(during())?;
            let Some(key) = unpacked(block)? else { return Ok(None) };
            Ok(Some(NotedRow {
                key_hash: row.try_get("key_hash").map_err(during())?,
                key,
                error: row.try_get("error_text").map_err(during())?,
                attempts: row.try_get("attempts").map_err(during())?,
            }))
        };
        rows.iter().filter_map(|row| read(row).transpose()).collect()
    }
}

impl CopyKey {
    /// As JSON, for people.
    pub fn to_json(&self) -> String {
        image_json(&self.layout, &self.values)
    }
}

impl CopyOwner {
    fn check(&self, matched: u64) -> Result<(), StoreError> {
        if matched == 1 {
            return Ok(());
        }
        let subject = format!("the copy of {}", self.table);
        Err(StoreError::Overtaken { subject, mine: self.epoch, current: self.epoch })
    }
}

fn copy_of(row: &MySqlRow) -> Result<TableCopy, StoreError> {
    let during = || StoreError::during("read how far copies are");
    let number = |name: &str| row.try_get::<u64, _>(name).map_err(during());
    let time = |name: &str| row.try_get::<Option<NaiveDateTime>, _>(name).map_err(during());
    let (schema, table): (String, String) =
        (row.try_get("table_schema").map_err(during())?, row.try_get("table_name").map_err(during())?);
    Ok(TableCopy {
        table: TableName::new(schema, table),
        state: CopyState::parse(row.try_get("state").map_err(during())?)?,
        reason: row.try_get("reason").map_err(during())?,
        round: number("round")?,
        through: row.try_get("through_bound").map_err(during())?,
        end: row.try_get("end_bound").map_err(during())?,
        total_rows: row.try_get("total_rows").map_err(during())?,
        counts: CopyCounts {
            read: number("read_rows")?,
            filled: number("filled_rows")?,
            replaced: number("replaced_rows")?,
            same: number("same_rows")?,
            kept: number("kept_rows")?,
            changed: number("changed_rows")?,
        },
        chunks: number("chunks")?,
        rows_per_second: row.try_get("rows_per_second").map_err(during())?,
        refused: row.try_get::<i64, _>("refused").map_err(during())?.unsigned_abs(),
        started_at: time("started_at")?.map(utc),
        copied_at: time("copied_at")?.map(utc),
        changed_at: utc(row.try_get("changed_at").map_err(during())?),
    })
}

/// A key for people, and exactly.
fn packed(key: &CopyKey) -> Result<(String, Vec<u8>), StoreError> {
    let change = RowChange {
        layout: key.layout.clone(),
        op: RowOp::Insert,
        before: None,
        after: Some(key.values.clone()),
        event_index: 0,
    };
    let message = Message {
        seq: 1,
        change,
        origin: Origin::User,
        seen: Arc::default(),
        committed_at_micros: 0,
        source_position: "".into(),
        effective: None,
    };
    let blocks = block::encode(std::slice::from_ref(&message), &[])?;
    let block = blocks.first().map(|block| PackedBlock::of(block).to_bytes());
    Ok((key.to_json(), block.unwrap_or_default()))
}

fn unpacked(block: Option<Vec<u8>>) -> Result<Option<CopyKey>, StoreError> {
    let Some(block) = block else { return Ok(None) };
    let unreadable = |reason: String| StoreError::Unreadable { what: "key of a copy", reason };
    let messages = PackedBlock::from_bytes(&block).and_then(|packed| packed.messages()).map_err(unreadable)?;
    let change = messages.into_iter().next().map(|message| message.change);
    Ok(change.and_then(|change| Some(CopyKey { layout: change.layout, values: change.after? })))
}
