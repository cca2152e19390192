//! Copying rows beside live traffic, a chunk at a time: which rows of a chunk still count, and what becomes of them.
//!
//! A chunk is read from its source between two marks in the source's binlog, the low one committed before the snapshot of the
//! read opens, the high one after. What was changed between the marks, by whomever, is left out of the chunk: a user's change
//! brings the row by itself, and what the opposite direction wrote came from the target. Every row that is left stood at the
//! high mark exactly as it was read, so it may be written at the high mark's place in the stream: after all changes before
//! the mark, and before all after it. A later mark serves as well, where what was changed up to that one is left out.
//!
//! But for what a server changes by itself and writes into no binlog: [`Families`] knows which rows that may be.
//!
//! A chunk's row is no change. It never wins against what a user of the target did and the source has not seen; that goes to
//! the source, and decides both sides. Nor does it take the place of a row that is as new or newer.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_model::{Row, RowChange, TableLayout, TableName};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::clock::clock_of;
use crate::key::exact_hash;
use crate::mapping::{TableMapping, find_target};

mod family;

pub use family::Families;

/// So many layouts are remembered; a reader makes new ones after each reconnect.
const MOST_LAYOUTS: usize = 4_096;

/// The rows that changes touch.
#[derive(Debug, Clone)]
pub struct TouchedRows {
    by_name: HashMap<TableName, usize>,
    mappings: Arc<[TableMapping]>,
    families: Families,
    places: FxHashMap<usize, Place>,
}

#[derive(Debug, Clone)]
struct Place {
    /// Keeps the layout's address, by which it is found, from being used again.
    _layout: Arc<TableLayout>,
    /// `None` for one that is not mapped.
    table: Option<usize>,
    /// Of its key; `None` where no chunk can be of the table.
    key: Option<Vec<usize>>,
    /// The mapped columns in the layout.
    columns: Vec<Option<usize>>,
}

/// The keys of one row before and after a change, as hashes that tell apart what the stored values tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    pub table: usize,
    pub keys: [u64; 2],
}

impl TouchedRows {
    pub fn new(mappings: Arc<[TableMapping]>) -> TouchedRows {
        let by_name = mappings.iter().enumerate().map(|(table, mapping)| (mapping.source.clone(), table)).collect();
        let families = Families::of(&mappings);
        TouchedRows { by_name, mappings, families, places: FxHashMap::default() }
    }

    /// `None` for a table that is not mapped, or has no key.
    pub fn of(&mut self, change: &RowChange) -> Option<Touched> {
        self.learn(change);
        let Place { table, key, .. } = self.places.get(&address(change))?;
        let (table, key) = ((*table)?, key.as_ref()?);
        let before = change.before.as_ref().or(change.after.as_ref())?;
        let after = change.after.as_ref().unwrap_or(before);
        let identity = &self.mappings[table].identity;
        let hash = |image: &Row| {
            let values: Vec<_> = key.iter().filter_map(|index| image.get(*index)).collect();
            exact_hash(identity, &values)
        };
        Some(Touched { table, keys: [hash(before), hash(after)] })
    }

    /// Appends, by their tables, what makes children of the changed row doubtful.
    pub fn children_of(&mut self, change: &RowChange, found: &mut Vec<(usize, u64)>) {
        self.learn(change);
        let Some(Place { table: Some(table), columns, .. }) = self.places.get(&address(change)) else { return };
        let images = [change.before.as_ref(), change.after.as_ref()];
        self.families.ended(*table, images, |image, column| image.get((*columns.get(column)?)?), found);
    }

    fn learn(&mut self, change: &RowChange) {
        if !self.places.contains_key(&address(change)) {
            if self.places.len() >= MOST_LAYOUTS {
                self.places.clear();
            }
            let place = self.place(&change.layout);
            self.places.insert(address(change), place);
        }
    }

    fn place(&self, layout: &Arc<TableLayout>) -> Place {
        let table = self.by_name.get(&layout.name).copied();
        let mapping = table.map(|table| &self.mappings[table]);
        let mapped = mapping.map_or(&[][..], |mapping| &mapping.columns);
        let columns: Vec<Option<usize>> = mapped.iter().map(|column| layout.column(&column.source)).collect();
        let key = mapping.and_then(|mapping| mapping.row_key.iter().map(|index| columns[*index]).collect());
        let key = key.filter(|key: &Vec<usize>| !key.is_empty());
        Place { _layout: layout.clone(), table, key, columns }
    }
}

fn address(change: &RowChange) -> usize {
    Arc::as_ptr(&change.layout) as usize
}

/// The key of a row in the order of the mapping's columns, as [`Touched`] has it.
pub fn row_hash(mapping: &TableMapping, row: &Row) -> u64 {
    let values: Vec<_> = mapping.row_key.iter().filter_map(|index| row.get(*index)).collect();
    exact_hash(&mapping.identity, &values)
}

/// What has been changed in a chunk's table since its low mark.
#[derive(Debug, Clone, Default)]
pub struct Window {
    touched: FxHashSet<u64>,
}

impl Window {
    pub fn note(&mut self, key: u64) {
        self.touched.insert(key);
    }

    /// It lasts longer: until what was noted in another window after it.
    pub fn extend(&mut self, later: Window) {
        self.touched.extend(later.touched);
    }

    pub fn len(&self) -> usize {
        self.touched.len()
    }

    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Leaves out the rows that were changed in the window; returns how many.
    ///
    /// A row is found by the key that it was read with. Whatever changed it after it was read has that key before it, and
    /// whatever changed it between the low mark and the read has it after.
    pub fn leave_out(&self, mapping: &TableMapping, rows: &mut Vec<Row>) -> usize {
        let read = rows.len();
        if !self.touched.is_empty() {
            rows.retain(|row| !self.touched.contains(&row_hash(mapping, row)));
        }
        read - rows.len()
    }
}

/// What becomes of a chunk's row against which nothing on the target is concurrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It is not there, and is inserted.
    Fill,
    /// What is there is older, and is overwritten.
    Replace,
    /// It is there already.
    Same,
    /// What is there is as new or newer, or nothing tells, and stays.
    Keep,
}

/// Decides over a chunk's row by what the target has under its key, all of which the source had seen at the high mark.
/// `is_same`: in every column.
pub fn judge_copy(mapping: &TableMapping, row: &Row, found: Option<(&Row, bool)>) -> Copied {
    match found {
        None => Copied::Fill,
        Some((_, true)) => Copied::Same,
        Some((there, false)) => {
            let Some(clock) = &mapping.clock else { return Copied::Keep };
            let read = |row: &Row| row.get(clock.index).and_then(|value| clock_of(clock, value));
            if read(row) > read(there) { Copied::Replace } else { Copied::Keep }
        }
    }
}

/// In which order tables are to be copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyOrder {
    /// Per table the other tables that its foreign keys refer to, and that must be there before; without those in a circle
    /// with it.
    pub parents: Vec<Vec<usize>>,
    /// Per table whether it refers to itself, or is in a circle of tables that refer to each other: then no order of its rows
    /// is known in which every parent comes first.
    pub in_circle: Vec<bool>,
}

impl CopyOrder {
    pub fn of(mappings: &[TableMapping]) -> CopyOrder {
        let refers: Vec<Vec<usize>> = mappings
            .iter()
            .map(|mapping| {
                let mut parents: Vec<usize> =
                    mapping.parents.iter().filter_map(|link| find_target(mappings, &link.parent)).collect();
                parents.sort_unstable();
                parents.dedup();
                parents
            })
            .collect();
        let reached: Vec<FxHashSet<usize>> = (0..refers.len()).map(|table| reachable(&refers, table)).collect();
        let in_circle = (0..refers.len()).map(|table| reached[table].contains(&table)).collect();
        let parents = refers
            .iter()
            .enumerate()
            .map(|(table, parents)| {
                parents.iter().copied().filter(|parent| !reached[*parent].contains(&table)).collect()
            })
            .collect();
        CopyOrder { parents, in_circle }
    }
}

/// All tables that a table refers to, directly or not.
fn reachable(refers: &[Vec<usize>], table: usize) -> FxHashSet<usize> {
    let mut found = FxHashSet::default();
    let mut open: Vec<usize> = refers[table].clone();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(&refers[next]);
        }
    }
    found
}
