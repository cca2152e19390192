//! The server's own replication.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossfade_servers::{Begin, Flavor, change_source};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::stage::Stage;

/// How often a replica is asked whether it still works.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A replica that is told what to read and how.
#[derive(Debug)]
pub struct Replication {
    flavor: Flavor,
    target: Conn,
    looked: Instant,
}

impl Replication {
    /// Makes the target a replica of the source that begins at file and offset, with so many workers.
    pub async fn prepare(stage: &Stage, workers: u32, from: (&str, u64)) -> Result<Replication> {
        let (source, server) = (stage.source()?, stage.target()?);
        let flavor = server.flavor();
        let mut target = server.connect().await?;
        for statement in settings(flavor, workers) {
            target.query_drop(&statement).await.with_context(|| format!("cannot run: {statement}"))?;
        }
        let begin = Begin::File { file: from.0.to_owned(), offset: from.1 };
        let change = change_source(flavor, source.port(), &begin);
        target.query_drop(change).await.context("the target cannot be made a replica")?;
        Ok(Replication { flavor, target, looked: Instant::now() })
    }

    pub async fn begin(&mut self) -> Result<()> {
        self.looked = Instant::now();
        Ok(self.target.query_drop(self.word("START REPLICA", "START SLAVE")).await?)
    }

    /// A replica that has stopped says why.
    pub async fn must_run(&mut self) -> Result<()> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        let statement = self.word("SHOW REPLICA STATUS", "SHOW SLAVE STATUS");
        let status: Row = self.target.query_first(statement).await?.context("the target is no replica any more")?;
        for column in ["Last_IO_Error", "Last_SQL_Error"] {
            let error: Option<String> = status.get(column);
            if let Some(error) = error.filter(|error| !error.is_empty()) {
                bail!("replication stopped: {error}");
            }
        }
        Ok(())
    }

    pub async fn end(&mut self) -> Result<()> {
        Ok(self.target.query_drop(self.word("STOP REPLICA", "STOP SLAVE")).await?)
    }

    fn word(&self, mysql: &'static str, mariadb: &'static str) -> &'static str {
        match self.flavor {
            Flavor::MySql => mysql,
            Flavor::MariaDb => mariadb,
        }
    }
}

/// Everything else stays as the server has it: MySQL keeps the order of commits, MariaDB's workers are optimistic.
///
/// MySQL 9.7 takes 0 workers for 1 and says so in a warning (1292): there is always a coordinator beside the worker.
fn settings(flavor: Flavor, workers: u32) -> Vec<String> {
    match flavor {
        Flavor::MySql => vec![format!("SET GLOBAL replica_parallel_workers = {workers}")],
        // One applier is what MariaDB does without a pool of workers.
        Flavor::MariaDb if workers == 1 => vec!["SET GLOBAL slave_parallel_threads = 0".to_owned()],
        Flavor::MariaDb => vec![
            format!("SET GLOBAL slave_parallel_threads = {workers}"),
            "SET GLOBAL slave_parallel_mode = 'optimistic'".to_owned(),
        ],
    }
}
