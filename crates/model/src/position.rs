//! Where a reader stands in a source's binlog.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{GtidSet, MariaDbGtidPosition, ParseGtidError};

/// A place between two transactions. Its JSON form is what the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Position {
    /// Everything in the set has been read.
    MySql {
        executed: GtidSet,
    },
    MariaDb {
        gtid: MariaDbGtidPosition,
    },
    /// File positions mean nothing on another server, so the server's identity is part of them: `server_uuid` of
    /// MySQL, `server_uid` or `server_id` of MariaDB.
    File {
        server: String,
        file: String,
        offset: u64,
    },
}

/// Where to go on reading: a position, and how many row changes of the transaction that follows it are already kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    pub position: Position,
    /// Row changes of the next transaction that were captured in parts of it; 0 at a transaction's boundary.
    #[serde(default)]
    pub rows_done: u64,
}

impl From<Position> for ResumePoint {
    fn from(position: Position) -> ResumePoint {
        ResumePoint { position, rows_done: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::MySql { executed } => executed.fmt(f),
            Position::MariaDb { gtid } => gtid.fmt(f),
            Position::File { file, offset, .. } => write!(f, "{file}:{offset}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePositionError {
    #[error(transparent)]
    Gtid(#[from] ParseGtidError),
    #[error("`{0}` is not a binlog position; it is a GTID set, a MariaDB GTID position, or `file:offset`")]
    Unknown(String),
}
