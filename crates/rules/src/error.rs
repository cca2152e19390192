//! What can go wrong when changes are projected or planned.

use crossfade_model::TableName;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    #[error("{table} no longer has the mapped column `{column}`")]
    ColumnGone { table: TableName, column: String },
    #[error("column `{column}` of {table} is now {found}, which {target} cannot carry")]
    ColumnChanged { table: TableName, column: String, found: String, target: String },
    #[error("a change of {table} carries {found} columns where its layout names {expected}")]
    RowWidth { table: TableName, found: usize, expected: usize },
    #[error("message {seq} belongs to table number {table}, and only {tables} are mapped")]
    UnknownTable { seq: u64, table: usize, tables: usize },
    #[error("message {seq} has neither a before nor an after image")]
    NoImage { seq: u64 },
    #[error("message {seq} comes after message {previous}; a batch is in the order of its messages")]
    OutOfOrder { seq: u64, previous: u64 },
    #[error("a batch of {changes} changes is more than one plan can number")]
    TooLarge { changes: usize },
}

impl RulesError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            RulesError::ColumnGone { .. } | RulesError::ColumnChanged { .. } => {
                "make both sides mappable again, or change the table's rule, and start the stream again"
            }
            RulesError::RowWidth { .. } => "a change of the table's definition was missed; restart the stream",
            RulesError::UnknownTable { .. }
            | RulesError::NoImage { .. }
            | RulesError::OutOfOrder { .. }
            | RulesError::TooLarge { .. } => "this is a defect of crossfade; please report it",
        }
    }
}
