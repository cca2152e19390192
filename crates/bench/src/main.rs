//! How fast crossfade is, beside the server's own replication: one run, one machine, the same binlog for everybody.
//!
//! A source writes each workload's binlog once. Then every contender consumes exactly that binlog, from copies of the same
//! source and the same target, one after the other and in rounds, so that a machine that gets slower meanwhile slows
//! all. What was measured goes to standard output as tables, to a file as JSON, and, where asked for, into the
//! documentation.

mod args;
mod contender;
mod decoding;
mod delay;
mod figures;
mod history;
mod machine;
mod page;
mod recording;
mod row;
mod stage;
mod tables;
mod tool;
mod usage;
mod workload;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use crossfade_servers::Flavor;

use args::{Args, Measurement};
use contender::Contender;
use figures::{DelayRun, Figures, Run};
use machine::Machine;
use recording::Recording;

#[tokio::main]
async fn main() -> ExitCode {
    match measure(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

/// Whether every run did its work.
async fn measure(args: &Args) -> Result<bool> {
    let program = args.crossfade()?;
    let mut figures = Figures::new(Machine::ask(&program, &args.flavors())?, args.conditions());
    for flavor in args.flavors() {
        for measurement in args.measurements() {
            match measurement {
                Measurement::Throughput(workload) => {
                    let recording = Recording::find_or_make(flavor, workload, args, &program).await?;
                    for round in 1..=args.rounds {
                        for contender in args.contenders() {
                            figures.runs.push(throughput(contender, round, &recording, args).await?);
                        }
                    }
                }
                Measurement::Delay => delays(flavor, args, &mut figures).await?,
                Measurement::History(work) => figures.history.extend(history::measure(flavor, work, args).await?),
                Measurement::Decoding => {
                    let run = decoding::measure(flavor, args).await.context("decoding")?;
                    tell(format_args!("{flavor} decoding: {:.0} rows/s per core", run.rows_per_cpu_second));
                    figures.decoding.push(run);
                }
            }
        }
    }
    write(args, &figures)?;
    Ok(figures.failures().next().is_none())
}

async fn throughput(contender: Contender, round: u32, recording: &Recording, args: &Args) -> Result<Run> {
    let run = contender::consume(contender, round, recording, args).await?;
    tell(format_args!("{}", run.line()));
    Ok(run)
}

async fn delays(flavor: Flavor, args: &Args, figures: &mut Figures) -> Result<()> {
    for round in 1..=args.rounds {
        for contender in args.contenders().into_iter().filter(|contender| contender.is_measured_for_delay()) {
            let run: DelayRun = delay::measure(flavor, contender, round, args)
                .await
                .with_context(|| format!("delay of {contender} on {flavor}"))?;
            tell(format_args!("{}", run.line()));
            figures.delays.push(run);
        }
    }
    Ok(())
}

fn write(args: &Args, figures: &Figures) -> Result<()> {
    println!("{}", tables::all(figures));
    let json = serde_json::to_string_pretty(&figures.to_json())?;
    write_file(&args.json, &json)?;
    if let Some(page) = &args.page {
        write_file(page, &page::render(figures))?;
    }
    Ok(())
}

fn write_file(path: &std::path::Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    tell(format_args!("written: {}", path.display()));
    Ok(())
}

/// Progress, to standard error: standard output is for the tables.
fn tell(line: std::fmt::Arguments<'_>) {
    eprintln!("{} {line}", chrono::Utc::now().format("%H:%M:%S"));
}
