//! What the planner needs to know of a table.

use crossfade_model::{ColumnKind, ReferentialAction, Row, TableName};

use super::token::same_values;

use crate::mapping::{ParentLink, TableMapping, find_target};

#[derive(Debug, Clone)]
pub(super) struct PlannedTable {
    pub target: TableName,
    pub width: usize,
    /// Changes of one row may be made one. Otherwise the table's changes stay as they are.
    pub folds: bool,
    pub keyless: bool,
    /// Net changes keep what they are made of, so that columns can be merged.
    pub merges: bool,
    /// Keys whose equal values tie rows: the row key first (unless keyless), the other unique keys, and what children
    /// refer to beside these.
    pub keys: Vec<PlannedKey>,
    /// Foreign keys to synced tables.
    pub links: Vec<PlannedLink>,
    /// Tables in which the server itself may change rows when a row of this table goes.
    pub deletes_disturb: Vec<usize>,
    /// The same for when it changes its key.
    pub updates_disturb: Vec<usize>,
    /// Tables that refer to a disturbed table, so that the message of a parent's end may be missing.
    pub unsettles: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct PlannedKey {
    pub columns: Vec<usize>,
    /// Folded and exact rendering of the values are the same.
    pub plain: bool,
    /// Some synced table refers to it.
    pub referred: bool,
}

#[derive(Debug, Clone)]
pub(super) struct PlannedLink {
    /// The child's columns in the order of the parent's key.
    pub columns: Vec<usize>,
    pub parent: usize,
    /// Index into the parent's keys.
    pub key: usize,
    /// What the target makes of a child whose parent changes its key.
    pub on_update: ReferentialAction,
}

pub(super) fn planned_tables(mappings: &[TableMapping]) -> Vec<PlannedTable> {
    let mut tables: Vec<PlannedTable> = mappings.iter().map(planned_table).collect();
    for (child, mapping) in mappings.iter().enumerate() {
        for link in &mapping.parents {
            add_link(&mut tables, mappings, child, link);
        }
    }
    let reached = |direct: fn(&PlannedTable) -> &[usize]| -> Vec<Vec<usize>> {
        tables.iter().map(|table| reach(&tables, direct(table))).collect()
    };
    let (deletes, updates) = (reached(|table| &table.deletes_disturb), reached(|table| &table.updates_disturb));
    let unsettles: Vec<Vec<usize>> = deletes.iter().zip(&updates).map(|(a, b)| unsettled(&tables, a, b)).collect();
    for (table, unsettles) in tables.iter_mut().zip(unsettles) {
        table.unsettles = unsettles;
    }
    for (table, (deletes, updates)) in tables.iter_mut().zip(deletes.into_iter().zip(updates)) {
        table.deletes_disturb = deletes;
        table.updates_disturb = updates;
    }
    tables
}

fn unsettled(tables: &[PlannedTable], deletes: &[usize], updates: &[usize]) -> Vec<usize> {
    let disturbed = |table: &usize| deletes.contains(table) || updates.contains(table);
    let refers = |child: &usize| tables[*child].links.iter().any(|link| disturbed(&link.parent));
    (0..tables.len()).filter(refers).collect()
}

impl PlannedTable {
    /// The server itself changes children when a row of this table goes or changes its key.
    pub fn cascades(&self) -> bool {
        !self.deletes_disturb.is_empty() || !self.updates_disturb.is_empty()
    }

    /// A change from one image to the other may need a value that another row had. Where a unique key cannot be told
    /// from the columns, every write may.
    pub fn takes_value(&self, before: Option<&Row>, after: Option<&Row>) -> bool {
        match (before, after) {
            (Some(before), Some(after)) if self.folds => {
                self.keys.iter().any(|key| !same_values(&key.columns, before, after))
            }
            (_, after) => after.is_some(),
        }
    }
}

fn planned_table(mapping: &TableMapping) -> PlannedTable {
    let row_key = Some(&mapping.row_key).filter(|key| !key.is_empty());
    let keys = row_key.into_iter().chain(&mapping.unique_keys).map(|key| planned_key(mapping, key.clone())).collect();
    let keyless = mapping.keyless || mapping.row_key.is_empty();
    PlannedTable {
        target: mapping.target.clone(),
        width: mapping.columns.len(),
        folds: !keyless && !mapping.in_order,
        keyless,
        merges: mapping.merge.is_some(),
        keys,
        links: Vec::new(),
        deletes_disturb: Vec::new(),
        updates_disturb: Vec::new(),
        unsettles: Vec::new(),
    }
}

fn planned_key(mapping: &TableMapping, columns: Vec<usize>) -> PlannedKey {
    let plain = columns.iter().all(|column| mapping.columns.get(*column).is_some_and(|c| is_plain(&c.source_kind)));
    PlannedKey { columns, plain, referred: false }
}

/// No collation and no padding applies to values of this kind.
fn is_plain(kind: &ColumnKind) -> bool {
    use ColumnKind::*;
    match kind {
        Integer { .. } | Float | Double | Decimal { .. } | Year | Bit { .. } => true,
        Date | Time { .. } | Datetime { .. } | Timestamp { .. } => true,
        Text { .. } | Bytes { .. } | Enum { .. } | Set { .. } | Json | Geometry | Vector => false,
        Inet4 | Inet6 | Uuid | Other { .. } => false,
    }
}

fn add_link(tables: &mut [PlannedTable], mappings: &[TableMapping], child: usize, link: &ParentLink) {
    let Some(parent) = find_target(mappings, &link.parent) else { return };
    let names = link.parent_columns.iter().map(|name| mappings[parent].target_column(name));
    let Some(referred) = names.collect::<Option<Vec<usize>>>().filter(|key| key.len() == link.columns.len()) else {
        return;
    };
    let (key, columns) = match find_key(&tables[parent].keys, &referred, &link.columns) {
        Some(found) => found,
        None => {
            tables[parent].keys.push(planned_key(&mappings[parent], referred));
            (tables[parent].keys.len() - 1, link.columns.clone())
        }
    };
    tables[parent].keys[key].referred = true;
    tables[child].links.push(PlannedLink { columns, parent, key, on_update: link.on_update });
    if link.on_delete != ReferentialAction::Restrict {
        tables[parent].deletes_disturb.push(child);
    }
    if link.on_update != ReferentialAction::Restrict {
        tables[parent].updates_disturb.push(child);
    }
}

/// What a disturbed table disturbs in turn. A child that goes or gets another key may be a parent itself.
fn reach(tables: &[PlannedTable], start: &[usize]) -> Vec<usize> {
    let mut reached = start.to_vec();
    let mut next = 0;
    while let Some(table) = reached.get(next).copied() {
        next += 1;
        for further in tables[table].deletes_disturb.iter().chain(&tables[table].updates_disturb) {
            if !reached.contains(further) {
                reached.push(*further);
            }
        }
    }
    reached.sort_unstable();
    reached.dedup();
    reached
}

/// A key on the same columns, and the child's columns in its order.
fn find_key(keys: &[PlannedKey], referred: &[usize], child: &[usize]) -> Option<(usize, Vec<usize>)> {
    keys.iter().enumerate().filter(|(_, key)| key.columns.len() == referred.len()).find_map(|(index, key)| {
        let place = |column: &usize| referred.iter().position(|other| other == column);
        let columns =
            key.columns.iter().map(|column| place(column).map(|at| child[at])).collect::<Option<Vec<usize>>>();
        columns.map(|columns| (index, columns))
    })
}
