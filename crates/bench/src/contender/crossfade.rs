//! crossfade, as an operator starts it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use crossfade_testkit::quiet::{Progress, StatusReader, until};

use crate::args::Args;
use crate::stage::Stage;
use crate::tool::Tool;
use crate::usage::Usage;

const MUCH_MEMORY: &str = "[memory]\nlimit = \"8GiB\"";
const START_LIMIT: Duration = Duration::from_secs(30);

/// The forward process, and the reverse one if it takes part.
#[derive(Debug)]
pub struct Crossfade {
    program: PathBuf,
    config: PathBuf,
    /// Where logs go.
    folder: PathBuf,
    forward: Option<Tool>,
    reverse: Option<Tool>,
    reverse_begins: bool,
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
}

impl Crossfade {
    /// `init` was done before the workload.
    pub async fn prepare(stage: &Stage, args: &Args, reverse: Reverse) -> Result<Crossfade> {
        let mut crossfade = Crossfade::new(stage, args.crossfade()?, &args.settings)?;
        crossfade.reverse_begins = reverse == Reverse::BeginsToo;
        if reverse == Reverse::Runs {
            let tool = crossfade.start("reverse")?;
            let status = StatusReader::new(&crossfade.program, &crossfade.config);
            until_reverse_runs(crossfade.reverse.insert(tool), &status).await?;
        }
        Ok(crossfade)
    }

    /// The build without a message table. It has nothing to read from when it is behind, so all must fit into its memory.
    pub fn prepare_bare(stage: &Stage, args: &Args) -> Result<Crossfade> {
        Crossfade::new(stage, args.bare()?, &format!("{}\n{MUCH_MEMORY}", args.settings))
    }

    fn new(stage: &Stage, program: PathBuf, settings: &str) -> Result<Crossfade> {
        let config = stage.write_config(settings)?;
        Ok(Crossfade {
            program,
            config,
            folder: stage.folder().to_owned(),
            forward: None,
            reverse: None,
            reverse_begins: false,
        })
    }

    pub fn begin(&mut self) -> Result<()> {
        self.forward = Some(self.start("forward")?);
        if self.reverse_begins {
            self.reverse = Some(self.start("reverse")?);
        }
        Ok(())
    }

    fn start(&self, direction: &str) -> Result<Tool> {
        let config = self.config.to_string_lossy();
        let log = self.folder.join(format!("{direction}.log"));
        Tool::start(&self.program, &["--config", &config, "sync", direction], &log)
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
