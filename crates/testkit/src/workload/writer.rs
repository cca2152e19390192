//! One writer: a connection, a plan, and what to do when the server says no.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Pool};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::counts::{Counters, add};
use super::plan::{Planner, Transaction};
use super::{LEDGER, Order, Settings, Side};
use crate::sql;

/// Pause before a broken connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// A transaction that deadlocks more often than this is a defect of the workload.
const MOST_RETRIES: u32 = 200;

pub struct Writer {
    pool: Pool,
    planner: Planner,
    counters: Arc<Counters>,
    orders: watch::Receiver<Order>,
    side: Side,
    ledger: Option<String>,
    /// Time between the starts of two transactions of this writer.
    pace: Option<Duration>,
    limit: Option<u64>,
}

/// How a transaction ended.
enum End {
    Committed { rows: u64, new_user: Option<u64> },
    RolledBack,
    LostRace,
    Retry,
    Uncertain,
}

impl Writer {
    pub fn new(
        pool: Pool,
        settings: &Settings,
        number: u64,
        counters: Arc<Counters>,
        orders: watch::Receiver<Order>,
    ) -> Writer {
        counters.enter();
        let pace = settings.rate.map(|rate| Duration::from_secs_f64(settings.writers as f64 / rate.max(0.001)));
        let planner = Planner::new(settings, number);
        let ledger = settings.ledger.then(|| sql::full_name(&settings.schema, LEDGER));
        Writer { pool, planner, counters, orders, side: settings.side, ledger, pace, limit: settings.limit }
    }

    pub async fn run(mut self) -> Result<()> {
        let outcome = self.write().await;
        self.counters.leave();
        outcome.with_context(|| format!("a writer on the {:?} side gave up", self.side))
    }

    async fn write(&mut self) -> Result<()> {
        let mut connection = None;
        let mut start = Instant::now();
        while self.wait_for_order().await != Order::Stop && self.may_begin() {
            let transaction = self.planner.next();
            self.carry_out(&mut connection, transaction).await?;
            if let Some(pace) = self.pace {
                // A writer that fell behind does not catch up in a burst.
                start = (start + pace).max(Instant::now() - pace);
                self.rest_until(start).await;
            }
        }
        Ok(())
    }

    /// The order, once it is not to rest.
    async fn wait_for_order(&mut self) -> Order {
        let order = *self.orders.borrow();
        if order != Order::Rest {
            return order;
        }
        self.counters.lie_down();
        // Nobody is left to give orders: stop.
        let order = self.orders.wait_for(|order| *order != Order::Rest).await.map_or(Order::Stop, |order| *order);
        self.counters.get_up();
        order
    }

    fn may_begin(&self) -> bool {
        let begun = self.counters.begun.fetch_add(1, Ordering::Relaxed);
        self.limit.is_none_or(|limit| begun < limit)
    }

    async fn rest_until(&mut self, moment: Instant) {
        // Running out of time is the usual end of this wait.
        timeout_at(moment, self.orders.wait_for(|order| *order != Order::Write)).await.ok();
    }

    /// Runs a transaction until it has an end, and keeps the books.
    async fn carry_out(&mut self, connection: &mut Option<Conn>, transaction: Transaction) -> Result<()> {
        for _ in 0..MOST_RETRIES {
            let Some(conn) = self.connected(connection).await else { return Ok(()) };
            match attempt(conn, &transaction, self.ledger.as_deref()).await? {
                End::Retry => add(&self.counters.retries, 1),
                End::Uncertain => {
                    add(&self.counters.uncertain, 1);
                    *connection = None;
                    // The touched users' state is unknown: nobody writes them any more.
                    return Ok(());
                }
                End::LostRace => {
                    add(&self.counters.lost_races, 1);
                    self.planner.users.put_back(transaction.before);
                    return Ok(());
                }
                End::RolledBack => {
                    add(&self.counters.rolled_back, 1);
                    self.planner.users.put_back(transaction.before);
                    return Ok(());
                }
                End::Committed { rows, new_user } => {
                    self.committed(transaction, rows, new_user);
                    return Ok(());
                }
            }
        }
        anyhow::bail!("no end of deadlocks after {MOST_RETRIES} attempts")
    }

    fn committed(&mut self, transaction: Transaction, rows: u64, new_user: Option<u64>) {
        let mut after = transaction.after;
        after.living.iter_mut().for_each(|user| user.id = user.id.or(new_user));
        self.planner.users.put_back(after);
        // A commit without a change leaves nothing behind.
        if rows > 0 {
            add(&self.counters.transactions, 1);
            add(&self.counters.changes, rows);
            if transaction.hot {
                add(&self.counters.hot_changes, rows);
            }
        }
    }

    /// The connection, made anew where it broke; `None` once the workload is stopped.
    async fn connected<'a>(&mut self, connection: &'a mut Option<Conn>) -> Option<&'a mut Conn> {
        while connection.is_none() {
            if *self.orders.borrow() == Order::Stop {
                return None;
            }
            match self.connect().await {
                Ok(conn) => *connection = Some(conn),
                Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
            }
        }
        connection.as_mut()
    }

    async fn connect(&self) -> Result<Conn, Error> {
        let mut connection = self.pool.get_conn().await?;
        let offset = self.side.number() + 1;
        connection
            .query_drop(format!(
                "SET SESSION auto_increment_increment = 2, auto_increment_offset = {offset}, time_zone = '+00:00'"
            ))
            .await?;
        Ok(connection)
    }
}

async fn attempt(connection: &mut Conn, transaction: &Transaction, ledger: Option<&str>) -> Result<End> {
    match execute(connection, transaction, ledger).await {
        Ok(end) => Ok(end),
        Err(Error::Server(error)) => {
            if connection.query_drop("ROLLBACK").await.is_err() {
                return Ok(End::Uncertain);
            }
            match error.code {
                // Deadlock, lock wait, and MariaDB's "record has changed since last read".
                1213 | 1205 | 1020 => Ok(End::Retry),
                // A hot row is already there, or its parent's row is not.
                1062 | 1452 if transaction.hot => Ok(End::LostRace),
                // The server is going down, or refuses writes for now.
                1053 | 1290 | 1836 | 1927 => Ok(End::Uncertain),
                _ => Err(anyhow::Error::new(error).context(format!("cannot run {:?}", transaction.statements))),
            }
        }
        Err(_) => Ok(End::Uncertain),
    }
}

async fn execute(connection: &mut Conn, transaction: &Transaction, ledger: Option<&str>) -> Result<End, Error> {
    let (mut rows, mut new_user, mut undone) = (0, None, 0);
    // A single statement commits by itself, as most applications' do.
    let alone = transaction.commits && transaction.statements.len() == 1 && ledger.is_none();
    if !alone {
        connection.query_drop("START TRANSACTION").await?;
    }
    for (number, statement) in transaction.statements.iter().enumerate() {
        connection.query_drop(statement).await?;
        rows += connection.affected_rows();
        if transaction.new_user_statement == Some(number) {
            new_user = connection.last_insert_id();
        }
        match statement.as_str() {
            "SAVEPOINT halfway" => undone = rows,
            "ROLLBACK TO SAVEPOINT halfway" => rows = undone,
            _ => {}
        }
    }
    if !transaction.commits {
        connection.query_drop("ROLLBACK").await?;
        return Ok(End::RolledBack);
    }
    if let Some(ledger) = ledger.filter(|_| rows > 0) {
        connection.query_drop(format!("INSERT INTO {ledger} (changed) VALUES ({rows})")).await?;
    }
    if !alone {
        connection.query_drop("COMMIT").await?;
    }
    Ok(End::Committed { rows, new_user })
}
