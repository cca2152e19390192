//! What is added on both sides adds up, exactly, wherever a process dies.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_tests::lines::KILLED;
use crossfade_tests::{Direction, Migration, Setup, rounds};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use crate::Side::{New, Old};
use crate::{LIMIT, accounts, in_turn};

/// Many, so that a batch can be worth several lanes; writers choose among the first few.
const ROWS: u32 = 600;
const HOT_ROWS: u32 = 10;

/// Where a process dies with work half done.
const POINTS: [&str; 7] = [
    "after-read",
    "inside-capture",
    "after-capture",
    "mid-lane",
    "between-lanes",
    "after-target-commit",
    "before-settle",
];

/// What was added to each balance and, in thousandths, to each price.
type Sums = Vec<(i64, i64)>;

/// Adds to balances and prices until told to stop, one transaction each.
struct Adder {
    pool: Pool,
    schema: String,
    orders: Arc<Orders>,
}

/// What adders are told.
#[derive(Default)]
struct Orders {
    stop: AtomicBool,
    /// What a process cannot judge must not grow beyond what is ever set aside.
    slow: AtomicBool,
}

impl Adder {
    fn start(migration: &Migration, pool: &Pool, seed: u64, orders: &Arc<Orders>) -> JoinHandle<Result<Sums>> {
        let adder = Adder { pool: pool.clone(), schema: sql::name(&migration.schema), orders: orders.clone() };
        tokio::spawn(adder.run(StdRng::seed_from_u64(seed)))
    }

    async fn run(self, mut random: StdRng) -> Result<Sums> {
        let mut conn = self.pool.get_conn().await?;
        let mut added = vec![(0, 0); ROWS as usize];
        let update = format!(
            "UPDATE {}.accounts SET balance = balance + ?, price = price + CAST(? AS DECIMAL(30,10)) / 1000, \
             best = GREATEST(best, ?) WHERE id = ?",
            self.schema
        );
        for number in 0.. {
            if self.orders.stop.load(Relaxed) {
                break;
            }
            let (id, balance, price) =
                (random.random_range(0..HOT_ROWS), random.random_range(-50..100), random.random_range(-500..900));
            conn.exec_drop(&update, (balance, price, number, id)).await?;
            let sums = &mut added[id as usize];
            *sums = (sums.0 + balance, sums.1 + price);
            let pause_ms = if self.orders.slow.load(Relaxed) { 200 } else { random.random_range(0..30) };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        Ok(added)
    }
}

/// What was added while processes died.
struct Additions<'m> {
    migration: &'m mut Migration,
    orders: Arc<Orders>,
    /// One to every row of a side.
    bursts: i64,
    kills: u32,
}

impl Additions<'_> {
    fn source(&self, direction: Direction) -> &Pool {
        if direction == Direction::Forward { &self.migration.old } else { &self.migration.new }
    }

    /// Lets a direction kill itself at a point, in the middle of its work, and starts it again.
    async fn kill_at(&mut self, direction: Direction, point: &str) -> Result<()> {
        self.migration.expect_lines(KILLED);
        self.migration.process(direction)?.kill9().await?;
        if point == "between-lanes" {
            // Only a batch of some size is worth a second lane.
            let burst = "UPDATE {schema}.accounts SET balance = balance + 1";
            self.migration.on(self.source(direction), &[burst]).await?;
            self.bursts += 1;
        }
        self.migration.start(direction, &[("CROSSFADE_FAILPOINT", point)])?;
        let status = self.migration.process(direction)?.wait(LIMIT).await?;
        ensure!(status.signal() == Some(9), "{point}: ended with {status}\n{}", self.migration.log_ends());
        self.kills += 1;
        self.migration.start(direction, &[])
    }

    /// Leaves a direction dead until the other one does not wait for it any longer.
    async fn hold(&mut self, dead: Direction) -> Result<()> {
        self.orders.slow.store(true, Relaxed);
        self.migration.expect_lines(KILLED);
        self.migration.process(dead)?.kill9().await?;
        self.kills += 1;
        until("changes held", LIMIT, || async {
            let status = self.migration.status().read().await?;
            let held = status.number(dead.opposite().as_str(), "held");
            Ok(if held > 0 { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
        })
        .await?;
        self.migration.start(dead, &[])?;
        until_nothing_is_aside(self.migration).await?;
        self.orders.slow.store(false, Relaxed);
        Ok(())
    }
}

pub async fn balances_add_up(flavor: Flavor) -> Result<()> {
    let seed = crate::seed(flavor)?;
    let mut migration = accounts(flavor, "balances").await?;
    let rows: Vec<String> =
        (0..ROWS).map(|id| format!("({id}, 'n', NULL, 0, '2020-05-05', 1000, 0, NULL, NOW(6), NOW(6))")).collect();
    let insert = format!("INSERT INTO {{schema}}.accounts VALUES {}", rows.join(", "));
    migration.on(&migration.old, &[&insert]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;

    let orders = Arc::new(Orders::default());
    let adders = [
        Adder::start(&migration, &migration.old, seed, &orders),
        Adder::start(&migration, &migration.new, seed ^ 1, &orders),
    ];
    let mut additions = Additions { migration: &mut migration, orders: orders.clone(), bursts: 0, kills: 0 };
    for round in 0..rounds(1, 10) {
        for point in POINTS {
            for direction in Direction::BOTH {
                additions.kill_at(direction, point).await.with_context(|| format!("{point}, {direction:?}"))?;
            }
        }
        additions.hold(Direction::BOTH[round as usize % 2]).await?;
    }
    let Additions { bursts, kills, .. } = additions;
    orders.stop.store(true, Relaxed);
    let mut expected = vec![(1000 + bursts, 0); ROWS as usize];
    for adder in adders {
        for (sums, (balance, price)) in expected.iter_mut().zip(adder.await??) {
            *sums = (sums.0 + balance, sums.1 + price);
        }
    }
    until_nothing_is_aside(&migration).await?;
    let (status, _) = migration.until_quiet_and_equal(LIMIT).await?;
    for pool in [&migration.old, &migration.new] {
        let query = format!(
            "SELECT balance, CAST(price * 1000 AS SIGNED) FROM {}.accounts ORDER BY id",
            sql::name(&migration.schema)
        );
        let found: Sums = pool.get_conn().await?.query(query).await?;
        let wrong: Vec<_> = (0..).zip(found.iter().zip(&expected)).filter(|(_, (found, sum))| found != sum).collect();
        ensure!(wrong.is_empty(), "seed {seed}: rows, found and expected: {wrong:?}\n{}", status.0);
    }
    println!(
        "{flavor:?}: {} changes on {ROWS} rows, {kills} kills, merged {}, wholly lost {}",
        status.total("captured"),
        status.total("conflicts_won"),
        status.total("conflicts_lost")
    );
    ensure!(status.total("conflicts_won") > 50, "too little was merged: {}", status.0);
    migration.stop_both().await
}

async fn until_nothing_is_aside(migration: &Migration) -> Result<()> {
    until("nothing set aside", LIMIT, || async {
        let status = migration.status().read().await?;
        let reached = status.total("open_failures") + status.total("held") == 0;
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())
}

/// Both sides sell more than there is: what the column cannot hold waits until there is more, and nothing is lost.
pub async fn sums_wait_where_they_do_not_fit(flavor: Flavor) -> Result<()> {
    let tables = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
         merge_rules = { pieces = \"sum-delta\" }\n";
    let setup = Setup { tables: tables.to_owned(), ..Setup::new(flavor, "merge_stock") };
    let mut migration = Migration::new(&setup).await?;
    let create = "CREATE TABLE {schema}.stock (id INT PRIMARY KEY, pieces INT UNSIGNED NOT NULL, name VARCHAR(20), \
         updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";
    migration.on_both(&[create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration
        .on(&migration.old, &["INSERT INTO {schema}.stock VALUES (1, 10, 'x', NOW(6)), (2, 10, 'y', NOW(6))"])
        .await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let sell = "UPDATE {schema}.stock SET pieces = pieces - 8 WHERE id = 1";
    let rename = "UPDATE {schema}.stock SET name = 'new', pieces = pieces - 1 WHERE id = 2";
    in_turn(&migration, &[(Old, sell), (New, sell), (New, rename)]).await?;
    migration.go_on(&Direction::BOTH).await?;
    until("both sales set aside, and all else done", LIMIT, || async {
        let status = migration.status().read().await?;
        let query = format!("SELECT pieces FROM {}.stock WHERE id = 2 AND name = 'new'", sql::name(&migration.schema));
        let other: Option<u32> = migration.old.get_conn().await?.query_first(query).await?;
        let reached = status.total("open_failures") == 2 && other == Some(9);
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(format!("{other:?}, {}", status.0)) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    in_turn(&migration, &[(Old, "UPDATE {schema}.stock SET pieces = pieces + 10 WHERE id = 1")]).await?;
    // A process that starts tries at once what it would else try within a minute.
    migration.stop(Direction::Reverse).await?;
    migration.start(Direction::Reverse, &[])?;
    until_nothing_is_aside(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let query = format!("SELECT pieces FROM {}.stock WHERE id = 1", sql::name(&migration.schema));
    let left: Option<u32> = migration.new.get_conn().await?.query_first(query).await?;
    ensure!(left == Some(4), "{left:?} pieces are left of 10 + 10 - 8 - 8");
    migration.stop_both().await
}

/// A sum that does not fit is corrected by a person while the other side goes on adding: the correction counts once.
pub async fn a_corrected_sum_counts_once(flavor: Flavor) -> Result<()> {
    let tables = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\nmerge = \"columns\"\n\
         merge_rules = { pieces = \"sum-delta\" }\n";
    let setup = Setup { tables: tables.to_owned(), ..Setup::new(flavor, "merge_edit") };
    let mut migration = Migration::new(&setup).await?;
    let create = "CREATE TABLE {schema}.stock (id INT PRIMARY KEY, pieces INT UNSIGNED NOT NULL, name VARCHAR(20), \
         updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";
    migration.on_both(&[create]).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.on(&migration.old, &["INSERT INTO {schema}.stock VALUES (1, 10, 'x', NOW(6))"]).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.rest(&Direction::BOTH).await?;
    let sell = "UPDATE {schema}.stock SET pieces = pieces - 8";
    in_turn(&migration, &[(Old, sell), (New, sell)]).await?;
    migration.go_on(&[Direction::Forward]).await?;
    until("old's sale set aside", LIMIT, || async {
        let status = migration.status().read().await?;
        let reached = status.number("forward", "open_failures") == 1;
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
    })
    .await
    .with_context(|| migration.log_ends())?;
    // Old has sold 1 and not 8, a person says.
    migration.crossfade(&["retry", "--edit", "forward/old:2", "--set", "pieces=9"]).await?;
    in_turn(&migration, &[(Old, "UPDATE {schema}.stock SET pieces = pieces + 20")]).await?;
    migration.go_on(&[Direction::Reverse]).await?;
    until_nothing_is_aside(&migration).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    let query = format!("SELECT pieces FROM {}.stock", sql::name(&migration.schema));
    let left: Option<u32> = migration.new.get_conn().await?.query_first(query).await?;
    ensure!(left == Some(21), "{left:?} pieces are left of 10 - 1 - 8 + 20");
    migration.stop_both().await
}
