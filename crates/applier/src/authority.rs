//! Authority over entities, written on the sides' nodes: so it has its place in a binlog, among the entities' changes.

use crossfade_model::{Given, Side, StreamId};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};

use crate::checkpoint::tag_repair;
use crate::error::ApplyError;
use crate::session;

/// Rows of one statement.
const ROWS: usize = 500;

/// Gives authority on the target of `stream`, all in one tagged transaction: what users commit there after it is judged by it.
/// Repeatable: what has that version or a later one there stays as it is. Both sides are to be told, each by itself.
///
/// Dropping the future leaves all of it undone, or all of it done.
pub async fn give_authority(conn: &mut Conn, pair: &str, stream: &StreamId, given: &[Given]) -> Result<(), ApplyError> {
    if given.is_empty() {
        return Ok(());
    }
    session::prepare(conn).await?;
    conn.query_drop("BEGIN").await?;
    let written = write(conn, pair, stream, given).await;
    let ended = conn.query_drop(if written.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
    written?;
    Ok(ended?)
}

async fn write(conn: &mut Conn, pair: &str, stream: &StreamId, given: &[Given]) -> Result<(), mysql_async::Error> {
    tag_repair(conn, pair, stream).await?;
    // In one order, so that two who give at the same time wait for each other and meet no deadlock.
    let mut given: Vec<&Given> = given.iter().collect();
    given.sort_by(|a, b| a.entity.cmp(&b.entity));
    for rows in given.chunks(ROWS) {
        let places = vec!["(?, ?, ?, ?, UTC_TIMESTAMP(6))"; rows.len()].join(", ");
        // From left to right, each with the version as it was (MySQL manual, "UPDATE Statement").
        let statement = format!(
            "INSERT INTO crossfade.authority (pair, entity, side, version, changed_at) VALUES {places} \
             ON DUPLICATE KEY UPDATE side = IF(VALUES(version) > version, VALUES(side), side), \
               changed_at = IF(VALUES(version) > version, VALUES(changed_at), changed_at), \
               version = GREATEST(version, VALUES(version))"
        );
        let params = rows.iter().flat_map(|row| {
            let side = match row.side {
                Side::Old => 0,
                Side::New => 1,
            };
            [
                Value::from(pair),
                Value::from(row.entity.as_str().as_bytes()),
                Value::from(side),
                Value::from(row.version),
            ]
        });
        conn.exec_drop(statement, params.collect::<Vec<Value>>()).await?;
    }
    Ok(())
}
