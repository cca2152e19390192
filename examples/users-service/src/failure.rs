//! Why there is no answer, and what that means for who asked.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use crossfade_flag::FlagError;
use mysql_async::Error;

/// Seconds after which it is worth another try.
const RETRY_AFTER: &str = "1";

/// ER_DUP_ENTRY
const DUPLICATE: u16 = 1062;

/// Values that do not fit: ER_BAD_NULL_ERROR, ER_WARN_DATA_OUT_OF_RANGE, ER_TRUNCATED_WRONG_VALUE_FOR_FIELD, ER_DATA_TOO_LONG.
const UNFIT: [u16; 4] = [1048, 1264, 1366, 1406];

/// What may be over at any moment: a fence of the database's own (ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE, and accounts
/// that lose their privileges: ER_DBACCESS_DENIED_ERROR, ER_ACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR), a server that ends
/// (ER_SERVER_SHUTDOWN) or is full (ER_CON_COUNT_ERROR), and locks (ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK).
const TEMPORARY: [u16; 9] = [1290, 1836, 1044, 1045, 1142, 1053, 1040, 1205, 1213];

/// An answer to COMMIT that says that nothing was committed: the first two of those, a deadlock of a cluster, and
/// ER_TRANSACTION_ROLLBACK_DURING_COMMIT.
const NOT_COMMITTED: [u16; 4] = [1290, 1836, 1213, 3101];

#[derive(Debug)]
pub enum Failure {
    /// Nothing was written; it may be tried again.
    NotNow(String),
    /// Nothing was written, and nothing will be.
    Refused(StatusCode, String),
    /// The answer to COMMIT was lost, or says neither.
    Unknown(String),
}

impl Failure {
    /// Of anything but COMMIT.
    pub fn of(error: &Error) -> Failure {
        match error {
            Error::Server(error) if error.code == DUPLICATE => {
                Failure::Refused(StatusCode::CONFLICT, "another user has that email".to_owned())
            }
            Error::Server(error) if UNFIT.contains(&error.code) => {
                Failure::Refused(StatusCode::BAD_REQUEST, format!("the values do not fit: error {}", error.code))
            }
            Error::Server(error) if !TEMPORARY.contains(&error.code) => {
                let reason = format!("the database refuses: error {}", error.code);
                Failure::Refused(StatusCode::INTERNAL_SERVER_ERROR, reason)
            }
            error => Failure::NotNow(named(error)),
        }
    }

    pub fn of_commit(error: &Error) -> Failure {
        match error {
            Error::Server(server) if NOT_COMMITTED.contains(&server.code) => Failure::NotNow(named(error)),
            error => Failure::Unknown(named(error)),
        }
    }
}

impl From<FlagError> for Failure {
    fn from(error: FlagError) -> Failure {
        Failure::NotNow(error.to_string())
    }
}

/// Servers quote values in their messages; their numbers say enough.
fn named(error: &Error) -> String {
    match error {
        Error::Server(error) => format!("the database refuses: error {}", error.code),
        Error::Io(error) => format!("the database cannot be reached: {error}"),
        _ => "the database cannot be reached".to_owned(),
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (code, reason, outcome) = match self {
            Failure::NotNow(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason, "not_written"),
            Failure::Refused(code, reason) => (code, reason, "not_written"),
            Failure::Unknown(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason, "unknown"),
        };
        let body = Json(serde_json::json!({ "error": reason, "outcome": outcome }));
        match code {
            StatusCode::SERVICE_UNAVAILABLE => (code, [(header::RETRY_AFTER, RETRY_AFTER)], body).into_response(),
            code => (code, body).into_response(),
        }
    }
}
