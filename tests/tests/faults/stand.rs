//! Three servers behind proxies, two processes, and users who write on both sides.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::compare::{self, Comparison, TablePair};
use crossfade_testkit::proxy::Proxy;
use crossfade_testkit::quiet::{Progress, StatusReader, until};
use crossfade_testkit::sql;
use crossfade_testkit::userdb::{CLOCK, TABLES, UserDb};
use crossfade_testkit::workload::{self, Settings, Side, Workload};
use crossfade_tests::{Direction, Migration, Setup, SideUrls, account_url, binary, create_account};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::fault::Fault;
use crate::judge::Judge;

const USERS: u64 = 500;
const RATE: f64 = 30.0;
/// Changes that cross in each direction before a fault and after it.
const CROSSING: u64 = 40;
/// Long, since all servers, processes and writers of a brand may share two cores with others.
pub const LIMIT: Duration = Duration::from_secs(240);

pub struct Stand {
    pub flavor: Flavor,
    pub migration: Migration,
    pub store: Server,
    /// The store as the judge sees it.
    pub store_pool: Pool,
    pub ways: Ways,
    /// Asks past the proxies.
    pub status: StatusReader,
    old: Workload,
    new: Workload,
    judge: Judge,
}

/// The ways to the three servers.
pub struct Ways {
    pub old: Proxy,
    pub new: Proxy,
    pub store: Proxy,
}

impl Ways {
    pub fn all(&self) -> [&Proxy; 3] {
        [&self.old, &self.new, &self.store]
    }
}

impl Stand {
    pub async fn start(flavor: Flavor) -> Result<Stand> {
        // Durable: a server that is killed comes back with every commit that it acknowledged, in its binlog too.
        let builder = Server::builder(flavor);
        let (servers, store) = tokio::try_join!(SharedPair::own(builder.clone()), builder.start())?;
        let ways = Ways {
            old: Proxy::start(servers.old().port()).await?,
            new: Proxy::start(servers.new().port()).await?,
            store: Proxy::start(store.port()).await?,
        };
        create_account(&store).await?;
        let tables = format!(
            "[[table]]\nname = \"{{schema}}.{}\"\nskip = true\n\n[[table]]\nname = \"{{schema}}.*\"\nclock = \"{CLOCK}\"\n",
            workload::LEDGER
        );
        let direct = Setup {
            tables,
            settings: format!("[store]\nurl = \"{}\"\n", account_url(&store)),
            ..Setup::new(flavor, "faults")
        };
        let setup = Setup {
            settings: format!("[store]\nurl = \"{}\"\n", ways.store.url(&account_url(&store))?),
            urls: Some(SideUrls {
                old: ways.old.url(&account_url(servers.old()))?,
                new: ways.new.url(&account_url(servers.new()))?,
            }),
            ..direct.clone()
        };
        let mut migration = Migration::on_servers(&setup, servers).await?;
        let config = migration.folder.join("direct.toml");
        std::fs::write(&config, migration.configuration(&direct))?;
        let data = UserDb { schema: migration.schema.clone(), users: USERS, seed: 1 };
        for pool in [&migration.old, &migration.new] {
            data.create(pool).await?;
            data.load(pool, |_| ()).await?;
            workload::create_ledger(pool, &migration.schema).await?;
        }
        migration.init().await?;
        migration.start_both().await?;
        let settings = |side| Settings {
            hot_users: 30,
            rate: Some(RATE),
            ledger: true,
            ..Settings::new(&migration.schema, side, USERS)
        };
        Ok(Stand {
            flavor,
            old: Workload::start(&migration.old, &settings(Side::Old))?,
            new: Workload::start(&migration.new, &settings(Side::New))?,
            store_pool: sql::pool(&store.root_url(), 4)?,
            status: StatusReader::new(&binary(), &config),
            judge: Judge::default(),
            migration,
            store,
            ways,
        })
    }

    /// Lets a fault happen in mid-work, and judges when all is quiet. Returns the table's line.
    pub async fn suffer(&mut self, fault: Fault) -> Result<String> {
        self.migration.expect_lines(fault.lines());
        self.old.resume();
        self.new.resume();
        self.until_changes_cross().await.context("before it")?;
        let measured = self.inject(fault).await?;
        if let Err(error) = self.until_changes_cross().await {
            let status =
                self.status.read().await.map_or_else(|error| format!("{error:#}"), |status| status.0.to_string());
            return Err(error.context(format!("after it; status: {status}")));
        }
        self.both_run().context("after it")?;
        self.old.pause().await;
        self.new.pause().await;
        let status = self.status.until_quiet(LIMIT).await.with_context(|| self.migration.log_ends())?;
        let comparison = compare(&self.migration).await?;
        ensure!(comparison.is_equal(), "the sides differ when all is quiet\n{comparison}");
        ensure!(status.total("open_failures") + status.total("held") == 0, "rows are set aside: {}", status.0);
        let verdict = self.judge.judge(&self.migration, &self.store_pool, &status).await?;
        self.migration.check_logs()?;
        verdict.ensure_clean().with_context(|| status.0.to_string())?;
        Ok(verdict.line(self.flavor, fault.injected(), fault.must_hold(), &measured))
    }

    /// See [`until_changes_cross`].
    pub async fn until_changes_cross(&self) -> Result<()> {
        until_changes_cross(&self.migration, &self.store_pool).await
    }

    /// No fault is a reason for a process to give up.
    fn both_run(&mut self) -> Result<()> {
        for direction in Direction::BOTH {
            if let Some(status) = self.migration.process(direction)?.exit_status()? {
                anyhow::bail!("{} has ended with {status}\n{}", direction.as_str(), self.migration.log_ends());
            }
        }
        Ok(())
    }

    pub async fn stop(mut self) -> Result<()> {
        let written = self.old.finish().await?.plus(&self.new.finish().await?);
        ensure!(written.changes > 500, "too little was written: {written:?}");
        self.migration.stop_both().await
    }
}

/// The synced tables of the users database; the ledgers are each side's own.
pub async fn compare(migration: &Migration) -> Result<Comparison> {
    let pair = |table: &str| {
        let name = (migration.schema.clone(), table.to_owned());
        TablePair { old: name.clone(), new: name }
    };
    let pairs: Vec<TablePair> = TABLES.into_iter().map(pair).collect();
    compare::tables(&migration.old, &migration.new, &pairs).await
}

/// Waits until changes that are made from now on have crossed, both ways. The store itself is asked: commands take their time
/// on a machine that is busy.
pub async fn until_changes_cross(migration: &Migration, store: &Pool) -> Result<()> {
    let before = streams(migration, store).await?;
    until("changes crossing both ways", LIMIT, || async {
        let now = streams(migration, store).await?;
        let crossed = |stream: &Stream| {
            before.iter().any(|then| then.name == stream.name && stream.settled >= then.last + CROSSING)
        };
        let reached = now.len() == 2 && now.iter().all(crossed);
        Ok(if reached { Progress::Reached(()) } else { Progress::NotYet(format!("{before:?}, now {now:?}")) })
    })
    .await
    .with_context(|| migration.log_ends())
}

#[derive(Debug)]
pub struct Stream {
    pub name: String,
    pub last: u64,
    pub settled: u64,
}

/// How far the streams are.
pub async fn streams(migration: &Migration, store: &Pool) -> Result<Vec<Stream>> {
    let query = "SELECT stream, last_seq, settled_seq FROM crossfade.stream WHERE pair = ?";
    let mut connection = store.get_conn().await?;
    let stream = |(name, last, settled)| Stream { name, last, settled };
    Ok(connection.exec_map(query, (&migration.pair,), stream).await?)
}
