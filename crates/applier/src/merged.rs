//! How messages ended whose columns were merged.

use std::collections::BTreeMap;

use crossfade_message::{ConflictCounts, Outcome, Status};
use crossfade_model::{MessageId, TableName};
use crossfade_rules::TableMapping;
use crossfade_rules::decide::{Verdict, WriteReason};
use crossfade_rules::merge::PartEnd;

use crate::judged::{JudgedLane, JudgedStep, winners_clock};
use crate::lane::Shared;

impl JudgedLane<'_> {
    /// What the message table keeps of merged messages: those of which nothing is left, and those that lost a column. Counts
    /// all that met a concurrent change.
    pub fn merged_outcomes(&mut self, shared: &Shared) -> Vec<Outcome> {
        // By message: one that left a key and arrived at another shows how its later part ended.
        let mut outcomes: BTreeMap<u64, Outcome> = BTreeMap::new();
        let mut counts: BTreeMap<TableName, ConflictCounts> = BTreeMap::new();
        let mut add = |table: usize, ends: &[PartEnd]| {
            if ends.is_empty() {
                return;
            }
            let mapping = &shared.mappings[table];
            let counts = counts.entry(mapping.source.clone()).or_default();
            for (place, end) in ends.iter().enumerate() {
                if end.existence == Verdict::Write(WriteReason::NothingConcurrent) {
                    continue;
                }
                let status = status(end, &ends[place + 1..]);
                match status {
                    Status::ConflictLost => counts.lost += 1,
                    Status::Stale => counts.stale += 1,
                    _ => counts.won += 1,
                }
                outcomes.extend(outcome(shared, mapping, end, status).map(|outcome| (end.seq, outcome)));
            }
        };
        for step in &self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    rows.iter().filter(|row| row.aside.is_none()).for_each(|row| add(*table, &row.ends));
                }
                JudgedStep::InOrder(changes) => {
                    let open = changes.iter().filter(|judged| judged.aside.is_none());
                    open.for_each(|judged| add(judged.change.table, &judged.ends));
                }
            }
        }
        counts.retain(|_, counts| *counts != ConflictCounts::default());
        for (table, counts) in counts {
            self.tally.won += counts.won;
            self.tally.lost += counts.lost + counts.stale;
            self.conflicts.entry(table).or_default().add(counts);
        }
        outcomes.into_values().collect()
    }
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
    Some(Outcome {
        seq: end.seq,
        table: mapping.source.clone(),
        status,
        reason,
        winner: Some(MessageId { stream: crate::opposite_stream(&shared.owner.stream), seq: loss.winner }),
        source_clock: end.effective,
        target_clock: winners_clock(loss),
    })
}
