//! Copies the rows that were there before the migration began, beside live traffic on both sides.
//!
//! A table is read in chunks, in the order of its key. Each chunk is bracketed by two marks in the source's binlog; what is
//! changed between them is left out, and the rest is written at the second mark's place in the stream ([`crossfade_rules::chunk`]
//! says why that is right). How far each table is, is in the store.
//!
//! # What it promises
//!
//! - A chunk never overwrites a row that is newer, and never brings a deleted one back, also while users write on both sides.
//! - Killed anywhere, it goes on with the chunk that was not counted yet. A chunk that is written twice changes nothing.
//! - Memory is bounded by the chunks under way.
//! - What it writes bears the origin tag, under checkpoint rows of its own.
//!
//! # How it fails
//!
//! What passes by itself is tried again. What does not stops its table, with the reason in the store, and the others go on. A
//! row that the target refuses is read and tried again later, by its key; the rest of its chunk is written.

mod copy;
mod error;
mod history;
mod index;
mod ledger;
mod order;
mod pace;
mod slot;
mod source;
#[cfg(test)]
mod source_tests;
mod windows;
mod worker;

pub use error::BackfillError;
pub use history::{History, Speed};
pub use source::expected_rows;
pub use windows::Windows;
pub use worker::{Backfill, Limits};
