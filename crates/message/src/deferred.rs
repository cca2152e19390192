//! Indexes of the target that are dropped before its rows are copied, and built afterwards.
//!
//! What an index was is kept before it is dropped. So whatever dies, the next process knows what is missing.

use crossfade_model::TableName;
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use crate::{Store, StoreError};

/// Where an index stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeferredState {
    /// Set by a person's request; the index is there, or was just dropped by a process that died.
    ToDrop,
    /// Set when it is dropped. It is built when its table is copied.
    ToBuild,
    /// Set when it is there again.
    Built,
    /// Set where it was not dropped, for a reason: it is there.
    Left,
    /// Set where it cannot be built, for a reason; `backfill resume` tries again.
    Failed,
}

impl DeferredState {
    pub fn as_str(self) -> &'static str {
        match self {
            DeferredState::ToDrop => "to_drop",
            DeferredState::ToBuild => "to_build",
            DeferredState::Built => "built",
            DeferredState::Left => "left",
            DeferredState::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<DeferredState, StoreError> {
        use DeferredState::{Built, Failed, Left, ToBuild, ToDrop};
        let unknown =
            || StoreError::Unreadable { what: "deferred index", reason: format!("`{text}` is no state of an index") };
        [ToDrop, ToBuild, Built, Left, Failed].into_iter().find(|state| state.as_str() == text).ok_or_else(unknown)
    }
}

/// An index of a table that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredIndex {
    /// As the source names it.
    pub table: TableName,
    pub target: TableName,
    pub name: String,
    /// What follows the table in CREATE INDEX.
    pub definition: String,
    pub state: DeferredState,
    pub reason: Option<String>,
}

impl Store {
    /// All indexes that are or were deferred, by table and name.
    pub async fn deferred_indexes(&self) -> Result<Vec<DeferredIndex>, StoreError> {
        let during = || StoreError::during("read which indexes are to be built");
        let rows = sqlx::query(
            "SELECT table_schema, table_name, index_name, target_schema, target_table, definition, state, reason
               FROM deferred_index WHERE pair = ? ORDER BY table_schema, table_name, index_name",
        )
        .bind(&*self.pair)
        .fetch_all(&self.pool)
        .await
        .map_err(during())?;
        rows.iter().map(index_of).collect()
    }

    /// Tells what has become of an index, for the holder of the lease by which its table is copied.
    ///
    /// # Errors
    ///
    /// [`StoreError::Overtaken`] where another process copies the table.
    pub async fn set_deferred_state(
        &self,
        index: &DeferredIndex,
        epoch: u64,
        state: DeferredState,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE deferred_index AS i
               JOIN backfill AS b ON b.pair = i.pair AND b.table_schema = i.table_schema AND b.table_name = i.table_name
                SET i.state = ?, i.reason = ?, i.changed_at = UTC_TIMESTAMP(6)
              WHERE i.pair = ? AND i.table_schema = ? AND i.table_name = ? AND i.index_name = ? AND b.epoch = ?",
        )
        .bind(state.as_str())
        .bind(reason)
        .bind(&*self.pair)
        .bind(&*index.table.schema)
        .bind(&*index.table.table)
        .bind(&index.name)
        .bind(epoch)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("tell what became of an index"))?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        let subject = format!("the index `{}` of {}", index.name, index.table);
        Err(StoreError::Overtaken { subject, mine: epoch, current: epoch })
    }

    /// Indexes that could not be built are tried again.
    pub(crate) async fn resume_deferred(&self) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE deferred_index SET state = 'to_build', reason = NULL, changed_at = UTC_TIMESTAMP(6)
              WHERE pair = ? AND state = 'failed'",
        )
        .bind(&*self.pair)
        .execute(&self.pool)
        .await
        .map_err(StoreError::during("resume copies"))?;
        Ok(())
    }
}

/// Keeps what is to be dropped, as a part of a transaction. What is known already stays as it is.
pub(crate) async fn keep_indexes(
    transaction: &mut MySqlConnection,
    pair: &str,
    indexes: &[DeferredIndex],
) -> Result<(), StoreError> {
    for index in indexes {
        sqlx::query(
            "INSERT INTO deferred_index (pair, table_schema, table_name, index_name, target_schema, target_table, definition,
               state, changed_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE pair = VALUES(pair)",
        )
        .bind(pair)
        .bind(&*index.table.schema)
        .bind(&*index.table.table)
        .bind(&index.name)
        .bind(&*index.target.schema)
        .bind(&*index.target.table)
        .bind(&index.definition)
        .bind(index.state.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::during("keep which indexes are to be built"))?;
    }
    Ok(())
}

fn index_of(row: &MySqlRow) -> Result<DeferredIndex, StoreError> {
    let text = |column: &str| {
        row.try_get::<String, _>(column).map_err(StoreError::during("read which indexes are to be built"))
    };
    Ok(DeferredIndex {
        table: TableName::new(text("table_schema")?, text("table_name")?),
        target: TableName::new(text("target_schema")?, text("target_table")?),
        name: text("index_name")?,
        definition: text("definition")?,
        state: DeferredState::parse(&text("state")?)?,
        reason: row.try_get("reason").map_err(StoreError::during("read which indexes are to be built"))?,
    })
}
