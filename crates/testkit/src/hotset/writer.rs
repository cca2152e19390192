//! One writer: a connection, a plan, and what to do when the server says no.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Pool};
use tokio::time::Instant;

use super::plan::{Planner, Step, Transaction};
use super::{Changes, Counters, Settings};

/// Pause before a broken connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

pub struct Writer {
    pool: Pool,
    planner: Planner,
    schema: String,
    /// Time between the starts of two transactions.
    pace: Duration,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
}

enum End {
    Committed,
    /// Nothing was changed.
    Empty,
    RolledBack,
    Refused,
    Deadlock,
    Uncertain,
}

impl Writer {
    pub fn new(
        pool: Pool,
        settings: &Settings,
        planner: Planner,
        counters: Arc<Counters>,
        stop: Arc<AtomicBool>,
    ) -> Writer {
        let pace = Duration::from_secs_f64(settings.writers as f64 / settings.rate);
        Writer { pool, planner, schema: settings.schema.clone(), pace, counters, stop }
    }

    pub async fn run(mut self) -> Result<()> {
        let mut connection = None;
        let mut start = Instant::now();
        while let Some(conn) = self.connected(&mut connection).await {
            let transaction = self.planner.next();
            let end = self.attempt(conn, &transaction).await?;
            if matches!(end, End::Uncertain) {
                connection = None;
            }
            self.note(&end);
            // A writer that fell behind does not catch up in a burst.
            start = (start + self.pace).max(Instant::now() - self.pace);
            tokio::time::sleep_until(start).await;
        }
        Ok(())
    }

    /// The connection, made anew where it broke; `None` once the writers are stopped.
    async fn connected<'a>(&self, connection: &'a mut Option<Conn>) -> Option<&'a mut Conn> {
        while !self.stop.load(Ordering::Relaxed) {
            if connection.is_some() {
                return connection.as_mut();
            }
            match self.connect().await {
                Ok(conn) => *connection = Some(conn),
                Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
            }
        }
        None
    }

    async fn connect(&self) -> Result<Conn, Error> {
        let mut connection = self.pool.get_conn().await?;
        connection.query_drop("SET SESSION innodb_lock_wait_timeout = 5").await?;
        Ok(connection)
    }

    async fn attempt(&self, connection: &mut Conn, transaction: &Transaction) -> Result<End> {
        match self.execute(connection, transaction).await {
            Ok(end) => Ok(end),
            Err(Error::Server(error)) => {
                if connection.query_drop("ROLLBACK").await.is_err() {
                    return Ok(End::Uncertain);
                }
                match error.code {
                    // Deadlock, lock wait, and MariaDB's "record has changed since last read".
                    1213 | 1205 | 1020 => Ok(End::Deadlock),
                    // A row is already there, a parent has children, or there is no parent.
                    1062 | 1451 | 1452 | 1761 => Ok(End::Refused),
                    // The server is going down, or refuses writes for now.
                    1053 | 1290 | 1836 | 1927 | 3169 => Ok(End::Uncertain),
                    _ => Err(anyhow::Error::new(error).context(format!("cannot run {:?}", transaction.steps))),
                }
            }
            Err(_) => Ok(End::Uncertain),
        }
    }

    async fn execute(&self, connection: &mut Conn, transaction: &Transaction) -> Result<End, Error> {
        let (mut changes, mut undone) = (Changes::default(), Changes::default());
        let mut beside = (0, 0);
        connection.query_drop("START TRANSACTION").await?;
        for step in &transaction.steps {
            match step {
                Step::Write(statement) => {
                    connection.query_drop(statement).await?;
                    let rows = connection.affected_rows();
                    changes.note(statement, rows);
                    if rows > 0 {
                        (changes.deletes, changes.updates) = (changes.deletes + beside.0, changes.updates + beside.1);
                    }
                    beside = (0, 0);
                }
                Step::Beside(query) => beside = connection.query_first(query).await?.unwrap_or_default(),
                Step::Prepare(statement) => connection.query_drop(statement).await?,
                Step::Savepoint => {
                    connection.query_drop("SAVEPOINT halfway").await?;
                    undone = changes;
                }
                Step::BackToSavepoint => {
                    connection.query_drop("ROLLBACK TO SAVEPOINT halfway").await?;
                    changes = undone;
                }
            }
        }
        if !transaction.commits {
            connection.query_drop("ROLLBACK").await?;
            return Ok(End::RolledBack);
        }
        if changes.total() > 0 {
            connection.query_drop(changes.entry(&self.schema)).await?;
        }
        connection.query_drop("COMMIT").await?;
        Ok(if changes.total() > 0 { End::Committed } else { End::Empty })
    }

    fn note(&self, end: &End) {
        let counters = &self.counters;
        let add = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        match end {
            End::Committed => add(&counters.transactions),
            End::Empty => {}
            End::RolledBack => add(&counters.rolled_back),
            End::Refused => add(&counters.refused),
            End::Deadlock => add(&counters.deadlocks),
            End::Uncertain => add(&counters.uncertain),
        }
    }
}
