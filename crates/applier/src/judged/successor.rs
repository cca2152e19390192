//! Rows that end on the side that has moved them, and where they are to be instead.

use crossfade_model::{Origin, Row, RowChange, RowOp, Seen};
use mysql_async::Conn;

use super::{JudgedLane, JudgedStep};
use crate::along::succeeds;
use crate::error::ApplyError;
use crate::family::children_by;
use crate::lane::Shared;
use crate::lookup::Subject;
use crate::parking::Cause;
use crate::session;

/// Children that were taken along by a row that has ended.
pub(crate) struct Taken {
    pub table: usize,
    pub seqs: Vec<u64>,
    pub successor: Row,
    pub along: Vec<RowChange>,
}

/// A change of a lane, however its step keeps it.
struct LaneChange<'l> {
    /// The number of its step, and its own in that.
    place: (usize, usize),
    table: usize,
    origin: Origin,
    op: RowOp,
    before: Option<&'l Row>,
    /// As it is written.
    after: Option<&'l Row>,
    /// The first of what it is made of goes back to its side.
    began_by_ruling: bool,
    /// What that one had seen.
    first_seen: &'l Seen,
    arrives: bool,
    waits: bool,
}

impl LaneChange<'_> {
    /// A row ends where it was moved to, since that move has lost.
    fn ends_a_moved_row(&self) -> bool {
        self.arrives && self.origin == Origin::Ruled && self.op == RowOp::Delete
    }
}

impl JudgedLane<'_> {
    /// Finds what each row is to be instead that ends since the change of its key has lost. Where that waits, so does the end.
    ///
    /// It is the row that goes back to its old key with this end. Where none does, the side that has kept the row has changed it,
    /// and that has won: then it is what the changes there make of it.
    pub async fn find_successors(&mut self, shared: &Shared, conn: &mut Conn) -> Result<(), ApplyError> {
        let is_parent = |table: usize| !shared.children[table].is_empty();
        let ends: Vec<LaneChange<'_>> =
            self.changes().filter(|change| change.ends_a_moved_row() && is_parent(change.table)).collect();
        if ends.is_empty() {
            return Ok(());
        }
        let comes: Vec<LaneChange<'_>> = self.changes().filter(|change| change.arrives || change.waits).collect();
        let mut found = Vec::new();
        for end in &ends {
            let Some(ended) = end.before else { continue };
            let of_table: Vec<&LaneChange<'_>> = comes.iter().filter(|other| other.table == end.table).collect();
            let is_it = |row: &Row| succeeds(&shared.mappings[end.table], ended, row);
            let goes_back = of_table.iter().find(|other| other.began_by_ruling && other.after.is_some_and(is_it));
            let successor = match goes_back {
                Some(back) => back.after.map(|row| (row, back.waits)),
                None if self.concurrent => changed_there(shared, conn, (end.table, ended), &of_table).await?,
                None => None,
            };
            let Some((row, waits)) = successor else { continue };
            if !some_stay(shared, conn, end.table, (ended, row)).await? {
                found.push((end.place, row.clone(), waits));
            }
        }
        for ((step, index), row, waits) in found {
            let (successor, aside) = match &mut self.steps[step] {
                JudgedStep::Net { rows, .. } => {
                    let row = &mut rows[index];
                    (&mut row.successor, &mut row.aside)
                }
                JudgedStep::InOrder(changes) => {
                    let judged = &mut changes[index];
                    (&mut judged.successor, &mut judged.aside)
                }
            };
            *successor = Some(row);
            if waits {
                *aside = Some(Cause::Behind);
            }
        }
        Ok(())
    }

    fn changes(&self) -> impl Iterator<Item = LaneChange<'_>> {
        self.steps.iter().enumerate().flat_map(|(number, step)| step.changes(number))
    }
}

impl JudgedStep<'_> {
    fn changes(&self, number: usize) -> Box<dyn Iterator<Item = LaneChange<'_>> + '_> {
        match self {
            JudgedStep::Net { table, rows, .. } => {
                Box::new(rows.iter().enumerate().map(move |(index, row)| LaneChange {
                    place: (number, index),
                    table: *table,
                    origin: row.net.origin,
                    op: row.net.op(),
                    before: row.net.before.as_ref(),
                    after: row.after(),
                    began_by_ruling: row.net.first_origin == Origin::Ruled,
                    first_seen: &row.net.first_seen,
                    arrives: row.arrives(),
                    waits: row.aside.is_some(),
                }))
            }
            JudgedStep::InOrder(changes) => {
                Box::new(changes.iter().enumerate().map(move |(index, judged)| LaneChange {
                    place: (number, index),
                    table: judged.change.table,
                    origin: judged.change.origin,
                    op: judged.change.op,
                    before: judged.change.before.as_ref(),
                    after: judged.after(),
                    began_by_ruling: judged.change.origin == Origin::Ruled,
                    first_seen: &judged.change.seen,
                    arrives: judged.arrives(),
                    waits: judged.aside.is_some(),
                }))
            }
        }
    }

    /// Children that were taken along.
    pub fn taken_along(&mut self) -> Vec<Taken> {
        let taken = |table, seqs, successor: &Option<Row>, along: &mut Vec<RowChange>| {
            let successor = successor.clone().filter(|_| !along.is_empty())?;
            Some(Taken { table, seqs, successor, along: std::mem::take(along) })
        };
        match self {
            JudgedStep::Net { table, rows, .. } => rows
                .iter_mut()
                .filter(|row| row.aside.is_none())
                .filter_map(|row| taken(*table, row.net.seqs.iter().collect(), &row.successor, &mut row.along))
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter_mut()
                .filter(|judged| judged.aside.is_none())
                .filter_map(|judged| {
                    let (table, seqs) = (judged.change.table, vec![judged.change.seq]);
                    taken(table, seqs, &judged.successor, &mut judged.along)
                })
                .collect(),
        }
    }
}

/// What changes of the side that has kept a row make of it, and whether that waits; `None` where they end it. Users of the target
/// have given that row the key of the one that ends, as far as is known, so that both are one.
async fn changed_there<'l>(
    shared: &Shared,
    conn: &mut Conn,
    (table, ended): (usize, &Row),
    changes: &[&LaneChange<'l>],
) -> Result<Option<(&'l Row, bool)>, ApplyError> {
    let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
    for (place, first) in changes.iter().enumerate() {
        let before = first.before.filter(|before| !first.began_by_ruling && succeeds(mapping, ended, before));
        let (Some(before), Some(after)) = (before, first.after) else { continue };
        let subject = Subject { mapping, key: &target.key_of(before), seen: first.first_seen };
        let mut lookup = session::while_alive(conn, shared.lookup.lock()).await?;
        let by_now = lookup.key_by_now(&subject, target, conn).await?;
        drop(lookup);
        if !by_now.is_some_and(|key| key.iter().eq(target.key_of(ended))) {
            continue;
        }
        let (mut key, mut row, mut waits) = (target.key_of(after), Some(after), first.waits);
        for later in &changes[place + 1..] {
            let (left, reached) =
                (later.before.map(|row| target.key_of(row)), later.after.map(|row| target.key_of(row)));
            let is_of_row = match row {
                Some(_) => left.as_ref() == Some(&key),
                // What is brought again under its key is that row.
                None => left.is_none() && reached.as_ref() == Some(&key),
            };
            if is_of_row {
                (row, waits) = (later.after, waits || later.waits);
                key = reached.unwrap_or(key);
            }
        }
        return Ok(row.map(|row| (row, waits)));
    }
    Ok(None)
}

/// Whether some refer to the ended row by what its successor has too: with it they would go, or keep it from ending.
async fn some_stay(
    shared: &Shared,
    conn: &mut Conn,
    table: usize,
    (ended, row): (&Row, &Row),
) -> Result<bool, mysql_async::Error> {
    for link in &shared.children[table] {
        let is_same = link.referred.iter().all(|column| ended[*column] == row[*column]);
        if is_same && !children_by(shared, conn, link, &[ended]).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
