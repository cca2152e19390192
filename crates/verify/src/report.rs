//! What a comparison found.

use std::sync::Arc;

use crossfade_message::row_key_json;
use crossfade_model::{Row, RowChange, RowOp, TableLayout, TableName};
use serde::{Deserialize, Serialize};

use crate::suspect::Seen;
use crate::table::ColumnNames;

/// What was found of one table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    /// As the old side names it.
    pub table: String,
    pub rows_old: u64,
    pub rows_new: u64,
    /// Chunks that were compared, and those that were left out by chance, as asked.
    pub chunks: u64,
    pub chunks_left_out: u64,
    pub missing_on_old: u64,
    pub missing_on_new: u64,
    pub different: u64,
    /// Rows that differ, of which nobody can tell whether a change of theirs is still under way; why, below.
    pub unconfirmed: u64,
    pub unconfirmed_reason: Option<String>,
    /// Of the compared rows those that are missing or different, in percent.
    pub percent: f64,
    pub seconds: f64,
    /// Why nothing of the table was compared.
    pub skipped: Option<String>,
}

impl TableReport {
    pub(crate) fn new(table: &TableName) -> TableReport {
        TableReport { table: table.to_string(), ..TableReport::default() }
    }

    /// Rows that are known to be missing or different.
    pub fn mismatches(&self) -> u64 {
        self.missing_on_old + self.missing_on_new + self.different
    }

    /// Rows that were compared, those of one side alone included.
    pub fn rows(&self) -> u64 {
        self.rows_old.max(self.rows_new)
    }

    pub(crate) fn finish(&mut self, seconds: f64) {
        self.seconds = seconds;
        self.percent = share(self.mismatches(), self.rows());
    }
}

/// A part of a whole, in percent; 0 of nothing is none.
pub fn share(part: u64, whole: u64) -> f64 {
    if part == 0 { 0.0 } else { part as f64 * 100.0 / whole.max(part) as f64 }
}

/// In what a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    MissingOnOld,
    MissingOnNew,
    Different,
}

impl DifferenceKind {
    pub fn as_str(self) -> &'static str {
        match self {
            DifferenceKind::MissingOnOld => "missing_on_old",
            DifferenceKind::MissingOnNew => "missing_on_new",
            DifferenceKind::Different => "different",
        }
    }
}

/// A row that is missing or different, with its values as they were read after it was found.
#[derive(Debug, Clone)]
pub struct Difference {
    /// As the old side names it.
    pub table: TableName,
    pub kind: DifferenceKind,
    /// The columns that differ; empty where the row is missing.
    pub columns: Vec<ColumnNames>,
    pub old: Option<(TableLayout, Row)>,
    pub new: Option<(TableLayout, Row)>,
    /// What it was when that was confirmed.
    pub(crate) seen: Seen,
}

impl Difference {
    /// The row's key, by the names of a side that has it; JSON as in the message table.
    pub fn row_key(&self) -> Option<String> {
        let (layout, row) = self.old.as_ref().or(self.new.as_ref())?;
        let (before, layout) = (Some(row.clone()), Arc::new(layout.clone()));
        row_key_json(&RowChange { layout, op: RowOp::Delete, before, after: None, event_index: 0 })
    }
}
