//! How messages ended whose columns were merged.

use std::collections::BTreeMap;

use crossfade_message::{ConflictCounts, Outcome, Status};
use crossfade_model::TableName;
use crossfade_rules::TableMapping;
use crossfade_rules::decide::{Verdict, WriteReason};
use crossfade_rules::merge::PartEnd;

use crate::judged::{JudgedLane, JudgedStep, lost_against};
use crate::lane::Shared;

impl JudgedLane<'_> {
    /// What the message table keeps of merged messages: those of which nothing is left, and those that lost a column.
    pub fn merged_outcomes(&self, shared: &Shared) -> Vec<Outcome> {
        // By message: one that left a key and arrived at another shows how its later part ended.
        let mut outcomes: BTreeMap<u64, Outcome> = BTreeMap::new();
        for (table, end, status) in self.merged_ends() {
            let outcome = outcome(shared, &shared.mappings[table], end, status);
            outcomes.extend(outcome.map(|outcome| (end.seq, outcome)));
        }
        outcomes.into_values().collect()
    }

    /// Adds the merged changes that met a concurrent one.
    pub(crate) fn count_merged(&self, shared: &Shared, conflicts: &mut BTreeMap<TableName, ConflictCounts>) {
        for (table, _, status) in self.merged_ends() {
            let counts = conflicts.entry(shared.mappings[table].source.clone()).or_default();
            match status {
                Status::ConflictLost => counts.lost += 1,
                Status::Stale => counts.stale += 1,
                _ => counts.won += 1,
            }
        }
    }

    /// With the table, and how each ended; without those that met nothing concurrent, and those that are set aside.
    fn merged_ends(&self) -> impl Iterator<Item = (usize, &PartEnd, Status)> {
        let ends = self.steps.iter().flat_map(|step| -> Vec<(usize, &[PartEnd])> {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    rows.iter().filter(|row| row.aside.is_none()).map(|row| (*table, &*row.ends)).collect()
                }
                JudgedStep::InOrder(changes) => {
                    let open = changes.iter().filter(|judged| judged.aside.is_none());
                    open.map(|judged| (judged.change.table, &*judged.ends)).collect()
                }
            }
        });
        ends.flat_map(|(table, ends)| {
            let met = ends.iter().enumerate().filter(|(_, end)| is_disputed(end));
            met.map(move |(place, end)| (table, end, status(end, &ends[place + 1..])))
        })
    }
}

fn is_disputed(end: &PartEnd) -> bool {
    end.existence != Verdict::Write(WriteReason::NothingConcurrent)
}

/// A loser is stale where a later change of the same row, which came with it, lost all that again.
fn status(end: &PartEnd, later: &[PartEnd]) -> Status {
    let loses_all = |later: &PartEnd| !later.survives && end.lost.iter().all(|column| later.lost.contains(column));
    match end.survives {
        true => Status::Applied,
        false if later.iter().any(loses_all) => Status::Stale,
        false => Status::ConflictLost,
    }
}

/// `None` where nothing was lost but what changes with every update anyway.
fn outcome(shared: &Shared, mapping: &TableMapping, end: &PartEnd, status: Status) -> Option<Outcome> {
    let loss = end.loss?;
    let lost = end.lost.iter().filter(|column| !mapping.is_incidental(*column));
    let names: Vec<String> =
        lost.filter_map(|column| Some(format!("`{}`", mapping.columns.get(column)?.source))).collect();
    let reason = match (status, names.is_empty()) {
        (Status::Applied, true) => return None,
        (Status::Applied, false) => format!("merged, but for {}: {}", names.join(", "), loss.reason),
        _ => loss.reason.to_string(),
    };
    let outcome = Outcome::undisputed(end.seq, mapping.source.clone(), status, reason);
    Some(lost_against(shared, mapping, (loss, end.effective), outcome))
}
