//! Merging concurrent changes of one row column by column.
//!
//! # What comes out
//!
//! What each side's users did to one key is a log; every change in it has seen a beginning of the other log. When a
//! beginning of each log has come together, and wherever it did, the row is this:
//!
//! - **Whether it exists** is said by the last change of each log: a delete says no, all others say yes. Where they
//!   disagree and neither has seen the other, [`decide`] tells which one counts.
//! - **A column's value.** *Writers* of a column are inserts, and updates whose two images differ in it. Of the last
//!   writers of both logs, one that has seen the other counts. If neither has, the rule does: `newer` asks [`decide`];
//!   `max` and `min` take the greater or smaller of the two values, a NULL only against NULL.
//! - **A sum's value** begins with that of an insert: of the last inserts of both logs the one that has seen the other, or
//!   for which [`decide`] is; without an insert, with what was there at first. To it is added `after - before` of every
//!   update, in both logs, that is not the past of this insert: that it has not seen, and that does not stand before it in
//!   its own log.
//! - Deletes change no value. So a row that one side deletes, and that a later concurrent update of the other side
//!   keeps, has everything that both sides did to it.
//!
//! This speaks of nothing but the logs and of who had seen what, so both sides come to the same; an update by a user who
//! sees the row is just the next writer of what he changes. A change of the key is a delete of one row and an insert of
//! another.
//!
//! # How it is found
//!
//! Where a change arrives, the row of the target is already all that came before it. So only the columns that the change
//! writes are looked at, against their last writers among the changes that it has not seen; of these their columns are
//! kept at hand, and images are asked for where a rule needs them. That effective clocks never go back in a log is what
//! lets `newer` leave a column alone that it has lost, since what stands there is then the winner's. Only where
//! an update wins over the delete that has taken its row away, the values must be found again ([`Merging::revive`]).

mod column_set;
mod number;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use crossfade_model::{Clock, MergeRule, Row, RowOp, Seen, Side, Value};

pub use column_set::ColumnSet;
pub use number::with_difference;
pub use window::{KeyHashes, Window};

use crate::authority::Authority;
use crate::decide::{Event, LastConcurrent, Loss, LossReason, Verdict, WriteReason, decide};
use crate::mapping::TableMapping;

/// What a change does to the row of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Insert,
    /// With the columns in which the images differ, by the mapping.
    Update(ColumnSet),
    Delete,
}

impl Effect {
    /// `None` without an image.
    pub fn of<'v>(
        before: Option<impl Iterator<Item = &'v Value>>,
        after: Option<impl Iterator<Item = &'v Value>>,
    ) -> Option<Effect> {
        match (before, after) {
            (None, None) => None,
            (None, Some(_)) => Some(Effect::Insert),
            (Some(_), None) => Some(Effect::Delete),
            (Some(before), Some(after)) => Some(Effect::Update(ColumnSet::of_differences(before, after))),
        }
    }

    pub fn op(&self) -> RowOp {
        match self {
            Effect::Insert => RowOp::Insert,
            Effect::Update(_) => RowOp::Update,
            Effect::Delete => RowOp::Delete,
        }
    }

    fn writes(&self, column: usize) -> bool {
        match self {
            Effect::Insert => true,
            Effect::Update(columns) => columns.contains(column),
            Effect::Delete => false,
        }
    }
}

/// One message's part in what happens to a key: of a row that changes its key, the old one has a delete and the new one an
/// insert.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub seq: u64,
    pub before: Option<Row>,
    pub after: Option<Row>,
    pub effective: Option<Clock>,
    pub seen: Arc<Seen>,
    /// It only gives the row back.
    pub returned: bool,
}

impl Part {
    fn effect(&self) -> Effect {
        let effect = Effect::of(self.before.as_ref().map(|row| row.iter()), self.after.as_ref().map(|row| row.iter()));
        // Neither there before nor after: nothing is left of it.
        effect.unwrap_or(Effect::Delete)
    }
}

/// A change by the target's users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrent {
    pub seq: u64,
    pub effective: Option<Clock>,
    pub effect: Effect,
    /// It only gives the row back.
    pub returned: bool,
}

/// What a concurrent change made of what, at this key, in the order of the mapping's columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Images {
    pub before: Option<Row>,
    pub after: Option<Row>,
}

/// What cannot be merged without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The images of these changes of the target.
    Images(Vec<u64>),
    /// The row that this delete of the target took away, as it would be when message `part` comes.
    Revived { delete: u64, part: u64 },
}

/// What was found of that.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub images: BTreeMap<u64, Images>,
    /// By delete and message.
    pub revived: BTreeMap<(u64, u64), Row>,
}

/// What the target's row becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum Merged {
    Absent,
    /// The target's row with these values.
    Changed(BTreeMap<usize, Value>),
    Whole(Row),
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct PartEnd {
    pub seq: u64,
    pub effective: Option<Clock>,
    /// Whether its word on the row's existence counts.
    pub existence: Verdict,
    /// Columns that it wrote and that another change decides.
    pub lost: ColumnSet,
    /// Why it lost, the first time that it did.
    pub loss: Option<Loss>,
    /// Something of it is in the row, beside what changes with every update anyway.
    pub survives: bool,
}

/// The rules of one table for the changes of one key.
#[derive(Debug, Clone)]
pub struct Merging<'a> {
    mapping: &'a TableMapping,
    rules: &'a [MergeRule],
    prefer: Side,
    opposite: &'a [Concurrent],
    /// The place of the last change in `opposite`. Here and below, what only gives the row back counts only where nothing else
    /// does.
    last: Option<usize>,
    /// Per column the place of its last writer in `opposite`.
    last_writers: Vec<Option<usize>>,
    last_insert: Option<usize>,
    last_returned: Option<usize>,
}

impl<'a> Merging<'a> {
    /// `opposite` are the target's changes of the key that the first of the changes to be merged has not seen, oldest
    /// first, up to the last one. `None` for a table whose columns are not merged.
    pub fn new(mapping: &'a TableMapping, prefer: Side, opposite: &'a [Concurrent]) -> Option<Merging<'a>> {
        let rules = mapping.merge.as_deref()?;
        let last = |which: &dyn Fn(&Effect) -> bool| {
            opposite.iter().rposition(|change| !change.returned && which(&change.effect))
        };
        Some(Merging {
            mapping,
            rules,
            prefer,
            opposite,
            last: last(&|_| true),
            last_writers: (0..rules.len()).map(|column| last(&|effect| effect.writes(column))).collect(),
            last_insert: last(&|effect| *effect == Effect::Insert),
            last_returned: opposite.iter().rposition(|change| change.returned),
        })
    }

    /// Of the changes in `opposite` that begin at `from` the last of some kind, whose place is given. What gives a row back is an
    /// insert, and so of every kind.
    fn since(&self, from: usize, last: Option<usize>) -> Option<&'a Concurrent> {
        let is_since = |place: &usize| *place >= from;
        last.filter(is_since).or(self.last_returned.filter(is_since)).map(|place| &self.opposite[place])
    }

    /// Merges changes, in their order, into the row that the target has under the key. Of each, how many of the last of
    /// `opposite` it has not seen.
    ///
    /// # Errors
    /// What is missing. Asked again with it, this comes further.
    pub fn merge(
        &self,
        target: Option<&Row>,
        parts: &[(&Part, usize)],
        found: &Found,
    ) -> Result<(Merged, Vec<PartEnd>), Missing> {
        let row = if target.is_some() { Merged::Changed(BTreeMap::new()) } else { Merged::Absent };
        let mut merging = RowMerging { rules: self, target, found, row, is_hidden: false };
        let ends = parts.iter().map(|(part, unseen)| merging.add(part, *unseen)).collect::<Result<_, _>>()?;
        Ok((merging.row, ends))
    }

    /// The row that a delete of the target took away, as it would be: `before` is what the delete took, `parts` are the
    /// changes that came since and have not seen the delete, each with how many of `opposite` it has not seen. The last of
    /// `opposite` is the delete.
    ///
    /// # Errors
    /// As [`Merging::merge`].
    pub fn revive(&self, before: Row, parts: &[(&Part, usize)], found: &Found) -> Result<Row, Missing> {
        let mut merging = RowMerging { rules: self, target: None, found, row: Merged::Whole(before), is_hidden: true };
        for (part, unseen) in parts {
            merging.add(part, *unseen)?;
        }
        match merging.row {
            Merged::Whole(row) => Ok(row),
            Merged::Absent | Merged::Changed(_) => unreachable!("a hidden row stays whole"),
        }
    }

    fn against(&self, part: &Part, other: &Concurrent) -> Verdict {
        let Part { effective, returned, .. } = *part;
        let event = Event { side: self.mapping.direction.source(), effective, returned, authority: Authority::Shared };
        let Concurrent { seq, effective, returned, .. } = *other;
        let last = LastConcurrent { seq, effective, op: other.effect.op(), returned, authority: Authority::Shared };
        decide(&event, Some(&last), self.mapping.policy, self.prefer)
    }
}

/// A row in the making.
struct RowMerging<'m, 'a> {
    rules: &'m Merging<'a>,
    target: Option<&'m Row>,
    found: &'m Found,
    row: Merged,
    /// The row does not exist; only its values are wanted.
    is_hidden: bool,
}

impl RowMerging<'_, '_> {
    fn add(&mut self, part: &Part, unseen: usize) -> Result<PartEnd, Missing> {
        let opposite = self.rules.opposite;
        let from = opposite.len() - unseen.min(opposite.len());
        let Some(last) = self.rules.since(from, self.rules.last) else {
            // It knew everything.
            match part.after.clone() {
                Some(row) => self.row = Merged::Whole(row),
                None if self.is_hidden => {}
                None => self.row = Merged::Absent,
            }
            return Ok(PartEnd::undisputed(part));
        };
        let existence = self.rules.against(part, last);
        let mut end = PartEnd { existence, survives: false, ..PartEnd::undisputed(part) };
        let is_won = matches!(existence, Verdict::Write(_));
        let effect = part.effect();
        let exists = if is_won { effect != Effect::Delete } else { last.effect != Effect::Delete };
        match effect {
            Effect::Delete => end.survives = is_won,
            _ if !exists && !self.is_hidden => {}
            Effect::Update(columns) => {
                self.bring_back(part, last)?;
                for column in columns.iter() {
                    self.update(part, column, from, &mut end)?;
                }
                end.survives = self.survives(&columns, &end);
            }
            Effect::Insert => {
                if self.row == Merged::Absent {
                    self.row = part.after.clone().map_or(Merged::Absent, Merged::Whole);
                }
                for column in 0..self.rules.rules.len() {
                    self.insert(part, column, from, &mut end)?;
                }
                end.survives = self.survives(&ColumnSet::all(self.rules.rules.len()), &end);
            }
        }
        if !exists && !self.is_hidden {
            self.row = Merged::Absent;
        }
        if let (false, Verdict::Lose(loss)) = (end.survives, existence) {
            end.loss.get_or_insert(loss);
        }
        Ok(end)
    }

    /// An update is about to change a row that is not there.
    fn bring_back(&mut self, part: &Part, last: &Concurrent) -> Result<(), Missing> {
        if self.row != Merged::Absent {
            return Ok(());
        }
        let row = if last.effect == Effect::Delete {
            let (delete, part) = (last.seq, part.seq);
            self.found.revived.get(&(delete, part)).cloned().ok_or(Missing::Revived { delete, part })?
        } else {
            // It is gone without a message; its last known contents are the changed row's.
            part.before.clone().unwrap_or_default()
        };
        self.row = Merged::Whole(row);
        Ok(())
    }

    fn update(&mut self, part: &Part, column: usize, from: usize, end: &mut PartEnd) -> Result<(), Missing> {
        let (Some(before), Some(after)) = (value(&part.before, column), value(&part.after, column)) else {
            return Ok(());
        };
        if self.rules.rules[column] == MergeRule::SumDelta {
            let sum = number::with_difference(self.value(column), before, after);
            self.set(column, sum);
            return Ok(());
        }
        self.write(part, column, after, from, end)
    }

    fn insert(&mut self, part: &Part, column: usize, from: usize, end: &mut PartEnd) -> Result<(), Missing> {
        let Some(after) = value(&part.after, column) else { return Ok(()) };
        if self.rules.rules[column] != MergeRule::SumDelta {
            return self.write(part, column, after, from, end);
        }
        let rival = self.rules.since(from, self.rules.last_insert);
        if let Some(Verdict::Lose(loss)) = rival.map(|rival| self.rules.against(part, rival)) {
            end.lose(column, loss);
            return Ok(());
        }
        let opposite = &self.rules.opposite[from..];
        let adds = |change: &&Concurrent| change.effect != Effect::Insert && change.effect.writes(column);
        let adding: Vec<u64> = opposite.iter().filter(adds).map(|change| change.seq).collect();
        let images = self.images(&adding)?;
        let mut sum = after.clone();
        for Images { before, after } in images {
            if let (Some(before), Some(after)) = (value(before, column), value(after, column)) {
                sum = number::with_difference(&sum, before, after);
            }
        }
        self.set(column, sum);
        Ok(())
    }

    /// Writes a column, unless its last concurrent writer says otherwise.
    fn write(
        &mut self,
        part: &Part,
        column: usize,
        after: &Value,
        from: usize,
        end: &mut PartEnd,
    ) -> Result<(), Missing> {
        let rule = self.rules.rules[column];
        let Some(writer) = self.rules.since(from, self.rules.last_writers[column]) else {
            self.set(column, after.clone());
            return Ok(());
        };
        if rule == MergeRule::Newer {
            match self.rules.against(part, writer) {
                Verdict::Write(_) => self.set(column, after.clone()),
                // What is there is the winner's.
                Verdict::Lose(loss) => end.lose(column, loss),
            }
            return Ok(());
        }
        let images = self.images(&[writer.seq])?;
        let Some(other) = images.first().and_then(|images| value(&images.after, column)) else { return Ok(()) };
        if number::prevails(rule, other, after) {
            let reason = if rule == MergeRule::Max { LossReason::GreaterValue } else { LossReason::SmallerValue };
            end.lose(column, Loss { winner: writer.seq, reason });
            let other = other.clone();
            self.set(column, other);
        } else {
            self.set(column, after.clone());
        }
        Ok(())
    }

    fn images(&self, seqs: &[u64]) -> Result<Vec<&Images>, Missing> {
        let found = |seq: &u64| self.found.images.get(seq);
        let missing: Vec<u64> = seqs.iter().copied().filter(|seq| found(seq).is_none()).collect();
        if !missing.is_empty() {
            return Err(Missing::Images(missing));
        }
        Ok(seqs.iter().filter_map(found).collect())
    }

    fn value(&self, column: usize) -> &Value {
        let value = match &self.row {
            Merged::Changed(values) => values.get(&column).or_else(|| self.target?.get(column)),
            Merged::Whole(row) => row.get(column),
            Merged::Absent => None,
        };
        value.unwrap_or(&Value::Null)
    }

    fn set(&mut self, column: usize, value: Value) {
        match &mut self.row {
            Merged::Changed(values) => {
                values.insert(column, value);
            }
            Merged::Whole(row) => {
                if let Some(cell) = row.get_mut(column) {
                    *cell = value;
                }
            }
            Merged::Absent => {}
        }
    }

    /// The clock and its like tell nothing of what a user wanted, unless he changed nothing else.
    fn survives(&self, written: &ColumnSet, end: &PartEnd) -> bool {
        let counts = |column: &usize| !self.rules.mapping.is_incidental(*column);
        let kept = |column: usize| !end.lost.contains(column);
        if written.iter().any(|column| counts(&column)) {
            written.iter().filter(counts).any(kept)
        } else {
            written.iter().any(kept)
        }
    }
}

impl PartEnd {
    fn undisputed(part: &Part) -> PartEnd {
        let existence = Verdict::Write(WriteReason::NothingConcurrent);
        let Part { seq, effective, .. } = *part;
        PartEnd { seq, effective, existence, lost: ColumnSet::default(), loss: None, survives: true }
    }

    fn lose(&mut self, column: usize, loss: Loss) {
        self.lost.insert(column);
        self.loss.get_or_insert(loss);
    }
}

fn value(row: &Option<Row>, column: usize) -> Option<&Value> {
    row.as_ref()?.get(column)
}
