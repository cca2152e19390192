//! The shape of a table as its server declares it.

use serde::{Deserialize, Serialize};

use crate::TableName;

/// A table's definition, from the server's information schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    pub name: TableName,
    /// In ordinal order, generated and invisible columns included.
    pub columns: Vec<Column>,
    /// Indexes into `columns`, in key order; empty where the table has no primary key.
    pub primary_key: Vec<usize>,
    /// Unique keys other than the primary one, in name order.
    pub unique_keys: Vec<UniqueKey>,
    /// Foreign keys that this table declares.
    pub foreign_keys: Vec<ForeignKey>,
    /// `InnoDB`, …
    pub engine: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnKind,
    pub nullable: bool,
    /// Computed by the server, stored or virtual; never written.
    pub generated: bool,
    pub invisible: bool,
    pub auto_increment: bool,
    /// The server fills it when an INSERT leaves it out: a literal or expression default other than the implied NULL.
    pub has_default: bool,
    /// `ON UPDATE CURRENT_TIMESTAMP`.
    pub on_update_now: bool,
    /// The declared type as SQL, for messages to people: `varchar(190)`.
    pub declared: String,
    /// Character set and collation of text columns.
    pub charset: Option<String>,
    pub collation: Option<String>,
}

impl Column {
    /// A column that is never NULL and that users fill: what tests and tools build on.
    pub fn plain(name: impl Into<String>, kind: ColumnKind) -> Column {
        Column {
            name: name.into(),
            kind,
            nullable: false,
            generated: false,
            invisible: false,
            auto_increment: false,
            has_default: false,
            on_update_now: false,
            declared: String::new(),
            charset: None,
            collation: None,
        }
    }
}

/// What a column can hold. The order of labels is the server's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// 1, 2, 3, 4 or 8 bytes.
    Integer {
        bytes: u8,
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// CHAR, VARCHAR, TEXT and MariaDB's JSON.
    Text {
        charset: String,
    },
    /// BINARY(n) with its length, else 0.
    Bytes {
        fixed_len: u32,
    },
    Date,
    Time {
        fraction_digits: u8,
    },
    Datetime {
        fraction_digits: u8,
    },
    Timestamp {
        fraction_digits: u8,
    },
    Year,
    Bit {
        bits: u8,
    },
    Enum {
        labels: Vec<String>,
    },
    Set {
        labels: Vec<String>,
    },
    Json,
    Geometry,
    Vector,
    /// MariaDB; its value travels as text in the form that the server prints.
    Inet4,
    Inet6,
    Uuid,
    /// Anything else, by the name that the server gives it. A table with such a column is refused.
    Other {
        name: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueKey {
    pub name: String,
    /// Indexes into `columns`, in key order. Empty where a part is an expression.
    pub columns: Vec<usize>,
    /// Some part is nullable, so the key does not identify rows.
    pub nullable: bool,
    /// Some part is a prefix or an expression, so equal parts do not follow from unequal columns.
    pub partial: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    pub name: String,
    pub columns: Vec<usize>,
    pub parent: TableName,
    /// Names of the parent's columns, in the order of `columns`.
    pub parent_columns: Vec<String>,
    pub on_delete: ReferentialAction,
    pub on_update: ReferentialAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferentialAction {
    Restrict,
    Cascade,
    SetNull,
}

impl TableShape {
    pub fn column(&self, name: &str) -> Option<usize> {
        // Column names are case-insensitive on every platform (MySQL manual, "Identifier Case Sensitivity").
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The columns that identify a row: the primary key, else the first unique key whose parts are all NOT NULL and
    /// whole; `None` for a table without a key.
    pub fn row_key(&self) -> Option<&[usize]> {
        if !self.primary_key.is_empty() {
            return Some(&self.primary_key);
        }
        self.unique_keys.iter().find(|key| !key.nullable && !key.partial).map(|key| key.columns.as_slice())
    }
}
