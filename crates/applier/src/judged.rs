//! A lane's changes with their verdicts.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_message::{ConflictCounts, Outcome, Status};
use crossfade_model::{Clock, MessageId, Row, RowOp, Seen, TableName, Value};
use crossfade_rules::decide::LossStatus;
use crossfade_rules::decide::{LossReason, WriteReason};
use crossfade_rules::merge::PartEnd;
use crossfade_rules::moves::{KeyedChange, lost_moves};
use crossfade_rules::plan::{Dependence, Dependences};
use crossfade_rules::{ChangeKind, LanePlan, Loss, MappedChange, NetChange, Planner, Step, TableMapping, Verdict};
use mysql_async::Conn;

use crate::error::ApplyError;
use crate::family::{Ruling, Rulings};
use crate::lane::Shared;
use crate::lookup::{Lookup, Subject, key_hashes};
use crate::parking::{Aside, Cause};
use crate::table::TargetTable;

/// Up to so many rows, a lane reads the rows that it overwrites in order to judge them by sight. A larger lane asks only
/// whether they exist, and confirms them all with one wait.
const SIGHT_ROWS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    AsWritten,
    Otherwise,
}

pub(crate) struct JudgedLane<'a> {
    pub steps: Vec<JudgedStep<'a>>,
    pub concurrent: bool,
    /// Rows that are overwritten are read, to judge them by sight.
    pub by_sight: bool,
    /// A row that was to be deleted was not there.
    pub missed: bool,
    pub tally: Tally,
    /// By the table's name at the source.
    pub conflicts: BTreeMap<TableName, ConflictCounts>,
}

/// How the changes of a lane were judged.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub messages: u64,
    pub won: u64,
    pub lost: u64,
}

/// By what changes were judged.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ways {
    pub by_sight: u64,
    pub by_look_up: u64,
    pub by_waiting: u64,
}

pub(crate) enum JudgedStep<'a> {
    Net { table: usize, kind: ChangeKind, rows: Vec<JudgedRow<'a>> },
    InOrder(Vec<JudgedChange<'a>>),
}

pub(crate) struct JudgedRow<'a> {
    pub net: &'a NetChange,
    /// Of the key that the row has in the end.
    verdict: Verdict,
    /// Of the key that a moved row leaves.
    departure: Verdict,
    /// The locked row was what the change's writer had before him.
    pub sighted: bool,
    pub aside: Option<Cause>,
    pub ruling: Option<Ruling>,
    undo: Option<Undo>,
    /// What is written instead of the change's own row.
    replaced: Option<Row>,
    /// Its columns are merged with what users of the target did meanwhile.
    pub merges: bool,
    /// How its messages ended where they were merged.
    pub ends: Vec<PartEnd>,
}

pub(crate) struct JudgedChange<'a> {
    pub change: &'a MappedChange,
    verdict: Verdict,
    departure: Verdict,
    pub aside: Option<Cause>,
    pub ruling: Option<Ruling>,
    undo: Option<Undo>,
    replaced: Option<Row>,
    pub merges: bool,
    pub ends: Vec<PartEnd>,
}

/// What is not told by the changes of the target that are on their way to the source, where a change is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undo {
    /// What is under the key that it left.
    left: bool,
    /// What is under the key that it reached, or that it deleted.
    reached: bool,
}

const UNDISPUTED: Verdict = Verdict::Write(WriteReason::NothingConcurrent);

fn is_write(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Write(_))
}

impl Undo {
    fn of((arrival, departure): (Verdict, Verdict)) -> Undo {
        Undo { left: is_write(departure), reached: is_write(arrival) }
    }
}

fn loss_of(verdict: Verdict) -> Option<Loss> {
    match verdict {
        Verdict::Lose(loss) => Some(loss),
        Verdict::Write(_) => None,
    }
}

/// Of changes that keep their order, those that are lost with a change of a row's key. With each who wins at its keys, that
/// of the key it reaches first.
fn lost_in_order(shared: &Shared, changes: &[JudgedChange<'_>], verdicts: &[(Verdict, Verdict)]) -> Vec<Option<Loss>> {
    let keyed = |(judged, (arrival, departure)): (&JudgedChange<'_>, &(Verdict, Verdict))| {
        let (change, table) = (judged.change, judged.change.table);
        let has_key = !shared.mappings[table].keyless;
        let key = |row: &Option<Row>| row.as_ref().filter(|_| has_key).map(|row| (table, shared.exact_key(table, row)));
        let ruled = match judged.ruling {
            Some(Ruling::Undone(loss)) => Some(loss),
            _ => None,
        };
        let (before, after) = (key(&change.before), key(&change.after));
        KeyedChange { before, after, departure: *departure, arrival: *arrival, ruled }
    };
    let keyed: Vec<KeyedChange<(usize, u64)>> = changes.iter().zip(verdicts).map(keyed).collect();
    lost_moves(&keyed)
}

/// Neither half has turned, nor is there anything to be merged.
fn is_as_before(mapping: &TableMapping, before: (Verdict, Verdict), known: (Verdict, Verdict)) -> bool {
    Undo::of(before) == Undo::of(known) && !merges(mapping, known)
}

/// Where columns are merged, who wins the row is not all that there is to a dispute.
fn merges(mapping: &TableMapping, verdicts: (Verdict, Verdict)) -> bool {
    mapping.merge.is_some() && verdicts != (UNDISPUTED, UNDISPUTED)
}

impl<'a> JudgedLane<'a> {
    pub fn new(plan: &'a LanePlan, concurrent: bool) -> JudgedLane<'a> {
        let mut rows_total = 0;
        let steps = plan
            .steps
            .iter()
            .map(|step| match step {
                Step::Net { table, kind, rows } => {
                    rows_total += rows.len();
                    let rows = rows.iter().map(JudgedRow::new).collect();
                    JudgedStep::Net { table: *table, kind: *kind, rows }
                }
                Step::InOrder(changes) => {
                    rows_total += changes.len();
                    JudgedStep::InOrder(changes.iter().map(JudgedChange::new).collect())
                }
            })
            .collect();
        let by_sight = concurrent && rows_total <= SIGHT_ROWS;
        JudgedLane {
            steps,
            concurrent,
            by_sight,
            missed: false,
            tally: Tally { messages: plan.messages, ..Tally::default() },
            conflicts: BTreeMap::new(),
        }
    }

    /// Judges every change by what is captured so far.
    pub async fn judge(&mut self, shared: &Shared, lookup: &mut Lookup, conn: &mut Conn) -> Result<(), ApplyError> {
        lookup.prepare(self.folded_keys(shared)).await?;
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    let (mapping, target) = (&shared.mappings[*table], &shared.tables[*table]);
                    for row in rows {
                        (row.verdict, row.departure) = judge_net(mapping, target, row.net, lookup, conn).await?;
                        row.merges = merges(mapping, (row.verdict, row.departure));
                    }
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes {
                        let table = judged.change.table;
                        let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
                        (judged.verdict, judged.departure) =
                            judge_change(mapping, target, judged.change, lookup, conn).await?;
                        judged.merges = merges(mapping, (judged.verdict, judged.departure));
                    }
                }
            }
        }
        Ok(())
    }

    /// The hashes of all keys that are judged.
    fn folded_keys(&self, shared: &Shared) -> impl Iterator<Item = u64> {
        let folded = |table: usize, row: &Row| {
            let mapping = &shared.mappings[table];
            key_hashes(mapping, &key_of(mapping, row)).folded
        };
        self.steps.iter().flat_map(move |step| -> Vec<u64> {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    let images = rows.iter().flat_map(|row| [&row.net.before, &row.net.after]).flatten();
                    images.map(|image| folded(*table, image)).collect()
                }
                JudgedStep::InOrder(changes) => {
                    let changes = changes.iter().map(|judged| judged.change);
                    let of_change = |change: &'a MappedChange| {
                        [&change.before, &change.after].into_iter().flatten().map(|image| folded(change.table, image))
                    };
                    changes.flat_map(of_change).collect()
                }
            }
        })
    }

    /// Judges again what was written and neither sighted nor merged, with what was captured meanwhile.
    pub async fn confirm(
        &mut self,
        shared: &Shared,
        lookup: &mut Lookup,
        conn: &mut Conn,
    ) -> Result<Judged, ApplyError> {
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    let (mapping, target) = (&shared.mappings[*table], &shared.tables[*table]);
                    for row in rows.iter_mut().filter(|row| !row.sighted && !row.merges && row.is_open()) {
                        let known = judge_net(mapping, target, row.net, lookup, conn).await?;
                        let is_same = match row.undo {
                            Some(undo) => undo == Undo::of(known),
                            None => is_as_before(mapping, (row.verdict, row.departure), known),
                        };
                        if !is_same {
                            return Ok(Judged::Otherwise);
                        }
                        if row.undo.is_none() {
                            (row.verdict, row.departure) = known;
                        }
                    }
                }
                JudgedStep::InOrder(changes) => {
                    let mut known_of_all: Vec<(Verdict, Verdict)> =
                        changes.iter().map(JudgedChange::verdicts).collect();
                    for (place, judged) in changes.iter_mut().enumerate() {
                        if judged.merges || !judged.is_open() {
                            continue;
                        }
                        let table = judged.change.table;
                        let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
                        let known = judge_change(mapping, target, judged.change, lookup, conn).await?;
                        let is_same = match judged.undo {
                            Some(undo) => undo == Undo::of(known),
                            None => is_as_before(mapping, (judged.verdict, judged.departure), known),
                        };
                        if !is_same {
                            return Ok(Judged::Otherwise);
                        }
                        known_of_all[place] = known;
                        if judged.undo.is_none() {
                            (judged.verdict, judged.departure) = known;
                        }
                    }
                    let lost = lost_in_order(shared, changes, &known_of_all);
                    if changes.iter().zip(lost).any(|(judged, lost)| judged.loses_with_a_move(lost)) {
                        return Ok(Judged::Otherwise);
                    }
                }
            }
        }
        Ok(Judged::AsWritten)
    }

    /// Something was written that only a captured stream can confirm.
    pub fn must_be_confirmed(&self) -> bool {
        self.concurrent
            && self.steps.iter().any(|step| match step {
                JudgedStep::Net { rows, .. } => {
                    rows.iter().any(|row| row.is_undone() || !row.sighted && !row.merges && row.writes())
                }
                JudgedStep::InOrder(changes) => {
                    changes.iter().any(|judged| judged.is_undone() || !judged.merges && judged.writes())
                }
            })
    }

    /// By what the changes of a lane that is committed were judged. What was not to be judged at all does not count.
    pub fn ways(&self) -> Ways {
        let mut ways = Ways::default();
        let mut note = |sighted: bool, waited: bool| match (sighted, waited) {
            (true, _) => ways.by_sight += 1,
            (false, true) => ways.by_waiting += 1,
            (false, false) => ways.by_look_up += 1,
        };
        for step in self.steps.iter().filter(|_| self.concurrent) {
            match step {
                JudgedStep::Net { rows, .. } => rows.iter().filter(|row| row.aside.is_none()).for_each(|row| {
                    note(row.sighted && row.writes(), row.writes() || row.ruling.is_some() || !row.ends.is_empty());
                }),
                JudgedStep::InOrder(changes) => {
                    changes.iter().filter(|judged| judged.aside.is_none()).for_each(|judged| {
                        note(false, judged.writes() || judged.ruling.is_some() || !judged.ends.is_empty());
                    });
                }
            }
        }
        ways
    }

    /// Some delete found nothing, and a user might insert the row unseen.
    pub fn missed_rows(&self) -> bool {
        self.concurrent && self.missed
    }

    /// The losers, as the message table keeps them.
    pub fn outcomes(&self, shared: &Shared) -> Vec<Outcome> {
        let lost = |ended: Ended| match ended.verdict {
            Verdict::Lose(loss) => ended.seqs.iter().map(|seq| outcome(shared, &ended, *seq, loss)).collect(),
            Verdict::Write(_) => Vec::new(),
        };
        self.steps.iter().flat_map(JudgedStep::ends).flat_map(lost).collect()
    }

    /// Counts how changes ended that met a concurrent one, once it is certain which are set aside: those have not ended.
    pub fn count_conflicts(&mut self, shared: &Shared) {
        let mut conflicts: BTreeMap<TableName, ConflictCounts> = BTreeMap::new();
        for ended in self.steps.iter().flat_map(JudgedStep::ends) {
            if ended.verdict == UNDISPUTED {
                continue;
            }
            let counts = conflicts.entry(shared.mappings[ended.table].source.clone()).or_default();
            match ended.verdict {
                Verdict::Lose(loss) => {
                    for seq in &ended.seqs {
                        match outcome(shared, &ended, *seq, loss).status {
                            Status::Stale => counts.stale += 1,
                            _ => counts.lost += 1,
                        }
                    }
                }
                Verdict::Write(_) => counts.won += 1,
            }
        }
        self.count_merged(shared, &mut conflicts);
        self.tally.won = conflicts.values().map(|counts| counts.won).sum();
        self.tally.lost = conflicts.values().map(|counts| counts.lost + counts.stale).sum();
        self.conflicts = conflicts;
    }

    /// Lets rulings take the place of verdicts.
    pub fn rule(&mut self, rulings: &Rulings) {
        if rulings.is_empty() {
            return;
        }
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { rows, .. } => {
                    for row in rows {
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
                    for judged in changes {
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
                    for row in rows.iter().filter(|row| row.ruling.is_none()) {
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

    /// Sets aside the changes of these messages, and all that depends on what is set aside here or was `earlier`.
    pub fn hold_back(&mut self, planner: &Planner, earlier: &Dependences, messages: &BTreeMap<u64, Cause>) {
        let mut whole = messages.clone();
        loop {
            self.steps.iter_mut().for_each(|step| step.set_aside(&whole));
            let mut aside = earlier.clone();
            for step in &mut self.steps {
                step.hold_back(planner, &mut aside, |_| true);
            }
            whole = self.half_aside();
            if whole.is_empty() {
                return;
            }
        }
    }

    /// Messages of which a part is set aside, and why, and another part is not: of a row that has left its key, for example.
    pub fn half_aside(&self) -> BTreeMap<u64, Cause> {
        let (mut aside, mut open) = (BTreeMap::new(), BTreeSet::new());
        if !self.steps.iter().any(JudgedStep::has_aside) {
            return aside;
        }
        let mut note = |seq: u64, cause: &Option<Cause>| match cause {
            Some(cause) => {
                let known = aside.entry(seq).or_insert_with(|| cause.clone());
                if *known < *cause {
                    *known = cause.clone();
                }
            }
            None => {
                open.insert(seq);
            }
        };
        for step in &self.steps {
            match step {
                JudgedStep::Net { rows, .. } => {
                    rows.iter().for_each(|row| row.net.seqs.iter().for_each(|seq| note(seq, &row.aside)));
                }
                JudgedStep::InOrder(changes) => {
                    changes.iter().for_each(|judged| note(judged.change.seq, &judged.aside));
                }
            }
        }
        aside.retain(|seq, _| open.contains(seq));
        aside
    }

    /// What a message leaves on the target: it was written, and is the last of its row here.
    pub fn row_left_by(&self, shared: &Shared, seq: u64) -> Option<LeftRow<'_>> {
        self.steps.iter().find_map(|step| match step {
            JudgedStep::Net { table, rows, .. } => {
                let row = rows.iter().find(|row| row.net.seqs.last() == seq)?;
                let is_written = row.aside.is_none() && (row.merges || row.arrives());
                is_written.then(|| Some(LeftRow { table: *table, row: row.after()?, merged: row.merges }))?
            }
            JudgedStep::InOrder(changes) => {
                let place = changes.iter().position(|judged| judged.change.seq == seq)?;
                let judged = &changes[place];
                let (table, row) = (judged.change.table, judged.after()?);
                let target = &shared.tables[table];
                let is_of_row = |later: &&JudgedChange<'_>| {
                    let mut images = [&later.change.before, &later.change.after].into_iter().flatten();
                    later.change.table == table && images.any(|image| target.key_of(image) == target.key_of(row))
                };
                let is_last = !changes[place + 1..].iter().any(|later| is_of_row(&later));
                let is_written = judged.aside.is_none() && (judged.merges || judged.arrives());
                (is_last && is_written).then_some(LeftRow { table, row, merged: judged.merges })
            }
        })
    }

    /// What is set aside, as the checkpoint and the store are to have it.
    pub fn asides(&self, shared: &Shared) -> Vec<Aside> {
        let mut asides = Vec::new();
        for step in &self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => asides.extend(rows.iter().filter_map(|row| {
                    let cause = row.aside.clone()?;
                    let dependence = row.dependence(&shared.planner, *table);
                    Some(aside(shared, *table, row.net.seqs.iter().collect(), row.net.op(), dependence, cause))
                })),
                JudgedStep::InOrder(changes) => asides.extend(changes.iter().filter_map(|judged| {
                    let (change, cause) = (judged.change, judged.aside.clone()?);
                    let dependence = judged.dependence(&shared.planner);
                    Some(aside(shared, change.table, vec![change.seq], change.op, dependence, cause))
                })),
            }
        }
        asides
    }
}

fn aside(shared: &Shared, table: usize, seqs: Vec<u64>, op: RowOp, dependence: Dependence, cause: Cause) -> Aside {
    Aside { seqs, table: shared.mappings[table].source.clone(), op, dependence, cause }
}

/// A row as a message leaves it on the target.
pub(crate) struct LeftRow<'a> {
    pub table: usize,
    pub row: &'a Row,
    /// What is there was merged from this row and what users of the target did.
    pub merged: bool,
}

/// The row with these columns NULL.
fn without(row: Option<&Row>, columns: &[usize]) -> Option<Row> {
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
    /// The row under the key that it reached, or that it deleted.
    pub reached: &'a Row,
    /// The source has the row there.
    pub is_there: bool,
    /// Nothing on its way to the source tells of it.
    pub is_untold: bool,
    pub effective: Option<Clock>,
}

impl<'a> LostMove<'a> {
    fn new(table: usize, images: [&'a Option<Row>; 2], undo: Undo, effective: Option<Clock>) -> Option<LostMove<'a>> {
        let [before, after] = images.map(Option::as_ref);
        let (left, reached) = (before.filter(|_| undo.left && after.is_some()), after.or(before)?);
        Some(LostMove { table, left, reached, is_there: after.is_some(), is_untold: undo.reached, effective })
    }
}

/// A row that something was ruled about.
pub(crate) struct Ruled<'a> {
    pub table: usize,
    /// The image with the row's key at the target.
    pub row: &'a Row,
    pub ruling: &'a Ruling,
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
            Verdict::Lose(Loss { reason: LossReason::LaterClock { op: RowOp::Delete, .. }, .. }) => None,
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
                    LostMove::new(*table, [&row.net.before, &row.net.after], row.undo?, row.net.effective)
                })
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .filter(|judged| judged.aside.is_none())
                .filter_map(|judged| {
                    let MappedChange { table, before, after, effective, .. } = judged.change;
                    LostMove::new(*table, [before, after], judged.undo?, *effective)
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
                    Some(Ruled { table: *table, row, ruling })
                })
                .collect(),
            JudgedStep::InOrder(changes) => changes
                .iter()
                .filter_map(|judged| {
                    let (change, ruling) = (judged.change, judged.ruling.as_ref().filter(|_| judged.aside.is_none())?);
                    let row = ruling.row_of(change.before.as_ref(), change.after.as_ref())?;
                    Some(Ruled { table: change.table, row, ruling })
                })
                .collect(),
        }
    }
}

impl JudgedStep<'_> {
    fn has_aside(&self) -> bool {
        match self {
            JudgedStep::Net { rows, .. } => rows.iter().any(|row| row.aside.is_some()),
            JudgedStep::InOrder(changes) => changes.iter().any(|judged| judged.aside.is_some()),
        }
    }

    /// Sets aside the changes of these messages, for their reasons: they are tried again by those.
    fn set_aside(&mut self, messages: &BTreeMap<u64, Cause>) {
        if messages.is_empty() {
            return;
        }
        match self {
            JudgedStep::Net { rows, .. } => {
                for row in rows.iter_mut().filter(|row| row.aside.is_none()) {
                    row.aside = row.net.seqs.iter().filter_map(|seq| messages.get(&seq)).max().cloned();
                }
            }
            JudgedStep::InOrder(changes) => {
                for judged in changes.iter_mut().filter(|judged| judged.aside.is_none()) {
                    judged.aside = messages.get(&judged.change.seq).cloned();
                }
            }
        }
    }

    /// Sets aside those that depend on what is in `aside`, as far as `which` takes them, and adds all that are set aside
    /// to it.
    pub fn hold_back(&mut self, planner: &Planner, aside: &mut Dependences, which: impl Fn(bool) -> bool) {
        if aside.is_empty() && !self.has_aside() {
            return;
        }
        let mut look = |dependence: Dependence, cause: &mut Option<Cause>, may_wait: bool| {
            if cause.is_none() && may_wait && aside.hold_back(&dependence) {
                *cause = Some(Cause::Behind);
            }
            if cause.is_some() {
                aside.add(&dependence);
            }
        };
        match self {
            JudgedStep::Net { table, rows, .. } => {
                for row in rows {
                    let (dependence, may_wait) = (row.dependence(planner, *table), which(row.writes()));
                    look(dependence, &mut row.aside, may_wait);
                }
            }
            JudgedStep::InOrder(changes) => {
                for judged in changes {
                    let (dependence, may_wait) = (judged.dependence(planner), which(judged.writes()));
                    look(dependence, &mut judged.aside, may_wait);
                }
            }
        }
    }
}

/// How one key's changes ended.
struct Ended {
    table: usize,
    verdict: Verdict,
    seqs: Vec<u64>,
    effective: Option<Clock>,
}

impl JudgedStep<'_> {
    fn ends(&self) -> Vec<Ended> {
        match self {
            JudgedStep::Net { table, rows, .. } => {
                let open = rows.iter().filter(|row| row.aside.is_none() && !row.merges);
                open.map(|row| row.end(*table)).collect()
            }
            JudgedStep::InOrder(changes) => {
                let open = changes.iter().filter(|judged| judged.aside.is_none() && !judged.merges);
                open.map(JudgedChange::end).collect()
            }
        }
    }
}

impl<'a> JudgedRow<'a> {
    fn new(net: &'a NetChange) -> JudgedRow<'a> {
        JudgedRow {
            net,
            verdict: UNDISPUTED,
            departure: UNDISPUTED,
            sighted: false,
            aside: None,
            ruling: None,
            undo: None,
            replaced: None,
            merges: false,
            ends: Vec::new(),
        }
    }

    /// Neither set aside nor ruled to lose.
    fn is_open(&self) -> bool {
        self.aside.is_none() && !matches!(self.ruling, Some(Ruling::Returns(_) | Ruling::Goes(_)))
    }

    /// The row as it is written.
    pub fn after(&self) -> Option<&Row> {
        self.replaced.as_ref().or(self.net.after.as_ref())
    }

    /// The row that the change leaves, or the end of the row, is to be written.
    pub fn arrives(&self) -> bool {
        self.aside.is_none() && is_write(self.verdict)
    }

    /// A moved row is to leave its old key.
    pub fn leaves(&self) -> bool {
        self.aside.is_none() && is_write(self.departure)
    }

    pub fn writes(&self) -> bool {
        let merges = self.aside.is_none() && self.merges;
        merges || self.arrives() || (self.net.moved_from.is_some() && self.leaves())
    }

    /// The row is written as the change has it.
    pub fn arrives_whole(&self) -> bool {
        self.arrives() && !self.merges
    }

    /// What came out of merging.
    pub fn merged(&mut self, departure: Vec<PartEnd>, arrival: Vec<PartEnd>) {
        (self.verdict, self.departure) = (existence(&arrival), existence(&departure));
        self.ends = departure.into_iter().chain(arrival).collect();
    }

    pub fn dependence(&self, planner: &Planner, table: usize) -> Dependence {
        planner.dependence(table, self.net.before.as_ref(), self.net.after.as_ref())
    }

    /// A moved row ends once, as the row that arrives.
    fn end(&self, table: usize) -> Ended {
        let net = self.net;
        Ended { table, verdict: self.verdict, seqs: net.seqs.iter().collect(), effective: net.effective }
    }

    /// It is lost, and what its source has done is taken back.
    fn is_undone(&self) -> bool {
        self.aside.is_none() && self.undo.is_some()
    }
}

impl JudgedChange<'_> {
    /// The row is to leave its key.
    pub fn moves_away(&self, target: &TargetTable) -> bool {
        let images = self.change.before.as_ref().zip(self.change.after.as_ref());
        self.leaves() && images.is_some_and(|(before, after)| target.key_of(before) != target.key_of(after))
    }

    /// The row is to be deleted by its key.
    pub fn deletes(&self, mapping: &TableMapping) -> bool {
        self.change.op == RowOp::Delete && !mapping.keyless
    }
}

impl<'a> JudgedChange<'a> {
    fn new(change: &'a MappedChange) -> JudgedChange<'a> {
        JudgedChange {
            change,
            verdict: UNDISPUTED,
            departure: UNDISPUTED,
            aside: None,
            ruling: None,
            undo: None,
            replaced: None,
            merges: false,
            ends: Vec::new(),
        }
    }

    /// Neither set aside nor ruled to lose.
    fn is_open(&self) -> bool {
        self.aside.is_none() && !matches!(self.ruling, Some(Ruling::Returns(_) | Ruling::Goes(_)))
    }

    /// It is lost, and what its source has done is taken back.
    fn is_undone(&self) -> bool {
        self.aside.is_none() && self.undo.is_some()
    }

    /// Why it has lost at one of its keys.
    pub fn lost_half(&self) -> Option<Loss> {
        [self.verdict, self.departure].into_iter().find_map(loss_of)
    }

    /// Who wins at its keys, whatever became of it since.
    fn verdicts(&self) -> (Verdict, Verdict) {
        let Some(undo) = self.undo else { return (self.verdict, self.departure) };
        let of_half = |wins: bool, verdict: Verdict| if wins { UNDISPUTED } else { verdict };
        (of_half(undo.reached, self.verdict), of_half(undo.left, self.departure))
    }

    fn may_be_undone(&self) -> bool {
        !matches!(self.ruling, Some(Ruling::Returns(_) | Ruling::Goes(_)))
    }

    /// It has turned out to be lost with a change of its row's key, or not to be.
    fn loses_with_a_move(&self, lost: Option<Loss>) -> bool {
        self.aside.is_none() && self.is_open() && self.undo.is_some() != lost.is_some()
    }

    /// The row as it is written.
    pub fn after(&self) -> Option<&Row> {
        self.replaced.as_ref().or(self.change.after.as_ref())
    }

    pub fn arrives(&self) -> bool {
        self.aside.is_none() && is_write(self.verdict)
    }

    pub fn leaves(&self) -> bool {
        self.aside.is_none() && is_write(self.departure)
    }

    pub fn writes(&self) -> bool {
        (self.aside.is_none() && self.merges) || self.arrives() || self.leaves()
    }

    /// Lets the row, as it is written, refer to nothing in these columns; returns what [`Self::take_back`] needs.
    pub fn let_go(&mut self, columns: &[usize]) -> Option<Row> {
        let without = without(self.after(), columns);
        std::mem::replace(&mut self.replaced, without)
    }

    pub fn take_back(&mut self, replaced: Option<Row>) {
        self.replaced = replaced;
    }

    /// What came out of merging.
    pub fn merged(&mut self, departure: Vec<PartEnd>, arrival: Vec<PartEnd>) {
        (self.verdict, self.departure) = (existence(&arrival), existence(&departure));
        self.ends = departure.into_iter().chain(arrival).collect();
    }

    pub fn dependence(&self, planner: &Planner) -> Dependence {
        planner.dependence(self.change.table, self.change.before.as_ref(), self.change.after.as_ref())
    }

    fn end(&self) -> Ended {
        let MappedChange { table, seq, effective, .. } = *self.change;
        Ended { table, verdict: self.verdict, seqs: vec![seq], effective }
    }
}

/// The last word on a key.
fn existence(ends: &[PartEnd]) -> Verdict {
    ends.last().map_or(UNDISPUTED, |end| end.existence)
}

fn outcome(shared: &Shared, ended: &Ended, seq: u64, loss: Loss) -> Outcome {
    Outcome {
        seq,
        table: shared.mappings[ended.table].source.clone(),
        status: match loss.status {
            // A later change of the same row came with it, and lost too.
            _ if ended.seqs.last().is_some_and(|last| seq < *last) => Status::Stale,
            LossStatus::ConflictLost => Status::ConflictLost,
            LossStatus::Stale => Status::Stale,
        },
        reason: loss.reason.to_string(),
        winner: Some(MessageId { stream: crate::opposite_stream(&shared.owner.stream), seq: loss.winner }),
        source_clock: ended.effective,
        target_clock: winners_clock(loss),
    }
}

pub(crate) fn winners_clock(loss: Loss) -> Option<Clock> {
    match loss.reason {
        LossReason::LaterClock { winner, .. } => winner,
        LossReason::EqualClocks { clock, .. } => clock,
        LossReason::PreferredSide { .. }
        | LossReason::ChildGiven
        | LossReason::ParentEnded
        | LossReason::GreaterValue
        | LossReason::SmallerValue => None,
    }
}

fn key_of<'r>(mapping: &TableMapping, row: &'r Row) -> Vec<&'r Value> {
    mapping.row_key.iter().filter_map(|index| row.get(*index)).collect()
}

async fn judge_net(
    mapping: &TableMapping,
    target: &TargetTable,
    net: &NetChange,
    lookup: &mut Lookup,
    conn: &mut Conn,
) -> Result<(Verdict, Verdict), ApplyError> {
    let Some(last) = net.after.as_ref().or(net.before.as_ref()) else { return Ok((UNDISPUTED, UNDISPUTED)) };
    let key = key_of(mapping, last);
    let subject = Subject { mapping, key: &key, effective: net.effective, seen: &net.seen };
    let arrival = lookup.judge(&subject, target, conn).await?;
    let departure = match (&net.moved_from, &net.before) {
        (Some(departure), Some(before)) => {
            let key = key_of(mapping, before);
            let subject = Subject { mapping, key: &key, effective: departure.effective, seen: &departure.seen };
            lookup.judge(&subject, target, conn).await?
        }
        _ => UNDISPUTED,
    };
    Ok((arrival, departure))
}

async fn judge_change(
    mapping: &TableMapping,
    target: &TargetTable,
    change: &MappedChange,
    lookup: &mut Lookup,
    conn: &mut Conn,
) -> Result<(Verdict, Verdict), ApplyError> {
    if mapping.keyless {
        return Ok((UNDISPUTED, UNDISPUTED));
    }
    let seen: &Seen = &change.seen;
    let mut verdicts = [UNDISPUTED; 2];
    let images = [change.after.as_ref().or(change.before.as_ref()), change.before.as_ref()];
    for (verdict, image) in verdicts.iter_mut().zip(images) {
        if let Some(image) = image {
            let key = key_of(mapping, image);
            let subject = Subject { mapping, key: &key, effective: change.effective, seen };
            *verdict = lookup.judge(&subject, target, conn).await?;
        }
    }
    Ok((verdicts[0], verdicts[1]))
}
