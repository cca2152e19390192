//! Row changes as a binlog gives them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Clock, ColumnKind, Position, Seen, TableName, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowOp {
    Insert,
    Update,
    Delete,
}

impl RowOp {
    pub fn as_str(self) -> &'static str {
        match self {
            RowOp::Insert => "insert",
            RowOp::Update => "update",
            RowOp::Delete => "delete",
        }
    }
}

impl fmt::Display for RowOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who wrote a transaction, or a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    User,
    Sync,
    /// crossfade gives a row back to the side that has ended it, as it was there before: nobody has written anything new.
    Returned,
    /// crossfade tells the other side how a conflict across rows has ended: what goes with a parent, or what is undone.
    Ruled,
    /// crossfade asks the other side for what hangs on a row that has come back here, or come to another key, without it. Both
    /// images are the row; it changes nothing.
    Asked,
}

impl Origin {
    /// As the message table has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::User => "user",
            Origin::Sync => "sync",
            Origin::Returned => "returned",
            Origin::Ruled => "ruled",
            Origin::Asked => "asked",
        }
    }
}

/// The columns of a table as one table map event, or one message block, has them. Shared by all rows that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLayout {
    pub name: TableName,
    /// Column names in the event's order.
    pub columns: Vec<Arc<str>>,
    /// As many as `columns`.
    pub kinds: Vec<ColumnKind>,
    /// Indexes of the columns that identify a row at the source; empty for a keyless table.
    pub row_key: Vec<usize>,
}

impl TableLayout {
    /// Index of the column of this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        // Column names are case-insensitive on every platform (MySQL manual, "Identifier Case Sensitivity").
        self.columns.iter().position(|column| column.eq_ignore_ascii_case(name))
    }
}

/// Values in the order of a [`TableLayout`]'s columns.
pub type Row = Vec<Value>;

/// One captured change of one row. An insert has no `before`, a delete no `after`.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    pub layout: Arc<TableLayout>,
    pub op: RowOp,
    pub before: Option<Row>,
    pub after: Option<Row>,
    /// Number of the row event inside its transaction, from 0, and stable over re-reads. Rows of one event share it.
    pub event_index: u32,
}

impl RowChange {
    /// The last image: after, or before for a delete.
    pub fn last_image(&self) -> &Row {
        self.after.as_ref().or(self.before.as_ref()).expect("a change has at least one image")
    }

    /// Estimated bytes in memory, for the bounds.
    pub fn memory_bytes(&self) -> usize {
        let image = |row: &Option<Row>| {
            row.iter().flatten().map(|value| size_of::<Value>() + value.heap_bytes()).sum::<usize>()
        };
        size_of::<RowChange>() + image(&self.before) + image(&self.after)
    }
}

/// What all changes of one transaction share.
#[derive(Debug, Clone, PartialEq)]
pub struct TransactionHead {
    /// Where the transaction stands, for people: `uuid:17`, `0-1-44`, `binlog.000003:4711`.
    pub source_position: Arc<str>,
    /// When the source committed it, microseconds since the epoch; whole seconds where the server gives no more.
    pub committed_at_micros: i64,
    pub origin: Origin,
    pub seen: Arc<Seen>,
    /// The position after this transaction.
    pub end: Position,
}

/// A captured change with its place in the message table.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// From 1, without holes, per stream.
    pub seq: u64,
    pub change: RowChange,
    pub origin: Origin,
    pub seen: Arc<Seen>,
    pub committed_at_micros: i64,
    pub source_position: Arc<str>,
    /// The change's effective clock: the maximum of its own clock, the clock of its before image, and the effective clocks
    /// of earlier changes of the row on the same side. Fixed at capture, so that both directions compare the same number.
    pub effective: Option<Clock>,
}
