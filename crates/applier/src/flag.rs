//! The mirror of the read-write flag on the sides' nodes, for applications that read it there.

use crossfade_message::Flag;
use crossfade_model::{Phase, StreamId};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::checkpoint::tag_repair;
use crate::error::ApplyError;
use crate::session;

/// Takes the flag over into `crossfade.flag` on the target of `stream`, under the key that it has in the store, in a transaction
/// that is tagged as the pair's. Where that has another one of this version or of a later one, nothing is written, and that one is
/// given. Repeatable; whoever does it at the same time changes nothing twice.
///
/// Dropping the future leaves the old flag or the new one.
pub async fn mirror_flag(
    conn: &mut Conn,
    (pair, key): (&str, &str),
    stream: &StreamId,
    flag: &Flag,
) -> Result<Option<Flag>, ApplyError> {
    let known: Option<(u64, u8, bool)> =
        conn.exec_first("SELECT version, flag, fenced FROM crossfade.flag WHERE pair = ?", (key,)).await?;
    if let Some((version, value, fenced)) = known.filter(|(version, ..)| *version >= flag.version) {
        let later = Phase::from_flag(value).map(|phase| Flag { version, phase, fenced });
        // One of the same version that says something else is of a store that knew more, too.
        return Ok(later.filter(|later| later != flag));
    }
    session::prepare(conn).await?;
    conn.query_drop("BEGIN").await?;
    let written = write(conn, (pair, key), stream, flag).await;
    let ended = conn.query_drop(if written.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
    written?;
    ended?;
    Ok(None)
}

async fn write(
    conn: &mut Conn,
    (pair, key): (&str, &str),
    stream: &StreamId,
    flag: &Flag,
) -> Result<(), mysql_async::Error> {
    tag_repair(conn, pair, stream).await?;
    // From left to right, each with the version as it was (MySQL manual, "UPDATE Statement").
    conn.exec_drop(
        "INSERT INTO crossfade.flag (pair, version, flag, fenced, changed_at) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6)) \
         ON DUPLICATE KEY UPDATE flag = IF(VALUES(version) > version, VALUES(flag), flag), \
           fenced = IF(VALUES(version) > version, VALUES(fenced), fenced), \
           changed_at = IF(VALUES(version) > version, VALUES(changed_at), changed_at), \
           version = GREATEST(version, VALUES(version))",
        (key, flag.version, flag.phase.flag(), flag.fenced),
    )
    .await
}
