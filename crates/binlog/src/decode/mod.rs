//! Row events to typed values: pure functions on byte slices.
//!
//! A [`TableMap`] is worked out once per table map event; its [`TableMap::changes`] turns a [`RowsEvent`] into row changes
//! with one pass over the bytes. Every column type of MySQL 9 and MariaDB 10.11 becomes a [`crossfade_model::Value`] that says
//! exactly what the server stored.
//!
//! # How it fails
//!
//! With a [`DecodeError`], on any input: cut off, contradictory, hostile. Nothing panics, and memory follows the size of the
//! input, except for what compression announces, which is bounded by 1 GiB.

mod address;
mod cell;
mod charset;
mod collation;
mod column;
mod cursor;
mod decimal;
mod error;
pub mod file;
mod json;
mod metadata;
mod packed;
pub(crate) mod payload;
mod rows;
mod single_byte;
mod table_map;
mod temporal;
mod wire;

pub use charset::stored_text;
pub use collation::charset_of;
pub use error::DecodeError;
pub use rows::{Changes, RowsEvent};
pub use table_map::TableMap;

/// Whose dialect of the binlog an event speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    MySql,
    MariaDb,
}
