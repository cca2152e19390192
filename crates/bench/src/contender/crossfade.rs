//! crossfade, as an operator starts it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use crossfade_testkit::quiet::{Progress, StatusReader, until};

use crate::args::Args;
use crate::stage::Stage;
use crate::tool::Tool;
use crate::usage::Usage;

const START_LIMIT: Duration = Duration::from_secs(30);

/// The forward process, and the reverse one if it takes part.
#[derive(Debug)]
pub struct Crossfade {
    program: PathBuf,
    config: PathBuf,
    forward_log: PathBuf,
    forward: Option<Tool>,
    reverse: Option<Tool>,
}

impl Crossfade {
    /// With the reverse process already running, if it takes part. `init` was done before the workload.
    pub async fn prepare(stage: &Stage, args: &Args, with_reverse: bool) -> Result<Crossfade> {
        let mut crossfade = Crossfade {
            program: args.crossfade()?,
            config: stage.write_config(&args.settings)?,
            forward_log: stage.log("forward"),
            forward: None,
            reverse: None,
        };
        if with_reverse {
            let config = crossfade.config.to_string_lossy();
            let tool =
                Tool::start(&crossfade.program, &["--config", &config, "sync", "reverse"], &stage.log("reverse"))?;
            let tool = crossfade.reverse.insert(tool);
            until_reverse_runs(tool, &StatusReader::new(&crossfade.program, &crossfade.config)).await?;
        }
        Ok(crossfade)
    }

    pub fn begin(&mut self) -> Result<()> {
        let config = self.config.to_string_lossy();
        let arguments = ["--config", &config, "sync", "forward"];
        self.forward = Some(Tool::start(&self.program, &arguments, &self.forward_log)?);
        Ok(())
    }

    /// Until the forward process runs.
    pub async fn until_runs(&mut self) -> Result<()> {
        let status = StatusReader::new(&self.program, &self.config);
        status.until_running(START_LIMIT).await.map(drop)
    }

    pub fn must_run(&mut self) -> Result<()> {
        self.tools().try_for_each(Tool::must_run)
    }

    /// Stops both processes; gives the CPU time of both together, and the larger peak of memory.
    pub async fn end(&mut self) -> Result<Usage> {
        let mut together = Usage::default();
        for tool in self.tools() {
            let usage = tool.stop().await?;
            together.cpu_seconds += usage.cpu_seconds;
            together.peak_bytes = together.peak_bytes.max(usage.peak_bytes);
        }
        Ok(together)
    }

    fn tools(&mut self) -> impl Iterator<Item = &mut Tool> {
        [&mut self.forward, &mut self.reverse].into_iter().flatten()
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
