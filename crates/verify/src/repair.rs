//! Making rows equal that were found different.

use std::collections::BTreeMap;

use crossfade_applier::{NotWritten, Repairer, RowRepair, read_row_where};
use crossfade_catalog::class_of;
use crossfade_model::{Clock, Row, RowOp, Side, TableLayout, TableName, Value};
use crossfade_rules::clock::clock_of;
use crossfade_rules::{Authority, Event, LastConcurrent, Policy, Remedy, TableMapping, Verdict, decide};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::passage::Passage;
use crate::report::{Difference, DifferenceKind};
use crate::suspect::{Suspect, judge};
use crate::table::ComparedTable;
use crate::{Filter, Options, Sides, TablePair, VerifyError};

/// Other transactions may be in the way of a row so often.
const MOST_ATTEMPTS: u32 = 5;

/// So many reasons are told; all are counted.
const REASONS_TOLD: usize = 20;

/// So many rows are locked together, and wait together until the binlog of their side is read.
const LOCKED_TOGETHER: usize = 100;

/// So many rows of a dry run are told.
const ROWS_PLANNED: usize = 1_000;

/// Rows that were mended are looked at together.
const LOOKED_AT_TOGETHER: usize = 1_000;

type Image = (TableLayout, Row);

/// Which side's row is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Winner {
    Old,
    New,
    /// The row with the later clock; equal ones go to the preferred side. A row that the other side lacks is taken, too.
    Newest,
}

/// How to repair.
pub struct Repair {
    pub winner: Winner,
    pub prefer: Side,
    /// Nothing is written.
    pub dry_run: bool,
    /// Mends rows of the new side, and of the old side.
    pub onto_new: Repairer,
    pub onto_old: Repairer,
}

/// The tables that were compared, parents before their children.
pub struct RepairTables(Vec<TablePair>);

impl RepairTables {
    pub fn new(tables: &[TablePair]) -> RepairTables {
        let mut rest: Vec<TablePair> = tables.to_vec();
        let mut sorted = Vec::with_capacity(rest.len());
        while !rest.is_empty() {
            let waits = |table: &TablePair| {
                let others = rest.iter().filter(|other| other.new.name != table.new.name);
                others.into_iter().any(|other| table.mapping.parents.iter().any(|link| link.parent == other.new.name))
            };
            // In a circle any table is as good as the others.
            let free = rest.iter().position(|table| !waits(table)).unwrap_or(0);
            sorted.push(rest.remove(free));
        }
        RepairTables(sorted)
    }
}

/// What came of a repair.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RepairReport {
    /// Rows that were written, or would be; by side and kind.
    pub inserted_on_old: u64,
    pub inserted_on_new: u64,
    pub changed_on_old: u64,
    pub changed_on_new: u64,
    pub deleted_on_old: u64,
    pub deleted_on_new: u64,
    /// Users have changed these meanwhile, on either side: left to the streams.
    pub overtaken: u64,
    /// Not written for other reasons; some of those are below.
    pub refused: u64,
    pub reasons: Vec<String>,
    /// Of the rows that were written those that differ still, or again.
    pub still_different: u64,
    pub dry_run: bool,
    /// Of a dry run: the first rows that would be written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub planned: Vec<PlannedRow>,
}

/// A row that would be written.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedRow {
    /// As the old side names it.
    pub table: String,
    /// JSON.
    pub key: Option<Box<RawValue>>,
    /// The side that is written.
    pub side: &'static str,
    /// `insert`, `change` or `delete`.
    pub action: &'static str,
    /// Of a change: the columns, by that side's names.
    pub columns: Vec<String>,
}

impl RepairReport {
    pub fn written(&self) -> u64 {
        self.inserted_on_old
            + self.inserted_on_new
            + self.changed_on_old
            + self.changed_on_new
            + self.deleted_on_old
            + self.deleted_on_new
    }

    fn count(&mut self, side: Side, repair: &RowRepair) {
        let counter = match (side, repair) {
            (Side::Old, RowRepair::Insert(_)) => &mut self.inserted_on_old,
            (Side::New, RowRepair::Insert(_)) => &mut self.inserted_on_new,
            (Side::Old, RowRepair::Change { .. }) => &mut self.changed_on_old,
            (Side::New, RowRepair::Change { .. }) => &mut self.changed_on_new,
            (Side::Old, RowRepair::Delete(_)) => &mut self.deleted_on_old,
            (Side::New, RowRepair::Delete(_)) => &mut self.deleted_on_new,
        };
        *counter += 1;
    }

    fn refuse(&mut self, table: &TableName, why: &str) {
        self.refused += 1;
        let reason = format!("{table}: {why}");
        if self.reasons.len() < REASONS_TOLD && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

/// Mends rows: what comes and what changes with parents first, what goes with children first. Then looks at all of them again.
///
/// # Errors
///
/// What was mended before stays so.
pub async fn repair(
    sides: &Sides,
    tables: &RepairTables,
    options: &Options,
    mut differences: Vec<Difference>,
    how: &mut Repair,
) -> Result<RepairReport, VerifyError> {
    let place = |name: &TableName| tables.0.iter().position(|table| table.mapping.identity == *name);
    let mut report = RepairReport { dry_run: how.dry_run, ..RepairReport::default() };
    let mut compared = BTreeMap::new();
    let mut conns = [Repairer::connect(&sides.old).await?, Repairer::connect(&sides.new).await?];
    let only_digests = !crate::takes_roomy_packets(&mut conns).await?;
    for (index, table) in tables.0.iter().enumerate() {
        let of_table = ComparedTable::new(&table.mapping, &table.old, &table.new, &Filter::default(), only_digests)?;
        compared.extend(of_table.map(|of_table| (index, of_table)));
    }
    differences.sort_by_key(|difference| place(&difference.table));
    let goes = |difference: &Difference| match how.winner {
        Winner::Old => difference.kind == DifferenceKind::MissingOnOld,
        Winner::New => difference.kind == DifferenceKind::MissingOnNew,
        Winner::Newest => false,
    };
    let (going, coming): (Vec<Difference>, Vec<Difference>) = differences.into_iter().partition(goes);
    let mut mended: BTreeMap<usize, Vec<Suspect>> = BTreeMap::new();
    let rows: Vec<RowAtWork<'_>> = coming
        .iter()
        .chain(going.iter().rev())
        .filter_map(|difference| {
            let index = place(&difference.table)?;
            Some(RowAtWork { index, pair: &tables.0[index], table: compared.get(&index)?, difference })
        })
        .collect();
    for group in rows.chunks(LOCKED_TOGETHER) {
        for (row, attempt) in group.iter().zip(mend(group, &mut conns, how).await?) {
            match attempt {
                Attempt::Written(side, repair) => {
                    report.count(side, &repair);
                    if how.dry_run && report.planned.len() < ROWS_PLANNED {
                        report.planned.extend(row.planned(how, side, &repair));
                    }
                    mended.entry(row.index).or_default().extend(row.difference.seen.suspect());
                }
                Attempt::Overtaken => report.overtaken += 1,
                Attempt::Refused(why) => report.refuse(&row.difference.table, &why),
            }
        }
    }
    if how.dry_run {
        return Ok(report);
    }
    let passage = Passage {
        store: sides.store.clone(),
        pair: sides.pair.clone(),
        old: sides.old.clone(),
        new: sides.new.clone(),
        patience: options.patience,
    };
    for (index, suspects) in mended {
        for together in suspects.chunks(LOOKED_AT_TOGETHER) {
            let judged = judge(&compared[&index], &passage, &mut conns, together).await?;
            report.still_different += judged.different.len() as u64 + judged.open;
        }
    }
    Ok(report)
}

/// Mends rows in one transaction on each side. Where other transactions are in the way, row by row.
async fn mend(rows: &[RowAtWork<'_>], conns: &mut [Conn; 2], how: &mut Repair) -> Result<Vec<Attempt>, VerifyError> {
    if let Some(attempts) = try_together(rows, conns, how).await? {
        return Ok(attempts);
    }
    let mut attempts = Vec::with_capacity(rows.len());
    for row in rows.chunks(1) {
        let mut ended = None;
        for _ in 0..MOST_ATTEMPTS {
            ended = try_together(row, conns, how).await?;
            if ended.is_some() {
                break;
            }
        }
        let in_the_way = || vec![Attempt::Refused("other transactions hold the row".to_owned())];
        attempts.extend(ended.unwrap_or_else(in_the_way));
    }
    Ok(attempts)
}

/// `None`: other transactions were in the way, and nothing was done.
async fn try_together(
    rows: &[RowAtWork<'_>],
    conns: &mut [Conn; 2],
    how: &mut Repair,
) -> Result<Option<Vec<Attempt>>, VerifyError> {
    for conn in &mut *conns {
        Repairer::begin(conn).await?;
    }
    let attempts = write_together(rows, conns, how).await;
    let is_kept = matches!(attempts, Ok(Some(_))) && !how.dry_run;
    for (conn, side) in conns.iter_mut().zip([Side::Old, Side::New]) {
        let ended = conn.query_drop(if is_kept { "COMMIT" } else { "ROLLBACK" }).await;
        let table = || rows.first().map_or_else(String::new, |row| row.difference.table.to_string());
        ended.map_err(|source| VerifyError::Read { table: table(), side, source })?;
    }
    attempts
}

async fn write_together(
    rows: &[RowAtWork<'_>],
    conns: &mut [Conn; 2],
    how: &mut Repair,
) -> Result<Option<Vec<Attempt>>, VerifyError> {
    let mut locked = Vec::with_capacity(rows.len());
    for row in rows {
        match row.lock(conns, how).await {
            Err(VerifyError::Read { source, .. }) if class_of(&source).remedy() == Remedy::RetryAtOnce => {
                return Ok(None);
            }
            found => locked.push(found?),
        }
    }
    let needs = |side: Side| locked.iter().any(|row| matches!(row, Locked::Ready(ready) if ready.target == side));
    let mut knows = [true, true];
    for (side, knows) in [Side::Old, Side::New].into_iter().zip(&mut knows) {
        if needs(side) && !how.dry_run {
            *knows = how.repairer(side).learn().await?;
        }
    }
    let mut tagged = [false, false];
    let mut attempts = Vec::with_capacity(rows.len());
    for row in locked {
        let ready = match row {
            Locked::Overtaken => {
                attempts.push(Attempt::Overtaken);
                continue;
            }
            Locked::Refused(why) => {
                attempts.push(Attempt::Refused(why));
                continue;
            }
            Locked::Ready(ready) => ready,
        };
        let place = usize::from(ready.target == Side::New);
        if how.dry_run {
            attempts.push(Attempt::Written(ready.target, ready.repair));
            continue;
        }
        if !knows[place] {
            attempts.push(Attempt::Refused(format!("the binlog of the {} side is not read up to now", ready.target)));
            continue;
        }
        let (conn, repairer) = (&mut conns[place], how.repairer(ready.target));
        let key: Vec<&Value> = ready.key.iter().collect();
        if !repairer.permits(ready.number, &key, ready.effective, conn).await? {
            attempts.push(Attempt::Overtaken);
            continue;
        }
        if !tagged[place] {
            match repairer.tag(conn).await {
                Ok(()) => tagged[place] = true,
                Err(NotWritten::Error(error)) => return Err(error.into()),
                Err(_) => return Ok(None),
            }
        }
        match repairer.write(conn, ready.number, &ready.repair).await {
            Ok(()) => attempts.push(Attempt::Written(ready.target, ready.repair)),
            Err(NotWritten::InTheWay) => return Ok(None),
            Err(NotWritten::Refused(why)) => attempts.push(Attempt::Refused(why)),
            Err(NotWritten::Error(error)) => return Err(error.into()),
        }
    }
    Ok(Some(attempts))
}

impl Repair {
    /// Who mends rows of a side.
    fn repairer(&mut self, side: Side) -> &mut Repairer {
        if side == Side::New { &mut self.onto_new } else { &mut self.onto_old }
    }
}

struct RowAtWork<'r> {
    index: usize,
    pair: &'r TablePair,
    table: &'r ComparedTable,
    difference: &'r Difference,
}

/// How a row ended.
enum Attempt {
    /// On this side. In a dry run it would be.
    Written(Side, RowRepair),
    Overtaken,
    Refused(String),
}

/// A row that is locked on both sides.
enum Locked {
    Ready(Box<Ready>),
    /// It is not what it was any more.
    Overtaken,
    Refused(String),
}

struct Ready {
    target: Side,
    /// Of the mapping to the target.
    number: usize,
    repair: RowRepair,
    key: Vec<Value>,
    /// What the clock of the row that is taken says.
    effective: Option<Clock>,
}

impl RowAtWork<'_> {
    async fn lock(&self, conns: &mut [Conn; 2], how: &mut Repair) -> Result<Locked, VerifyError> {
        let seen = &self.difference.seen;
        let Some(suspect) = seen.suspect() else { return Ok(Locked::Overtaken) };
        let mut images: [Option<Image>; 2] = [None, None];
        for ((conn, side), image) in conns.iter_mut().zip([Side::Old, Side::New]).zip(&mut images) {
            let of_side = self.table.side(side);
            let expected = if side == Side::Old { &seen.old } else { &seen.new };
            if of_side.lock(conn, &suspect.key).await? != *expected {
                return Ok(Locked::Overtaken);
            }
            let (condition, params) = of_side.space.is(&suspect.key);
            *image = read_row_where(conn, &of_side.shape, &condition, params).await?;
        }
        let source = self.winner(how, &images);
        let target = source.opposite();
        let [old, new] = &images;
        let (taken, current) = if source == Side::Old { (old, new) } else { (new, old) };
        let Some((number, mapping)) = how.repairer(target).mapping(&self.pair.mapping.identity) else {
            return Ok(Locked::Refused(format!("it is not carried to the {target} side")));
        };
        let Some(repair) = self.row_repair(mapping, target, taken.as_ref(), current.as_ref()) else {
            return Ok(Locked::Overtaken);
        };
        let key = match &repair {
            RowRepair::Change { key, .. } => key.clone(),
            RowRepair::Insert(row) | RowRepair::Delete(row) => {
                mapping.row_key.iter().map(|index| row[*index].clone()).collect()
            }
        };
        let row = taken.as_ref().and_then(|image| Repairer::carried(mapping, image));
        let clock = mapping.clock.as_ref().zip(row.as_ref());
        let effective = clock.and_then(|(clock, row)| clock_of(clock, &row[clock.index]));
        Ok(Locked::Ready(Box::new(Ready { target, number, repair, key, effective })))
    }

    fn planned(&self, how: &mut Repair, side: Side, repair: &RowRepair) -> Option<PlannedRow> {
        let (_, mapping) = how.repairer(side).mapping(&self.pair.mapping.identity)?;
        let columns = match repair {
            RowRepair::Change { values, .. } => {
                values.keys().map(|place| mapping.columns[*place].target.clone()).collect()
            }
            _ => Vec::new(),
        };
        Some(PlannedRow {
            table: self.difference.table.to_string(),
            key: self.difference.row_key().and_then(|key| RawValue::from_string(key).ok()),
            side: side.as_str(),
            action: match repair {
                RowRepair::Insert(_) => "insert",
                RowRepair::Change { .. } => "change",
                RowRepair::Delete(_) => "delete",
            },
            columns,
        })
    }

    /// The side whose row is taken; both are locked.
    fn winner(&self, how: &Repair, [old, new]: &[Option<Image>; 2]) -> Side {
        let mapping = &self.pair.mapping;
        match (how.winner, old, new) {
            (Winner::Old, ..) | (Winner::Newest, Some(_), None) => Side::Old,
            (Winner::New, ..) | (Winner::Newest, None, _) => Side::New,
            (Winner::Newest, Some(old), Some(new)) => {
                let event = Event {
                    side: Side::Old,
                    effective: clock(mapping, Side::Old, old),
                    returned: false,
                    authority: Authority::Shared,
                };
                let other = LastConcurrent {
                    seq: 0,
                    effective: clock(mapping, Side::New, new),
                    op: RowOp::Update,
                    returned: false,
                    authority: Authority::Shared,
                };
                let policy: Policy = mapping.policy;
                match decide(&event, Some(&other), policy, how.prefer) {
                    Verdict::Write(_) => Side::Old,
                    Verdict::Lose(_) => Side::New,
                }
            }
        }
    }

    /// What makes the target's row like the source's. `None`: nothing does.
    fn row_repair(
        &self,
        mapping: &TableMapping,
        target: Side,
        source: Option<&Image>,
        current: Option<&Image>,
    ) -> Option<RowRepair> {
        match (source, current) {
            (Some(source), None) => Some(RowRepair::Insert(Repairer::carried(mapping, source)?)),
            (None, Some((layout, row))) => {
                let row: Option<Row> =
                    mapping.columns.iter().map(|column| row.get(layout.column(&column.target)?).cloned()).collect();
                Some(RowRepair::Delete(row?))
            }
            (Some(source), Some((layout, current))) => {
                let wanted = Repairer::carried(mapping, source)?;
                let key: Option<Vec<Value>> = mapping
                    .row_key
                    .iter()
                    .map(|index| current.get(layout.column(&mapping.columns[*index].target)?).cloned())
                    .collect();
                let names = self.difference.columns.iter();
                let names = names.map(|names| if target == Side::Old { &names.old } else { &names.new });
                let places = names.filter_map(|name| mapping.target_column(name));
                let values: BTreeMap<usize, Value> = places.map(|place| (place, wanted[place].clone())).collect();
                (!values.is_empty()).then_some(RowRepair::Change { key: key?, values })
            }
            (None, None) => None,
        }
    }
}

/// What the clock of a row says; `mapping` is that from old to new.
fn clock(mapping: &TableMapping, side: Side, (layout, row): &Image) -> Option<Clock> {
    let column = mapping.clock.as_ref()?;
    let name = if side == Side::Old { &column.source } else { &column.target };
    let place = layout.column(name)?;
    clock_of(column, row.get(place)?)
}
