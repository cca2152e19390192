//! Users of one side, who change the same rows as those of the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub const TABLE: &str = "CREATE TABLE {schema}.tally (id INT NOT NULL PRIMARY KEY, n INT NOT NULL, note VARCHAR(100) NOT NULL, \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), KEY n (n))";

const ROWS: u32 = 50_000;
/// Of one transaction.
const CHANGES: u32 = 10;
const CONNECTIONS: u32 = 4;
/// So much of what was missed is made up for.
const CATCHES_UP: Duration = Duration::from_secs(1);

pub async fn load(pool: &Pool, schema: &str) -> Result<()> {
    let mut conn = pool.get_conn().await?;
    for first in (1..=ROWS).step_by(1_000) {
        conn.query_drop(insert(schema, first, first + 999, "loaded")).await?;
    }
    Ok(())
}

fn insert(schema: &str, first: u32, last: u32, note: &str) -> String {
    let rows: Vec<String> = (first..=last).map(|id| format!("({id}, 0, '{note} {id}')")).collect();
    format!("INSERT INTO `{schema}`.tally (id, n, note) VALUES {}", rows.join(","))
}

pub struct Users {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
    tasks: JoinSet<Result<()>>,
}

impl Users {
    /// Begins to make `rate` changes a second.
    pub fn start(pool: &Pool, schema: &str, side: &'static str, rate: u32) -> Users {
        let (stop, changes) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let pause = Duration::from_secs_f64(f64::from(CHANGES * CONNECTIONS) / f64::from(rate));
        let mut tasks = JoinSet::new();
        for number in 0..CONNECTIONS {
            let seed = side.bytes().map(u64::from).sum::<u64>() * 100 + u64::from(number);
            let user = User { schema: schema.to_owned(), side, random: StdRng::seed_from_u64(seed) };
            tasks.spawn(user.run(pool.clone(), pause, stop.clone(), changes.clone()));
        }
        Users { stop, changes, tasks }
    }

    /// How many changes they have been told of by now.
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// Ends them, and tells how many changes they have made.
    pub async fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.changes.load(Relaxed))
    }
}

struct User {
    schema: String,
    side: &'static str,
    random: StdRng,
}

impl User {
    async fn run(mut self, pool: Pool, pause: Duration, stop: Arc<AtomicBool>, changes: Arc<AtomicU64>) -> Result<()> {
        let mut conn = pool.get_conn().await?;
        let mut due = Instant::now();
        while !stop.load(Relaxed) {
            tokio::time::sleep_until(due).await;
            // One that is refused, for a row that somebody has locked or that is there already, is no matter.
            match self.transaction(&mut conn).await {
                Ok(changed) => _ = changes.fetch_add(changed, Relaxed),
                Err(mysql_async::Error::Server(_)) => conn.query_drop("ROLLBACK").await?,
                Err(error) => return Err(error.into()),
            }
            due = (due + pause).max(Instant::now() - CATCHES_UP);
        }
        Ok(())
    }

    /// Gives the number of changes.
    async fn transaction(&mut self, conn: &mut Conn) -> Result<u64, mysql_async::Error> {
        let first = self.random.random_range(1..=ROWS - CHANGES + 1);
        let (schema, side, number) = (&self.schema, self.side, self.random.random_range(0..1_000_000_u32));
        let note = format!("{side} {number}");
        if self.random.random_range(0..10) > 0 {
            let last = first + CHANGES - 1;
            let update =
                format!("UPDATE `{schema}`.tally SET n = n + 1, note = '{note}' WHERE id BETWEEN {first} AND {last}");
            conn.query_drop(update).await?;
            return Ok(conn.affected_rows());
        }
        // Half of them go, and come again.
        let last = first + CHANGES / 2 - 1;
        conn.query_drop("BEGIN").await?;
        conn.query_drop(format!("DELETE FROM `{schema}`.tally WHERE id BETWEEN {first} AND {last}")).await?;
        let deleted = conn.affected_rows();
        conn.query_drop(insert(schema, first, last, &note)).await?;
        let inserted = conn.affected_rows();
        conn.query_drop("COMMIT").await?;
        Ok(deleted + inserted)
    }
}
