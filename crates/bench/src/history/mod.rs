//! Copying what a source has to a target, and comparing both, beside the tools that people use for it today.

mod comparing;
mod copying;
mod loaded;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use crossfade_servers::Flavor;

use crate::args::Args;
use crate::figures::{HistoryRun, Used};
use crate::stage::{Durability, Stage};
use crate::tool::Tool;
use crate::usage::Usage;
use loaded::Loaded;

/// Who copies or compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Both processes running; `backfill start`, or `verify`.
    Crossfade,
    /// `mydumper`, then `myloader`, two threads each.
    Mydumper,
    /// The same with the target's binlog on, without which nobody could go back.
    MydumperLogged,
    /// `mysqldump | mysql`.
    Mysqldump,
    /// `pt-table-checksum` on a source and its replica.
    TableChecksum,
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Way::Crossfade => "crossfade",
            Way::Mydumper => "mydumper, myloader",
            Way::MydumperLogged => "mydumper, myloader --enable-binlog",
            Way::Mysqldump => "mysqldump | mysql",
            Way::TableChecksum => "pt-table-checksum",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    Copying,
    Comparing,
}

impl fmt::Display for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Work::Copying => "copying",
            Work::Comparing => "comparing",
        })
    }
}

impl Work {
    /// Distributions carry the other tools in versions that do not know today's MySQL.
    fn ways(self, flavor: Flavor) -> &'static [Way] {
        match (self, flavor) {
            (_, Flavor::MySql) => &[Way::Crossfade],
            (Work::Copying, Flavor::MariaDb) => &[Way::Crossfade, Way::Mydumper, Way::MydumperLogged, Way::Mysqldump],
            (Work::Comparing, Flavor::MariaDb) => &[Way::Crossfade, Way::TableChecksum],
        }
    }
}

/// How long it took, and what it used.
struct Measured {
    took: Duration,
    used: Used,
}

/// Everybody in turn, as many rounds as asked for.
pub async fn measure(flavor: Flavor, work: Work, args: &Args, runs: &mut Vec<HistoryRun>) -> Result<()> {
    let loaded = Loaded::find_or_make(flavor, work, args).await?;
    for round in 1..=args.rounds {
        for way in work.ways(flavor) {
            let mut stage = Stage::set(flavor, Durability::Durable, &args.folder, Some(&loaded.folder)).await?;
            let measured = match work {
                Work::Copying => copying::measure(&stage, *way, args).await,
                Work::Comparing => comparing::measure(&stage, *way, &loaded, args).await,
            };
            let Measured { took, used } = measured
                .with_context(|| format!("{work} on {flavor} by {way}; logs are in {}", stage.keep_logs().display()))?;
            let run = HistoryRun {
                flavor: flavor.to_string(),
                work: work.to_string(),
                way: way.to_string(),
                round,
                rows: loaded.rows,
                seconds: took.as_secs_f64(),
                rows_per_second: loaded.rows as f64 / took.as_secs_f64(),
                used,
            };
            crate::tell(format_args!("{}", run.line()));
            runs.push(run);
        }
    }
    Ok(())
}

/// Runs a tool to its end.
async fn run(program: &Path, words: &[String], stage: &Stage, args: &Args) -> Result<Usage> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Tool::start(program, &words, &stage.log("tool"))?.wait(args.limit()).await
}
