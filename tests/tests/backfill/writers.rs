//! Users of both sides who write the same rows, those that are being copied among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, ensure};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// At most so much of what was missed is made up for.
const CATCHES_UP: Duration = Duration::from_millis(200);
const ENOUGH_LIMIT: Duration = Duration::from_secs(120);

/// Tables of several kinds of keys.
pub const TABLES: [&str; 5] = [
    "CREATE TABLE item (id INT NOT NULL PRIMARY KEY, v VARCHAR(40), \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
    "CREATE TABLE word (word VARCHAR(40) NOT NULL PRIMARY KEY, v VARCHAR(40), \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)) \
     DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
    "CREATE TABLE two (a INT NOT NULL, b VARCHAR(12) CHARACTER SET latin1 NOT NULL, v VARCHAR(40), PRIMARY KEY (a, b), \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
    "CREATE TABLE parent (id INT NOT NULL PRIMARY KEY, v VARCHAR(40), \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
    "CREATE TABLE child (id INT NOT NULL PRIMARY KEY, parent_id INT NOT NULL, v VARCHAR(40), \
     updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), \
     FOREIGN KEY (parent_id) REFERENCES parent (id))",
];

/// Fills the tables with so many rows each; a parent has several children.
pub async fn load(pool: &Pool, schema: &str, rows: u64) -> Result<()> {
    let mut connection = pool.get_conn().await?;
    connection.query_drop(format!("USE `{schema}`")).await?;
    for first in (1..=rows).step_by(500) {
        let ids = first..(first + 500).min(rows + 1);
        let values = |row: &dyn Fn(u64) -> String| ids.clone().map(row).collect::<Vec<_>>().join(",");
        for (table, columns, row) in [
            ("item", "id, v", &(|id| format!("({id}, 'old {id}')")) as &dyn Fn(u64) -> String),
            ("word", "word, v", &|id| format!("('{}', 'old {id}')", word(id))),
            ("two", "a, b, v", &|id| format!("({}, '{}', 'old {id}')", id / 10, two(id))),
            ("parent", "id, v", &|id| format!("({id}, 'old {id}')")),
            ("child", "id, parent_id, v", &|id| format!("({id}, {}, 'old {id}')", id / 3 + 1)),
        ] {
            connection.query_drop(format!("INSERT INTO {table} ({columns}) VALUES {}", values(row))).await?;
        }
    }
    Ok(())
}

/// One row under two spellings for half of the keys.
fn word(id: u64) -> String {
    format!("Wört {}", id.wrapping_mul(2_654_435_761) % 1_000_003)
}

fn two(id: u64) -> String {
    format!("é{}", id % 10)
}

/// What users do next.
pub trait Users: Clone + Send + Sync + 'static {
    fn statement(&self, random: &mut StdRng) -> Statement;
    /// Each side's users are to write rows of their own choice.
    fn seed(&self) -> u64;
}

pub struct Statement {
    pub sql: String,
    pub is_delete: bool,
}

/// Who writes.
pub struct Writers {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    tasks: JoinSet<Result<Vec<Duration>>>,
}

#[derive(Default)]
struct Counts {
    changes: AtomicU64,
    deletes: AtomicU64,
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub changes: u64,
    pub deletes: u64,
    /// How long statements took: the median, the 99th of a hundred, and the longest. Told at the end.
    pub waited: [Duration; 3],
}

impl Written {
    pub const fn of(changes: u64, deletes: u64) -> Written {
        Written { changes, deletes, waited: [Duration::ZERO; 3] }
    }
}

/// Statements that fail, since a row is locked, gone, or lacks its parent, are no matter.
impl Writers {
    /// Begins to make about `rate` changes a second.
    pub fn start(pool: &Pool, schema: &str, rate: u64, users: impl Users) -> Writers {
        const CONNECTIONS: u64 = 3;
        let (stop, counts) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default());
        let mut tasks = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let writer = Writer {
                pool: pool.clone(),
                schema: schema.to_owned(),
                pause: Duration::from_micros(1_000_000 * CONNECTIONS / rate),
                users: users.clone(),
                random: StdRng::seed_from_u64(users.seed() + connection),
                stop: stop.clone(),
                counts: counts.clone(),
            };
            tasks.spawn(writer.run());
        }
        Writers { stop, counts, tasks }
    }

    /// What is written by now.
    pub fn written(&self) -> Written {
        Written::of(self.counts.changes.load(Relaxed), self.counts.deletes.load(Relaxed))
    }

    /// Ends all writers as soon as they have written this much.
    pub async fn finish_after(self, least: Written) -> Result<Written> {
        let limit = Instant::now() + ENOUGH_LIMIT;
        while self.written().changes < least.changes || self.written().deletes < least.deletes {
            ensure!(Instant::now() < limit, "users could only write {:?} of {least:?}", self.written());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.finish().await
    }

    /// Ends all writers.
    pub async fn finish(mut self) -> Result<Written> {
        self.stop.store(true, Relaxed);
        let mut waits = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            waits.extend(ended??);
        }
        waits.sort_unstable();
        let at =
            |share: f64| waits.get((waits.len() as f64 * share) as usize).or(waits.last()).copied().unwrap_or_default();
        Ok(Written { waited: [at(0.5), at(0.99), at(1.0)], ..self.written() })
    }
}

struct Writer<U> {
    pool: Pool,
    schema: String,
    pause: Duration,
    users: U,
    random: StdRng,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl<U: Users> Writer<U> {
    /// How long each statement took.
    async fn run(mut self) -> Result<Vec<Duration>> {
        let mut connection = self.pool.get_conn().await?;
        connection.query_drop(format!("USE `{}`", self.schema)).await?;
        let (mut due, mut waits) = (Instant::now(), Vec::new());
        while !self.stop.load(Relaxed) {
            tokio::time::sleep_until(due).await;
            let Statement { sql, is_delete } = self.users.statement(&mut self.random);
            let asked = Instant::now();
            let changed = connection.query_drop(sql).await.is_ok() && connection.affected_rows() > 0;
            waits.push(asked.elapsed());
            if changed {
                self.counts.changes.fetch_add(1, Relaxed);
                self.counts.deletes.fetch_add(u64::from(is_delete), Relaxed);
            }
            // One that met no row is followed by another at once. What a slow moment has cost is made up for, within bounds.
            due += if changed { self.pause } else { Duration::ZERO };
            due = due.max(Instant::now() - CATCHES_UP);
        }
        Ok(waits)
    }
}

pub fn seed_of(side: &str) -> u64 {
    side.bytes().map(|byte| u64::from(byte) * 100).sum()
}

/// Users of the tables of several kinds of keys. `with_families`: parents and children, too.
#[derive(Clone, Copy)]
pub struct Clerks {
    pub rows: u64,
    pub with_families: bool,
    pub side: &'static str,
}

impl Users for Clerks {
    fn statement(&self, random: &mut StdRng) -> Statement {
        let (sql, is_delete) = self.next(random);
        Statement { sql, is_delete }
    }

    fn seed(&self) -> u64 {
        seed_of(self.side)
    }
}

impl Clerks {
    fn next(&self, random: &mut StdRng) -> (String, bool) {
        let id = random.random_range(1..=self.rows + self.rows / 10);
        let value = format!("{} {}", self.side, random.random_range(0..1_000_000_u32));
        let (table, key, columns) = match random.random_range(0..if self.with_families { 5 } else { 3 }) {
            0 => ("item", format!("id = {id}"), format!("id, v) VALUES ({id}")),
            1 => {
                // Keys that only the server takes for one.
                let word = if random.random() { word(id) } else { word(id).to_uppercase() };
                ("word", format!("word = '{word}'"), format!("word, v) VALUES ('{word}'"))
            }
            2 => {
                let (a, b) = (id / 10, two(id));
                ("two", format!("a = {a} AND b = '{b}'"), format!("a, b, v) VALUES ({a}, '{b}'"))
            }
            3 => ("parent", format!("id = {id}"), format!("id, v) VALUES ({id}")),
            _ => {
                let parent = random.random_range(1..=self.rows / 3);
                ("child", format!("id = {id}"), format!("id, parent_id, v) VALUES ({id}, {parent}"))
            }
        };
        match random.random_range(0..10) {
            0..5 => (format!("UPDATE {table} SET v = '{value}' WHERE {key}"), false),
            5..7 => (format!("DELETE FROM {table} WHERE {key}"), true),
            7 if table == "item" => {
                let to = random.random_range(1..=self.rows + self.rows / 10);
                (format!("UPDATE item SET id = {to}, v = '{value}' WHERE {key}"), false)
            }
            _ => (format!("INSERT INTO {table} ({columns}, '{value}') ON DUPLICATE KEY UPDATE v = '{value}'"), false),
        }
    }
}
