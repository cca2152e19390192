//! From a batch of changes to lanes of statements.
//!
//! A plan depends on nothing but the changes, the mappings and the lane count, so a batch that was interrupted between
//! two lanes is planned again identically and only its unfinished lanes run. Both processes plan the batches of either, to learn
//! what a change had seen: they must agree on how lanes are filled ([`lane::LANE_RULE`]).
//!
//! Lanes share no row, no unique value and no changed parent, so they may commit in any order. Within a lane the steps
//! run in order; within a step the rows are independent of each other.

mod batch;
mod cascade;
mod dependence;
mod graph;
mod lane;
mod order;
mod slot;
mod table;
mod tie;
mod token;

use std::sync::Arc;

use crossfade_model::{Clock, Origin, Row, RowOp, Seen};

use crate::RulesError;
use crate::mapping::TableMapping;
use crate::merge::Part;
use table::PlannedTable;

pub use dependence::{Dependence, Dependences};
pub(crate) use lane::LANE_RULE;

/// One change of a batch, its images in the order of its mapping's columns.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedChange {
    pub seq: u64,
    /// Index into the tables that the planner was made for.
    pub table: usize,
    pub op: RowOp,
    pub before: Option<Row>,
    pub after: Option<Row>,
    pub effective: Option<Clock>,
    pub seen: Arc<Seen>,
    /// Number of the source transaction in the batch.
    pub transaction: u32,
    pub origin: Origin,
}

impl MappedChange {
    /// What it does to the key that the row has in the end; a row that comes from another key is inserted.
    pub fn arrival(&self, comes_from_elsewhere: bool) -> Part {
        let before = if comes_from_elsewhere { None } else { self.before.clone() };
        self.part(before, self.after.clone())
    }

    /// What it does to the key that the row leaves.
    pub fn departure(&self) -> Part {
        self.part(self.before.clone(), None)
    }

    fn part(&self, before: Option<Row>, after: Option<Row>) -> Part {
        let MappedChange { seq, effective, .. } = *self;
        let returned = self.origin == Origin::Returned;
        Part { seq, before, after, effective, seen: self.seen.clone(), returned }
    }
}

/// What a batch does to one row in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct NetChange {
    /// The messages that it is made of.
    pub seqs: Seqs,
    /// The row as the batch found it. For a transient row the last image that it had.
    pub before: Option<Row>,
    /// The row as the batch leaves it.
    pub after: Option<Row>,
    /// Effective clock of the last message.
    pub effective: Option<Clock>,
    /// What the last message had seen.
    pub seen: Arc<Seen>,
    /// Source transaction of the last message.
    pub transaction: u32,
    /// Of all that happened to the key that the row has in the end; a user's where that is not of one kind.
    pub origin: Origin,
    /// Of the first message of the row, under whatever key it had then.
    pub first_origin: Origin,
    /// What that message had seen.
    pub first_seen: Arc<Seen>,
    /// Inserted and deleted again inside the batch: a delete of a row that the target is not expected to have.
    pub transient: bool,
    /// For [`ChangeKind::KeyChange`]: what the old key's part is judged by.
    pub moved_from: Option<Box<Departure>>,
    /// What happened to the row's key, message by message, where that is more than one; only for tables whose columns are
    /// merged.
    pub folded: Vec<Part>,
}

impl NetChange {
    /// What happened to the row's key, message by message, for a table whose columns are merged.
    pub fn parts(&self) -> Vec<Part> {
        if !self.folded.is_empty() {
            return self.folded.clone();
        }
        let before = self.before.clone().filter(|_| self.moved_from.is_none());
        let (seq, after, effective, seen) = (self.seqs.last(), self.after.clone(), self.effective, self.seen.clone());
        vec![Part { seq, before, after, effective, seen, returned: self.origin == Origin::Returned }]
    }

    pub fn op(&self) -> RowOp {
        match (&self.before, &self.after) {
            (None, _) => RowOp::Insert,
            (Some(_), Some(_)) => RowOp::Update,
            (Some(_), None) => RowOp::Delete,
        }
    }
}

/// The leaving of an old key, a delete as far as conflicts are concerned.
#[derive(Debug, Clone, PartialEq)]
pub struct Departure {
    /// Messages of the old key, the move included.
    pub seqs: Seqs,
    pub effective: Option<Clock>,
    pub seen: Arc<Seen>,
    /// What happened to the old key, message by message; only for tables whose columns are merged.
    pub parts: Vec<Part>,
}

/// Message numbers in ascending order; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seqs {
    first: u64,
    rest: Vec<u64>,
}

impl Seqs {
    pub fn one(seq: u64) -> Seqs {
        Seqs { first: seq, rest: Vec::new() }
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn last(&self) -> u64 {
        self.rest.last().copied().unwrap_or(self.first)
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }

    fn push(&mut self, seq: u64) {
        self.rest.push(seq);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChangeKind {
    Insert,
    Update,
    Delete,
    /// The row moves from the key in `before` to the key in `after`.
    KeyChange,
}

/// What a lane does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Independent net changes of one table and one kind.
    Net { table: usize, kind: ChangeKind, rows: Vec<NetChange> },
    /// Changes as they were captured, one after the other, except that a parent comes before the children that follow
    /// its new key.
    InOrder(Vec<MappedChange>),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LanePlan {
    pub steps: Vec<Step>,
    /// How many messages the steps are made of.
    pub messages: u64,
}

/// A batch in lanes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// As many as were asked for; some may be empty.
    pub lanes: Vec<LanePlan>,
    /// Every message with its lane, by number.
    placed: Vec<(u64, u16)>,
}

impl Plan {
    /// The lane that a message of the batch is in.
    pub fn lane_of(&self, seq: u64) -> Option<u16> {
        let index = self.placed.binary_search_by_key(&seq, |(placed, _)| *placed).ok()?;
        self.placed.get(index).map(|(_, lane)| *lane)
    }
}

/// Plans batches of a fixed set of tables.
#[derive(Debug, Clone)]
pub struct Planner {
    tables: Vec<PlannedTable>,
}

impl Planner {
    pub fn new(tables: &[TableMapping]) -> Planner {
        Planner { tables: table::planned_tables(tables) }
    }

    /// Plans a batch, whose changes are in the order of their numbers. `lanes` of 0 counts as 1.
    ///
    /// # Errors
    /// The changes do not fit the mappings; nothing is planned.
    pub fn plan(&self, changes: Vec<MappedChange>, lanes: u16) -> Result<Plan, RulesError> {
        batch::check(&self.tables, &changes)?;
        let slots = slot::fold(&self.tables, &changes);
        let ties = tie::tie(&self.tables, &changes, &slots);
        let order = order::order(&self.tables, &changes, &slots, &ties);
        let mut plan = lane::fill(&self.tables, changes, &slots, &ties, &order, lanes.max(1));
        for step in plan.lanes.iter_mut().flat_map(|lane| &mut lane.steps) {
            if let Step::InOrder(changes) = step {
                cascade::parents_first(&self.tables, changes);
            }
        }
        Ok(plan)
    }
}

/// Plans one batch; see [`Planner`], which is worth keeping where many batches of the same tables are planned.
///
/// # Errors
/// As [`Planner::plan`].
pub fn plan(changes: Vec<MappedChange>, tables: &[TableMapping], lanes: u16) -> Result<Plan, RulesError> {
    Planner::new(tables).plan(changes, lanes)
}
