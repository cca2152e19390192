//! crossfade, as an operator starts it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossfade_model::Direction;
use crossfade_testkit::process;
use crossfade_testkit::quiet::{Progress, Status, StatusReader, until};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::args::Args;
use crate::stage::{PAIR, Stage};
use crate::tool::Tool;
use crate::usage::Usage;

const MUCH_MEMORY: &str = "[memory]\nlimit = \"8GiB\"";
const START_LIMIT: Duration = Duration::from_secs(30);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How often the store is asked how much is captured.
const POLL: Duration = Duration::from_millis(5);

/// The forward process, the reverse one, or both.
#[derive(Debug)]
pub struct Crossfade {
    pair: &'static str,
    program: PathBuf,
    config: PathBuf,
    /// Where logs go.
    folder: PathBuf,
    forward: Option<Tool>,
    reverse: Option<Tool>,
    /// Those that [`begin`](Crossfade::begin) starts.
    timed: &'static [Direction],
}

/// How many messages a direction had in the store.
#[derive(Debug, Clone, Copy)]
pub struct Captured {
    pub messages: u64,
    /// Before that was asked.
    pub at: Instant,
}

/// What the reverse direction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reverse {
    /// It is declared off.
    Off,
    /// It runs before forward begins.
    Runs,
    /// It begins together with forward: it has work too.
    BeginsToo,
    /// It begins, and forward does not run.
    Alone,
}

impl Crossfade {
    /// `init` was done before the workload.
    pub async fn prepare(stage: &Stage, args: &Args, reverse: Reverse) -> Result<Crossfade> {
        Crossfade::prepare_pair(stage, PAIR, args, reverse).await
    }

    pub async fn prepare_pair(stage: &Stage, pair: &'static str, args: &Args, reverse: Reverse) -> Result<Crossfade> {
        let mut crossfade = Crossfade::new(stage, pair, args.crossfade()?, &args.settings)?;
        crossfade.timed = match reverse {
            Reverse::Off | Reverse::Runs => &[Direction::Forward],
            Reverse::BeginsToo => &[Direction::Forward, Direction::Reverse],
            Reverse::Alone => &[Direction::Reverse],
        };
        if reverse == Reverse::Runs {
            let tool = crossfade.start(Direction::Reverse)?;
            let status = StatusReader::new(&crossfade.program, &crossfade.config);
            until_reverse_runs(crossfade.reverse.insert(tool), &status).await?;
        }
        Ok(crossfade)
    }

    /// The build without a message table. It has nothing to read from when it is behind, so all must fit into its memory.
    pub fn prepare_bare(stage: &Stage, args: &Args) -> Result<Crossfade> {
        Crossfade::new(stage, PAIR, args.bare()?, &format!("{}\n{MUCH_MEMORY}", args.settings))
    }

    fn new(stage: &Stage, pair: &'static str, program: PathBuf, settings: &str) -> Result<Crossfade> {
        let config = stage.write_config_of(pair, settings)?;
        Ok(Crossfade {
            pair,
            program,
            config,
            folder: stage.folder().to_owned(),
            forward: None,
            reverse: None,
            timed: &[Direction::Forward],
        })
    }

    pub fn begin(&mut self) -> Result<()> {
        for &direction in self.timed {
            let tool = Some(self.start(direction)?);
            match direction {
                Direction::Forward => self.forward = tool,
                Direction::Reverse => self.reverse = tool,
            }
        }
        Ok(())
    }

    fn start(&self, direction: Direction) -> Result<Tool> {
        let (config, direction) = (self.config.to_string_lossy(), direction.as_str());
        let log = self.folder.join(format!("{direction}.log"));
        Tool::start(&self.program, &["--config", &config, "sync", direction], &log)
    }

    /// Lets applying rest; capture goes on.
    pub async fn rest(&self, direction: Direction) -> Result<()> {
        self.wish("stop", direction).await
    }

    /// Ends a [`rest`](Self::rest).
    pub async fn go_on(&self, direction: Direction) -> Result<()> {
        self.wish("start", direction).await
    }

    async fn wish(&self, command: &str, direction: Direction) -> Result<()> {
        let config = self.config.to_string_lossy();
        let arguments = ["--config", &*config, command, direction.as_str()];
        process::run(&self.program, &arguments, &[], COMMAND_LIMIT).await?;
        Ok(())
    }

    /// Until a direction has at least so many messages.
    pub async fn until_captured(
        &mut self,
        store: &mut Conn,
        direction: Direction,
        least: u64,
        limit: Duration,
    ) -> Result<Captured> {
        let question = format!(
            "SELECT CAST(COALESCE(MAX(last_seq), 0) AS UNSIGNED) FROM crossfade.stream
             WHERE pair = '{}' AND stream LIKE '{direction}/%'",
            self.pair
        );
        let began = Instant::now();
        loop {
            let at = Instant::now();
            let messages: u64 = store.query_first(&question).await?.context("a maximum gives one row")?;
            if messages >= least {
                return Ok(Captured { messages, at });
            }
            self.must_run()?;
            ensure!(began.elapsed() < limit, "only {messages} of {least} changes were captured after {limit:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// What `status` tells.
    pub async fn status(&self) -> Result<Status> {
        StatusReader::new(&self.program, &self.config).read().await
    }

    /// Until the forward process runs.
    pub async fn until_runs(&mut self) -> Result<()> {
        let status = StatusReader::new(&self.program, &self.config);
        status.until_running(START_LIMIT).await.map(drop)
    }

    pub fn must_run(&mut self) -> Result<()> {
        self.tools().try_for_each(Tool::must_run)
    }

    /// The CPU time of both processes together, and the larger peak of memory, until now.
    pub fn usage(&mut self) -> Result<Usage> {
        self.tools().try_fold(Usage::default(), |together, tool| Ok(and(together, tool.usage()?)))
    }

    /// Stops both processes; gives what they have used in their whole life.
    pub async fn end(&mut self) -> Result<Usage> {
        let mut together = Usage::default();
        for tool in self.tools() {
            together = and(together, tool.stop().await?);
        }
        Ok(together)
    }

    fn tools(&mut self) -> impl Iterator<Item = &mut Tool> {
        [&mut self.forward, &mut self.reverse].into_iter().flatten()
    }
}

fn and(one: Usage, other: Usage) -> Usage {
    Usage {
        cpu_seconds: one.cpu_seconds + other.cpu_seconds,
        peak_bytes: one.peak_bytes.max(other.peak_bytes),
        ended: other.ended,
    }
}

async fn until_reverse_runs(tool: &mut Tool, status: &StatusReader) -> Result<()> {
    let running = until("reverse runs", START_LIMIT, || async {
        let status = status.read().await?;
        let reverse =
            |stream: &&serde_json::Value| stream["stream"].as_str().is_some_and(|name| name.starts_with("reverse/"));
        let state = status.streams().iter().find(reverse).and_then(|stream| stream["state"].as_str());
        Ok(match state {
            Some("running" | "catching-up") => Progress::Reached(()),
            _ => Progress::NotYet(status.0.to_string()),
        })
    });
    // Why it does not run stands in its log, if it has ended.
    running.await.or_else(|error| tool.must_run().and(Err(error)))
}
