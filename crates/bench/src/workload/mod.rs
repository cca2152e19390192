//! What is written on the source.

mod write;
mod zipf;

use std::fmt;

pub use write::{insert_in_large_transactions, load_base, write};

use crate::mixed::Ids;
use crate::stage::Side;
use crate::{mixed, row};

pub const SCHEMA: &str = "bench";
pub const CLOCK: &str = "updated_at";

/// A row of the workloads, in its binlog image.
pub const ROW_BYTES: usize = 250;
/// A row of the decoding measurement.
pub const DECODED_ROW_BYTES: usize = 300;
/// Rows that are there before updates begin.
const BASE_ROWS: u64 = 100_000;
const LARGE_TRANSACTIONS: u64 = 10;

/// A row for each side that the last transaction of its users touches.
pub const FINISH_TABLE: [&str; 2] = [
    "CREATE TABLE bench.finish (
        id INT NOT NULL PRIMARY KEY,
        done INT NOT NULL,
        updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)
     ) ENGINE=InnoDB",
    "INSERT INTO bench.finish (id, done, updated_at) VALUES (1, 0, '2026-01-01'), (2, 0, '2026-01-01')",
];

/// What the users of one side do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub by: Side,
    pub ids: Ids,
}

impl Part {
    /// Written last, in a transaction of its own.
    pub fn finish(self) -> String {
        mark(self.by, 1)
    }

    /// Asks whether the last transaction is there.
    pub fn is_finished(self) -> String {
        format!("SELECT done FROM bench.finish WHERE id = {}", finish_id(self.by))
    }
}

/// What the users of a side write to tell how far they are.
pub fn mark(side: Side, done: u64) -> String {
    format!("UPDATE bench.finish SET done = {done} WHERE id = {}", finish_id(side))
}

fn finish_id(side: Side) -> u32 {
    match side {
        Side::Source => 1,
        Side::Target => 2,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Single-row INSERT transactions.
    Inserts,
    /// Single-row UPDATE transactions; a few rows are updated much more often than others.
    Updates,
    /// Transactions of four statements over four tables.
    Mixed,
    /// Ten INSERT transactions that share all rows.
    Large,
    /// [`Mixed`](Workload::Mixed) on both sides at once, on different rows.
    Both,
}

impl Workload {
    pub const ALL: [Workload; 5] =
        [Workload::Inserts, Workload::Updates, Workload::Mixed, Workload::Large, Workload::Both];

    /// Those that only the source's users write.
    pub fn one_way() -> impl Iterator<Item = Workload> {
        Workload::ALL.into_iter().filter(|workload| workload.parts().len() == 1)
    }

    pub fn description(self) -> &'static str {
        match self {
            Workload::Inserts => "single-row INSERT transactions",
            Workload::Updates => "single-row UPDATE transactions, zipf over 100,000 rows",
            Workload::Mixed => {
                "transactions over 4 tables of 25,000 rows: an UPDATE of an indexed column, one of another column, a DELETE, and an \
                 INSERT of the same row again"
            }
            Workload::Large => "10 INSERT transactions that share all rows",
            Workload::Both => "W3 on both sides at once: rows with odd ids there, rows with even ids here",
        }
    }

    /// Row changes, where W1 and W2 have `rows`: a third as many transactions of W3, and a third as many rows in each of W4,
    /// and twice as many in W5 as in W3.
    pub fn changes(self, rows: u64) -> u64 {
        match self {
            Workload::Inserts | Workload::Updates => rows,
            Workload::Mixed => (rows / 3).max(1) * mixed::CHANGES,
            Workload::Large => (rows / 3).max(1) * LARGE_TRANSACTIONS,
            Workload::Both => 2 * Workload::Mixed.changes(rows),
        }
    }

    /// Who writes what, the source first.
    pub fn parts(self) -> &'static [Part] {
        match self {
            Workload::Inserts | Workload::Updates | Workload::Mixed | Workload::Large => {
                &[Part { by: Side::Source, ids: Ids::All }]
            }
            Workload::Both => &[Part { by: Side::Source, ids: Ids::Odd }, Part { by: Side::Target, ids: Ids::Even }],
        }
    }

    /// Rows in the table of accounts before the workload, on both sides.
    fn base_rows(self) -> u64 {
        match self {
            Workload::Updates => BASE_ROWS,
            Workload::Inserts | Workload::Mixed | Workload::Large | Workload::Both => 0,
        }
    }

    pub fn tables(self) -> Vec<String> {
        match self {
            Workload::Inserts | Workload::Updates | Workload::Large => vec![row::TABLE.to_owned()],
            Workload::Mixed | Workload::Both => mixed::tables(),
        }
    }

    /// Asks for two numbers that are those of the side that wrote only when every change of the part is there.
    pub fn progress(self, part: Part) -> String {
        match self {
            Workload::Inserts | Workload::Updates | Workload::Large => row::PROGRESS.to_owned(),
            Workload::Mixed | Workload::Both => mixed::progress(part.ids),
        }
    }

    /// Asks for one text for every column of every row of the part.
    pub fn checksum(self, part: Part) -> String {
        match self {
            Workload::Inserts | Workload::Updates | Workload::Large => row::CHECKSUM.to_owned(),
            Workload::Mixed | Workload::Both => mixed::checksum(part.ids),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Workload::Inserts => "W1",
            Workload::Updates => "W2",
            Workload::Mixed => "W3",
            Workload::Large => "W4",
            Workload::Both => "W5",
        })
    }
}
