//! What is remembered on the target of rows that were deleted there by crossfade: written with the delete, forgotten when no
//! change still to come can be one that had not seen it.

use std::time::Duration;

use crossfade_message::row_key_json;
use crossfade_model::{Clock, Row, RowChange, RowOp};
use crossfade_rules::moves::told_clock;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Value as Param};

use crate::checkpoint::CheckpointOwner;
use crate::error::ApplyError;
use crate::judged::JudgedStep;
use crate::lane::Shared;
use crate::table::{condition_rows, padded};

/// Of a tombstone, but for the time.
const COLUMNS: usize = 8;

/// Tombstones that go in one transaction, so that nobody waits long for their locks.
const PURGED_AT_A_TIME: usize = 1_000;

/// Young tombstones stay in any case, for people.
const KEPT_AT_LEAST: Duration = Duration::from_secs(3_600);

/// A row that a lane's step deletes.
pub(crate) struct Grave<'a> {
    pub table: usize,
    /// Of the row's key.
    pub hash: u64,
    pub before: &'a Row,
    pub clock: Option<Clock>,
    pub seq: u64,
}

/// The rows that a step has deleted, and the keys that it has left; in the order of their tombstones' keys, which spares lanes most
/// deadlocks over them, as where outcomes are recorded.
pub(crate) fn graves<'s>(shared: &Shared, step: &'s JudgedStep<'_>) -> Vec<Grave<'s>> {
    let grave = |table: usize, before, clock, seq| {
        let hash = shared.exact_key(table, before);
        Grave { table, hash, before, clock, seq }
    };
    let mut graves = Vec::new();
    match step {
        JudgedStep::Net { table, rows, .. } => graves.extend(rows.iter().filter_map(|row| {
            let net = row.net;
            let (clock, seq) = match &net.moved_from {
                Some(departure) if row.leaves() => (departure.effective, departure.seqs.last()),
                None if net.after.is_none() && row.arrives() => (net.effective, net.seqs.last()),
                _ => return None,
            };
            Some(grave(*table, net.before.as_ref()?, clock, seq))
        })),
        JudgedStep::InOrder(changes) => graves.extend(changes.iter().filter_map(|judged| {
            let (change, target) = (judged.change, &shared.tables[judged.change.table]);
            let before = change.before.as_ref()?;
            let ends = match &change.after {
                None => judged.arrives(),
                Some(after) => judged.leaves() && target.key_of(before) != target.key_of(after),
            };
            (ends && !shared.mappings[change.table].keyless)
                .then(|| grave(change.table, before, change.effective, change.seq))
        })),
    }
    graves.sort_by_key(|grave| (grave.table, grave.hash));
    graves
}

/// Writes tombstones inside the transaction that deletes.
pub(crate) async fn bury(shared: &Shared, conn: &mut Conn, graves: &[Grave<'_>]) -> Result<(), mysql_async::Error> {
    let mut rest = graves;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(condition_rows(rest.len(), COLUMNS));
        rest = after;
        // The same tombstone twice in one statement changes nothing.
        let chunk = padded(chunk);
        let places = vec!["(?, ?, ?, ?, ?, UTC_TIMESTAMP(6), ?, ?, ?)"; chunk.len()].join(", ");
        let sql = format!(
            "INSERT INTO crossfade.tombstone \
             (pair, table_schema, table_name, row_key_hash, row_key, deleted_at, clock, stream, seq) VALUES {places} \
             ON DUPLICATE KEY UPDATE deleted_at = VALUES(deleted_at), clock = VALUES(clock), stream = VALUES(stream), \
             seq = VALUES(seq), row_key = VALUES(row_key)"
        );
        let params: Vec<Param> = chunk.flat_map(|grave| params(shared, grave)).collect();
        conn.exec_drop(sql, Params::Positional(params)).await?;
    }
    Ok(())
}

fn params(shared: &Shared, grave: &Grave<'_>) -> [Param; COLUMNS] {
    let Grave { table, hash, before, clock, seq } = *grave;
    let mapping = &shared.mappings[table];
    let name = &mapping.target;
    let change = RowChange {
        layout: shared.layouts[table].clone(),
        op: RowOp::Delete,
        before: Some(before.clone()),
        after: None,
        event_index: 0,
    };
    [
        Param::from(&*shared.owner.pair),
        Param::from(&*name.schema),
        Param::from(&*name.table),
        Param::from(hash),
        Param::from(row_key_json(&change).unwrap_or_default()),
        Param::from(told_clock(mapping.policy, clock).map(|clock| clock.0)),
        Param::from(shared.owner.stream.as_str()),
        Param::from(seq),
    ]
}

/// Forgets old tombstones that no change still to come can be judged by: of messages up to `through`. Returns whether there may
/// be more.
pub(crate) async fn purge(owner: &CheckpointOwner, conn: &mut Conn, through: u64) -> Result<bool, ApplyError> {
    conn.exec_drop(
        format!(
            "DELETE FROM crossfade.tombstone WHERE pair = ? AND deleted_at < UTC_TIMESTAMP(6) - INTERVAL {} SECOND \
             AND stream = ? AND seq <= ? LIMIT {PURGED_AT_A_TIME}",
            KEPT_AT_LEAST.as_secs()
        ),
        (&owner.pair, owner.stream.as_str(), through),
    )
    .await?;
    Ok(conn.affected_rows() == PURGED_AT_A_TIME as u64)
}
