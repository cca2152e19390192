//! Late changes: made where the other side had authority over the row.
//!
//! Nothing of them is written here, but for columns that may still change on their side: one of those crosses unless users of this
//! side have changed it, too. As the row is here then, it goes back to the side of the late change, in the same transaction
//! and as a change of the opposite stream, unless it is the same there already. What is late and no plain update is undone as a
//! whole: see [`crate::undone`].

use std::collections::{BTreeMap, BTreeSet};

use crossfade_model::{Clock, Row, RowChange, RowOp, Value};
use crossfade_rules::authority::EntityTable;
use crossfade_rules::clock::clock_of;
use crossfade_rules::{Remedy, TableMapping};
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
        let answer = match (unknown.contains(&key), is_same) {
            // The source may be told to have it otherwise by what is on its way: so it is told all.
            (true, _) => Some(change(layout, RowOp::Insert, None, Some(here))),
            (false, false) => Some(change(layout, RowOp::Update, Some(update.after.clone()), Some(here))),
            (false, true) => None,
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
async fn cross(
    shared: &Shared,
    conn: &mut Conn,
    update: &mut LateUpdate<'_>,
    there: Row,
) -> Result<Row, ApplyError> {
    let (mapping, target) = (&shared.mappings[update.table], &shared.tables[update.table]);
    let entity = shared.entities.tables.table(update.table);
    let Crossing { mut crossed, mut lost, values } = crossing(mapping, entity, (update.before, update.after), &there);
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

/// What of a late update crosses.
#[derive(Debug, Default, PartialEq)]
struct Crossing {
    /// Columns that may change there, and did there alone.
    crossed: Vec<usize>,
    lost: Vec<usize>,
    /// What is written: of these, and of columns that change with every update.
    values: BTreeMap<usize, Value>,
}

fn crossing(
    mapping: &TableMapping,
    entity: Option<&EntityTable>,
    (before, after): (&Row, &Row),
    there: &Row,
) -> Crossing {
    let mut crossing = Crossing::default();
    let changed: Vec<usize> = (0..after.len()).filter(|column| before[*column] != after[*column]).collect();
    for column in changed.iter().copied().filter(|column| !mapping.is_incidental(*column)) {
        let may = entity.is_some_and(|entity| entity.allowed.contains(&column));
        let (is_there, is_untouched) =
            (same_cell(&there[column], &after[column]), same_cell(&there[column], &before[column]));
        if may && (is_there || is_untouched) {
            crossing.crossed.push(column);
            if !is_there {
                crossing.values.insert(column, after[column].clone());
            }
        } else if !is_there {
            crossing.lost.push(column);
        }
    }
    if crossing.crossed.is_empty() && !crossing.lost.is_empty() {
        return crossing;
    }
    for column in changed.into_iter().filter(|column| mapping.is_incidental(*column)) {
        let is_clock = mapping.clock.as_ref().filter(|clock| clock.index == column);
        let is_later = is_clock.is_some_and(|clock| clock_of(clock, &after[column]) > clock_of(clock, &there[column]));
        if is_later || same_cell(&there[column], &before[column]) {
            crossing.values.insert(column, after[column].clone());
        }
    }
    crossing
}
