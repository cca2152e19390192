//! How each fault is made to happen. Each returns what was measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crossfade_testkit::process::{self, Process};
use crossfade_testkit::proxy::{Carriage, CommitFate, Lost};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_testkit::sql;
use crossfade_testkit::workload::Side;
use crossfade_tests::Direction;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Pool};
use tokio::task::JoinSet;

use crate::fault::Fault;
use crate::stand::{LIMIT, Stand, streams};

/// Until a standby works where the holder is frozen or dead.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// Connections are cut so often, with such a pause.
const CUTS: u32 = 6;
const CUT_PAUSE: Duration = Duration::from_millis(300);
/// A trouble that lasts lasts so long.
const WHILE: Duration = Duration::from_secs(4);
const SLOW: Carriage = Carriage::Slow { bytes_per_second: 100_000 };
const PIECES: Carriage = Carriage::Pieces { longest_delay: Duration::from_millis(5) };
/// How late a COMMIT arrives whose connection is gone: the retry has begun.
const LATE: Duration = Duration::from_millis(1_500);
/// Longer than a lane waits for a lock.
const LOCKED: Duration = Duration::from_secs(8);

/// Who holds a direction, and its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    name: String,
    epoch: u64,
}

impl Stand {
    pub async fn inject(&mut self, fault: Fault) -> Result<String> {
        match fault {
            Fault::Frozen => self.freeze().await,
            Fault::KilledElsewhere => self.kill_elsewhere().await,
            Fault::TwoReaders => self.two_readers().await,
            Fault::SideKilled(side) => {
                let server = match side {
                    Side::Old => self.migration.servers.old(),
                    Side::New => self.migration.servers.new(),
                };
                server.kill9().await?;
                server.restart().await?;
                Ok("-".to_owned())
            }
            Fault::StoreKilled => {
                self.store.kill9().await?;
                self.store.restart().await?;
                Ok("-".to_owned())
            }
            Fault::Cut => self.cut().await,
            Fault::HalfOpen(lost) => self.half_open(lost).await,
            Fault::Slow => self.carry(SLOW).await,
            Fault::Pieces => self.carry(PIECES).await,
            Fault::Commits => self.commits().await,
            Fault::Locks => self.locks().await,
        }
    }

    async fn freeze(&mut self) -> Result<String> {
        let direction = Direction::Forward;
        let standby = self.migration.standby(direction)?;
        until_it_stands_by(&standby).await?;
        let before = self.holder(direction).await?;
        self.migration.process(direction)?.pause()?;
        let measured = self.until_taken_over(direction, &before, TAKEOVER_LIMIT).await?;
        self.until_changes_cross().await.context("with the standby")?;
        // It wakes up in the middle of what it was doing, and finds its lease gone.
        self.migration.process(direction)?.resume()?;
        self.migration.process(direction)?.wait(LIMIT).await.context("it should end when its lease is gone")?;
        self.migration.replace(direction, standby);
        Ok(measured)
    }

    async fn kill_elsewhere(&mut self) -> Result<String> {
        let direction = Direction::Reverse;
        let standby = self.migration.standby_elsewhere(direction)?;
        until_it_stands_by(&standby).await?;
        let before = self.holder(direction).await?;
        self.migration.process(direction)?.kill9().await?;
        let measured = self.until_taken_over(direction, &before, TAKEOVER_LIMIT).await?;
        self.migration.replace(direction, standby);
        Ok(measured)
    }

    async fn two_readers(&mut self) -> Result<String> {
        let direction = Direction::Forward;
        let second = self.migration.standby(direction)?;
        until_it_stands_by(&second).await?;
        let before = self.holder(direction).await?;
        let mistake = "UPDATE crossfade.lease SET holder = '', expires_at = UTC_TIMESTAMP(6) \
                       WHERE pair = ? AND subject = ?";
        self.store_pool.get_conn().await?.exec_drop(mistake, (&self.migration.pair, direction.as_str())).await?;
        let taken = Instant::now();
        self.until_taken_over(direction, &before, TAKEOVER_LIMIT).await?;
        self.migration.process(direction)?.wait(LIMIT).await.context("it should end when its lease is gone")?;
        let both = taken.elapsed();
        self.migration.replace(direction, second);
        Ok(format!("the first ended {:.1} s after its lease", both.as_secs_f64()))
    }

    async fn holder(&self, direction: Direction) -> Result<Holder> {
        let query = "SELECT holder, epoch FROM crossfade.lease WHERE pair = ? AND subject = ?";
        let mut connection = self.store_pool.get_conn().await?;
        let found: Option<(String, u64)> =
            connection.exec_first(query, (&self.migration.pair, direction.as_str())).await?;
        let (name, epoch) = found.context("the direction has no lease")?;
        Ok(Holder { name, epoch })
    }

    /// Waits until another process holds the direction, under a higher epoch, and has applied something.
    async fn until_taken_over(&self, direction: Direction, before: &Holder, limit: Duration) -> Result<String> {
        let begin = Instant::now();
        let holder = loop {
            let holder = self.holder(direction).await?;
            if holder.name != before.name && !holder.name.is_empty() {
                break holder;
            }
            ensure!(begin.elapsed() < LIMIT, "nobody takes over: {holder:?}\n{}", self.migration.log_ends());
            tokio::time::sleep(LOOK).await;
        };
        let taken = begin.elapsed();
        ensure!(holder.epoch > before.epoch, "the epoch did not rise: {before:?}, then {holder:?}");
        ensure!(taken <= limit, "taken over after {taken:?} only");
        let settled = self.settled(direction).await?;
        until("the standby at work", LIMIT, || async {
            let now = self.settled(direction).await?;
            Ok(if now > settled { Progress::Reached(()) } else { Progress::NotYet(format!("settled {now}")) })
        })
        .await?;
        let works = begin.elapsed();
        let (from, to) = (before.epoch, holder.epoch);
        Ok(format!(
            "lease taken after {:.1} s, at work after {:.1} s; epoch {from} to {to}",
            taken.as_secs_f64(),
            works.as_secs_f64()
        ))
    }

    async fn settled(&self, direction: Direction) -> Result<u64> {
        let prefix = format!("{}/", direction.as_str());
        let streams = streams(&self.migration, &self.store_pool).await?;
        Ok(streams.iter().filter(|stream| stream.name.starts_with(&prefix)).map(|stream| stream.settled).sum())
    }

    fn incidents(&self, count: impl Fn(&crossfade_testkit::proxy::Incidents) -> u64) -> u64 {
        self.ways.all().iter().map(|way| count(&way.incidents())).sum()
    }

    async fn cut(&mut self) -> Result<String> {
        let before = self.incidents(|seen| seen.cut);
        for _ in 0..CUTS {
            self.ways.all().iter().for_each(|way| way.cut());
            tokio::time::sleep(CUT_PAUSE).await;
        }
        let cut = self.incidents(|seen| seen.cut) - before;
        ensure!(cut > u64::from(CUTS), "only {cut} connections were cut");
        Ok(format!("{cut} connections cut"))
    }

    async fn half_open(&mut self, lost: Lost) -> Result<String> {
        let before = self.incidents(|seen| seen.half_open);
        let begin = Instant::now();
        self.ways.all().iter().for_each(|way| way.half_open(lost));
        self.until_changes_cross().await?;
        let half_open = self.incidents(|seen| seen.half_open) - before;
        ensure!(half_open > 3, "only {half_open} connections lost something");
        Ok(format!("{half_open} connections; changes cross again after {:.1} s", begin.elapsed().as_secs_f64()))
    }

    async fn carry(&mut self, carriage: Carriage) -> Result<String> {
        let before = self.incidents(|seen| seen.delayed);
        self.ways.all().iter().for_each(|way| way.carry(carriage));
        // The trouble itself lasts; no state is waited for.
        tokio::time::sleep(WHILE).await;
        self.ways.all().iter().for_each(|way| way.carry(Carriage::Whole));
        let delayed = self.incidents(|seen| seen.delayed) - before;
        ensure!(delayed > 100, "only {delayed} lots were delayed");
        Ok(format!("{delayed} lots delayed"))
    }

    async fn commits(&mut self) -> Result<String> {
        let before = self.incidents(|seen| seen.commits);
        let fates = [CommitFate::AnswerLost, CommitFate::NeverSent, CommitFate::SentLate(LATE)];
        for fate in fates {
            self.ways.all().iter().for_each(|way| way.next_commit(fate));
            until("commits on every way", LIMIT, || async {
                let open: usize = self.ways.all().iter().map(|way| way.open_fates()).sum();
                Ok(if open == 0 { Progress::Reached(()) } else { Progress::NotYet(format!("{open} to come")) })
            })
            .await
            .with_context(|| format!("{fate:?}"))?;
        }
        let met = self.incidents(|seen| seen.commits) - before;
        ensure!(met == 9, "{met} commits were met");
        Ok(format!("{met} commits met"))
    }

    async fn locks(&mut self) -> Result<String> {
        let users = sql::full_name(&self.migration.schema, "users");
        let waits_before = lock_waits(&self.migration).await?;
        let mut tasks = JoinSet::new();
        for pool in [&self.migration.old, &self.migration.new] {
            tasks.spawn(hold(pool.clone(), users.clone()));
            for order in ["ASC", "DESC"] {
                tasks.spawn(lock_in_order(pool.clone(), users.clone(), order));
            }
        }
        let mut deadlocks = 0;
        while let Some(ended) = tasks.join_next().await {
            deadlocks += ended.context("a locker panicked")??;
        }
        let waits = lock_waits(&self.migration).await? - waits_before;
        ensure!(waits > 3, "only {waits} waits for locks");
        Ok(format!("{waits} lock waits, {deadlocks} deadlocks that fell on users"))
    }
}

async fn until_it_stands_by(process: &Process) -> Result<()> {
    until("a process standing by", LIMIT, || async {
        let log = process::log_end(process.log(), 40);
        Ok(if log.contains("standing by") { Progress::Reached(()) } else { Progress::NotYet(log) })
    })
    .await
}

/// Holds the hot users for longer than a lane waits.
async fn hold(pool: Pool, users: String) -> Result<u64> {
    let mut connection = pool.get_conn().await?;
    let begin = Instant::now();
    for _ in 0..10 {
        connection.query_drop("BEGIN").await?;
        match connection.query_drop(format!("SELECT id FROM {users} WHERE id <= 15 FOR UPDATE")).await {
            Ok(()) => break,
            Err(Error::Server(error)) if matches!(error.code, 1205 | 1213) => connection.query_drop("ROLLBACK").await?,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(begin.elapsed() < LIMIT, "the hot users could not be locked");
    tokio::time::sleep(LOCKED).await;
    connection.query_drop("ROLLBACK").await?;
    Ok(0)
}

/// Locks hot users one by one, again and again; returns how often it was the one to give way.
async fn lock_in_order(pool: Pool, users: String, order: &str) -> Result<u64> {
    let mut connection = pool.get_conn().await?;
    let ids: Vec<u64> = match order {
        "ASC" => (16..=30).collect(),
        _ => (16..=30).rev().collect(),
    };
    let begin = Instant::now();
    let mut deadlocks = 0;
    while begin.elapsed() < LOCKED {
        connection.query_drop("BEGIN").await?;
        if lock_each(&mut connection, &users, &ids).await? {
            deadlocks += 1;
        }
        connection.query_drop("ROLLBACK").await?;
    }
    Ok(deadlocks)
}

/// Whether it ended in a deadlock or waited too long.
async fn lock_each(connection: &mut Conn, users: &str, ids: &[u64]) -> Result<bool> {
    for id in ids {
        match connection.query_drop(format!("SELECT id FROM {users} WHERE id = {id} FOR UPDATE")).await {
            Ok(()) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(Error::Server(error)) if matches!(error.code, 1205 | 1213) => return Ok(true),
            Err(error) => bail!("cannot lock a user: {error}"),
        }
    }
    Ok(false)
}

/// Waits for row locks on both sides so far.
async fn lock_waits(migration: &crossfade_tests::Migration) -> Result<u64> {
    let mut waits = 0;
    for pool in [&migration.old, &migration.new] {
        let query = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'";
        let found: Option<(String, u64)> = pool.get_conn().await?.query_first(query).await?;
        waits += found.context("the server counts no lock waits")?.1;
    }
    Ok(waits)
}
