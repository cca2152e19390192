//! The server's own replication.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossfade_servers::{Begin, Flavor, change_source};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use crate::recording::{BinlogPlace, Starts};
use crate::stage::{Side, Stage};

/// How often a replica is asked whether it still works.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Replicas that are told what to read and how: the target, and the source as well where both sides are written.
#[derive(Debug)]
pub struct Replication {
    flavor: Flavor,
    replicas: Vec<Conn>,
    looked: Instant,
}

impl Replication {
    /// Each begins at its place in the other's binlog, with so many workers.
    pub async fn prepare(stage: &Stage, workers: u32, starts: &Starts) -> Result<Replication> {
        let flavor = stage.source()?.flavor();
        let mut replicas = vec![replica(stage, Side::Target, workers, &starts.source).await?];
        if let Some(start) = &starts.target {
            replicas.push(replica(stage, Side::Source, workers, start).await?);
        }
        Ok(Replication { flavor, replicas, looked: Instant::now() })
    }

    pub async fn begin(&mut self) -> Result<()> {
        self.looked = Instant::now();
        self.all(self.word("START REPLICA", "START SLAVE")).await
    }

    /// A replica that has stopped says why.
    pub async fn must_run(&mut self) -> Result<()> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        let statement = self.word("SHOW REPLICA STATUS", "SHOW SLAVE STATUS");
        for replica in &mut self.replicas {
            let status: Row = replica.query_first(statement).await?.context("there is no replica any more")?;
            for column in ["Last_IO_Error", "Last_SQL_Error"] {
                let error: Option<String> = status.get(column);
                if let Some(error) = error.filter(|error| !error.is_empty()) {
                    bail!("replication stopped: {error}");
                }
            }
        }
        Ok(())
    }

    pub async fn end(&mut self) -> Result<()> {
        self.all(self.word("STOP REPLICA", "STOP SLAVE")).await
    }

    async fn all(&mut self, statement: &str) -> Result<()> {
        for replica in &mut self.replicas {
            replica.query_drop(statement).await?;
        }
        Ok(())
    }

    fn word(&self, mysql: &'static str, mariadb: &'static str) -> &'static str {
        match self.flavor {
            Flavor::MySql => mysql,
            Flavor::MariaDb => mariadb,
        }
    }
}

/// Makes a side a replica of the other one.
async fn replica(stage: &Stage, side: Side, workers: u32, start: &BinlogPlace) -> Result<Conn> {
    let flavor = stage.server(side)?.flavor();
    let mut conn = stage.server(side)?.connect().await?;
    for statement in settings(flavor, workers) {
        conn.query_drop(&statement).await.with_context(|| format!("cannot run: {statement}"))?;
    }
    let begin = Begin::File { file: start.file.clone(), offset: start.offset };
    let change = change_source(flavor, stage.server(side.other())?.port(), &begin);
    conn.query_drop(change).await.with_context(|| format!("the {} cannot be made a replica", side.folder()))?;
    Ok(conn)
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
