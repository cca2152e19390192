//! What can go wrong with the store.

use crossfade_model::StreamId;
use crossfade_rules::trouble::{Class, Remedy, Trouble, sort};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Connection, server or statement failed. Whether a commit that failed this way has happened is unknown: read the
    /// state again.
    #[error("the store could not {what}")]
    Database {
        what: &'static str,
        #[source]
        source: sqlx::Error,
    },

    /// The store's tables are missing or older than this program.
    #[error("the store {}, and this program needs those of version {needed}", .found.as_deref().map_or("has no tables yet".to_owned(), |found| format!("has tables of version {found}")))]
    NotMigrated { found: Option<String>, needed: String },

    /// The store was migrated by a program that is too new to run beside this one.
    #[error("the store's tables are version {found}, which this program of version {known} does not understand")]
    TooNew { found: String, known: String },

    /// Somebody else migrates the store right now.
    #[error("another process is migrating the store")]
    MigrationBusy,

    #[error("stream {0} is unknown to the store")]
    UnknownStream(StreamId),

    /// Two processes run with different rules.
    #[error(
        "{subject} would run with rules {mine:016x}, but {other_subject} runs with rules {other:016x} ({other_holder})"
    )]
    RulesDiffer { subject: String, mine: u64, other_subject: String, other: u64, other_holder: String },

    /// A message that should be there is not.
    #[error("messages {first} to {last} of stream {stream} are not in the store")]
    Missing { stream: StreamId, first: u64, last: u64 },

    /// A block does not hold what it should.
    #[error("message block {stream}:{first_seq} cannot be read: {reason}")]
    Corrupt { stream: StreamId, first_seq: u64, reason: String },

    /// A row of the store's own tables does not hold what it should.
    #[error("the store's {what} cannot be read: {reason}")]
    Unreadable { what: &'static str, reason: String },

    #[error("a batch must start at message {expected} and have no holes, but has {found} there")]
    NotContiguous { expected: u64, found: u64 },

    /// A change contradicts its own layout.
    #[error("message {seq} cannot be stored: {reason}")]
    BadChange { seq: u64, reason: String },

    /// A younger lease has what this process held.
    #[error("{subject} was taken over: it has epoch {current}, this process epoch {mine}")]
    Overtaken { subject: String, mine: u64, current: u64 },

    #[error("settling stream {stream} up to {settled} is beyond its last message {last}")]
    SettledBeyond { stream: StreamId, settled: u64, last: u64 },

    #[error("a mark named `{0}` exists already")]
    MarkExists(String),
}

impl StoreError {
    /// For `map_err`: what the store was asked to do when the database refused.
    pub(crate) fn during(what: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
        move |source| StoreError::Database { what, source }
    }

    /// What a person can do about it; kept apart from the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StoreError::NotMigrated { .. } => Some("run `crossfade init`"),
            StoreError::TooNew { .. } => Some("upgrade this program"),
            StoreError::RulesDiffer { .. } => {
                Some("stop both processes and start them with the same program and the same configuration file")
            }
            StoreError::Missing { .. } => {
                Some("the messages were purged or the store was restored from a backup; do not go on from here")
            }
            StoreError::UnknownStream(_) => Some("run `crossfade init`"),
            StoreError::SettledBeyond { .. } => Some(
                "the store has lost its last messages (a restore or a crash): start the process again, and it says whether it can go on",
            ),
            StoreError::MigrationBusy => {
                Some("wait until that has ended, then run the command again; only one `crossfade init` works at a time")
            }
            StoreError::Overtaken { .. } => Some("nothing to do: start this process again and it stands by"),
            StoreError::Corrupt { .. } | StoreError::Unreadable { .. } => Some(
                "somebody else has written to the store's schema `crossfade`, or its disk is damaged: restore the store's newest \
                 state, or load both sides alike and begin as a new pair",
            ),
            StoreError::MarkExists(_) => Some("choose another name"),
            StoreError::NotContiguous { .. } | StoreError::BadChange { .. } => Some(
                "start the process again, which reads the binlog anew; if it ends like this once more, report it with this text: \
                 nothing is lost meanwhile",
            ),
            StoreError::Database { source: sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut, .. } => {
                Some("check that the store's server runs: the one of `[new]`, unless `[store]` names another")
            }
            StoreError::Database { source, .. } => match class_of(source) {
                Class::Login => Some(
                    "check user and password of the store's URL: the one of `[new]`, unless `[store]` names another",
                ),
                Class::Denied => Some("run `crossfade check`: it prints the GRANT that is missing"),
                Class::Full => {
                    Some("make room where the store's server keeps its data: `crossfade messages purge` drops old days")
                }
                Class::Missing => Some(
                    "a table of the store's schema `crossfade` is gone: restore the store's newest state, or load both sides alike \
                     and begin as a new pair",
                ),
                Class::Outage | Class::Collision | Class::Lost => {
                    Some("the store's server is busy or restarting: try again")
                }
                _ => None,
            },
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            StoreError::Database { source, .. } => class_of(source).remedy(),
            StoreError::MigrationBusy => Remedy::RetryLater,
            _ => Remedy::Stop,
        }
    }

    /// The connection failed or the server was busy, so that the same call can succeed later.
    pub fn is_transient(&self) -> bool {
        self.remedy().passes()
    }

    /// The store's server answers, and serves nobody until a person has mended it: a privilege, a login, a full disk. What the
    /// store holds is as it was, so the same call can then succeed. It may take new sessions:
    /// [`begin_sessions_anew`](crate::Store::begin_sessions_anew).
    pub fn is_to_be_mended(&self) -> bool {
        match self {
            StoreError::Database { source, .. } => {
                matches!(class_of(source), Class::Login | Class::Denied | Class::Full)
            }
            _ => false,
        }
    }

    /// Nothing is known to be wrong with what the store holds: a running process waits. All else, a table that is gone too,
    /// means that it must not go on.
    pub fn may_be_over_later(&self) -> bool {
        self.is_transient() || self.is_to_be_mended()
    }
}

/// What an error of the driver is about.
fn class_of(error: &sqlx::Error) -> Class {
    sort(match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Protocol(_) => {
            Trouble::Connection
        }
        error => server_error(error).map_or(Trouble::Other, Trouble::Server),
    })
}

/// The server's own number of an error, if the server sent it.
pub(crate) fn server_error(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(|error| error.number())
}

/// Why a batch was not captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Somebody else has moved the stream since the batch was started. Throw the batch away and read the stream's
    /// state again.
    #[error("stream {stream} was moved by somebody else: {reason}")]
    Superseded { stream: StreamId, reason: String },

    #[error(transparent)]
    Store(#[from] StoreError),
}
