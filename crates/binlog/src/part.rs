//! What a reader delivers: source transactions, whole or in parts.

use std::fmt;

use crossfade_model::{Given, ResumePoint, RowChange, TableName, TransactionHead};

use crate::EchoKey;

/// One source transaction, or a piece of one that is larger than the memory bound.
///
/// Parts of one transaction come in order with nothing between them; all have the same origin and the same
/// `source_position`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransactionPart {
    /// `head.end` is the position after the transaction. Where a part is not the last and the stream is read by file and
    /// offset, that is not known yet and is the position before the transaction. What to save is `resume`.
    pub head: TransactionHead,
    /// Row changes of synced tables of this transaction before those of this part, whether delivered in earlier parts or
    /// skipped because the reader was started after them.
    pub rows_before: u64,
    /// Changes of synced tables, in binlog order; empty for origin `sync`.
    pub changes: Vec<RowChange>,
    /// The transaction ends with this part.
    pub last: bool,
    /// Row changes of synced tables that were counted and not decoded, since crossfade wrote them.
    pub echoes: u64,
    /// Which rows those touched, while an [`EchoWatch`](crate::EchoWatch) watches.
    pub echo_keys: Vec<EchoKey>,
    /// Rows written to this pair's `crossfade.heartbeat`, in order.
    pub heartbeats: Vec<HeartbeatSeen>,
    /// Tokens of rows that are to be captured here as changes of users, in a transaction of origin sync.
    pub returned: Vec<u64>,
    /// Rows written to this pair's `crossfade.authority`, in order, in a transaction of origin sync.
    pub authority: Vec<Given>,
    /// The transaction touched nothing outside schema `crossfade` so far.
    pub only_crossfade: bool,
    /// Binlog bytes read for this part, headers included; uncompressed.
    pub bytes: u64,
    /// Where a reader goes on when everything up to and including this part is kept.
    pub resume: ResumePoint,
}

/// One row of `crossfade.heartbeat` as it passed by in the binlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatSeen {
    pub writer: String,
    pub counter: u64,
}

/// A thing that an operator should know of, and that does not stop the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A synced table has columns that no mapping names; they are not carried.
    UnmappedColumns { table: TableName, columns: Vec<String> },
    /// The table's definition was read anew after a statement that changes it.
    DefinitionChanged { table: TableName, statement: String },
    /// The connection was lost and has been made again.
    Reconnected { after: String, attempts: u32 },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::UnmappedColumns { table, columns } => {
                write!(f, "table {table} has columns that are not mapped and not carried: {}", columns.join(", "))
            }
            Notice::DefinitionChanged { table, statement } => {
                write!(f, "the definition of table {table} changed: {statement}")
            }
            Notice::Reconnected { after, attempts } => {
                write!(f, "connected again at attempt {attempts} after: {after}")
            }
        }
    }
}
