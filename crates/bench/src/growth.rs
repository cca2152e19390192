//! Whether it gets slower where much has been done already, or where there are many tables.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::args::Args;
use crate::contender::{Crossfade, Reverse};
use crate::figures::GrowthRun;
use crate::recording::init;
use crate::row;
use crate::stage::{Durability, Side, Stage};
use crate::workload::{self, FINISH_TABLE, ROW_BYTES, SCHEMA};

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growing {
    Messages,
    Tables,
}

impl fmt::Display for Growing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Growing::Messages => "messages",
            Growing::Tables => "tables",
        })
    }
}

const TABLES: [u64; 4] = [1, 10, 100, 1_000];
/// The clock begins when these have arrived: starting, which takes longer with many tables, is not counted.
pub const BEFORE: u64 = 2_000;
pub const COUNTED: u64 = 40_000;
/// Rows that one statement changes, to make many messages.
pub const FILLING_ROWS: u64 = 1_000;
const AT_ONCE: usize = 500;
const POLL: Duration = Duration::from_millis(1);

/// Adds a run for each round as it ends.
pub async fn measure(flavor: Flavor, growing: Growing, args: &Args, runs: &mut Vec<GrowthRun>) -> Result<()> {
    match growing {
        Growing::Messages => {
            let mut grown = Grown::set(flavor, 1, args).await?;
            for &size in &args.growth_messages {
                let filled = grown.fill(size, args).await.with_context(|| format!("making {size} messages"));
                let measured = match filled {
                    Ok(()) => grown.measure(growing, size, args, runs).await,
                    failed => failed,
                };
                measured.with_context(|| grown.keep_logs())?;
            }
        }
        Growing::Tables => {
            for tables in TABLES {
                let mut grown = Grown::set(flavor, tables, args).await?;
                grown.measure(growing, tables, args, runs).await.with_context(|| grown.keep_logs())?;
            }
        }
    }
    Ok(())
}

/// Two servers, of which the source has written something already.
struct Grown {
    stage: Stage,
    flavor: Flavor,
    tables: u64,
    /// Rows that were inserted, over all tables.
    rows: u64,
    /// How often all of the filling rows were changed.
    fillings: u64,
    /// What the last transaction sets, again and again.
    done: u64,
    random: StdRng,
}

impl Grown {
    async fn set(flavor: Flavor, tables: u64, args: &Args) -> Result<Grown> {
        let stage = Stage::set(flavor, Durability::Durable, &args.folder, None).await?;
        for side in Side::BOTH {
            create(&mut stage.server(side)?.connect().await?, tables).await?;
        }
        // Only the target's and the store's commits count.
        let mut source = stage.source()?.connect().await?;
        source.query_drop("SET GLOBAL sync_binlog = 0").await?;
        source.query_drop("SET GLOBAL innodb_flush_log_at_trx_commit = 2").await?;
        init(&args.crossfade()?, &stage.write_config(&args.settings)?).await?;
        Ok(Grown { stage, flavor, tables, rows: 0, fillings: 0, done: 0, random: StdRng::seed_from_u64(2026) })
    }

    /// Until the message table has `size` messages: rows that are changed over and over, which is quick to apply.
    async fn fill(&mut self, size: u64, args: &Args) -> Result<()> {
        let mut source = self.stage.source()?.connect().await?;
        let mut target = self.stage.target()?.connect().await?;
        let missing = size.saturating_sub(messages(&mut target).await?);
        if missing == 0 {
            return Ok(());
        }
        let mut crossfade = Crossfade::prepare(&self.stage, args, Reverse::Off).await?;
        crossfade.begin()?;
        for _ in 0..missing.div_ceil(FILLING_ROWS) {
            source.query_drop("UPDATE bench.filling SET number = number + 1").await?;
            self.fillings += 1;
        }
        let began = Instant::now();
        while target.query_first("SELECT MIN(number) FROM bench.filling").await? != Some(self.fillings) {
            crossfade.must_run()?;
            ensure!(began.elapsed() < args.limit(), "they were not applied within {:?}", args.limit());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        crossfade.end().await?;
        let made = messages(&mut target).await?;
        ensure!(made >= size, "there are only {made} messages");
        Ok(())
    }

    async fn measure(&mut self, growing: Growing, size: u64, args: &Args, runs: &mut Vec<GrowthRun>) -> Result<()> {
        for round in 1..=args.rounds {
            let found = match growing {
                Growing::Messages => messages(&mut self.stage.target()?.connect().await?).await?,
                Growing::Tables => self.tables,
            };
            let rows_per_second = self.round(args).await.with_context(|| format!("with {found} {growing}"))?;
            let (flavor, growing) = (self.flavor.to_string(), growing.to_string());
            let run = GrowthRun { flavor, growing, size, found, round, rows_per_second };
            crate::tell(format_args!("{}", run.line()));
            runs.push(run);
        }
        Ok(())
    }

    /// Writes while nobody follows, then lets crossfade follow: rows a second from when the first have arrived.
    async fn round(&mut self, args: &Args) -> Result<f64> {
        let mut source = self.stage.source()?.connect().await?;
        let first = self.write(&mut source, BEFORE).await?;
        let last = self.write(&mut source, COUNTED).await?;
        let mut target = self.stage.target()?.connect().await?;
        let mut crossfade = Crossfade::prepare(&self.stage, args, Reverse::Off).await?;
        crossfade.begin()?;
        until_done(&mut target, first, &mut crossfade, args).await?;
        // Their batch may have brought more.
        let began = Instant::now();
        let present = self.present(&mut target).await?;
        until_done(&mut target, last, &mut crossfade, args).await?;
        // Lanes may have more to do.
        let ended = self.until_complete(&mut target, &mut crossfade, args).await?;
        crossfade.end().await?;
        Ok((self.rows - present) as f64 / (ended - began).as_secs_f64())
    }

    /// Rows on the target.
    async fn present(&self, target: &mut Conn) -> Result<u64> {
        let counts: Vec<String> =
            (1..=self.tables).map(|table| format!("SELECT COUNT(*) AS number FROM {}", name(table))).collect();
        let question = format!("SELECT CAST(SUM(number) AS UNSIGNED) FROM ({}) parts", counts.join(" UNION ALL "));
        target.query_first(question).await?.context("sums give one row")
    }

    async fn until_complete(&self, target: &mut Conn, crossfade: &mut Crossfade, args: &Args) -> Result<Instant> {
        let began = Instant::now();
        loop {
            let asked = Instant::now();
            let present = self.present(target).await?;
            if present == self.rows {
                return Ok(asked);
            }
            crossfade.must_run()?;
            ensure!(began.elapsed() < args.limit(), "the target has {present} rows instead of {}", self.rows);
            tokio::time::sleep(POLL).await;
        }
    }

    fn keep_logs(&mut self) -> String {
        format!("logs are in {}", self.stage.keep_logs().display())
    }

    /// Single-row transactions, over all tables in turn, and one that says how far they are.
    async fn write(&mut self, source: &mut Conn, rows: u64) -> Result<u64> {
        let mut statements = Vec::new();
        for _ in 0..rows {
            self.rows += 1;
            let table = name(self.rows % self.tables + 1);
            let insert = row::INSERT.replacen("bench.account", &table, 1);
            statements.push(format!("{insert}{}", row::values(self.rows, ROW_BYTES, &mut self.random)));
        }
        for together in statements.chunks(AT_ONCE) {
            source.query_drop(together.join(";")).await?;
        }
        self.done += 1;
        source.query_drop(workload::mark(Side::Source, self.done)).await?;
        Ok(self.done)
    }
}

async fn until_done(target: &mut Conn, done: u64, crossfade: &mut Crossfade, args: &Args) -> Result<()> {
    let began = Instant::now();
    loop {
        let found: Option<u64> = target.query_first("SELECT done FROM bench.finish WHERE id = 1").await?;
        if found.is_some_and(|found| found >= done) {
            return Ok(());
        }
        crossfade.must_run()?;
        ensure!(began.elapsed() < args.limit(), "not everything was there after {:?}", args.limit());
        tokio::time::sleep(POLL).await;
    }
}

async fn messages(store: &mut Conn) -> Result<u64> {
    let last: Option<u64> =
        store.query_first("SELECT CAST(COALESCE(SUM(last_seq), 0) AS UNSIGNED) FROM crossfade.stream").await?;
    last.context("sums give one row")
}

fn name(table: u64) -> String {
    format!("{SCHEMA}.t{table:04}")
}

async fn create(conn: &mut Conn, tables: u64) -> Result<()> {
    for statement in ["SET sql_log_bin = 0", "CREATE DATABASE bench"].into_iter().chain(FINISH_TABLE) {
        conn.query_drop(statement).await?;
    }
    for table in 1..=tables {
        conn.query_drop(row::TABLE.replacen("bench.account", &name(table), 1)).await?;
    }
    let filling = "CREATE TABLE bench.filling (id INT NOT NULL PRIMARY KEY, number BIGINT UNSIGNED NOT NULL, \
                   updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))";
    conn.query_drop(filling).await?;
    let rows: Vec<String> = (1..=FILLING_ROWS).map(|id| format!("({id},0)")).collect();
    conn.query_drop(format!("INSERT INTO bench.filling (id, number) VALUES {}", rows.join(","))).await?;
    Ok(())
}
