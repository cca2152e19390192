//! Secondary indexes of the target: dropped while its table is empty, and built when the rows are copied.
//!
//! The store knows what an index was before it is dropped, and a step that was interrupted is told by what the target has.

use std::sync::Arc;

use crossfade_catalog::{Purpose, class_of};
use crossfade_message::{DeferredIndex, DeferredState};
use crossfade_model::quote_identifier;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::BackfillError;
use crate::worker::Shared;

/// A table that was empty when that was asked may have got some rows by changes since. With more than these it is in use, and
/// its indexes are left.
const FEW_ROWS: u64 = 10_000;

/// Whoever waits for a table to be free makes all others wait behind it.
const SESSION: &str = "SET SESSION lock_wait_timeout = 3";

/// Drops what is to be dropped. What the target refuses is left for that reason, and the table is copied all the same.
pub(crate) async fn drop_indexes(shared: &Arc<Shared>, indexes: &[DeferredIndex]) -> Result<(), BackfillError> {
    let mut conn = session(shared).await?;
    for index in indexes.iter().filter(|index| index.state == DeferredState::ToDrop) {
        let (state, reason) = drop_index(shared, &mut conn, index).await?;
        shared.store.set_deferred_state(index, shared.epoch, state, reason.as_deref()).await?;
        match &reason {
            None => {
                tracing::info!(table = %index.target, index = index.name, "dropped, to be built when the rows are copied")
            }
            Some(reason) => tracing::info!(table = %index.target, index = index.name, reason, "the index is left"),
        }
    }
    Ok(())
}

async fn drop_index(
    shared: &Shared,
    conn: &mut Conn,
    index: &DeferredIndex,
) -> Result<(DeferredState, Option<String>), BackfillError> {
    if !exists(conn, index).await? {
        return Ok((DeferredState::ToBuild, None));
    }
    let table = index.target.quoted();
    let some = format!("SELECT COUNT(*) FROM (SELECT 1 FROM {table} LIMIT {}) AS some", FEW_ROWS + 1);
    let rows: Option<u64> = conn.query_first(some).await.map_err(BackfillError::Target)?;
    if rows.unwrap_or(0) > FEW_ROWS {
        return Ok((DeferredState::Left, Some("the table has got rows since".to_owned())));
    }
    let dropped = conn.query_drop(format!("DROP INDEX {} ON {table}", quote_identifier(&index.name))).await;
    (shared.probe)("index-dropped");
    match refusal(dropped)? {
        None => Ok((DeferredState::ToBuild, None)),
        reason => Ok((DeferredState::Left, reason)),
    }
}

/// Builds what is missing, one index after the other, so that what is built stays built. The server lets the table be written
/// meanwhile.
pub(crate) async fn build_indexes(shared: &Arc<Shared>, indexes: &[DeferredIndex]) -> Result<(), BackfillError> {
    let mut conn = session(shared).await?;
    (shared.probe)("before-indexes");
    for index in indexes.iter().filter(|index| is_pending(index)) {
        shared.throttle.until_rows_may_pass(0).await.used(0);
        let mut reason = None;
        if !exists(&mut conn, index).await? {
            tracing::info!(table = %index.target, index = index.name, "building");
            let (table, name) = (index.target.quoted(), quote_identifier(&index.name));
            let built = conn.query_drop(format!("CREATE INDEX {name} ON {table} {}", index.definition)).await;
            (shared.probe)("index-built");
            reason = refusal(built)?;
        }
        let state = if reason.is_none() { DeferredState::Built } else { DeferredState::Failed };
        shared.store.set_deferred_state(index, shared.epoch, state, reason.as_deref()).await?;
        match &reason {
            None => tracing::info!(table = %index.target, index = index.name, "built"),
            Some(reason) => tracing::error!(table = %index.target, index = index.name, reason, "an index is not built"),
        }
    }
    Ok(())
}

/// Whether an index has to be built, as far as is known.
pub(crate) fn is_pending(index: &DeferredIndex) -> bool {
    matches!(index.state, DeferredState::ToDrop | DeferredState::ToBuild)
}

async fn session(shared: &Shared) -> Result<Conn, BackfillError> {
    let mut conn = shared.target.connect(Purpose::Catalog).await?;
    conn.query_drop(SESSION).await.map_err(BackfillError::Target)?;
    Ok(conn)
}

/// An error that does not pass is a reason; one that passes has everything begin again.
fn refusal(done: Result<(), mysql_async::Error>) -> Result<Option<String>, BackfillError> {
    match done {
        Ok(()) => Ok(None),
        Err(error) if class_of(&error).remedy().passes() => Err(BackfillError::Target(error)),
        Err(error) => Ok(Some(error.to_string())),
    }
}

async fn exists(conn: &mut Conn, index: &DeferredIndex) -> Result<bool, BackfillError> {
    let row: Option<u8> = conn
        .exec_first(
            "SELECT 1 FROM information_schema.statistics
              WHERE table_schema = ? AND table_name = ? AND index_name = ? LIMIT 1",
            (&*index.target.schema, &*index.target.table, &index.name),
        )
        .await
        .map_err(BackfillError::Target)?;
    Ok(row.is_some())
}
