//! What was ruled over changes beside who wins: families, and changes of keys that are undone.

use crossfade_model::{Clock, Row, RowOp, Seen, Value};
use crossfade_rules::moves::{KeyedChange, lost_moves};
use crossfade_rules::{ChangeKind, Loss, MappedChange, Verdict};

use super::{JudgedChange, JudgedLane, JudgedStep, UNDISPUTED, is_write};
use crate::family::{Ruling, Rulings};
use crate::lane::Shared;

/// What is not told by the changes of the target that are on their way to the source, where a change is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undo {
    /// What is under the key that it left.
    pub(super) left: bool,
    /// What is under the key that it reached, or that it deleted.
    pub(super) reached: bool,
}

impl Undo {
    /// The target has its own rows under both.
    pub(super) const WHOLE: Undo = Undo { left: true, reached: true };

    pub(super) fn of((arrival, departure): (Verdict, Verdict)) -> Undo {
        Undo { left: is_write(departure), reached: is_write(arrival) }
    }
}

pub(super) fn loss_of(verdict: Verdict) -> Option<Loss> {
    match verdict {
        Verdict::Lose(loss) => Some(loss),
        Verdict::Write(_) => None,
    }
}

/// Of changes that keep their order, those that are lost with a change of a row's key. With each who wins at its keys, that
/// of the key it reaches first.
pub(super) fn lost_in_order(
    shared: &Shared,
    changes: &[JudgedChange<'_>],
    verdicts: &[(Verdict, Verdict)],
) -> Vec<Option<Loss>> {
    let keyed = |(judged, (arrival, departure)): (&JudgedChange<'_>, &(Verdict, Verdict))| {
        let (change, table) = (judged.change, judged.change.table);
        let has_key = !shared.mappings[table].keyless;
        let key = |row: &Option<Row>| row.as_ref().filter(|_| has_key).map(|row| (table, shared.exact_key(table, row)));
        let ruled = match judged.ruling {
            Some(Ruling::Undone(loss)) => Some(loss),
            // What is lost is only what the change has done, and not what others do to the row.
            _ => judged.late.as_ref().filter(|_| judged.undo.is_some()).map(|late| late.loss),
        };
        let (before, after) = (key(&change.before), key(&change.after));
        KeyedChange { before, after, departure: *departure, arrival: *arrival, ruled }
    };
    let keyed: Vec<KeyedChange<(usize, u64)>> = changes.iter().zip(verdicts).map(keyed).collect();
    lost_moves(&keyed)
}

impl JudgedLane<'_> {
    /// Lets rulings take the place of verdicts.
    pub fn rule(&mut self, rulings: &Rulings) {
        if rulings.is_empty() {
            return;
        }
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { rows, .. } => {
                    for row in rows.iter_mut().filter(|row| row.late.is_none()) {
                        // What came and went inside the batch is no part of the row that was moved.
                        let is_of =
                            |ruling: &&Ruling| row.net.moved_from.is_some() || !matches!(ruling, Ruling::Undone(_));
                        let ruling = row.net.seqs.iter().find_map(|seq| rulings.get(&seq).filter(is_of)).cloned();
                        row.ruling = ruling.or_else(|| row.ruling.take());
                        match &row.ruling {
                            Some(Ruling::Undone(loss)) => {
                                row.undo.get_or_insert(Undo::of((row.verdict, row.departure)));
                                (row.verdict, row.departure) = (Verdict::Lose(*loss), Verdict::Lose(*loss));
                                row.merges = false;
                            }
                            Some(Ruling::Returns(loss) | Ruling::Goes(loss)) => {
                                (row.verdict, row.departure) = (Verdict::Lose(*loss), Verdict::Lose(*loss));
                                row.merges = false;
                            }
                            Some(Ruling::LetsGo(columns)) => row.replaced = without(row.net.after.as_ref(), columns),
                            None => {}
                        }
                    }
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes.iter_mut().filter(|judged| judged.late.is_none()) {
                        judged.ruling = rulings.get(&judged.change.seq).cloned().or_else(|| judged.ruling.take());
                        match &judged.ruling {
                            Some(Ruling::Undone(loss)) => {
                                judged.undo.get_or_insert(Undo::of((judged.verdict, judged.departure)));
                                (judged.verdict, judged.departure) = (Verdict::Lose(*loss), Verdict::Lose(*loss));
                                judged.merges = false;
                            }
                            Some(Ruling::Returns(loss) | Ruling::Goes(loss)) => {
                                (judged.verdict, judged.departure) = (Verdict::Lose(*loss), Verdict::Lose(*loss));
                                judged.merges = false;
                            }
                            Some(Ruling::LetsGo(columns)) => {
                                judged.replaced = without(judged.change.after.as_ref(), columns);
                            }
                            None => {}
                        }
                    }
                }
            }
        }
    }

    /// Changes of a row's key that have lost at one of the two keys, and what was done to such a row afterwards.
    pub fn lost_moves(&self, shared: &Shared) -> Rulings {
        let mut rulings = Rulings::new();
        for step in &self.steps {
            match step {
                JudgedStep::Net { kind: ChangeKind::KeyChange, rows, .. } => {
                    for row in rows.iter().filter(|row| row.ruling.is_none() && row.late.is_none()) {
                        let lost = [row.verdict, row.departure].into_iter().find_map(loss_of);
                        rulings.extend(
                            lost.iter().flat_map(|loss| row.net.seqs.iter().map(|seq| (seq, Ruling::Undone(*loss)))),
                        );
                    }
                }
                JudgedStep::Net { .. } => {}
                JudgedStep::InOrder(changes) => {
                    let verdicts: Vec<(Verdict, Verdict)> = changes.iter().map(JudgedChange::verdicts).collect();
                    let lost = lost_in_order(shared, changes, &verdicts);
                    let lost = changes.iter().zip(lost).filter(|(judged, _)| judged.may_be_undone());
                    rulings.extend(lost.filter_map(|(judged, lost)| Some((judged.change.seq, Ruling::Undone(lost?)))));
                }
            }
        }
        rulings
    }
}

/// The row with these columns NULL.
pub(super) fn without(row: Option<&Row>, columns: &[usize]) -> Option<Row> {
    let mut row = row?.clone();
    columns.iter().for_each(|column| row[*column] = Value::Null);
    Some(row)
}

/// A row that a change ends, or whose references it may end.
pub(crate) struct LastingEnd<'a> {
    pub table: usize,
    pub before: &'a Row,
    pub seqs: Vec<u64>,
    pub transaction: u32,
    /// One change, with nothing concurrent: the target has the row as it was before.
    pub is_plain: bool,
}

/// A change of a row's key that is lost, or one that is lost with it.
pub(crate) struct LostMove<'a> {
    pub table: usize,
    /// The row under the key that it left; of that nothing on its way to the source tells.
    pub left: Option<&'a Row>,
    /// The row under the key that it left, whoever tells of it.
    pub moved_from: Option<&'a Row>,
    /// The row under the key that it reached, or that it deleted.
    pub reached: &'a Row,
    /// The source has the row there.
    pub is_there: bool,
    /// Nothing on its way to the source tells of it.
    pub is_untold: bool,
    /// It was made where the target had authority.
    pub is_late: bool,
    pub effective: Option<Clock>,
    /// What the one who made the change had seen.
    pub seen: &'a Seen,
}

impl<'a> LostMove<'a> {
    fn new(
        table: usize,
        images: [&'a Option<Row>; 2],
        undo: Undo,
        is_late: bool,
        (effective, seen): (Option<Clock>, &'a Seen),
    ) -> Option<LostMove<'a>> {
        let [before, after] = images.map(Option::as_ref);
        let (moved_from, reached) = (before.filter(|_| after.is_some()), after.or(before)?);
        let left = moved_from.filter(|_| undo.left);
        let (is_there, is_untold) = (after.is_some(), undo.reached);
        Some(LostMove { table, left, moved_from, reached, is_there, is_untold, is_late, effective, seen })
    }
}

/// A row that something was ruled about.
pub(crate) struct Ruled<'a> {
    pub table: usize,
    /// The image with the row's key at the target.
    pub row: &'a Row,
    pub ruling: &'a Ruling,
    /// What the one who changed it had seen.
    pub seen: &'a Seen,
}

impl<'a> JudgedStep<'a> {
    /// Deletes, and updates that give up what the row refers to.
    pub fn endings(&self) -> Vec<LastingEnd<'a>> {
        match self {
            JudgedStep::Net { table, rows, .. } => rows
                .iter()
                .filter_map(|row| {
                    let before = row.net.before.as_ref()?;
                    let seqs: Vec<u64> = row.net.seqs.iter().collect();
                    let is_plain = seqs.len() == 1 && (row.verdict, row.departure) == (UNDISPUTED, UNDISPUTED);
                    Some(LastingEnd { table: *table, before, seqs, transaction: row.net.transaction, is_plain })
                })
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .filter_map(|judged| {
                    let MappedChange { table, seq, transaction, .. } = *judged.change;
                    let before = judged.change.before.as_ref()?;
                    let is_plain = (judged.verdict, judged.departure) == (UNDISPUTED, UNDISPUTED);
                    Some(LastingEnd { table, before, seqs: vec![seq], transaction, is_plain })
                })
                .collect(),
        }
    }

    /// Deletes that have lost, of tables that `which` takes.
    pub fn lost_deletes(&self, which: impl Fn(usize) -> bool) -> Vec<(u64, Ruling)> {
        let lost = |verdict: Verdict| match verdict {
            // The row is gone on both sides: nothing returns.
            Verdict::Lose(loss) if loss.reason.is_an_end() => None,
            Verdict::Lose(loss) => Some(Ruling::Returns(loss)),
            Verdict::Write(_) => None,
        };
        match self {
            JudgedStep::Net { table, kind: ChangeKind::Delete, rows } if which(*table) => rows
                .iter()
                .filter(|row| row.ruling.is_none())
                .filter_map(|row| Some((row.net.seqs.last(), lost(row.verdict)?)))
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .filter(|judged| judged.change.op == RowOp::Delete && which(judged.change.table))
                .filter(|judged| judged.ruling.is_none())
                .filter_map(|judged| Some((judged.change.seq, lost(judged.verdict)?)))
                .collect(),
            JudgedStep::Net { .. } => Vec::new(),
        }
    }

    /// What is to be undone where it was made.
    pub fn lost_moves(&self) -> Vec<LostMove<'_>> {
        match self {
            JudgedStep::Net { table, rows, .. } => rows
                .iter()
                .filter(|row| row.aside.is_none())
                .filter_map(|row| {
                    let net = row.net;
                    let (undo, is_late) = (row.undo?, row.late.is_some());
                    LostMove::new(*table, [&net.before, &net.after], undo, is_late, (net.effective, &*net.seen))
                })
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .filter(|judged| judged.aside.is_none())
                .filter_map(|judged| {
                    let MappedChange { table, before, after, effective, seen, .. } = judged.change;
                    let (undo, is_late) = (judged.undo?, judged.late.is_some());
                    LostMove::new(*table, [before, after], undo, is_late, (*effective, &**seen))
                })
                .collect(),
        }
    }

    pub fn ruled(&self) -> Vec<Ruled<'_>> {
        match self {
            JudgedStep::Net { table, rows, .. } => rows
                .iter()
                .filter_map(|row| {
                    let (net, ruling) = (row.net, row.ruling.as_ref().filter(|_| row.aside.is_none())?);
                    let row = ruling.row_of(net.before.as_ref(), net.after.as_ref())?;
                    Some(Ruled { table: *table, row, ruling, seen: &net.seen })
                })
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .filter_map(|judged| {
                    let (change, ruling) = (judged.change, judged.ruling.as_ref().filter(|_| judged.aside.is_none())?);
                    let row = ruling.row_of(change.before.as_ref(), change.after.as_ref())?;
                    Some(Ruled { table: change.table, row, ruling, seen: &change.seen })
                })
                .collect(),
        }
    }
}
