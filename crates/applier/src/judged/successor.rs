//! Rows that end on the side that has moved them, and where they are to be instead.

use crossfade_model::{Origin, Row, RowChange, RowOp};

use super::{JudgedLane, JudgedStep};
use crate::along::succeeds;
use crate::lane::Shared;
use crate::parking::Cause;

/// Children that were taken along by a row that has ended.
pub(crate) struct Taken {
    pub table: usize,
    pub seqs: Vec<u64>,
    pub successor: Row,
    pub along: Vec<RowChange>,
}

/// A row that comes back to its key.
struct Comes {
    table: usize,
    row: Row,
    waits: bool,
}

impl JudgedLane<'_> {
    /// Finds for each row that ends since a change of its key has lost the one that it is to be instead. Where that one waits,
    /// so does the end.
    pub fn find_successors(&mut self, shared: &Shared) {
        let is_parent = |table: usize| !shared.children[table].is_empty();
        let comes: Vec<Comes> = self.steps.iter().flat_map(JudgedStep::coming_back).collect();
        if !comes.iter().any(|comes| is_parent(comes.table)) {
            return;
        }
        let of_end = |table: usize, ended: &Row| {
            comes.iter().find(|comes| comes.table == table && succeeds(&shared.mappings[table], ended, &comes.row))
        };
        let look = |table: usize, ended: Option<&Row>, successor: &mut Option<Row>, aside: &mut Option<Cause>| {
            let Some(comes) = ended.filter(|_| is_parent(table)).and_then(|ended| of_end(table, ended)) else { return };
            if comes.waits {
                *aside = Some(Cause::Behind);
            }
            *successor = Some(comes.row.clone());
        };
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => rows
                    .iter_mut()
                    .filter(|row| row.net.origin == Origin::Ruled && row.net.op() == RowOp::Delete && row.arrives())
                    .for_each(|row| look(*table, row.net.before.as_ref(), &mut row.successor, &mut row.aside)),
                JudgedStep::InOrder(changes) => changes
                    .iter_mut()
                    .filter(|judged| judged.change.origin == Origin::Ruled && judged.change.op == RowOp::Delete)
                    .filter(|judged| judged.arrives())
                    .for_each(|judged| {
                        let change = judged.change;
                        look(change.table, change.before.as_ref(), &mut judged.successor, &mut judged.aside);
                    }),
            }
        }
    }
}

impl JudgedStep<'_> {
    fn coming_back(&self) -> Vec<Comes> {
        match self {
            JudgedStep::Net { table, rows, .. } => rows
                .iter()
                .filter(|row| row.net.origin == Origin::Ruled && (row.aside.is_some() || row.arrives()))
                .filter_map(|row| Some(Comes { table: *table, row: row.after()?.clone(), waits: row.aside.is_some() }))
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .filter(|judged| judged.change.origin == Origin::Ruled && (judged.aside.is_some() || judged.arrives()))
                .filter_map(|judged| {
                    let (table, waits) = (judged.change.table, judged.aside.is_some());
                    Some(Comes { table, row: judged.after()?.clone(), waits })
                })
                .collect(),
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
