//! What can go wrong when messages are applied, and who has to act.

use crossfade_model::{StreamId, TableName};

use crate::refusal::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("the target refused a statement")]
    Target(#[source] Refusal),
    #[error(transparent)]
    Store(#[from] crossfade_message::StoreError),
    #[error(transparent)]
    Connect(#[from] crossfade_catalog::CatalogError),
    #[error("another process has taken over: checkpoint rows are of epoch {found}, this process has epoch {mine}")]
    Fenced { mine: u64, found: u64 },
    #[error("the checkpoint row of {stream} lane {lane} is missing on the target")]
    CheckpointMissing { stream: StreamId, lane: u16 },
    #[error(
        "the checkpoint row of {stream} lane {lane} is at {found}, though this batch was planned from {planned_from}"
    )]
    CheckpointUnexpected { stream: StreamId, lane: u16, found: u64, planned_from: u64 },
    #[error("a checkpoint row on the target cannot be read")]
    CheckpointUnreadable,
    #[error("the target's checkpoint of {stream} is at {checkpoint}, beyond the stream's last message {last_seq}")]
    CheckpointBeyondStream { stream: StreamId, checkpoint: u64, last_seq: u64 },
    #[error(
        "the target's checkpoint of {stream} is at {checkpoint}, though messages up to {settled} were applied before"
    )]
    CheckpointBehindSettled { stream: StreamId, checkpoint: u64, settled: u64 },
    #[error("messages {first} to {last} of {stream} are half applied, and the tables' keys have changed since")]
    PlanChanged { stream: StreamId, first: u64, last: u64 },
    #[error("message {seq} of {stream} is missing in the message table")]
    MessageMissing { stream: StreamId, seq: u64 },
    #[error("message {seq} changes {table}, which the configuration does not name")]
    TableUnknown { seq: u64, table: TableName },
    #[error("message {seq} of {table} cannot be mapped: {problem}")]
    Unmappable { seq: u64, table: TableName, problem: String },
    #[error("the target refused a change of {table} (among messages {first} to {last})")]
    Row {
        table: TableName,
        first: u64,
        last: u64,
        #[source]
        source: Refusal,
    },
    #[error("{parked} changes of {stream} are set aside, and no more are taken")]
    TooManyParked { stream: StreamId, parked: usize },
    #[error("a batch cannot be planned")]
    Plan(#[source] crossfade_rules::RulesError),
    #[error("the wait for the opposite reader has ended")]
    HoldEnded,
    #[error("planning a batch ended without a plan")]
    PlanningEnded,
    #[error("a lane ended without a word")]
    LaneEnded,
    #[error("the target has dropped the connection without our being told")]
    SessionGone,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Passes by itself within moments: deadlock, lock wait.
    RetryAtOnce,
    /// Passes by itself: connection, read-only, too many connections.
    RetryLater,
    /// The transaction's end is unknown: read the checkpoint, then decide.
    OutcomeUnknown,
    /// The target refuses a row for what is in it, or for what other rows it has: set it aside.
    Park,
    /// A person must act.
    Stop,
}

impl ApplyError {
    /// Sorts an error by its server code (MySQL manual, "Server Error Message Reference"; MariaDB "Error Codes").
    pub fn remedy(&self) -> Remedy {
        match self {
            ApplyError::Target(source) => match driver_remedy(source.driver_error()) {
                // No row is known to be at fault.
                Remedy::Park => Remedy::Stop,
                remedy => remedy,
            },
            ApplyError::Row { source, .. } => driver_remedy(source.driver_error()),
            ApplyError::Store(source) if source.is_transient() => Remedy::RetryLater,
            ApplyError::Connect(source) => connect_remedy(source),
            ApplyError::SessionGone => Remedy::OutcomeUnknown,
            _ => Remedy::Stop,
        }
    }

    /// The next step for the operator; `None` where the message says it all.
    pub fn hint(&self) -> Option<&'static str> {
        let text = match self {
            ApplyError::Store(error) => return error.hint(),
            ApplyError::Connect(error) => return error.hint(),
            ApplyError::Fenced { .. } => "nothing to do: start this process again and it stands by",
            ApplyError::CheckpointBeyondStream { .. } => {
                "the store is older than the target (was it restored from a backup?): restore the newer store, or load both \
                 sides alike and begin as a new pair"
            }
            ApplyError::CheckpointBehindSettled { .. } => {
                "the target has lost transactions (a restore or a fail-over): bring it back to its newest state, or load both \
                 sides alike and begin as a new pair"
            }
            ApplyError::PlanChanged { .. } => {
                "give the tables of both sides back the columns and keys that they had, start the process, let it run for a \
                 moment, and change them then"
            }
            ApplyError::CheckpointMissing { .. } => {
                "somebody removed it from the target's schema `crossfade`: start the process again, and it is made anew; then \
                 compare both sides"
            }
            ApplyError::CheckpointUnexpected { .. } | ApplyError::CheckpointUnreadable => {
                "somebody else writes to the target's schema `crossfade`: find out who, then start the process again"
            }
            ApplyError::TableUnknown { .. } => {
                "name the table in the configuration again, let the direction drain, then remove it"
            }
            ApplyError::MessageMissing { .. } => {
                "the message table was purged or restored: load both sides alike and begin as a new pair"
            }
            ApplyError::Row { .. } => {
                "change the row or the table so that the change fits, then start the process again: it goes on with this change"
            }
            ApplyError::TooManyParked { .. } => {
                "`crossfade messages list --status failed` shows what the target refuses; mend the cause, then start the \
                 process again: it tries them all once more"
            }
            ApplyError::Unmappable { .. } => "run `crossfade check`; it names the columns and the remedy",
            ApplyError::Plan(error) => error.hint(),
            ApplyError::Target(_) => {
                "mend what the server says, then start the process again; nothing is lost meanwhile"
            }
            ApplyError::HoldEnded | ApplyError::PlanningEnded | ApplyError::LaneEnded | ApplyError::SessionGone => {
                return None;
            }
        };
        Some(text)
    }
}

/// A server that is away comes back; one that refuses the account needs a person.
fn connect_remedy(error: &crossfade_catalog::CatalogError) -> Remedy {
    use crossfade_catalog::CatalogError;
    match error {
        CatalogError::TimedOut { .. } => Remedy::RetryLater,
        CatalogError::Connect { source, .. } => match driver_remedy(source) {
            Remedy::Stop => Remedy::Stop,
            _ => Remedy::RetryLater,
        },
        _ => Remedy::Stop,
    }
}

/// What to do about a statement of rows that failed.
pub(crate) fn row_remedy(error: &mysql_async::Error) -> Remedy {
    driver_remedy(error)
}

/// Duplicate keys, and foreign keys without a parent or with children: another row's change may mend it.
pub(crate) fn depends_on_other_rows(code: u16) -> bool {
    matches!(code, 1022 | 1062 | 1169 | 1216 | 1217 | 1451 | 1452 | 1586 | 1761 | 1762)
}

/// A value that does not fit its column, breaks a check, or is refused by a trigger.
fn is_bad_value(code: u16) -> bool {
    matches!(
        code,
        // NULL where none may be, no default, no partition, row too large, wrong or cut value, out of range.
        1048 | 1063 | 1118 | 1139 | 1264 | 1265 | 1292 | 1364 | 1365 | 1366 | 1367 | 1369 | 1406 | 1416 | 1441 | 1526
            // A trigger's own word, geometry, JSON, CHECK (MySQL, MariaDB), data that a conversion cannot keep.
            | 1644 | 1690 | 1708 | 1748 | 3140 | 3141 | 3143 | 3144 | 3150 | 3156 | 3616 | 3617 | 3643 | 3732 | 3819
            | 3854 | 4025 | 4038
    )
}

fn driver_remedy(error: &mysql_async::Error) -> Remedy {
    match error {
        mysql_async::Error::Server(server) => match server.code {
            // Lock wait time-out, deadlock.
            1205 | 1213 | 3572 => Remedy::RetryAtOnce,
            // Too many connections, server shutdown, killed query or connection, read-only (1290, 1792, 1836), host blocked.
            1040 | 1053 | 1129 | 1158 | 1159 | 1160 | 1161 | 1184 | 1203 | 1290 | 1317 | 1792 | 1836 | 1927 | 3024
            | 3032 => Remedy::RetryLater,
            code if depends_on_other_rows(code) || is_bad_value(code) => Remedy::Park,
            _ => Remedy::Stop,
        },
        mysql_async::Error::Io(_) => Remedy::OutcomeUnknown,
        mysql_async::Error::Driver(
            mysql_async::DriverError::ConnectionClosed | mysql_async::DriverError::PoolDisconnected,
        ) => Remedy::OutcomeUnknown,
        _ => Remedy::Stop,
    }
}

impl From<mysql_async::Error> for ApplyError {
    fn from(error: mysql_async::Error) -> ApplyError {
        ApplyError::Target(error.into())
    }
}

/// The code of "duplicate entry for key".
pub(crate) fn is_duplicate_key(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(server) if matches!(server.code, 1062 | 1586))
}

/// A child's parent is not there.
pub(crate) fn is_missing_parent(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(server) if matches!(server.code, 1216 | 1452))
}
