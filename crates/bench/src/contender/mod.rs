//! Who consumes a source's changes into a target.

mod crossfade;
mod replication;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::args::Args;
use crate::figures::{Run, Used};
use crate::recording::{Recording, checksum};
use crate::row;
use crate::stage::Stage;
use crate::usage::Usage;

pub use crossfade::Crossfade;
pub use replication::Replication;

/// How often the target is asked whether the last change is there.
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contender {
    /// crossfade forward; reverse is declared off
    Crossfade,
    /// crossfade forward, with the reverse process running: what may be concurrent waits for it
    CrossfadePair,
    /// The server's own replication with one applier
    ReplicationSerial,
    /// The server's own replication with four workers
    #[value(name = "replication-4")]
    ReplicationFour,
}

impl fmt::Display for Contender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Contender::Crossfade => "crossfade",
            Contender::CrossfadePair => "crossfade-pair",
            Contender::ReplicationSerial => "replication-serial",
            Contender::ReplicationFour => "replication-4",
        })
    }
}

impl Contender {
    pub fn is_crossfade(self) -> bool {
        matches!(self, Contender::Crossfade | Contender::CrossfadePair)
    }

    /// Four workers have nothing to share when a change comes every five milliseconds.
    pub fn is_measured_for_delay(self) -> bool {
        self != Contender::ReplicationFour
    }

    /// Prepares everything that is not timed: the reverse process, or the settings of a replica.
    pub async fn prepare(self, stage: &Stage, args: &Args, from: (&str, u64)) -> Result<Ready> {
        Ok(match self {
            Contender::Crossfade => Ready::Crossfade(Crossfade::prepare(stage, args, false).await?),
            Contender::CrossfadePair => Ready::Crossfade(Crossfade::prepare(stage, args, true).await?),
            Contender::ReplicationSerial => Ready::Replication(Replication::prepare(stage, 1, from).await?),
            Contender::ReplicationFour => Ready::Replication(Replication::prepare(stage, 4, from).await?),
        })
    }
}

/// A contender that only has to be told to begin.
#[derive(Debug)]
pub enum Ready {
    Crossfade(Crossfade),
    Replication(Replication),
}

impl Ready {
    pub async fn begin(&mut self) -> Result<()> {
        match self {
            Ready::Crossfade(crossfade) => crossfade.begin(),
            Ready::Replication(replication) => replication.begin().await,
        }
    }

    /// Fails when it has ended or stopped.
    pub async fn must_run(&mut self) -> Result<()> {
        match self {
            Ready::Crossfade(crossfade) => crossfade.must_run(),
            Ready::Replication(replication) => replication.must_run().await,
        }
    }

    /// Ends it; gives what processes of its own have used.
    pub async fn end(&mut self) -> Result<Option<Usage>> {
        match self {
            Ready::Crossfade(crossfade) => crossfade.end().await.map(Some),
            Ready::Replication(replication) => replication.end().await.map(|()| None),
        }
    }
}

/// Lets a contender consume a recording into a fresh target. That it could not is a result too.
pub async fn consume(contender: Contender, round: u32, recording: &Recording, args: &Args) -> Result<Run> {
    let mut stage = Stage::set(recording.flavor, &args.folder, Some(&recording.folder)).await?;
    let mut run = Run::new(recording, contender, round);
    match consume_on(&stage, contender, recording, args).await {
        Ok((took, used)) => {
            run.succeeded(took, used);
            if args.keep_logs {
                crate::tell(format_args!("logs of the next line are in {}", stage.keep_logs().display()));
            }
        }
        Err(error) => {
            let logs = stage.keep_logs().display().to_string();
            run.failed(format!("{error:#}; logs are in {logs}"));
        }
    }
    Ok(run)
}

async fn consume_on(
    stage: &Stage,
    contender: Contender,
    recording: &Recording,
    args: &Args,
) -> Result<(Duration, Used)> {
    let (mut source, mut target) = (stage.source()?.connect().await?, stage.target()?.connect().await?);
    // Reads all there is, so that nobody's first change waits for the disk.
    let before = checksum(&mut target).await?;
    let has_all = before == recording.facts.checksum;
    ensure!(!has_all, "the target has everything before anybody has begun");
    let mut ready = contender.prepare(stage, args, (&recording.facts.file, recording.facts.offset)).await?;

    let servers_before = stage.usage()?;
    let began = Instant::now();
    ready.begin().await?;
    let seen = until_complete(&mut target, recording, &mut ready, args.limit()).await?;
    let servers_after = stage.usage()?;
    let tool = ready.end().await?;

    for (side, conn) in [("source", &mut source), ("target", &mut target)] {
        let found = checksum(conn).await?;
        ensure!(found == recording.facts.checksum, "the {side} has {found} instead of {}", recording.facts.checksum);
    }
    Ok((seen - began, Used::between(servers_before, servers_after, tool)))
}

/// When everything was seen on the target: the moment before the question whose answer was the whole.
async fn until_complete(
    target: &mut Conn,
    recording: &Recording,
    ready: &mut Ready,
    limit: Duration,
) -> Result<Instant> {
    let complete = recording.workload.complete(recording.rows);
    let began = Instant::now();
    let mut is_finished = false;
    loop {
        let asked = Instant::now();
        if is_finished {
            let progress: Option<(u64, u64)> = target.query_first(row::PROGRESS).await?;
            if progress == Some(complete) {
                return Ok(asked);
            }
        } else {
            is_finished = target.query_first(row::IS_FINISHED).await? == Some(1);
            // A contender with several workers may have more to do; whether it has costs more to ask.
            if is_finished {
                continue;
            }
        }
        ready.must_run().await?;
        ensure!(began.elapsed() < limit, "not everything was there after {limit:?}");
        tokio::time::sleep(POLL).await;
    }
}
