//! How the two sides' definitions differ, and the statements that make a new side like the old one.
//!
//! # What it is for
//!
//! [`compare`] reads what a pair's tables and their schemas are on both sides and names each [`Difference`]. [`CopyPlan`] holds
//! the statements that create the tables that the new side lacks, through the pair's mapping; [`CopyPlan::run`] carries them
//! out.
//!
//! # What it promises
//!
//! - Names are compared through the mapping: a table or column that the new side calls otherwise is no difference.
//! - What could not be seen is told by itself, never taken for equal.
//! - No password, nor what a server keeps of one, is read.
//! - Copying creates, and changes or drops nothing that exists. Each table is one statement, so that whatever stops it, the next
//!   plan has what is left.
//!
//! # How it fails
//!
//! With a [`SchemaError`]. What a plan cannot do is a [`Refusal`] in it, found before anything is written.

mod compare;
mod copy;
mod difference;
mod error;
mod index;
mod names;
mod objects;
mod printed;
mod selection;
mod table;
mod token;

pub use compare::{Part, compare};
pub use copy::{CopyPlan, Refusal, SchemaPlan, TablePlan};
pub use difference::{Change, Difference, NotCompared, Report};
pub use error::SchemaError;
pub use index::{SecondaryIndex, deferrable_indexes, has_rows};
pub use selection::SideSchema;
