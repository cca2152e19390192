//! Changes that are late: made where the other side had authority over the row.

use std::collections::BTreeMap;

use crossfade_message::{ConflictCounts, Outcome, Status};
use crossfade_model::{Clock, Origin, Row, Seen, TableName};
use crossfade_rules::decide::{AUTHORITY, LossReason};
use crossfade_rules::moves::told_clock;
use crossfade_rules::{Authority, Loss, Verdict};

use super::ending::lost_against;
use super::ruling::Undo;
use super::{JudgedLane, JudgedStep};
use crate::entity::{Standing, Standings};
use crate::lane::Shared;
use crate::table::TargetTable;

/// How a late change ends. Columns are places in the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Late {
    pub loss: Loss,
    /// What has crossed of it; none where it is undone as a whole.
    pub crossed: Vec<usize>,
    /// What of it is lost; none where it is undone as a whole, or where all has crossed.
    pub lost: Vec<usize>,
    /// Nothing of it was lost.
    pub is_whole: bool,
}

/// A late change of a row that keeps its key.
pub(crate) struct LateUpdate<'s> {
    pub table: usize,
    pub before: &'s Row,
    pub after: &'s Row,
    /// What the one who made it had seen.
    pub seen: &'s Seen,
    pub late: &'s mut Late,
}

impl JudgedLane<'_> {
    /// Notes what is known of the rows, and takes what is late out of all that decides between changes.
    pub fn stand(&mut self, standings: &Standings) {
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { rows, .. } => {
                    for row in rows {
                        row.standing = standing(standings, row.net.seqs.last(), row.net.origin);
                    }
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes {
                        judged.standing = standing(standings, judged.change.seq, judged.change.origin);
                    }
                }
            }
        }
    }

    /// Late changes lose whatever else was judged.
    pub fn lose_late(&mut self, shared: &Shared) {
        let side = shared.owner.stream.direction().target();
        let is_late = |standing: &Standing| standing.authority == Authority::Lacking;
        let late = |verdict: Verdict| {
            let winner = match verdict {
                Verdict::Lose(Loss { winner, reason: LossReason::Authority { .. } }) => winner,
                _ => 0,
            };
            let loss = Loss { winner, reason: LossReason::Authority { side } };
            Late { loss, crossed: Vec::new(), lost: Vec::new(), is_whole: false }
        };
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    let target = &shared.tables[*table];
                    for row in rows.iter_mut().filter(|row| is_late(&row.standing)) {
                        let late = late(row.verdict);
                        (row.verdict, row.departure) = (Verdict::Lose(late.loss), Verdict::Lose(late.loss));
                        let keeps_its_key = keeps_its_key(target, &row.net.before, &row.net.after);
                        row.undo = (!keeps_its_key).then_some(Undo::WHOLE);
                        (row.merges, row.keeps, row.late) = (false, false, Some(late));
                    }
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes.iter_mut().filter(|judged| is_late(&judged.standing)) {
                        let (late, change) = (late(judged.verdict), judged.change);
                        (judged.verdict, judged.departure) = (Verdict::Lose(late.loss), Verdict::Lose(late.loss));
                        let target = &shared.tables[change.table];
                        let keeps_its_key = keeps_its_key(target, &change.before, &change.after);
                        judged.undo = (!keeps_its_key).then_some(Undo::WHOLE);
                        (judged.merges, judged.keeps, judged.late) = (false, false, Some(late));
                    }
                }
            }
        }
    }

    /// How late changes ended, as the message table keeps it: all of which something is lost.
    pub fn late_outcomes(&self, shared: &Shared) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for step in &self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    for row in rows.iter().filter(|row| row.aside.is_none()) {
                        let Some(late) = row.late.as_ref().filter(|late| !late.is_whole) else { continue };
                        let last = row.net.seqs.last();
                        for seq in row.net.seqs.iter() {
                            let status = if seq < last { Status::Stale } else { Status::ConflictLost };
                            let of = (*table, &row.standing, row.net.effective);
                            outcomes.push(outcome(shared, of, (seq, status), late));
                        }
                    }
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes.iter().filter(|judged| judged.aside.is_none()) {
                        let Some(late) = judged.late.as_ref().filter(|late| !late.is_whole) else { continue };
                        let change = judged.change;
                        let of = (change.table, &judged.standing, change.effective);
                        outcomes.push(outcome(shared, of, (change.seq, Status::ConflictLost), late));
                    }
                }
            }
        }
        outcomes
    }

    /// Adds the late changes of which something is lost.
    pub(super) fn count_late(&self, shared: &Shared, conflicts: &mut BTreeMap<TableName, ConflictCounts>) {
        for Outcome { table, status, .. } in self.late_outcomes(shared) {
            let counts = conflicts.entry(table).or_default();
            counts.authority += 1;
            match status {
                Status::Stale => counts.stale += 1,
                _ => counts.lost += 1,
            }
        }
    }

    pub fn late_updates(&mut self) -> Vec<LateUpdate<'_>> {
        let mut updates = Vec::new();
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    updates.extend(rows.iter_mut().filter(|row| row.aside.is_none() && row.undo.is_none()).filter_map(
                        |row| {
                            let (before, after) = row.net.before.as_ref().zip(row.net.after.as_ref())?;
                            let (seen, late) = (&*row.net.seen, row.late.as_mut()?);
                            Some(LateUpdate { table: *table, before, after, seen, late })
                        },
                    ));
                }
                JudgedStep::InOrder(changes) => {
                    updates.extend(
                        changes.iter_mut().filter(|judged| judged.aside.is_none() && judged.undo.is_none()).filter_map(
                            |judged| {
                                let (before, after) =
                                    judged.change.before.as_ref().zip(judged.change.after.as_ref())?;
                                let (seen, late) = (&*judged.change.seen, judged.late.as_mut()?);
                                Some(LateUpdate { table: judged.change.table, before, after, seen, late })
                            },
                        ),
                    );
                }
            }
        }
        updates
    }
}

/// Only what users have written can be late: what crossfade itself sends is as its side was told by the other one.
fn standing(standings: &Standings, seq: u64, origin: Origin) -> Standing {
    let mut standing = standings.get(&seq).cloned().unwrap_or_default();
    if origin != Origin::User && standing.authority == Authority::Lacking {
        standing.authority = Authority::Shared;
    }
    standing
}

fn keeps_its_key(target: &TargetTable, before: &Option<Row>, after: &Option<Row>) -> bool {
    before.as_ref().zip(after.as_ref()).is_some_and(|(before, after)| target.key_of(before) == target.key_of(after))
}

fn outcome(
    shared: &Shared,
    (table, standing, effective): (usize, &Standing, Option<Clock>),
    (seq, status): (u64, Status),
    late: &Late,
) -> Outcome {
    let mapping = &shared.mappings[table];
    let names = |columns: &[usize]| {
        let names = columns.iter().filter_map(|column| mapping.columns.get(*column));
        names.map(|column| format!("`{}`", column.source)).collect::<Vec<_>>().join(", ")
    };
    let side = shared.owner.stream.direction().target();
    let entities: Vec<&str> = standing.entities.iter().map(|entity| entity.as_str()).collect();
    let mut reason = format!("{AUTHORITY}{} {} is on {side}", shared.entities.name, entities.join(", "));
    if !late.crossed.is_empty() {
        reason =
            format!("{reason}; of this change {} crossed, and {} did not", names(&late.crossed), names(&late.lost));
    }
    let end = Outcome::undisputed(seq, mapping.source.clone(), status, reason);
    if late.loss.winner == 0 {
        return Outcome { source_clock: told_clock(mapping.policy, effective), ..end };
    }
    lost_against(shared, mapping, (late.loss, effective), end)
}
