//! What a comparison found.

use std::collections::BTreeMap;
use std::fmt;

use mysql_async::{Row, Value};

use super::rendering::Reading;

/// So many differences of a table are shown in full.
const SAMPLES: usize = 10;

/// The outcome for all tables.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    pub tables: Vec<TableComparison>,
}

impl Comparison {
    /// True only where tables were compared and nothing differs.
    pub fn is_equal(&self) -> bool {
        !self.tables.is_empty() && self.tables.iter().all(TableComparison::is_equal)
    }

    /// Rows that both sides have and that were compared value by value.
    pub fn rows_compared(&self) -> u64 {
        self.tables.iter().map(|table| table.rows_compared).sum()
    }

    /// Rows that are missing on a side or differ.
    pub fn differences(&self) -> u64 {
        self.tables.iter().map(TableComparison::differences).sum()
    }
}

#[derive(Debug, Clone, Default)]
pub struct TableComparison {
    pub name: String,
    pub rows_old: u64,
    pub rows_new: u64,
    pub rows_compared: u64,
    pub missing_on_old: u64,
    pub missing_on_new: u64,
    pub different: u64,
    /// Column name to the number of rows in which it differs.
    pub different_columns: BTreeMap<String, u64>,
    pub columns_on_one_side: Vec<String>,
    /// The first few differences.
    pub samples: Vec<Sample>,
}

/// One difference: the row's key as the comparison renders it, and what is wrong.
#[derive(Debug, Clone)]
pub struct Sample {
    pub key: String,
    pub what: String,
}

impl Sample {
    pub(super) fn lonely(key: &str, what: &str) -> Sample {
        Sample { key: key.to_owned(), what: what.to_owned() }
    }
}

impl TableComparison {
    pub(super) fn named(name: String) -> TableComparison {
        TableComparison { name, ..TableComparison::default() }
    }

    pub fn is_equal(&self) -> bool {
        self.differences() == 0 && self.columns_on_one_side.is_empty()
    }

    pub fn differences(&self) -> u64 {
        self.missing_on_old + self.missing_on_new + self.different
    }

    pub(super) fn missing_on_new(&mut self, sample: Sample) {
        self.missing_on_new += 1;
        self.keep(sample);
    }

    pub(super) fn missing_on_old(&mut self, sample: Sample) {
        self.missing_on_old += 1;
        self.keep(sample);
    }

    pub(super) fn both(&mut self, key: &str, columns: Vec<Difference>) {
        self.rows_compared += 1;
        if columns.is_empty() {
            return;
        }
        self.different += 1;
        let mut what = Vec::new();
        for Difference { column, old, new } in columns {
            what.push(format!("{column}: {old} on old, {new} on new"));
            *self.different_columns.entry(column).or_default() += 1;
        }
        self.keep(Sample { key: key.to_owned(), what: what.join("; ") });
    }

    fn keep(&mut self, sample: Sample) {
        if self.samples.len() < SAMPLES {
            self.samples.push(sample);
        }
    }
}

pub(super) struct Difference {
    column: String,
    old: String,
    new: String,
}

/// The columns in which two rows of equal keys differ. Both have the same columns in the same order.
pub(super) fn different_columns(old: &Row, new: &Row, reading: &Reading) -> Vec<Difference> {
    (reading.key_columns..old.len().max(new.len()))
        .filter(|i| bytes_of(old, *i) != bytes_of(new, *i))
        .map(|i| Difference {
            column: reading.columns.get(i - reading.key_columns).cloned().unwrap_or_default(),
            old: shown(bytes_of(old, i)),
            new: shown(bytes_of(new, i)),
        })
        .collect()
}

/// A value of the text protocol; `None` is NULL.
pub(super) fn bytes_of(row: &Row, index: usize) -> Option<&[u8]> {
    match row.as_ref(index) {
        Some(Value::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

pub(super) fn shown(value: Option<&[u8]>) -> String {
    const LONGEST: usize = 80;
    match value {
        None => "NULL".to_owned(),
        Some(bytes) if bytes.len() > LONGEST => format!("{}…", String::from_utf8_lossy(&bytes[..LONGEST])),
        Some(bytes) => format!("'{}'", String::from_utf8_lossy(bytes)),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            write!(f, "{}: {} rows on old, {} on new, ", table.name, table.rows_old, table.rows_new)?;
            if table.is_equal() {
                writeln!(f, "equal")?;
                continue;
            }
            writeln!(
                f,
                "{} missing on old, {} missing on new, {} different {:?}",
                table.missing_on_old, table.missing_on_new, table.different, table.different_columns
            )?;
            if !table.columns_on_one_side.is_empty() {
                writeln!(f, "  columns on one side only: {}", table.columns_on_one_side.join(", "))?;
            }
            for sample in &table.samples {
                writeln!(f, "  {}: {}", sample.key, sample.what)?;
            }
        }
        Ok(())
    }
}
