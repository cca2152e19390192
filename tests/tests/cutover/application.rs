//! A small application: instances that follow the flag, and remember every write that was acknowledged to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_tests::Migration;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;

/// What an instance promises: not heard for so long, it has stopped by itself.
const TTL_MICROS: u64 = 10_000_000;
const FOLLOW_EVERY: Duration = Duration::from_millis(20);
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// The table that it writes. `n` counts a writer's rows.
pub const TABLE: &str = "CREATE TABLE {schema}.item (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    writer VARCHAR(40) NOT NULL,
    n INT NOT NULL,
    v INT NOT NULL,
    updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    UNIQUE KEY item_of_writer (writer, n)
) ENGINE = InnoDB";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    pub version: u64,
    pub value: u8,
    pub fenced: bool,
}

/// What the store says now.
pub async fn flag(migration: &Migration) -> Result<Flag> {
    let mut conn = migration.new.get_conn().await?;
    read_flag(&mut conn, &migration.pair).await
}

async fn read_flag(conn: &mut Conn, pair: &str) -> Result<Flag> {
    let row: Option<(u64, u8, bool)> = conn
        .exec_first("SELECT version, flag, fenced_until IS NOT NULL FROM crossfade.flag_state WHERE pair = ?", (pair,))
        .await?;
    let (version, value, fenced) = row.unwrap_or((0, 0, false));
    Ok(Flag { version, value, fenced })
}

/// Says that an instance writes by this version, for as long as the time says.
pub async fn acknowledge(pool: &Pool, pair: &str, instance: &str, version: u64, micros: u64) -> Result<()> {
    let mut conn = pool.get_conn().await?;
    conn.exec_drop(
        "INSERT INTO crossfade.flag_instance (pair, instance, version, expires_at, registered_at)
         VALUES (?, ?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, UTC_TIMESTAMP(6))
         ON DUPLICATE KEY UPDATE version = VALUES(version), expires_at = VALUES(expires_at)",
        (pair, instance, version, micros),
    )
    .await?;
    Ok(())
}

pub async fn forget(pool: &Pool, pair: &str, instance: &str) -> Result<()> {
    let mut conn = pool.get_conn().await?;
    conn.exec_drop("DELETE FROM crossfade.flag_instance WHERE pair = ? AND instance = ?", (pair, instance)).await?;
    Ok(())
}

/// Every write that was acknowledged, by writer and number: the value that was written last.
#[derive(Debug, Default)]
pub struct Ledger {
    pub rows: BTreeMap<(String, i32), i32>,
    pub writes: u64,
    /// While they might write: fences do not count.
    pub per_second: f64,
    /// Between two acknowledged writes of one writer.
    pub longest_gap: Duration,
}

/// Instances at work. Dropping it ends them without a word.
pub struct Application {
    stop: watch::Sender<bool>,
    instances: Vec<JoinSet<Result<Ledger>>>,
    followers: JoinSet<Result<()>>,
    names: Vec<String>,
    pool: Pool,
    pair: String,
}

/// What instances are made of.
#[derive(Clone)]
pub struct Shape {
    pub name: &'static str,
    pub instances: usize,
    pub writers: usize,
    /// How many writes all of them together commit in a second, while they may write and the machine bears it.
    pub rate: f64,
}

impl Shape {
    /// From the beginning of one turn of a writer to that of the next one.
    fn pace(&self) -> Duration {
        let turns = self.rate * TURNS as f64 / COMMITS as f64;
        Duration::from_secs_f64((self.instances * self.writers) as f64 / turns)
    }
}

/// Of so many turns of a writer …
const TURNS: u64 = 5;
/// … so many commit; one is rolled back.
const COMMITS: u64 = 4;

impl Application {
    /// Returns when all instances have registered.
    pub async fn start(migration: &Migration, shape: &Shape) -> Result<Application> {
        let (stop, stopped) = watch::channel(false);
        let (mut instances, mut followers, mut names) = (Vec::new(), JoinSet::new(), Vec::new());
        for number in 0..shape.instances {
            let name = format!("{}-{number}", shape.name);
            let mut conn = migration.new.get_conn().await?;
            let first = read_flag(&mut conn, &migration.pair).await?;
            drop(conn);
            acknowledge(&migration.new, &migration.pair, &name, first.version, TTL_MICROS).await?;
            let current = Arc::new(RwLock::new(first));
            let follower = Follower {
                pool: migration.new.clone(),
                pair: migration.pair.clone(),
                name: name.clone(),
                current: current.clone(),
            };
            followers.spawn(follower.run(stopped.clone()));
            let mut writers = JoinSet::new();
            for writer in 0..shape.writers {
                let writer = Writer {
                    name: format!("{name}-{writer}"),
                    table: format!("`{}`.item", migration.schema),
                    old: migration.old.clone(),
                    new: migration.new.clone(),
                    current: current.clone(),
                    pace: shape.pace(),
                };
                writers.spawn(writer.run(stopped.clone()));
            }
            instances.push(writers);
            names.push(name);
        }
        Ok(Application { stop, instances, followers, names, pool: migration.new.clone(), pair: migration.pair.clone() })
    }

    /// Ends all writers, and gives what they remember.
    pub async fn finish(mut self) -> Result<Ledger> {
        self.stop.send_replace(true);
        let mut all = Ledger::default();
        for writers in &mut self.instances {
            while let Some(ended) = writers.join_next().await {
                let ledger = ended??;
                all.writes += ledger.writes;
                all.per_second += ledger.per_second;
                all.longest_gap = all.longest_gap.max(ledger.longest_gap);
                all.rows.extend(ledger.rows);
            }
        }
        while let Some(ended) = self.followers.join_next().await {
            ended??;
        }
        for name in &self.names {
            forget(&self.pool, &self.pair, name).await?;
        }
        Ok(all)
    }
}

/// Follows the flag for an instance. A version is acknowledged when nothing is written by an earlier one any more.
struct Follower {
    pool: Pool,
    pair: String,
    name: String,
    current: Arc<RwLock<Flag>>,
}

impl Follower {
    async fn run(self, stop: watch::Receiver<bool>) -> Result<()> {
        let mut renewed = Instant::now();
        while !*stop.borrow() {
            tokio::time::sleep(FOLLOW_EVERY).await;
            let mut conn = self.pool.get_conn().await?;
            let now = read_flag(&mut conn, &self.pair).await?;
            drop(conn);
            let is_new = *self.current.read().await != now;
            if is_new {
                // Waits for every write under way.
                *self.current.write().await = now;
            }
            if is_new || renewed.elapsed() >= RENEW_EVERY {
                acknowledge(&self.pool, &self.pair, &self.name, now.version, TTL_MICROS).await?;
                renewed = Instant::now();
            }
        }
        Ok(())
    }
}

struct Writer {
    name: String,
    table: String,
    old: Pool,
    new: Pool,
    current: Arc<RwLock<Flag>>,
    pace: Duration,
}

impl Writer {
    async fn run(self, stop: watch::Receiver<bool>) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        let mut last = Instant::now();
        let (mut rows, mut fenced) = (0, Duration::ZERO);
        let began = Instant::now();
        let mut start = began;
        for turn in 0_u64.. {
            if *stop.borrow() {
                break;
            }
            // Who fell behind does not catch up in a burst.
            let now = Instant::now();
            start = (start + self.pace).max(now.checked_sub(self.pace).unwrap_or(now));
            tokio::time::sleep_until(start.into()).await;
            let flag = self.current.read().await;
            if flag.fenced {
                fenced += self.pace;
                continue;
            }
            let pool = if flag.value >= 2 { &self.new } else { &self.old };
            let is_written = self
                .write(pool, turn, &mut rows, &mut ledger)
                .await
                .with_context(|| format!("{} under {flag:?}", self.name))?;
            if is_written {
                ledger.writes += 1;
                ledger.longest_gap = ledger.longest_gap.max(last.elapsed());
                last = Instant::now();
            }
        }
        let wrote_for = began.elapsed().saturating_sub(fenced);
        ledger.per_second = ledger.writes as f64 / wrote_for.as_secs_f64();
        Ok(ledger)
    }

    /// Inserts, changes of rows that may have been written on the other side, and inserts that are rolled back: then `false`.
    async fn write(&self, pool: &Pool, turn: u64, rows: &mut i32, ledger: &mut Ledger) -> Result<bool> {
        let mut conn = pool.get_conn().await?;
        let table = &self.table;
        match turn % TURNS {
            3 if *rows > 0 => {
                let n = (turn as i32 / 2) % *rows;
                let v = turn as i32;
                conn.exec_drop(format!("UPDATE {table} SET v = ? WHERE writer = ? AND n = ?"), (v, &self.name, n))
                    .await?;
                ensure!(conn.affected_rows() == 1, "row {n} of {} is not there", self.name);
                ledger.rows.insert((self.name.clone(), n), v);
            }
            COMMITS => {
                conn.query_drop("BEGIN").await?;
                self.insert(&mut conn, -1, 0).await?;
                conn.query_drop("ROLLBACK").await?;
                return Ok(false);
            }
            _ => {
                self.insert(&mut conn, *rows, 0).await?;
                ledger.rows.insert((self.name.clone(), *rows), 0);
                *rows += 1;
            }
        }
        Ok(true)
    }

    async fn insert(&self, conn: &mut Conn, n: i32, v: i32) -> Result<()> {
        let insert = format!("INSERT INTO {} (writer, n, v) VALUES (?, ?, ?)", self.table);
        Ok(conn.exec_drop(insert, (&self.name, n, v)).await?)
    }
}

/// That the side has every write that was acknowledged, and nothing else.
pub async fn has_all(migration: &Migration, pool: &Pool, ledger: &Ledger) -> Result<()> {
    let mut conn = pool.get_conn().await?;
    let rows: Vec<(String, i32, i32)> =
        conn.query(format!("SELECT writer, n, v FROM `{}`.item", migration.schema)).await?;
    let found: BTreeMap<(String, i32), i32> = rows.into_iter().map(|(writer, n, v)| ((writer, n), v)).collect();
    let lost: Vec<_> = ledger.rows.iter().filter(|(key, v)| found.get(*key) != Some(v)).take(5).collect();
    let more: Vec<_> = found.iter().filter(|(key, _)| !ledger.rows.contains_key(*key)).take(5).collect();
    ensure!(lost.is_empty(), "acknowledged writes are lost: {lost:?} of {}", ledger.rows.len());
    ensure!(more.is_empty(), "rows that nobody has written: {more:?}");
    Ok(())
}
