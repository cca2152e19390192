//! Writers for one side of the *hot set*: fifty rows in five tables that both sides insert, change, move and delete at once.
//!
//! Unlike [`workload`](crate::workload), nothing belongs to anybody: what one writer does meets what three others do. Many
//! statements are refused by the server, because a row is there already or a parent is not; that is counted and part of
//! the game. The tables differ in how versions of their rows are told apart: see [`Table`].
//!
//! Every transaction that changes something also writes how many rows it inserted, updated and deleted into the table
//! `ledger`, which is not synced. So the numbers are known to the row on each side, also where a connection broke in a
//! commit and the writer never learnt how that ended. With the same seed a writer plans the same transactions.

mod plan;
mod table;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};
use tokio::task::JoinSet;

use crate::sql;
use crate::workload::Side;
pub use table::{ROWS_PER_TABLE, Table};

#[derive(Debug, Clone)]
pub struct Settings {
    pub schema: String,
    pub side: Side,
    pub seed: u64,
    pub writers: u64,
    /// Transactions a second of all writers together.
    pub rate: f64,
    /// Parents come and go on both sides, also while the other side gives them children. Otherwise each side deletes only
    /// parents of its own, whose children are its own too.
    pub families: bool,
}

/// What the writers did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions whose commit the server acknowledged, and which changed a row.
    pub transactions: u64,
    /// Transactions that were rolled back on purpose.
    pub rolled_back: u64,
    /// Transactions that the server refused: a row or a unique value is there already, a parent is missing or has children.
    pub refused: u64,
    /// Transactions ended by a deadlock or a lock wait.
    pub deadlocks: u64,
    /// Transactions whose connection broke: the ledger knows whether they were committed.
    pub uncertain: u64,
}

impl Counts {
    /// The numbers of two runs together.
    pub fn plus(&self, other: &Counts) -> Counts {
        Counts {
            transactions: self.transactions + other.transactions,
            rolled_back: self.rolled_back + other.rolled_back,
            refused: self.refused + other.refused,
            deadlocks: self.deadlocks + other.deadlocks,
            uncertain: self.uncertain + other.uncertain,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    transactions: AtomicU64,
    rolled_back: AtomicU64,
    refused: AtomicU64,
    deadlocks: AtomicU64,
    uncertain: AtomicU64,
}

impl Counters {
    fn snapshot(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            transactions: read(&self.transactions),
            rolled_back: read(&self.rolled_back),
            refused: read(&self.refused),
            deadlocks: read(&self.deadlocks),
            uncertain: read(&self.uncertain),
        }
    }
}

/// Writers at work. Dropping it stops them.
#[derive(Debug)]
pub struct HotSet {
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<()>>,
}

impl HotSet {
    /// Starts the writers. Connections that break are made again, until the writers are stopped.
    pub async fn start(pool: &Pool, settings: &Settings) -> Result<HotSet> {
        ensure!(settings.writers > 0 && settings.rate > 0.0, "a hot set needs writers that write: {settings:?}");
        let logs_cascades = logs_cascades(pool).await?;
        let (counters, stop) = (Arc::new(Counters::default()), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for number in 0..settings.writers {
            let planner = plan::Planner::new(settings, number, logs_cascades);
            let writer = writer::Writer::new(pool.clone(), settings, planner, counters.clone(), stop.clone());
            tasks.spawn(writer.run());
        }
        Ok(HotSet { counters, stop, tasks })
    }

    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    /// Stops the writers after the transaction each is in, and returns what was done.
    pub async fn finish(mut self) -> Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a writer panicked")??;
        }
        Ok(self.counters.snapshot())
    }
}

/// Creates the tables, and the ledger, in a schema that exists.
pub async fn create(pool: &Pool, schema: &str) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    for table in Table::ALL {
        connection.query_drop(table.definition(schema)).await.with_context(|| format!("cannot create {table:?}"))?;
    }
    let ledger = sql::full_name(schema, LEDGER);
    let columns =
        "id BIGINT AUTO_INCREMENT PRIMARY KEY, inserts INT NOT NULL, updates INT NOT NULL, deletes INT NOT NULL";
    connection.query_drop(format!("CREATE TABLE {ledger} ({columns})")).await?;
    Ok(())
}

/// Puts every row there, alike wherever it is called.
pub async fn load(pool: &Pool, schema: &str) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    for table in Table::ALL {
        for id in 1..=ROWS_PER_TABLE {
            connection.query_drop(table.first_row(schema, id)).await?;
        }
    }
    Ok(())
}

/// The table that counts changes; it belongs to one side and must not be synced.
pub const LEDGER: &str = "ledger";

/// Row changes by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
}

impl Changes {
    pub fn total(&self) -> u64 {
        self.inserts + self.updates + self.deletes
    }

    /// The ledger's line for a transaction.
    fn entry(&self, schema: &str) -> String {
        let Changes { inserts, updates, deletes } = self;
        let ledger = sql::full_name(schema, LEDGER);
        format!("INSERT INTO {ledger} (inserts, updates, deletes) VALUES ({inserts}, {updates}, {deletes})")
    }

    /// Notes `rows` that a statement changed.
    fn note(&mut self, statement: &str, rows: u64) {
        match statement.split(' ').next() {
            Some("INSERT") => self.inserts += rows,
            Some("DELETE") => self.deletes += rows,
            _ => self.updates += rows,
        }
    }
}

/// What users have changed so far, as the server itself knows.
pub async fn changes(pool: &Pool, schema: &str) -> Result<Changes> {
    let sum = |column| format!("CAST(COALESCE(SUM({column}), 0) AS UNSIGNED)");
    let sums = ["inserts", "updates", "deletes"].map(sum).join(", ");
    let query = format!("SELECT {sums} FROM {}", sql::full_name(schema, LEDGER));
    let (inserts, updates, deletes) = pool.get_conn().await?.query_first(query).await?.unwrap_or_default();
    Ok(Changes { inserts, updates, deletes })
}

/// Runs one statement as a user who minds the ledger, and returns how many rows it changed. A transaction that a deadlock has
/// rolled back is run again.
pub async fn write(pool: &Pool, schema: &str, statement: &str) -> Result<u64> {
    let mut connection = pool.get_conn().await?;
    let mut written = write_once(&mut connection, schema, statement).await;
    while written.as_ref().is_err_and(sql::is_rolled_back) {
        written = write_once(&mut connection, schema, statement).await;
    }
    written.with_context(|| format!("cannot run {statement}"))
}

async fn write_once(connection: &mut Conn, schema: &str, statement: &str) -> Result<u64, mysql_async::Error> {
    connection.query_drop("START TRANSACTION").await?;
    connection.query_drop(statement).await?;
    let rows = connection.affected_rows();
    let mut changes = Changes::default();
    changes.note(statement, rows);
    connection.query_drop(changes.entry(schema)).await?;
    connection.query_drop("COMMIT").await?;
    Ok(rows)
}

/// Whether the server writes what a foreign key changes into its binlog: MySQL from 9.6 does, unless told otherwise.
async fn logs_cascades(pool: &Pool) -> Result<bool> {
    let mut connection = pool.get_conn().await?;
    let known: Option<(String, String)> =
        connection.query_first("SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'").await?;
    Ok(known.is_some_and(|(_, value)| value == "OFF"))
}
