//! Why a row event could not be decoded.

use crossfade_model::TableName;

/// What is wrong with an event, or with what is known of its table.
///
/// None of these passes by itself: reading the same event again gives the same error. No message holds row values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The event ends before what it announces.
    #[error("the event ends inside {what}")]
    Truncated { what: &'static str },

    /// The event contradicts itself.
    #[error("the event is malformed: {what}")]
    Malformed { what: &'static str },

    #[error("event type {code} is not a row event")]
    NotRows { code: u8 },

    /// A rows event that does not belong to the table map it was given to.
    #[error("rows event of table id {event} does not fit the table map of {table} with id {map}")]
    WrongTable { table: TableName, map: u64, event: u64 },

    #[error("column {column} of {table} has type {code}, which is not known")]
    UnknownType { table: TableName, column: String, code: u8 },

    #[error("column {column} of {table} has collation {collation}, which is not known")]
    UnknownCollation { table: TableName, column: String, collation: u64 },

    /// Names, labels or signs are neither in the event nor in a tracked definition.
    #[error("the event of {table} does not say {what}, and no definition of the table is at hand")]
    NoDefinition { table: TableName, what: &'static str },

    #[error("the event of {table} has {event} columns, its tracked definition has {tracked}")]
    ColumnCount { table: TableName, event: usize, tracked: usize },

    #[error("column {column} of {table} is declared as {declared}, but the event's type {code} is not that")]
    ColumnType { table: TableName, column: String, declared: String, code: u8 },

    /// The row image lacks columns that the server does not compute (`binlog_row_image` MINIMAL or NOBLOB).
    #[error("the row image of {table} is not full: column {column} is missing")]
    PartialRowImage { table: TableName, column: String },

    #[error("column {column} of {table} holds what its type cannot: {what}")]
    Value { table: TableName, column: String, what: &'static str },

    #[error("a label of column {column} of {table} is in character set {charset} and cannot be decoded")]
    Label { table: TableName, column: String, charset: &'static str },

    #[error("a transaction is compressed by method {code}, which is not known")]
    UnknownCompression { code: u64 },

    #[error("the checksum of the event at {offset} does not match")]
    Checksum { offset: u64 },

    #[error("not a binlog file: it does not begin with the magic number")]
    NotABinlog,
}

impl DecodeError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            DecodeError::PartialRowImage { .. } => {
                Some("set binlog_row_image=FULL at the source, also in sessions that set it for themselves")
            }
            DecodeError::NoDefinition { .. } | DecodeError::ColumnCount { .. } | DecodeError::ColumnType { .. } => {
                Some("set binlog_row_metadata=FULL at the source, so that events carry their own definition")
            }
            DecodeError::UnknownCompression { .. } => Some(
                "update crossfade; if no version knows the method, set binlog_transaction_compression=OFF at the source and \
                 begin as a new pair",
            ),
            DecodeError::Checksum { .. } => Some("the binlog is damaged on the source's disk or on the way"),
            _ => None,
        }
    }
}
