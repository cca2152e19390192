//! The canary: a transaction with the tag and nothing but a heartbeat, by which the opposite reader shows that the tag
//! arrives.

use crossfade_model::StreamId;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::checkpoint::{CheckpointOwner, PARKED_LANE};
use crate::error::ApplyError;
use crate::session;

/// The heartbeats that come with canaries bear this name, so that the opposite reader knows them.
pub fn canary_writer(stream: &StreamId) -> String {
    format!("canary:{stream}")
}

/// Writes a canary on the target of `stream`, in the name of the lease of `epoch`. `counter` must be higher than that of
/// every canary before it.
///
/// The tag is the row that is no lane's, which says nothing new by it. Dropping the future leaves nothing behind but,
/// perhaps, a canary.
pub async fn sing(conn: &mut Conn, pair: &str, stream: &StreamId, epoch: u64, counter: u64) -> Result<(), ApplyError> {
    session::prepare(conn).await?;
    let owner = CheckpointOwner { pair: pair.to_owned(), stream: stream.clone(), epoch };
    conn.query_drop("BEGIN").await?;
    if !owner.tag(conn).await? {
        conn.query_drop("ROLLBACK").await?;
        return Err(ApplyError::CheckpointMissing { stream: stream.clone(), lane: PARKED_LANE });
    }
    conn.exec_drop(
        "INSERT INTO crossfade.heartbeat (pair, writer, counter, beat_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6)) \
         ON DUPLICATE KEY UPDATE counter = VALUES(counter), beat_at = VALUES(beat_at)",
        (pair, canary_writer(stream), counter),
    )
    .await?;
    conn.query_drop("COMMIT").await?;
    Ok(())
}
