//! Late changes: made where the other side had authority over the row.
//!
//! Nothing of them is written here, but for columns that may still change on their side: one of those crosses unless users of this
//! side have changed it, too. As the row is here then, it goes back to the side of the late change, in the same transaction
//! and as a change of the opposite stream, unless it is the same there already. What is late and no plain update is undone as a
//! whole: see [`crate::undone`].

use std::collections::{BTreeMap, BTreeSet};

use crossfade_model::{Clock, Row, RowChange, RowOp};
use crossfade_rules::Remedy;
use crossfade_rules::late::{Answer, Crossing, crossing};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::error::{ApplyError, row_remedy};
use crate::family::change;
use crate::hold::Waited;
use crate::judged::{JudgedLane, LateUpdate};
use crate::lane::{Manner, Shared};
use crate::lookup::Subject;
use crate::read::same_cell;
use crate::session;

/// What settling late changes came to.
pub(crate) struct Settled {
    /// To go back to their side.
    pub answers: Vec<(RowChange, Option<Clock>)>,
    /// Some row was not there, and only locked gaps keep a user from inserting it.
    pub is_absent: bool,
}

/// Lets cross what may, and tells what goes back. `None`: the opposite reader did not get there in time.
pub(crate) async fn settle(
    shared: &Shared,
    conn: &mut Conn,
    lane: &mut JudgedLane<'_>,
    manner: Manner,
) -> Result<Option<Settled>, ApplyError> {
    let concurrent = lane.concurrent;
    let mut updates = lane.late_updates();
    let mut settled = Settled { answers: Vec::new(), is_absent: false };
    if updates.is_empty() {
        return Ok(Some(settled));
    }
    // All are locked before anybody is waited for: what users do to them is then known, and nobody does more before the commit.
    for update in &updates {
        let target = &shared.tables[update.table];
        target.lock_and_tell(conn, &[target.key_of(update.after)]).await?;
    }
    let is_known = match manner.may_hold().filter(|_| concurrent) {
        None => false,
        Some(limit) => match shared.hold.captured_under_locks(conn, limit).await? {
            Waited::TooLong => return Ok(None),
            waited => waited == Waited::Captured,
        },
    };
    // Where a row is changed several times, only what it is in the end goes back.
    let mut places: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    let mut unknown: BTreeSet<(usize, u64)> = BTreeSet::new();
    let mut answers: Vec<Option<RowChange>> = Vec::new();
    for update in &mut updates {
        let key = (update.table, shared.exact_key(update.table, update.after));
        let found = row_here(shared, conn, update).await?;
        let Some(there) = found else {
            settled.is_absent = true;
            let end = change(&shared.layouts[update.table], RowOp::Delete, Some(update.after.clone()), None);
            put(&mut places, &mut answers, key, Some(end));
            continue;
        };
        let here = cross(shared, conn, update, there).await?;
        let is_seen = is_known && has_seen_all(shared, conn, update).await?;
        if !is_seen {
            unknown.insert(key);
        }
        let is_same = here.iter().zip(update.after).all(|(here, there)| same_cell(here, there));
        let layout = &shared.layouts[update.table];
        let answer = match Answer::to(!unknown.contains(&key), is_same) {
            Answer::Nothing => None,
            Answer::Rest => Some(change(layout, RowOp::Update, Some(update.after.clone()), Some(here))),
            Answer::Whole => Some(change(layout, RowOp::Insert, None, Some(here))),
        };
        put(&mut places, &mut answers, key, answer);
    }
    settled.answers = answers.into_iter().flatten().map(|answer| (answer, None)).collect();
    Ok(Some(settled))
}

/// Takes the place of what was to be answered about the row before.
fn put(
    places: &mut BTreeMap<(usize, u64), usize>,
    answers: &mut Vec<Option<RowChange>>,
    key: (usize, u64),
    answer: Option<RowChange>,
) {
    let place = *places.entry(key).or_insert_with(|| {
        answers.push(None);
        answers.len() - 1
    });
    answers[place] = answer;
}

async fn row_here(
    shared: &Shared,
    conn: &mut Conn,
    update: &LateUpdate<'_>,
) -> Result<Option<Row>, mysql_async::Error> {
    let target = &shared.tables[update.table];
    Ok(target.lock_where(conn, target.key(), &[target.key_of(update.after)]).await?.pop())
}

/// Nothing that users of this side did to the row is concurrent with the late change.
async fn has_seen_all(shared: &Shared, conn: &mut Conn, update: &LateUpdate<'_>) -> Result<bool, ApplyError> {
    let (mapping, target) = (&shared.mappings[update.table], &shared.tables[update.table]);
    let key = target.key_of(update.after);
    let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
    lookup.refresh().await?;
    let subject = Subject { mapping, key: &key, seen: update.seen };
    Ok(lookup.last_concurrent(&subject, target, conn).await?.is_none())
}

/// Writes what crosses; returns the row as it is here then. What the target refuses does not cross.
async fn cross(shared: &Shared, conn: &mut Conn, update: &mut LateUpdate<'_>, there: Row) -> Result<Row, ApplyError> {
    let (mapping, target) = (&shared.mappings[update.table], &shared.tables[update.table]);
    let entity = shared.entities.tables.table(update.table);
    let allowed = entity.map(|entity| entity.allowed.as_slice()).unwrap_or_default();
    let images = (update.before, update.after);
    let Crossing { mut crossed, mut lost, values } = crossing(mapping, allowed, images, &there, same_cell);
    let mut here = there;
    if !values.is_empty() {
        conn.query_drop("SAVEPOINT late").await?;
        match target.change(conn, &target.key_of(update.after), &values).await {
            Ok(()) => values.into_iter().for_each(|(column, value)| here[column] = value),
            Err(error) if row_remedy(&error) == Remedy::Park => {
                conn.query_drop("ROLLBACK TO SAVEPOINT late").await?;
                lost.append(&mut crossed);
                lost.sort_unstable();
            }
            Err(error) => return Err(error.into()),
        }
    }
    update.late.is_whole = lost.is_empty();
    (update.late.crossed, update.late.lost) = (crossed, lost);
    Ok(here)
}
