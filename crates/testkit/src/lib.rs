//! What the tests and the demonstration need beside the product: data, writers, faults, and an independent judge.
//!
//! # What it promises
//!
//! - It shares no code with what it checks: no crate of the product is among its dependencies. Whether two databases are
//!   equal is decided by [`compare`] with queries and a rendering of its own.
//! - It is repeatable: [`userdb`], [`workload`] and [`hotset`] do the same for the same seed.
//! - It waits for states, never for a fixed time: see [`quiet`].
//! - What it breaks it breaks on purpose, and counts: see [`process`] and [`proxy`].
//!
//! # How it fails
//!
//! With an [`anyhow::Error`] that says what was being done. A comparison that finds differences is no error: it is a
//! [`compare::Comparison`] that is not equal.

pub mod binlog_window;
pub mod compare;
pub mod hotset;
pub mod late;
pub mod process;
pub mod proxy;
pub mod quiet;
pub mod shop;
pub mod sql;
pub mod userdb;
pub mod workload;
