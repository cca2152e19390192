//! What is written on the source.

mod write;
mod zipf;

use std::fmt;

pub use write::{insert_in_large_transactions, load_base, write};

/// A row of the workloads, in its binlog image.
pub const ROW_BYTES: usize = 250;
/// A row of the decoding measurement.
pub const DECODED_ROW_BYTES: usize = 300;
/// Rows that are there before updates begin.
const BASE_ROWS: u64 = 100_000;
const LARGE_TRANSACTIONS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Single-row INSERT transactions.
    Inserts,
    /// Single-row UPDATE transactions; a few rows are updated much more often than others.
    Updates,
    /// Ten INSERT transactions that share all rows.
    Large,
}

impl Workload {
    pub fn description(self) -> &'static str {
        match self {
            Workload::Inserts => "single-row INSERT transactions",
            Workload::Updates => "single-row UPDATE transactions, zipf over 100,000 rows",
            Workload::Large => "10 INSERT transactions that share all rows",
        }
    }

    /// Rows in the table before the workload, on both sides.
    pub fn base_rows(self) -> u64 {
        match self {
            Workload::Updates => BASE_ROWS,
            Workload::Inserts | Workload::Large => 0,
        }
    }

    /// What [`PROGRESS`](crate::row::PROGRESS) gives when all is there.
    pub fn complete(self, rows: u64) -> (u64, u64) {
        match self {
            Workload::Updates => (BASE_ROWS, rows),
            Workload::Inserts | Workload::Large => (rows, 0),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Workload::Inserts => "W1",
            Workload::Updates => "W2",
            Workload::Large => "W4",
        })
    }
}
