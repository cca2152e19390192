//! Writers for one side of the users database.
//!
//! They do what applications do (single changes, transactions over several tables, rollbacks, savepoints, unique values that
//! swap owners, rows deleted and inserted again, primary keys that change) and, on a small *hot set*, what two sides must
//! never agree on beforehand: conflicting inserts, updates and deletes of the same rows.
//!
//! Outside the hot set every row belongs to one writer of one side, so that conflicts arise only where the row itself decides
//! them: no child appears under a parent that the other side deletes, and no two rows want one unique value. With the same
//! seed a writer plans the same transactions.

mod counts;
mod owned;
mod plan;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::sql;
use counts::Counters;
pub use counts::Counts;

/// Which of the two sides writes. It keeps generated ids and unique values apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

impl Side {
    /// 0 for old, 1 for new.
    pub(crate) fn number(self) -> u64 {
        match self {
            Side::Old => 0,
            Side::New => 1,
        }
    }

    pub(crate) fn letter(self) -> char {
        match self {
            Side::Old => 'o',
            Side::New => 'n',
        }
    }
}

/// What kinds of transactions are written, in shares of their sum.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Changes of hot users and their profiles: updates, and for profiles deletes and inserts too.
    pub hot_users: u32,
    /// Inserts, updates and deletes of items of hot orders.
    pub hot_items: u32,
    /// Single updates of own rows.
    pub updates: u32,
    /// New users with profile and address.
    pub new_users: u32,
    /// New orders with items.
    pub new_orders: u32,
    /// Two users swap their unique e-mail addresses.
    pub email_swaps: u32,
    /// A user goes with all rows that hang on it; some come back later, some hand their e-mail address on.
    pub deletes: u32,
    /// Items change their primary key.
    pub renumberings: u32,
    /// Of 100 transactions so many are rolled back, and as many again roll back to a savepoint.
    pub rollback_percent: u32,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            hot_users: 25,
            hot_items: 15,
            updates: 20,
            new_users: 10,
            new_orders: 12,
            email_swaps: 6,
            deletes: 8,
            renumberings: 4,
            rollback_percent: 4,
        }
    }
}

impl Mix {
    /// Nothing but conflicting writes.
    pub fn conflicts() -> Mix {
        Mix {
            hot_users: 60,
            hot_items: 40,
            updates: 0,
            new_users: 0,
            new_orders: 0,
            email_swaps: 0,
            deletes: 0,
            renumberings: 0,
            rollback_percent: 0,
        }
    }

    pub(crate) fn weights(&self) -> [u32; 8] {
        [
            self.hot_users,
            self.hot_items,
            self.updates,
            self.new_users,
            self.new_orders,
            self.email_swaps,
            self.deletes,
            self.renumberings,
        ]
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub schema: String,
    pub side: Side,
    /// Tells workloads of one database apart that follow each other: it is part of generated unique values.
    pub run: u32,
    pub seed: u64,
    pub writers: u64,
    /// Users that loading made, from 1.
    pub users: u64,
    /// The first so many of them are hot.
    pub hot_users: u64,
    pub mix: Mix,
    /// Transactions a second of all writers together; `None` writes as fast as the server allows.
    pub rate: Option<f64>,
    /// Transactions after which the writers stop by themselves.
    pub limit: Option<u64>,
    /// Every transaction also notes in the [ledger](create_ledger) how many rows it changed, so that this is known to the row
    /// where a connection broke in a commit.
    pub ledger: bool,
}

impl Settings {
    pub fn new(schema: &str, side: Side, users: u64) -> Settings {
        Settings {
            schema: schema.to_owned(),
            side,
            run: 0,
            seed: 1,
            writers: 2,
            users,
            hot_users: (users / 10).clamp(1, 20),
            mix: Mix::default(),
            rate: None,
            limit: None,
            ledger: false,
        }
    }
}

/// The table that counts changes; it belongs to one side and must not be synced.
pub const LEDGER: &str = "ledger";

/// Creates the ledger in a schema that exists.
pub async fn create_ledger(pool: &Pool, schema: &str) -> Result<()> {
    let ledger = sql::full_name(schema, LEDGER);
    let columns = "id BIGINT AUTO_INCREMENT PRIMARY KEY, changed INT NOT NULL";
    pool.get_conn().await?.query_drop(format!("CREATE TABLE {ledger} ({columns})")).await?;
    Ok(())
}

/// How many rows users have changed so far, as the server itself knows.
pub async fn ledger_total(pool: &Pool, schema: &str) -> Result<u64> {
    let query = format!("SELECT CAST(COALESCE(SUM(changed), 0) AS UNSIGNED) FROM {}", sql::full_name(schema, LEDGER));
    Ok(pool.get_conn().await?.query_first(query).await?.unwrap_or(0))
}

/// What the writers are told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Write,
    Rest,
    Stop,
}

/// How often somebody who waits for the writers to rest looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// Writers at work. Dropping it stops them.
#[derive(Debug)]
pub struct Workload {
    counters: Arc<Counters>,
    order: watch::Sender<Order>,
    tasks: JoinSet<Result<()>>,
}

impl Workload {
    /// Starts the writers. Connections that break are made again, until the workload is stopped.
    pub fn start(pool: &Pool, settings: &Settings) -> Result<Workload> {
        ensure!(settings.writers > 0, "a workload needs a writer");
        ensure!(
            settings.hot_users > 0 && settings.hot_users < settings.users,
            "there must be hot users ({}) and others among {}",
            settings.hot_users,
            settings.users
        );
        let counters = Arc::new(Counters::default());
        let (order, orders) = watch::channel(Order::Write);
        let mut tasks = JoinSet::new();
        for number in 0..settings.writers {
            let writer = writer::Writer::new(pool.clone(), settings, number, counters.clone(), orders.clone());
            tasks.spawn(writer.run());
        }
        Ok(Workload { counters, order, tasks })
    }

    /// What has been done so far.
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    /// Whether the writers still write; false once all have reached the limit or failed.
    pub fn is_running(&self) -> bool {
        self.counters.running() > 0
    }

    /// Lets the writers rest after the transaction each is in; returns when all of them do. They keep what they know about
    /// their users, which a second workload on the same data would not have.
    pub async fn pause(&self) {
        self.order.send(Order::Rest).ok();
        while self.counters.resting() < self.counters.running() {
            tokio::time::sleep(LOOK).await;
        }
    }

    pub fn resume(&self) {
        self.order.send(Order::Write).ok();
    }

    /// Stops the writers after the transaction each is in, and returns what was done.
    pub async fn finish(mut self) -> Result<Counts> {
        self.order.send(Order::Stop).ok();
        self.join().await
    }

    /// Waits until every writer has reached the limit.
    pub async fn complete(mut self, within: Duration) -> Result<Counts> {
        match tokio::time::timeout(within, self.join()).await {
            Ok(counts) => counts,
            Err(_) => anyhow::bail!("the workload was not done within {within:?}: {:?}", self.counts()),
        }
    }

    async fn join(&mut self) -> Result<Counts> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a writer panicked")??;
        }
        Ok(self.counters.snapshot())
    }
}
