//! Users at work: each write goes where the client says, and what was acknowledged is remembered. And somebody who asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_flag::{EntityClient, EntityGuard, FlagError, Side};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::Migration;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::stage::{LATE_ORDERS, LIMIT};

/// What one user was told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// The counter as it was written last.
    pub n: i64,
    pub orders: BTreeSet<u64>,
    pub deleted: BTreeSet<u64>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub users: BTreeMap<u64, Told>,
    pub writes: u64,
    pub on_new: u64,
    /// Rolled back, since the guard had run out before COMMIT.
    pub given_up: u64,
    pub longest_wait: Duration,
}

/// Dropping it ends the writers without a word.
pub struct Users {
    stop: watch::Sender<bool>,
    acknowledged: Arc<AtomicU64>,
    writers: JoinSet<Result<Ledger>>,
    late: JoinSet<Result<u64>>,
}

impl Users {
    /// Users 1 to `users`, each written by one of `writers`; with `late`, one more writes on old whatever anybody says.
    pub fn start(migration: &Migration, url: &str, users: u64, writers: u64, late: bool) -> Result<Users> {
        let (stop, stopped) = watch::channel(false);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut at_work = JoinSet::new();
        let client = EntityClient::builder(url).pair(&migration.pair).build()?;
        for number in 0..writers {
            let writer = Writer {
                client: client.clone(),
                acknowledged: acknowledged.clone(),
                old: migration.old.clone(),
                new: migration.new.clone(),
                schema: format!("`{}`", migration.schema),
                ids: (1..=users).filter(|id| id % writers == number).collect(),
                orders: 500_000_000 + number * 10_000_000,
                random: StdRng::seed_from_u64(number),
            };
            at_work.spawn(writer.run(stopped.clone()));
        }
        let mut late_writers = JoinSet::new();
        if late {
            let (pool, schema) = (migration.old.clone(), format!("`{}`", migration.schema));
            late_writers.spawn(write_late(pool, schema, users, stopped));
        }
        Ok(Users { stop, acknowledged, writers: at_work, late: late_writers })
    }

    /// Returns when so many more writes were acknowledged.
    pub async fn until_written(&self, more: u64) -> Result<()> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        until("writes of users", LIMIT, || async {
            let now = self.acknowledged.load(Ordering::Relaxed);
            Ok(if now >= wanted { Progress::Reached(()) } else { Progress::NotYet(format!("{now} of {wanted}")) })
        })
        .await
    }

    /// Ends all, and gives what they remember, and how often somebody wrote on old without asking.
    pub async fn finish(mut self) -> Result<(Ledger, u64)> {
        self.stop.send_replace(true);
        let (mut all, mut late) = (Ledger::default(), 0);
        while let Some(ended) = self.writers.join_next().await {
            let ledger = ended??;
            all.users.extend(ledger.users);
            all.writes += ledger.writes;
            all.on_new += ledger.on_new;
            all.given_up += ledger.given_up;
            all.longest_wait = all.longest_wait.max(ledger.longest_wait);
        }
        while let Some(ended) = self.late.join_next().await {
            late += ended??;
        }
        Ok((all, late))
    }
}

struct Writer {
    client: EntityClient,
    acknowledged: Arc<AtomicU64>,
    old: Pool,
    new: Pool,
    schema: String,
    ids: Vec<u64>,
    orders: u64,
    random: StdRng,
}

impl Writer {
    async fn run(mut self, stop: watch::Receiver<bool>) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        while !*stop.borrow() {
            tokio::time::sleep(Duration::from_millis(self.random.random_range(10..40))).await;
            let id = self.ids[self.random.random_range(0..self.ids.len())];
            let asked = Instant::now();
            let guard = match self.client.begin_write(&id.to_string()).await {
                Ok(guard) => guard,
                // The server may be busy; not to write is always right.
                Err(FlagError::EntityUnknown { .. } | FlagError::EntityFenced { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            ledger.longest_wait = ledger.longest_wait.max(asked.elapsed());
            let told = ledger.users.entry(id).or_default();
            let mut next = told.clone();
            let side = guard.side();
            let written = self.write(id, &guard, &mut next).await;
            match written.with_context(|| format!("user {id} on {side:?}"))? {
                Written::Committed => {
                    *told = next;
                    ledger.writes += 1;
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    ledger.on_new += u64::from(side == Side::New);
                }
                Written::GivenUp => ledger.given_up += 1,
                Written::InTheWay => {}
            }
        }
        Ok(ledger)
    }

    async fn write(&mut self, id: u64, guard: &EntityGuard, told: &mut Told) -> Result<Written> {
        let pool = if guard.side() == Side::New { &self.new } else { &self.old };
        let mut conn = pool.get_conn().await?;
        self.orders += 1;
        let order = self.orders;
        let forget = told.orders.first().copied().filter(|_| self.random.random_bool(0.1));
        match transaction(&mut conn, &self.schema, id, told, order, forget).await {
            Ok(()) => {}
            Err(error) if is_in_the_way(&error) => {
                conn.query_drop("ROLLBACK").await?;
                return Ok(Written::InTheWay);
            }
            Err(error) => return Err(error),
        }
        if !guard.is_still_valid() {
            conn.query_drop("ROLLBACK").await?;
            return Ok(Written::GivenUp);
        }
        conn.query_drop("COMMIT").await?;
        Ok(Written::Committed)
    }
}

enum Written {
    Committed,
    /// There was no time left.
    GivenUp,
    /// Another transaction was: a user repeats it.
    InTheWay,
}

fn is_in_the_way(error: &anyhow::Error) -> bool {
    /// ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT, ER_CHECKREAD
    const CODES: [u16; 3] = [1213, 1205, 1020];
    matches!(error.downcast_ref(), Some(mysql_async::Error::Server(error)) if CODES.contains(&error.code))
}

/// Counts on from what was acknowledged, adds an order, and may delete another one. What it finds must be what was acknowledged.
async fn transaction(
    conn: &mut Conn,
    schema: &str,
    id: u64,
    told: &mut Told,
    order: u64,
    forget: Option<u64>,
) -> Result<()> {
    conn.query_drop("BEGIN").await?;
    let found: Option<i64> =
        conn.query_first(format!("SELECT n FROM {schema}.users WHERE id = {id} FOR UPDATE")).await?;
    ensure!(found == Some(told.n), "the counter of user {id} is {found:?}, and {} was acknowledged", told.n);
    told.n += 1;
    conn.query_drop(format!("UPDATE {schema}.users SET n = {} WHERE id = {id}", told.n)).await?;
    conn.query_drop(format!("INSERT INTO {schema}.orders (id, user_id, what) VALUES ({order}, {id}, 'own')")).await?;
    conn.query_drop(format!("INSERT INTO {schema}.items (id, order_id) VALUES ({order}, {order})")).await?;
    told.orders.insert(order);
    if let Some(forget) = forget {
        conn.query_drop(format!("DELETE FROM {schema}.orders WHERE id = {forget}")).await?;
        ensure!(conn.affected_rows() == 1, "order {forget} of user {id} was acknowledged, and is not there");
        told.orders.remove(&forget);
        told.deleted.insert(forget);
    }
    Ok(())
}

/// Writes on old whoever has authority: of users that have moved it is late.
async fn write_late(pool: Pool, schema: String, users: u64, stop: watch::Receiver<bool>) -> Result<u64> {
    let mut random = StdRng::seed_from_u64(99);
    let mut written = 0;
    while !*stop.borrow() {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..80))).await;
        let id = random.random_range(1..=users);
        let order = LATE_ORDERS + written;
        let statement = match written % 3 {
            0 => format!("UPDATE {schema}.users SET note = 'late {written}' WHERE id = {id}"),
            1 => format!("UPDATE {schema}.users SET banned = banned + 1 WHERE id = {id}"),
            _ => format!("INSERT INTO {schema}.orders (id, user_id, what) VALUES ({order}, {id}, 'late')"),
        };
        let mut conn = pool.get_conn().await?;
        match conn.query_drop(statement).await {
            Ok(()) => written += 1,
            Err(error) => {
                let error = error.into();
                if !is_in_the_way(&error) {
                    return Err(error);
                }
            }
        }
    }
    Ok(written)
}

/// Both sides have every write that was acknowledged; and they are equal, as the caller has seen.
pub async fn has_all(migration: &Migration, ledger: &Ledger) -> Result<()> {
    for pool in [&migration.old, &migration.new] {
        let mut conn = pool.get_conn().await?;
        let counters: Vec<(u64, i64)> = conn.query(format!("SELECT id, n FROM `{}`.users", migration.schema)).await?;
        let counters: BTreeMap<u64, i64> = counters.into_iter().collect();
        let of_application = format!("SELECT id, user_id FROM `{}`.orders WHERE what = 'own'", migration.schema);
        let orders: Vec<(u64, u64)> = conn.query(of_application).await?;
        let mut found: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (order, user) in orders {
            found.entry(user).or_default().insert(order);
        }
        for (id, told) in &ledger.users {
            let counter = counters.get(id);
            ensure!(counter == Some(&told.n), "user {id}: {counter:?}, and {} was acknowledged", told.n);
            let orders = found.remove(id).unwrap_or_default();
            ensure!(orders == told.orders, "user {id}: {orders:?}, and {:?} were acknowledged", told.orders);
        }
    }
    Ok(())
}
