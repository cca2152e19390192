//! Children of a row that goes back to the key from which it was moved, since the move has lost, go with it.
//!
//! The side that moved the row has given it children by its new key; the other side has given it some by the old one, or has
//! changed it. What goes back ends the row under the new key, and brings it under the old one, unless the other side has changed it
//! there and that has won. Where it has a unique value, that tells that it is one row: those that refer to the new key are its
//! children, and refer to the one that it has in the end from then on. The other side is told, where they wait for a parent that
//! is not there.

use std::collections::BTreeMap;

use crossfade_model::{Origin, Row, RowChange, RowOp, Value};
use crossfade_rules::TableMapping;
use mysql_async::{Conn, Error};

use crate::error::ApplyError;
use crate::family::{change, children_by, has_children, numbered, send_back};
use crate::judged::{JudgedLane, JudgedStep, Taken};
use crate::lane::Shared;
use crate::parking::Cause;
use crate::session;

/// Whether a row has a unique value of one that ends, and so is the same one.
pub(crate) fn succeeds(mapping: &TableMapping, ended: &Row, other: &Row) -> bool {
    let is_same = |column: &usize| !ended[*column].is_null() && ended[*column] == other[*column];
    mapping.unique_keys.iter().any(|key| key.iter().all(is_same))
}

/// Lets what refers to a row that is about to end refer to its successor, which comes later in the transaction; returns what
/// was done. Who refers to it without being synced keeps it from ending.
pub(crate) async fn take(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    (before, successor): (Option<&Row>, Option<&Row>),
) -> Result<Vec<RowChange>, Error> {
    let (Some(before), Some(successor)) = (before, successor) else { return Ok(Vec::new()) };
    // Nobody can give it another child.
    shared.tables[table].lock_and_tell(conn, &[shared.tables[table].key_of(before)]).await?;
    // Until their parent comes the children refer to nothing.
    let ended = (table, before.clone(), successor.clone());
    session::unchecked(conn, async |conn| take_unchecked(shared, conn, ended).await).await
}

/// Children whose own key is part of the reference take theirs along.
async fn take_unchecked(shared: &Shared, conn: &mut Conn, ended: (usize, Row, Row)) -> Result<Vec<RowChange>, Error> {
    let (mut open, mut taken) = (vec![ended], Vec::new());
    while let Some((table, before, after)) = open.pop() {
        for link in &shared.children[table] {
            if link.referred.iter().all(|column| before[*column] == after[*column]) {
                continue;
            }
            let columns = link.columns.iter().zip(&link.referred);
            let values = columns.map(|(own, referred)| (*own, after[*referred].clone())).collect();
            for child in children_by(shared, conn, link, &[&before]).await? {
                let target = &shared.tables[link.child];
                target.change(conn, &target.key_of(&child), &values).await?;
                let mut moved = child.clone();
                values.iter().for_each(|(column, value): (&usize, &Value)| moved[*column] = value.clone());
                let layout = &shared.layouts[link.child];
                taken.push(change(layout, RowOp::Update, Some(child.clone()), Some(moved.clone())));
                open.push((link.child, child, moved));
            }
        }
    }
    Ok(taken)
}

/// Tells of children that were taken along. Where somebody refers to a successor that is not there, it has not come after all:
/// nothing may be written, and these messages wait for it. Where nobody does, it has come and gone again, and what ended it has
/// seen to its children. Nor is a child told of as it went along that a later change of the other side has written
/// over.
pub(crate) async fn tell(
    shared: &Shared,
    conn: &mut Conn,
    lane: &mut JudgedLane<'_>,
) -> Result<BTreeMap<u64, Cause>, ApplyError> {
    let (mut told, mut ahead) = (Vec::new(), BTreeMap::new());
    for Taken { table, seqs, successor, along } in lane.steps.iter_mut().flat_map(JudgedStep::taken_along) {
        let target = &shared.tables[table];
        if target.lock_and_tell(conn, &[target.key_of(&successor)]).await?[0] {
            along.into_iter().for_each(|child| add(&mut told, child));
        } else if has_children(shared, conn, table, &successor).await? {
            ahead.extend(seqs.into_iter().map(|seq| (seq, Cause::Behind)));
        }
    }
    if ahead.is_empty() {
        let mut as_they_are = Vec::new();
        for child in told {
            as_they_are.extend(as_it_is(shared, conn, child).await?);
        }
        send_back(shared, conn, &numbered(as_they_are, Origin::Ruled)).await?;
    }
    Ok(ahead)
}

/// A child may have gone along twice: with two parents, or with one to which it refers by two foreign keys.
fn add(told: &mut Vec<RowChange>, child: RowChange) {
    let same_row = |earlier: &&mut RowChange| earlier.layout.name == child.layout.name && earlier.after == child.before;
    match told.iter_mut().find(same_row) {
        Some(earlier) => earlier.after = child.after,
        None => told.push(child),
    }
}

/// What the other side is to be told of a child. Where a later change of that side has written over it, that it has left its key,
/// if it has.
async fn as_it_is(shared: &Shared, conn: &mut Conn, child: RowChange) -> Result<Option<RowChange>, Error> {
    let table = shared.layouts.iter().position(|layout| layout.name == child.layout.name);
    let (Some(table), Some(before), Some(after)) = (table, &child.before, &child.after) else { return Ok(None) };
    let target = &shared.tables[table];
    let found = target.lock_where(conn, target.key(), &[target.key_of(after)]).await?;
    if found.first() == Some(after) {
        return Ok(Some(child));
    }
    let leaves = target.key_of(before) != target.key_of(after);
    Ok(leaves.then(|| change(&child.layout, RowOp::Delete, child.before.clone(), None)))
}
