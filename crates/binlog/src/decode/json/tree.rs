//! A JSON document in memory, borrowing from the event.

use std::borrow::Cow;

/// Deepest nesting that a server stores (`JSON_DOCUMENT_MAX_DEPTH`).
pub(super) const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree<'a> {
    /// Members in the server's order: shorter keys first, equal lengths by their bytes.
    Object(Vec<(Cow<'a, str>, Tree<'a>)>),
    Array(Vec<Tree<'a>>),
    Scalar(Scalar<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    String(&'a str),
    Decimal {
        precision: u8,
        scale: u8,
        packed: &'a [u8],
    },
    /// A date or time in MySQL's packed form.
    Temporal {
        kind: Temporal,
        packed: i64,
    },
    /// Everything else that JSON has no type for, by the server's field type.
    Opaque {
        field_type: u8,
        bytes: &'a [u8],
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temporal {
    Date,
    Time,
    Datetime,
    Timestamp,
}

impl<'a> Tree<'a> {
    /// Where a key is, or where it belongs.
    pub fn place_of(members: &[(Cow<'a, str>, Tree<'a>)], key: &str) -> Result<usize, usize> {
        members.binary_search_by(|(other, _)| (other.len(), other.as_bytes()).cmp(&(key.len(), key.as_bytes())))
    }
}
