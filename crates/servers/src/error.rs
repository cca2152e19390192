//! What can go wrong with a private server.

use std::path::PathBuf;

use crate::Flavor;

/// Why a server could not be found, started, stopped or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No program of that brand on this machine.
    #[error(
        "no {flavor} server found on this machine (looked for {}); to install one, run {}",
        .looked.join(", "),
        .flavor.install_command()
    )]
    Missing { flavor: Flavor, looked: Vec<String> },

    /// The environment variable names something that is no server of that brand. Not passed over silently: who sets
    /// it means it.
    #[error("{variable} is set to {}, but {reason}; unset it, or run {}", .path.display(), .flavor.install_command())]
    Unusable { flavor: Flavor, variable: &'static str, path: PathBuf, reason: String },

    /// The program ended, or never answered, while it was starting.
    #[error("{flavor} server {reason}; the last lines of {}:\n{log_tail}", .log.display())]
    StartFailed { flavor: Flavor, reason: String, log: PathBuf, log_tail: String },

    /// A new data directory could not be made.
    #[error("{flavor} could not initialise a data directory; the last lines of {}:\n{log_tail}", .log.display())]
    InitialiseFailed { flavor: Flavor, log: PathBuf, log_tail: String },

    /// The server is stopped or was killed, and the call needs it running.
    #[error("the {flavor} server is not running")]
    NotRunning { flavor: Flavor },

    /// A replica did not get as far as its source in time.
    #[error("the {flavor} replica does not have what its source has, after {limit_s} s")]
    NotFollowing { flavor: Flavor, limit_s: u32 },

    /// No port could be had.
    #[error("no free port between {first} and {last} on the loopback interface")]
    NoFreePort { first: u16, last: u16 },

    /// Files, processes, signals.
    #[error("could not {what}")]
    System {
        what: String,
        #[source]
        source: std::io::Error,
    },

    /// A connection or statement on a started server failed.
    #[error("the server refused {what}")]
    Database {
        what: String,
        #[source]
        source: mysql_async::Error,
    },
}

impl Error {
    /// For `map_err`: says what was tried when the system refused.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::System { what, source }
    }
}
