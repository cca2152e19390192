//! Private MySQL and MariaDB servers: real ones, started for a test, a demonstration or a benchmark, and gone after it.
//!
//! # What it is for
//!
//! Every claim about MySQL is checked on a real server. [`Server`] starts one with a data directory, a loopback port
//! and a socket of its own; [`SharedPair`] is an old and a new server that all tests of a test binary share.
//!
//! # What it promises
//!
//! - The program is asked for its version and brand: a `mysqld` on the path that is MariaDB's link is never taken for MySQL.
//! - A started server answers connections, with the binary log on in the form crossfade needs (full row images and
//!   metadata; GTIDs on MySQL).
//! - A server ends with the [`Server`] value, or with the process, however that ends: `kill -9` included. Processes are
//!   ended by their id, never by name. Temporary folders that a killed process left behind are removed by the next one that
//!   starts a server.
//! - Two processes that start servers at the same time never get the same port or folder.
//! - Nothing is bound to an async runtime: a server started in one `#[tokio::test]` serves the others.
//!
//! # How it fails
//!
//! With an [`Error`], whose text holds what a person needs: the command that installs a missing server, or the
//! last lines of the error log of one that did not start. Nothing is skipped silently.
//!
//! Where servers are looked for is told at [`ServerBinary::find`]; `scripts/servers.sh` installs them.
//!
//! ```no_run
//! # async fn example() -> Result<(), crossfade_servers::Error> {
//! use crossfade_servers::{Flavor, Server};
//!
//! let server = Server::builder(Flavor::MySql).relaxed().option("max_connections", "50").start().await?;
//! let _connection = server.connect().await?;
//! server.kill9().await?;
//! server.restart().await?; // same port, same data
//! # Ok(())
//! # }
//! ```

mod binary;
mod builder;
mod error;
mod folder;
mod options;
mod pair;
mod place;
mod process;
mod replica;
mod server;
mod template;

pub use binary::{Flavor, ServerBinary, Version};
pub use builder::ServerBuilder;
pub use error::Error;
pub use pair::SharedPair;
pub use replica::{Begin, change_source};
pub use server::Server;
