//! Why a stream could not be opened or had to stop.

use std::fmt;

use crossfade_catalog::{CatalogError, class_of};
use crossfade_model::{Position, TableName};

use crate::decode::DecodeError;

/// A place in a source's binlog, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// Where the event begins, bytes.
    pub offset: u64,
    /// The transaction's GTID; empty where it has none.
    pub transaction: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)?;
        if self.transaction.is_empty() { Ok(()) } else { write!(f, " in transaction {}", self.transaction) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BinlogError {
    #[error("`{text}` is no position of {server}, which takes {wanted}")]
    NotAPosition { server: String, text: String, wanted: &'static str },
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("{server} refused `{what}`")]
    Query {
        server: String,
        what: &'static str,
        #[source]
        source: Box<mysql_async::Error>,
    },
    #[error("the binlog connection to {server} broke")]
    Broken {
        server: String,
        #[source]
        source: Box<mysql_async::Error>,
    },
    #[error("{server} ended the binlog stream")]
    Ended { server: String },
    #[error("{server} was silent for {seconds} s")]
    Silent { server: String, seconds: u64 },
    #[error("the answer of {server} to `{what}` cannot be read")]
    BadAnswer { server: String, what: &'static str },
    #[error("the binary log of {server} is off")]
    BinlogOff { server: String },
    #[error("position {position} belongs to another kind of server than {server}")]
    PositionKind { server: String, position: Box<Position> },
    #[error("position {position} was taken on server {expected}, and {server} is {found}")]
    WrongServer { server: String, position: Box<Position>, expected: String, found: String },
    #[error("{server} has never had {missing} of the position to start from")]
    PositionAhead { server: String, missing: String },
    #[error("{server} has purged {missing}, which is not read yet")]
    Purged { server: String, missing: String },
    #[error("offset {offset} of {file} cannot be asked for: the protocol's offsets have 32 bits")]
    OffsetTooLarge { file: String, offset: u64 },
    #[error("no free server id was found on {server} in {attempts} attempts")]
    NoServerId { server: String, attempts: u32 },
    #[error("a damaged event at {place}: {what}")]
    Corrupt { place: Box<Place>, what: String },
    #[error("an event at {place} cannot be read")]
    Decode {
        place: Box<Place>,
        #[source]
        source: DecodeError,
    },
    #[error("{reason} at {place}{}", Quoted(statement))]
    Stopped { place: Box<Place>, reason: StopReason, statement: Option<String> },
}

struct Quoted<'a>(&'a Option<String>);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(statement) => write!(f, ": {statement}"),
            None => Ok(()),
        }
    }
}

/// Something in the binlog that cannot be carried to the other side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    #[error("table {table} was changed by a statement instead of rows")]
    StatementFormat { table: TableName },
    #[error("a statement without row changes may have changed synced tables")]
    OpaqueStatement,
    #[error("the row image of table {table} is not complete")]
    PartialRowImage { table: TableName },
    #[error("table {table} was emptied without row changes")]
    Truncated { table: TableName },
    #[error("table {table} was dropped")]
    Dropped { table: TableName },
    #[error("table {table} was renamed or replaced")]
    Renamed { table: TableName },
    #[error("table {table} lost columns that are mapped: {}", columns.join(", "))]
    ColumnsLost { table: TableName, columns: Vec<String> },
    #[error("table {table} does not exist any more")]
    TableLost { table: TableName },
    #[error("a statement that names {table} is not understood")]
    UnreadStatement { table: TableName },
    #[error("event type {event_type} is unknown and may carry rows")]
    UnknownEvent { event_type: u8 },
    #[error("the source reports an incident: events may be missing")]
    Incident,
    #[error("a transaction without GTID, where the stream is read by GTID")]
    Anonymous,
    #[error("rows that were already delivered are rolled back")]
    LateRollback,
    #[error("the rows of XA transaction {xid} are not in the binlog any more")]
    PreparedRowsGone { xid: String },
    #[error("the transaction has {found} row changes of synced tables, and {expected} of it were read before")]
    TransactionChanged { expected: u64, found: u64 },
}

impl BinlogError {
    /// Whether trying again later can help without anybody doing something.
    pub fn is_transient(&self) -> bool {
        match self {
            BinlogError::Query { source, .. } | BinlogError::Broken { source, .. } => {
                class_of(source).remedy().passes()
            }
            BinlogError::Catalog(error) => error.remedy().passes(),
            BinlogError::Ended { .. } | BinlogError::Silent { .. } | BinlogError::NoServerId { .. } => true,
            // A checksum that fails may be the network's fault; what is damaged on disk fails again and again, and shows.
            _ => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            BinlogError::Catalog(error) => return error.hint().map(str::to_owned),
            BinlogError::Query { .. } | BinlogError::Broken { .. } => {
                "run `crossfade check`, which prints a GRANT that is missing; the server's error log may say more".to_owned()
            }
            BinlogError::Ended { .. } | BinlogError::Silent { .. } => {
                "look whether the server runs, and whether something between cuts idle connections".to_owned()
            }
            BinlogError::BadAnswer { .. } => {
                "look whether the URL leads to the server itself: a proxy in between may change what it says".to_owned()
            }
            BinlogError::BinlogOff { .. } => "start the server with `log_bin` on".to_owned(),
            BinlogError::PositionKind { .. } => {
                format!("correct the server's URL; if another kind of server took its place, {BEGIN_AGAIN}")
            }
            BinlogError::WrongServer { .. } => {
                "point the URL at the server that the position was taken on, or use GTID positions, which survive a fail-over"
                    .to_owned()
            }
            BinlogError::PositionAhead { .. } => format!(
                "the server was restored, reset or replaced by one that lacks these transactions: point the URL at the right server; or start the process of the other direction, which finds out whether anything is lost; or {BEGIN_AGAIN}"
            ),
            BinlogError::Purged { .. } => format!(
                "restore the purged binlog files if a backup has them; otherwise raise the retention (`binlog_expire_logs_seconds`) and {BEGIN_AGAIN}"
            ),
            BinlogError::NotAPosition { .. } => "give the position that was noted with the backup".to_owned(),
            BinlogError::OffsetTooLarge { .. } => {
                "use GTID positions, or keep binlog files under 4 GiB (`max_binlog_size`)".to_owned()
            }
            BinlogError::NoServerId { .. } => "look at the replicas that are registered at the server".to_owned(),
            BinlogError::Decode { source: source @ DecodeError::UnknownCompression { .. }, .. } => {
                return source.hint().map(str::to_owned);
            }
            BinlogError::Corrupt { .. } | BinlogError::Decode { .. } => {
                "read the place with the server's `mysqlbinlog --verify-binlog-checksum`; if it is damaged there too, read from a healthy replica"
                    .to_owned()
            }
            BinlogError::Stopped { reason, .. } => reason.hint(),
        };
        Some(text)
    }
}

/// The way on where the stream can never pass a place of the binlog.
const BEGIN_AGAIN: &str = "begin as a new pair: another `pair` in the configuration, `crossfade init`, then `crossfade backfill start` copies what one \
     side lacks, and `crossfade verify --repair` mends the rest";

impl StopReason {
    /// The stream stands before what stopped it, and meets it again at the next start.
    fn hint(&self) -> String {
        match self {
            StopReason::StatementFormat { .. } | StopReason::OpaqueStatement => {
                format!("set `binlog_format=ROW` for every session of the source; then {BEGIN_AGAIN}")
            }
            StopReason::PartialRowImage { .. } => {
                format!("set `binlog_row_image=FULL` for every session of the source; then {BEGIN_AGAIN}")
            }
            StopReason::Truncated { .. }
            | StopReason::Dropped { .. }
            | StopReason::TableLost { .. }
            | StopReason::UnreadStatement { .. } => format!(
                "take the table out of the configuration (where a pattern takes it, by a `[[table]]` with `skip = true`) and start both processes again; if it shall stay, {BEGIN_AGAIN}"
            ),
            StopReason::Renamed { .. } => format!(
                "name the new table in the configuration, then {BEGIN_AGAIN}; online schema changes of synced tables wait for the end of the migration"
            ),
            StopReason::ColumnsLost { .. } => {
                "bring the columns back, or leave them out of the mapping, and start both processes again".to_owned()
            }
            StopReason::UnknownEvent { .. } => format!("find out what wrote it, and end that; then {BEGIN_AGAIN}"),
            StopReason::Incident => format!("transactions may be missing from the binlog: {BEGIN_AGAIN}"),
            StopReason::Anonymous => {
                format!("set `gtid_mode=ON` and `enforce_gtid_consistency=ON` on the source; then {BEGIN_AGAIN}")
            }
            StopReason::LateRollback => {
                format!("do not mix transactional and other tables in transactions; {BEGIN_AGAIN}")
            }
            StopReason::PreparedRowsGone { .. } => format!("restore the purged binlog files, or {BEGIN_AGAIN}"),
            StopReason::TransactionChanged { .. } => format!(
                "the binlog or the list of synced tables is not the one that the position was taken with: put it back, or {BEGIN_AGAIN}"
            ),
        }
    }
}
