//! Bounds and ranges of a key, as a server gave them.

use serde::{Deserialize, Serialize};

/// A place in the order of a table's key: one part for each of the key's columns. What it says is for a server to read, and
/// for nobody else to compare, but it can be kept and read again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyBound(pub Vec<KeyPart>);

/// One column's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyPart {
    /// Bytes and text as hexadecimal digits, ENUM and SET by number, everything else as the server prints it.
    #[serde(rename = "v")]
    pub value: String,
    /// What the bytes of a text stand for.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
}

/// Keys after one bound (exclusive), up to another one (inclusive). Without bounds it is the whole table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    pub after: Option<KeyBound>,
    pub through: Option<KeyBound>,
}

impl KeyRange {
    /// All keys after a bound.
    pub fn after(bound: Option<KeyBound>) -> KeyRange {
        KeyRange { after: bound, through: None }
    }
}
