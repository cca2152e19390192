//! Who wins, judged by what is captured, and judged again before the commit.

use crossfade_model::{Origin, Row, Seen, Value};
use crossfade_rules::decide::WriteReason;
use crossfade_rules::{MappedChange, NetChange, TableMapping, Verdict};
use mysql_async::Conn;

use super::ruling::{Undo, lost_in_order};
use super::{JudgedChange, JudgedLane, JudgedRow, JudgedStep, UNDISPUTED};
use crate::entity::Standing;
use crate::error::ApplyError;
use crate::lane::Shared;
use crate::lookup::{Claim, Lookup, Subject, key_hashes};
use crate::table::TargetTable;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    AsWritten,
    Otherwise,
}

impl<'a> JudgedLane<'a> {
    /// Judges every change by what is captured so far.
    pub async fn judge(&mut self, shared: &Shared, lookup: &mut Lookup, conn: &mut Conn) -> Result<(), ApplyError> {
        lookup.prepare(self.folded_keys(shared)).await?;
        for step in &mut self.steps {
            match step {
                JudgedStep::Net { table, rows, .. } => {
                    let (mapping, target) = (&shared.mappings[*table], &shared.tables[*table]);
                    for row in rows {
                        let standing = Some(&row.standing);
                        (row.verdict, row.departure) =
                            judge_net(mapping, target, (row.net, standing), lookup, conn).await?;
                        row.merges = merges(mapping, (row.verdict, row.departure));
                        row.keeps = keeps(shared, *table, row.net.moved_from.is_none(), row.verdict);
                    }
                }
                JudgedStep::InOrder(changes) => {
                    for judged in changes {
                        let table = judged.change.table;
                        let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
                        let of = (judged.change, &judged.standing);
                        (judged.verdict, judged.departure) = judge_change(mapping, target, of, lookup, conn).await?;
                        judged.merges = merges(mapping, (judged.verdict, judged.departure));
                        judged.keeps = keeps(shared, table, judged.verdict == judged.departure, judged.verdict);
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
                    for row in rows.iter_mut().filter(|row| row.must_be_confirmed() && row.is_open()) {
                        let standing = Some(&row.standing);
                        let known = judge_net(mapping, target, (row.net, standing), lookup, conn).await?;
                        let keeps = keeps(shared, *table, row.net.moved_from.is_none(), known.0);
                        let is_same = match row.undo {
                            Some(undo) => undo == Undo::of(known),
                            None => is_as_before(mapping, (row.verdict, row.departure), known) && (row.keeps || !keeps),
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
                        if judged.merges || judged.late.is_some() || !judged.is_open() {
                            continue;
                        }
                        let table = judged.change.table;
                        let (mapping, target) = (&shared.mappings[table], &shared.tables[table]);
                        let of = (judged.change, &judged.standing);
                        let known = judge_change(mapping, target, of, lookup, conn).await?;
                        let keeps = keeps(shared, table, known.0 == known.1, known.0);
                        let is_same = match judged.undo {
                            Some(undo) => undo == Undo::of(known),
                            None => {
                                let verdicts = (judged.verdict, judged.departure);
                                is_as_before(mapping, verdicts, known) && (judged.keeps || !keeps)
                            }
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
                    rows.iter().any(|row| row.must_be_confirmed() && (row.is_undone() || row.writes()))
                }
                JudgedStep::InOrder(changes) => {
                    let is_open = |judged: &&JudgedChange<'_>| judged.late.is_none() && !judged.merges;
                    changes.iter().filter(is_open).any(|judged| judged.is_undone() || judged.writes())
                }
            })
    }

    /// Some delete found nothing, and a user might insert the row unseen.
    pub fn missed_rows(&self) -> bool {
        self.concurrent && self.missed
    }
}

impl JudgedRow<'_> {
    /// What was judged of it can turn until the commit. Who is late has lost, whatever users of the target do.
    fn must_be_confirmed(&self) -> bool {
        self.late.is_none() && !self.merges && (self.undo.is_some() || !self.sighted)
    }
}

/// Neither half has turned, nor is there anything to be merged.
fn is_as_before(mapping: &TableMapping, before: (Verdict, Verdict), known: (Verdict, Verdict)) -> bool {
    Undo::of(before) == Undo::of(known) && !merges(mapping, known)
}

/// Where columns are merged, who wins the row is not all that there is to a dispute.
fn merges(mapping: &TableMapping, verdicts: (Verdict, Verdict)) -> bool {
    mapping.merge.is_some() && verdicts != (UNDISPUTED, UNDISPUTED)
}

/// The change wins over a late one, and columns that this may change at the target stay as they are there. Whoever made it did not
/// know of the change at hand, so the whole row goes back to him in any case.
fn keeps(shared: &Shared, table: usize, keeps_its_key: bool, verdict: Verdict) -> bool {
    let may_change = shared.entities.tables.table(table).is_some_and(|table| !table.kept.is_empty());
    may_change && keeps_its_key && matches!(verdict, Verdict::Write(WriteReason::Outranked { .. }))
}

fn key_of<'r>(mapping: &TableMapping, row: &'r Row) -> Vec<&'r Value> {
    mapping.row_key.iter().filter_map(|index| row.get(*index)).collect()
}

async fn judge_net(
    mapping: &TableMapping,
    target: &TargetTable,
    (net, standing): (&NetChange, Option<&Standing>),
    lookup: &mut Lookup,
    conn: &mut Conn,
) -> Result<(Verdict, Verdict), ApplyError> {
    let Some(last) = net.after.as_ref().or(net.before.as_ref()) else { return Ok((UNDISPUTED, UNDISPUTED)) };
    let key = key_of(mapping, last);
    let claim = Claim { effective: net.effective, returned: net.origin == Origin::Returned, standing };
    let subject = Subject { mapping, key: &key, seen: &net.seen };
    let arrival = lookup.judge(&subject, claim, target, conn).await?;
    let departure = match (&net.moved_from, &net.before) {
        (Some(departure), Some(before)) => {
            let key = key_of(mapping, before);
            let subject = Subject { mapping, key: &key, seen: &departure.seen };
            let claim = Claim { effective: departure.effective, returned: false, standing };
            lookup.judge(&subject, claim, target, conn).await?
        }
        _ => UNDISPUTED,
    };
    Ok((arrival, departure))
}

async fn judge_change(
    mapping: &TableMapping,
    target: &TargetTable,
    (change, standing): (&MappedChange, &Standing),
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
            let returned = change.origin == Origin::Returned;
            let claim = Claim { effective: change.effective, returned, standing: Some(standing) };
            let subject = Subject { mapping, key: &key, seen };
            *verdict = lookup.judge(&subject, claim, target, conn).await?;
        }
    }
    Ok((verdicts[0], verdicts[1]))
}
