//! Connections to servers, and what can be asked of them.
//!
//! # What it is for
//!
//! [`connect`] opens connections as a [`ServerUrl`](crossfade_config::ServerUrl) demands. [`ServerFacts`] holds a
//! server's version, identity and settings, [`table_shapes`] reads table definitions, and [`Dialect`] has every
//! statement whose text depends on the version: this is the only crate that asks which server it is. [`check::check`]
//! looks at every precondition of a migration at once. [`chunk`] splits a table into ranges of its key. [`definition`] reads what
//! shapes leave out: statements as a server prints them, views, routines, triggers, events, accounts.
//!
//! # What it promises
//!
//! - Asking changes nothing on a server.
//! - Names are taken as they are, whatever characters they have.
//! - Certificates are verified on the very connection that is used.
//!
//! # How it fails
//!
//! With a [`CatalogError`] whose text holds no password, and whose [`hint`](CatalogError::hint) says what to do.

pub mod check;
pub mod chunk;
mod connect;
pub mod definition;
mod dialect;
mod error;
mod facts;
mod rights;
mod rule;
mod servers;
mod shape;
mod version;

pub use check::binlog::binlog_bytes;
pub use connect::{Purpose, connect};
pub use dialect::Dialect;
pub use error::{CatalogError, class_of};
pub use facts::{BinlogFacts, ClockDifference, GtidMode, ServerFacts};
pub use rights::{KnownAccount, LockRights, ReadOnlyRights, known_accounts, lock_rights, read_only_rights};
pub use rule::{entity_rules, table_rule};
pub use servers::{Servers, Standing};
pub use shape::{table_shape, table_shapes};
pub use version::{Flavor, SUPPORTED_VERSIONS, SupportLevel, Version};
