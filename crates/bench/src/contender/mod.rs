//! Who consumes a source's changes into a target.

mod ceiling;
mod client;
mod crossfade;
mod replication;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::args::Args;
use crate::figures::{Run, Used};
use crate::recording::{Recording, Starts, Written, checksum};
use crate::stage::{Durability, Side, Stage};
use crate::usage::Usage;
use crate::workload::Workload;

use ceiling::Ceiling;
use client::Client;
pub use crossfade::{Crossfade, Reverse};
pub use replication::Replication;

/// How often the target is asked whether the last change is there.
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contender {
    /// crossfade forward; reverse is declared off
    Crossfade,
    /// crossfade forward, with the reverse process running: what may be concurrent waits for it
    CrossfadePair,
    /// crossfade forward without its message table: what that costs. A build for measurements only
    CrossfadeBare,
    /// The server's own replication with one applier
    ReplicationSerial,
    /// The server's own replication with four workers
    #[value(name = "replication-4")]
    ReplicationFour,
    /// `mysqlbinlog | mysql`
    Client,
    /// The net rows of every 500 changes in statements of many rows, on two connections, and nothing else
    Ceiling,
}

impl fmt::Display for Contender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Contender::Crossfade => "crossfade",
            Contender::CrossfadePair => "crossfade-pair",
            Contender::CrossfadeBare => "crossfade-bare",
            Contender::ReplicationSerial => "replication-serial",
            Contender::ReplicationFour => "replication-4",
            Contender::Client => "client",
            Contender::Ceiling => "ceiling",
        })
    }
}

impl Contender {
    pub fn is_crossfade(self) -> bool {
        matches!(self, Contender::Crossfade | Contender::CrossfadePair)
    }

    /// The others do not follow a source that is being written.
    pub fn is_measured_for_delay(self) -> bool {
        !matches!(self, Contender::CrossfadeBare | Contender::Client | Contender::Ceiling)
    }

    /// Only who goes both ways has a part where both sides are written.
    pub fn takes_part(self, workload: Workload) -> bool {
        let both_ways = [Contender::CrossfadePair, Contender::ReplicationSerial, Contender::ReplicationFour];
        workload.parts().len() == 1 || both_ways.contains(&self)
    }

    /// Prepares everything that is not timed: the reverse process where only the source is written, or the settings of a replica.
    pub async fn prepare(self, stage: &Stage, args: &Args, starts: &Starts) -> Result<Ready> {
        Ok(match self {
            Contender::Crossfade => Ready::Crossfade(Crossfade::prepare(stage, args, Reverse::Off).await?),
            Contender::CrossfadePair => {
                let reverse = if starts.target.is_some() { Reverse::BeginsToo } else { Reverse::Runs };
                Ready::Crossfade(Crossfade::prepare(stage, args, reverse).await?)
            }
            Contender::CrossfadeBare => Ready::Crossfade(Crossfade::prepare_bare(stage, args)?),
            Contender::ReplicationSerial => Ready::Replication(Replication::prepare(stage, 1, starts).await?),
            Contender::ReplicationFour => Ready::Replication(Replication::prepare(stage, 4, starts).await?),
            Contender::Client => Ready::Client(Client::prepare(stage, &starts.source)?),
            Contender::Ceiling => Ready::Ceiling(Ceiling::prepare(stage, &starts.source).await?),
        })
    }
}

/// A contender that only has to be told to begin.
#[derive(Debug)]
pub enum Ready {
    Crossfade(Crossfade),
    Replication(Replication),
    Client(Client),
    Ceiling(Ceiling),
}

impl Ready {
    pub async fn begin(&mut self) -> Result<()> {
        match self {
            Ready::Crossfade(crossfade) => crossfade.begin(),
            Ready::Replication(replication) => replication.begin().await,
            Ready::Client(client) => client.begin(),
            Ready::Ceiling(ceiling) => {
                ceiling.begin();
                Ok(())
            }
        }
    }

    /// Fails when it has ended or stopped.
    pub async fn must_run(&mut self) -> Result<()> {
        match self {
            Ready::Crossfade(crossfade) => crossfade.must_run(),
            Ready::Replication(replication) => replication.must_run().await,
            Ready::Client(client) => client.must_run(),
            Ready::Ceiling(ceiling) => ceiling.must_run(),
        }
    }

    /// What processes of its own have used until now.
    pub fn usage(&mut self) -> Result<Option<Usage>> {
        match self {
            Ready::Crossfade(crossfade) => crossfade.usage().map(Some),
            Ready::Client(client) => client.usage().map(Some),
            Ready::Replication(_) | Ready::Ceiling(_) => Ok(None),
        }
    }

    /// Ends it; gives what processes of its own have used.
    pub async fn end(&mut self) -> Result<Option<Usage>> {
        match self {
            Ready::Crossfade(crossfade) => crossfade.end().await.map(Some),
            Ready::Replication(replication) => replication.end().await.map(|()| None),
            Ready::Client(client) => client.end().await.map(Some),
            Ready::Ceiling(ceiling) => ceiling.end().await.map(|()| None),
        }
    }
}

/// Lets a contender consume a recording into a fresh target. That it could not is a result too.
pub async fn consume(
    contender: Contender,
    round: u32,
    recording: &Recording,
    durability: Durability,
    args: &Args,
) -> Result<Run> {
    let mut stage = Stage::set(recording.flavor, durability, &args.folder, Some(&recording.folder)).await?;
    let mut run = Run::new(recording, durability, contender, round);
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
    // Reads all there is, so that nobody's first change waits for the disk.
    for (part, written) in recording.parts() {
        let mut reader = stage.server(part.by.other())?.connect().await?;
        let before = checksum(&mut reader, recording.workload, part).await?;
        ensure!(before != written.checksum, "everything is there before anybody has begun");
    }
    let mut ready = contender.prepare(stage, args, &recording.starts()?).await?;

    let servers_before = stage.usage()?;
    let began = Instant::now();
    ready.begin().await?;
    let complete = until_complete(stage, recording, &mut ready, args.limit()).await?;
    let servers_after = stage.usage()?;
    let tool = ready.end().await?;

    for (part, written) in recording.parts() {
        for side in Side::BOTH {
            let found = checksum(&mut stage.server(side)?.connect().await?, recording.workload, part).await?;
            ensure!(found == written.checksum, "the {} has {found} instead of {}", side.folder(), written.checksum);
        }
    }
    Ok((complete - began, Used::between(servers_before, servers_after, tool)))
}

/// What is waited for on one side.
struct Awaited<'r> {
    reader: Conn,
    is_last_there: String,
    progress: String,
    written: &'r Written,
    is_finished: bool,
    complete: Option<Instant>,
}

impl Awaited<'_> {
    /// Whether all of it was seen: the time is that before the question whose answer was the whole.
    async fn look(&mut self) -> Result<bool> {
        let asked = Instant::now();
        if !self.is_finished {
            self.is_finished = self.reader.query_first(&self.is_last_there).await? == Some(1);
        }
        // A contender with several workers may have more to do; whether it has costs more to ask.
        if self.is_finished && self.complete.is_none() {
            let found: Option<(u64, u64)> = self.reader.query_first(&self.progress).await?;
            self.complete = (found == Some(self.written.progress)).then_some(asked);
        }
        Ok(self.complete.is_some())
    }
}

/// When all of every part was seen on the other side.
pub async fn until_complete(
    stage: &Stage,
    recording: &Recording,
    ready: &mut Ready,
    limit: Duration,
) -> Result<Instant> {
    let mut awaited = Vec::new();
    for (part, written) in recording.parts() {
        awaited.push(Awaited {
            reader: stage.server(part.by.other())?.connect().await?,
            is_last_there: part.is_finished(),
            progress: recording.workload.progress(part),
            written,
            is_finished: false,
            complete: None,
        });
    }
    let began = Instant::now();
    loop {
        let mut is_complete = true;
        for part in &mut awaited {
            is_complete &= part.look().await?;
        }
        if is_complete {
            return awaited.iter().filter_map(|part| part.complete).max().context("nothing was recorded");
        }
        ready.must_run().await?;
        ensure!(began.elapsed() < limit, "not everything was there after {limit:?}");
        tokio::time::sleep(POLL).await;
    }
}
