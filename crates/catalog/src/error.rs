//! How talking to a server fails.

use std::time::Duration;

use crossfade_rules::trouble::{Class, Remedy, Trouble, answered, sort};
use mysql_async::DriverError;

/// What went wrong between crossfade and a server. No text holds a password.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("cannot connect to {server}")]
    Connect { server: String, source: mysql_async::Error },
    #[error("{server} did not answer within {waited:?}")]
    TimedOut { server: String, waited: Duration },
    #[error("{server} offers no TLS")]
    NoTls { server: String },
    #[error("cannot read the certificates in {path}")]
    Certificates { path: String, source: std::io::Error },
    #[error("cannot read {what}")]
    Query { what: &'static str, source: mysql_async::Error },
    #[error("{what} is `{found}`, which is not understood")]
    Unexpected { what: &'static str, found: String },
    #[error("{server} does not let the account log its changes as rows")]
    RowFormat { server: String, source: mysql_async::Error },
    #[error("no server takes writes: {servers}")]
    NoPrimary { servers: String },
    #[error("{server} takes writes and lacks transactions that were captured before: {missing}")]
    LostInFailOver { server: String, missing: String },
    #[error(
        "{one} and {other} both take writes and have gone apart: only {one} has {only_one}, only {other} has {only_other}"
    )]
    SplitBrain { one: String, other: String, only_one: String, only_other: String },
    #[error("no server has what was captured: {servers}")]
    NotYetThere { servers: String },
    #[error("{table} has no key that it can be split by")]
    NoKey { table: String },
    #[error("a key of {table} cannot be compared with: it holds bytes that its character set does not know")]
    KeyUnreadable { table: String },
}

impl CatalogError {
    /// What to do about it: a server that is away comes back, one that refuses the account needs a person.
    pub fn remedy(&self) -> Remedy {
        match self {
            CatalogError::TimedOut { .. } => Remedy::RetryLater,
            CatalogError::Connect { source, .. } | CatalogError::Query { source, .. }
                if class_of(source).remedy().passes() =>
            {
                Remedy::RetryLater
            }
            error if error.awaits_servers() => Remedy::RetryLater,
            _ => Remedy::Stop,
        }
    }

    /// Whether the servers themselves are about to end this: somebody promotes one, or a replica catches up.
    pub fn awaits_servers(&self) -> bool {
        matches!(self, CatalogError::NoPrimary { .. } | CatalogError::NotYetThere { .. })
    }

    /// What a person can do about it; `None` where the message says it all.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            CatalogError::Connect { source, .. } => connect_hint(source),
            CatalogError::TimedOut { .. } => Some("check host and port, and whether a firewall drops the packets"),
            CatalogError::NoTls { .. } => {
                Some("configure TLS on the server, or use `ssl-mode=PREFERRED` or `DISABLED` in its URL")
            }
            CatalogError::Certificates { .. } => Some("correct `ssl-ca` in the server's URL"),
            CatalogError::Query { source, .. } => match class_of(source) {
                Class::Denied | Class::Login => Some("run `crossfade check`: it prints the GRANT that is missing"),
                _ => None,
            },
            CatalogError::RowFormat { .. } => Some(
                "the server logs statements by default; grant the account SESSION_VARIABLES_ADMIN (MariaDB: BINLOG ADMIN) on *.*",
            ),
            CatalogError::NoPrimary { .. } => Some(
                "promote one of them (`read_only = OFF`, replication stopped), or start the one that was written to",
            ),
            CatalogError::LostInFailOver { .. } => Some(
                "the former primary's binlog has them: start it with `read_only = ON`, let the new one replicate from it up to \
                 there, and start this process again; where it is gone, load the sides alike and begin as a new pair",
            ),
            CatalogError::SplitBrain { .. } => Some(
                "let one take writes only: set `read_only = ON` on the other, and bring what only that one has over, or give it \
                 up; then start this process again",
            ),
            CatalogError::NotYetThere { .. } => {
                Some("it goes on when a replica has caught up; where none can, start the server that has them")
            }
            CatalogError::NoKey { .. } => Some("give it a primary key on both sides"),
            CatalogError::KeyUnreadable { .. } => Some("correct the keys of that table: their text is broken"),
            CatalogError::Unexpected { .. } => {
                Some("`crossfade check` says whether this server's version was ever tested")
            }
        }
    }
}

fn connect_hint(error: &mysql_async::Error) -> Option<&'static str> {
    match error {
        mysql_async::Error::Server(error) => match error.code {
            1045 | 1698 => {
                Some("check user and password in the server's URL, and that the account may log in from here")
            }
            1130 => Some("create the account for this machine's address"),
            1040 | 1203 => Some("raise `max_connections`, or end connections that are not needed"),
            3159 => Some("the account or the server demands TLS: use `ssl-mode=REQUIRED` in the server's URL"),
            _ => None,
        },
        mysql_async::Error::Io(error) if is_tls(error) => Some(
            "check `ssl-mode` and `ssl-ca` in the server's URL; certificates that a server made for itself pass \
             VERIFY_CA with its own `ca.pem`, but never VERIFY_IDENTITY",
        ),
        mysql_async::Error::Io(_) => Some("check host and port in the server's URL, and that the server runs"),
        _ => None,
    }
}

/// A certificate that is refused during the handshake comes as an error of reading.
fn is_tls(error: &mysql_async::IoError) -> bool {
    match error {
        mysql_async::IoError::Tls(_) => true,
        mysql_async::IoError::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
    }
}

/// What an error of the driver is about.
pub fn class_of(error: &mysql_async::Error) -> Class {
    sort(match error {
        mysql_async::Error::Server(server) => answered(server.code, &server.state),
        // Of a connection that has lost count nothing more can be had.
        mysql_async::Error::Io(_)
        | mysql_async::Error::Driver(
            DriverError::ConnectionClosed | DriverError::PoolDisconnected | DriverError::PacketOutOfOrder,
        ) => Trouble::Connection,
        mysql_async::Error::Driver(DriverError::PacketTooLarge) => Trouble::TooLarge,
        _ => Trouble::Other,
    })
}
