//! How the changes of a lane ended: for the message table, for the counters, and what is left of them on the target.

use std::collections::BTreeMap;

use crossfade_message::{ConflictCounts, Outcome, Status};
use crossfade_model::{Clock, MessageId, Row, TableName};
use crossfade_rules::decide::LossReason;
use crossfade_rules::merge::PartEnd;
use crossfade_rules::moves::told_clock;
use crossfade_rules::{Loss, TableMapping, Verdict};

use super::{JudgedChange, JudgedLane, JudgedStep, UNDISPUTED};
use crate::lane::Shared;

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

impl JudgedLane<'_> {
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
                Verdict::Lose(_) => {
                    for seq in &ended.seqs {
                        match losers_status(&ended, *seq) {
                            Status::Stale => counts.stale += 1,
                            _ => counts.lost += 1,
                        }
                    }
                }
                Verdict::Write(_) => counts.won += 1,
            }
        }
        self.count_merged(shared, &mut conflicts);
        self.count_late(shared, &mut conflicts);
        self.tally.won = conflicts.values().map(|counts| counts.won).sum();
        self.tally.lost = conflicts.values().map(|counts| counts.lost + counts.stale).sum();
        self.conflicts = conflicts;
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
}

/// A row as a message leaves it on the target.
pub(crate) struct LeftRow<'a> {
    pub table: usize,
    pub row: &'a Row,
    /// What is there was merged from this row and what users of the target did.
    pub merged: bool,
}

/// How one key's changes ended.
pub(super) struct Ended {
    pub(super) table: usize,
    pub(super) verdict: Verdict,
    pub(super) seqs: Vec<u64>,
    pub(super) effective: Option<Clock>,
}

impl JudgedStep<'_> {
    fn ends(&self) -> Vec<Ended> {
        match self {
            JudgedStep::Net { table, rows, .. } => {
                let open = rows.iter().filter(|row| row.aside.is_none() && !row.merges && row.late.is_none());
                open.map(|row| row.end(*table)).collect()
            }
            JudgedStep::InOrder(changes) => {
                let is_open =
                    |judged: &&JudgedChange<'_>| judged.aside.is_none() && !judged.merges && judged.late.is_none();
                let open = changes.iter().filter(is_open);
                open.map(JudgedChange::end).collect()
            }
        }
    }
}

/// The last word on a key.
pub(super) fn existence(ends: &[PartEnd]) -> Verdict {
    ends.last().map_or(UNDISPUTED, |end| end.existence)
}

/// Stale is what had a later change of the same row with it, which lost too.
fn losers_status(ended: &Ended, seq: u64) -> Status {
    match ended.seqs.last().is_some_and(|last| seq < *last) {
        true => Status::Stale,
        false => Status::ConflictLost,
    }
}

fn outcome(shared: &Shared, ended: &Ended, seq: u64, loss: Loss) -> Outcome {
    let mapping = &shared.mappings[ended.table];
    let end = Outcome::undisputed(seq, mapping.source.clone(), losers_status(ended, seq), loss.reason.to_string());
    lost_against(shared, mapping, (loss, ended.effective), end)
}

/// Adds what a message, or a part of it, has lost against, and both clocks.
pub(crate) fn lost_against(
    shared: &Shared,
    mapping: &TableMapping,
    (loss, own): (Loss, Option<Clock>),
    end: Outcome,
) -> Outcome {
    Outcome {
        winner: Some(MessageId { stream: crate::opposite_stream(&shared.owner.stream), seq: loss.winner }),
        source_clock: told_clock(mapping.policy, own),
        target_clock: winners_clock(loss),
        ..end
    }
}

fn winners_clock(loss: Loss) -> Option<Clock> {
    match loss.reason {
        LossReason::LaterClock { winner, .. } => winner,
        LossReason::EqualClocks { clock, .. } => clock,
        LossReason::PreferredSide { .. }
        | LossReason::ChildGiven
        | LossReason::ParentEnded
        | LossReason::OnlyReturned
        | LossReason::MoveUndone { .. }
        | LossReason::GreaterValue
        | LossReason::SmallerValue
        | LossReason::Authority { .. } => None,
    }
}
