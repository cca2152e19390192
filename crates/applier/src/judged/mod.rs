//! A lane's changes with their verdicts.
//!
//! What is judged of them stands in [`verdict`], what is ruled beside who wins in [`ruling`], what was made without authority in
//! [`late`], what waits in [`aside`], who takes whose place in [`successor`], and how they ended in [`ending`].

mod aside;
mod ending;
mod late;
mod ruling;
mod successor;
mod verdict;

use std::collections::BTreeMap;

use crossfade_message::ConflictCounts;
use crossfade_model::{Origin, Row, RowChange, RowOp, TableName};
use crossfade_rules::decide::WriteReason;
use crossfade_rules::late::kept;
use crossfade_rules::merge::PartEnd;
use crossfade_rules::plan::{Dependence, Dependences};
use crossfade_rules::{ChangeKind, LanePlan, Loss, MappedChange, NetChange, Planner, Step, TableMapping, Verdict};

use crate::entity::Standing;
use crate::family::Ruling;
use crate::parking::Cause;
use crate::table::TargetTable;

use ending::{Ended, Tally, existence};
use ruling::{Undo, loss_of};

pub(crate) use ending::{LeftRow, lost_against};
pub(crate) use late::{Late, LateUpdate};
pub(crate) use ruling::{LastingEnd, LostMove};
pub(crate) use successor::Taken;
pub(crate) use verdict::Judged;

/// Up to so many rows, a lane reads the rows that it overwrites in order to judge them by sight. A larger lane asks only
/// whether they exist, and confirms them all with one wait.
const SIGHT_ROWS: usize = 64;

pub(crate) struct JudgedLane<'a> {
    pub steps: Vec<JudgedStep<'a>>,
    pub concurrent: bool,
    /// Rows that are overwritten are read, to judge them by sight.
    pub by_sight: bool,
    /// A row that was to be deleted was not there.
    pub missed: bool,
    /// What was set aside before.
    pub earlier: Dependences,
    pub tally: Tally,
    /// By the table's name at the source.
    pub conflicts: BTreeMap<TableName, ConflictCounts>,
}

pub(crate) enum JudgedStep<'a> {
    Net { table: usize, kind: ChangeKind, rows: Vec<JudgedRow<'a>> },
    InOrder(Vec<JudgedChange<'a>>),
}

pub(crate) struct JudgedRow<'a> {
    pub net: &'a NetChange,
    pub standing: Standing,
    /// It was made where the target had authority.
    pub late: Option<Late>,
    /// Columns that it leaves as they were stay as they are at the target.
    pub keeps: bool,
    /// Of the key that the row has in the end.
    verdict: Verdict,
    /// Of the key that a moved row leaves.
    departure: Verdict,
    /// The locked row was what the change's writer had before him.
    pub sighted: bool,
    pub aside: Option<Cause>,
    /// It is there before its turn, or with other unique values, and is yet to have its own.
    pub on_detour: bool,
    pub ruling: Option<Ruling>,
    undo: Option<Undo>,
    /// What is written instead of the change's own row.
    replaced: Option<Row>,
    /// Its columns are merged with what users of the target did meanwhile.
    pub merges: bool,
    /// How its messages ended where they were merged.
    pub ends: Vec<PartEnd>,
    /// For a row that ends here since it is to be back under another key: that one, which its children go to.
    pub successor: Option<Row>,
    /// What was done to these children.
    pub along: Vec<RowChange>,
    /// Of the rows that would end here with this one.
    pub takes: Dependence,
    /// The row was known to its source and not here, and nothing has told of its end.
    pub came_back: bool,
}

pub(crate) struct JudgedChange<'a> {
    pub change: &'a MappedChange,
    pub standing: Standing,
    /// As of [`JudgedRow::late`].
    pub late: Option<Late>,
    /// As of [`JudgedRow::keeps`].
    pub keeps: bool,
    verdict: Verdict,
    departure: Verdict,
    pub aside: Option<Cause>,
    pub ruling: Option<Ruling>,
    undo: Option<Undo>,
    replaced: Option<Row>,
    pub merges: bool,
    pub ends: Vec<PartEnd>,
    /// The row has left its old key already, and another one may stand there.
    pub has_left: bool,
    pub successor: Option<Row>,
    pub along: Vec<RowChange>,
    pub takes: Dependence,
    pub came_back: bool,
}

const UNDISPUTED: Verdict = Verdict::Write(WriteReason::NothingConcurrent);

fn acts_beside_its_verdict(ruling: Option<&Ruling>) -> bool {
    matches!(ruling, Some(Ruling::Returns(_) | Ruling::Goes(_)))
}

fn is_write(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Write(_))
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
            earlier: Dependences::default(),
            tally: Tally { messages: plan.messages, ..Tally::default() },
            conflicts: BTreeMap::new(),
        }
    }
}

impl<'a> JudgedRow<'a> {
    fn new(net: &'a NetChange) -> JudgedRow<'a> {
        JudgedRow {
            net,
            standing: Standing::default(),
            late: None,
            keeps: false,
            verdict: UNDISPUTED,
            departure: UNDISPUTED,
            sighted: false,
            aside: None,
            on_detour: false,
            ruling: None,
            undo: None,
            replaced: None,
            merges: false,
            ends: Vec::new(),
            successor: None,
            along: Vec::new(),
            takes: Dependence::default(),
            came_back: false,
        }
    }

    /// Neither set aside nor ruled to return or to go.
    fn is_open(&self) -> bool {
        self.aside.is_none() && !acts_beside_its_verdict(self.ruling.as_ref())
    }

    /// It waits for others.
    pub fn is_behind(&self) -> bool {
        self.aside == Some(Cause::Behind)
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

    /// Does something here, or has something go back to its source: what that is, is told by the rows that are here.
    pub fn acts(&self) -> bool {
        let goes_back = self.undo.is_some() || self.late.is_some();
        self.writes() || goes_back || acts_beside_its_verdict(self.ruling.as_ref())
    }

    /// It takes the place of something that its writer had not before him, and that may spell its key otherwise.
    pub fn may_respell(&self) -> bool {
        self.arrives_whole() && (self.verdict != UNDISPUTED || self.net.origin != Origin::User)
    }

    /// The row is written as the change has it.
    pub fn arrives_whole(&self) -> bool {
        self.arrives() && !self.merges
    }

    /// The row that ends, and the one that it is to be instead.
    pub fn succession(&self) -> (Option<&Row>, Option<&Row>) {
        (self.net.before.as_ref(), self.successor.as_ref())
    }

    /// What came out of merging.
    pub fn merged(&mut self, departure: Vec<PartEnd>, arrival: Vec<PartEnd>) {
        (self.verdict, self.departure) = (existence(&arrival), existence(&departure));
        self.ends = departure.into_iter().chain(arrival).collect();
    }

    pub fn dependence(&self, planner: &Planner, table: usize) -> Dependence {
        planner.dependence(table, self.net.before.as_ref(), self.net.after.as_ref()).and(&self.takes)
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

    /// The row as it is written, in the place of one that was found.
    pub fn keep(&mut self, columns: &[usize], found: &Row) {
        let net = self.net;
        if let (Some(before), Some(after), Some(written)) = (&net.before, &net.after, self.after()) {
            self.replaced = Some(kept((before, after), written, columns, found));
        }
    }
}

impl<'a> JudgedChange<'a> {
    fn new(change: &'a MappedChange) -> JudgedChange<'a> {
        JudgedChange {
            change,
            standing: Standing::default(),
            late: None,
            keeps: false,
            verdict: UNDISPUTED,
            departure: UNDISPUTED,
            aside: None,
            ruling: None,
            undo: None,
            replaced: None,
            merges: false,
            ends: Vec::new(),
            has_left: false,
            successor: None,
            along: Vec::new(),
            takes: Dependence::default(),
            came_back: false,
        }
    }

    /// Neither set aside nor ruled to return or to go.
    fn is_open(&self) -> bool {
        self.aside.is_none() && !acts_beside_its_verdict(self.ruling.as_ref())
    }

    /// It is lost, and what its source has done is taken back.
    pub fn is_undone(&self) -> bool {
        self.aside.is_none() && self.undo.is_some()
    }

    /// Why it has lost at one of its keys.
    pub fn lost_half(&self) -> Option<Loss> {
        [self.verdict, self.departure].into_iter().find_map(loss_of)
    }

    /// It has lost to a delete of the row.
    pub fn lost_to_an_end(&self) -> bool {
        self.undo.is_none() && loss_of(self.verdict).is_some_and(|loss| loss.reason.is_an_end())
    }

    /// Who wins at its keys, whatever became of it since.
    fn verdicts(&self) -> (Verdict, Verdict) {
        let Some(undo) = self.undo else { return (self.verdict, self.departure) };
        let of_half = |wins: bool, verdict: Verdict| if wins { UNDISPUTED } else { verdict };
        (of_half(undo.reached, self.verdict), of_half(undo.left, self.departure))
    }

    fn may_be_undone(&self) -> bool {
        !acts_beside_its_verdict(self.ruling.as_ref())
    }

    /// It has turned out to be lost with a change of its row's key, or not to be.
    fn loses_with_a_move(&self, lost: Option<Loss>) -> bool {
        self.is_open() && self.undo.is_some() != lost.is_some()
    }

    /// The row as it is written.
    pub fn after(&self) -> Option<&Row> {
        self.replaced.as_ref().or(self.change.after.as_ref())
    }

    pub fn arrives(&self) -> bool {
        self.aside.is_none() && is_write(self.verdict)
    }

    /// As of [`JudgedRow::may_respell`].
    pub fn may_respell(&self) -> bool {
        self.arrives() && (self.verdict != UNDISPUTED || self.change.origin != Origin::User)
    }

    pub fn leaves(&self) -> bool {
        self.aside.is_none() && is_write(self.departure) && !self.has_left
    }

    pub fn writes(&self) -> bool {
        (self.aside.is_none() && self.merges) || self.arrives() || self.leaves()
    }

    /// Does something here, or has something go back to its source: what that is, is told by the rows that are here.
    pub fn acts(&self) -> bool {
        let goes_back = self.undo.is_some() || self.late.is_some();
        self.writes() || goes_back || acts_beside_its_verdict(self.ruling.as_ref())
    }

    /// As of [`JudgedRow::keep`].
    pub fn keep(&mut self, columns: &[usize], found: &Row) {
        let change = self.change;
        if let (Some(before), Some(after), Some(written)) = (&change.before, &change.after, self.after()) {
            self.replaced = Some(kept((before, after), written, columns, found));
        }
    }

    /// Has this row written instead; returns what [`Self::take_back`] needs.
    pub fn replace(&mut self, row: Row) -> Option<Row> {
        self.replaced.replace(row)
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
        let change = self.change;
        planner.dependence(change.table, change.before.as_ref(), change.after.as_ref()).and(&self.takes)
    }

    fn end(&self) -> Ended {
        let MappedChange { table, seq, effective, .. } = *self.change;
        Ended { table, verdict: self.verdict, seqs: vec![seq], effective }
    }

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
