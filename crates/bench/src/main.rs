//! How fast crossfade is, beside the server's own replication: one machine, the same binlog for everybody, and contenders in turn.
//!
//! A source writes each workload's binlog once. Then every contender consumes exactly that binlog, from copies of the same
//! source and the same target, one after the other and in rounds, so that a machine that gets slower meanwhile slows
//! all. What was measured goes to standard output as tables, to a file as JSON, and, where asked for, into the
//! documentation.

mod args;
mod calls;
mod capture;
mod chart;
mod contender;
mod decoding;
mod delay;
mod echoes;
mod figures;
mod growth;
mod history;
mod machine;
mod mixed;
mod page;
mod recording;
mod row;
mod stage;
mod tables;
mod tool;
mod usage;
mod workload;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use crossfade_servers::Flavor;
use tokio::signal::unix::{SignalKind, signal};

use args::{Args, Measurement};
use calls::{Broken, Call};
use contender::Contender;
use figures::Figures;
use machine::Machine;
use recording::Recording;
use stage::Durability;
use workload::Workload;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let measured = tokio::select! {
        measured = measure(&args) => measured,
        // Servers and tools end with what is dropped.
        () = interrupted() => return ExitCode::from(130),
    };
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

async fn interrupted() {
    let mut terminated = match signal(SignalKind::terminate()) {
        Ok(terminated) => terminated,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Whether every run did its work. What fails takes nothing else along, and what is measured is kept from then on.
async fn measure(args: &Args) -> Result<bool> {
    let program = args.crossfade()?;
    if args.contenders().contains(&Contender::CrossfadeBare)
        && args.measurements().iter().any(Measurement::is_throughput)
    {
        args.bare()?;
    }
    let at = chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string();
    let machine = Machine::ask(&program, &args.flavors())?;
    let call = Call {
        at,
        build: machine::build(&program)?,
        kernel: machine::kernel()?,
        load_before: machine::load()?,
        measured: Vec::new(),
    };
    let mut figures = Figures::new(machine, args.conditions(), vec![call]);
    for file in &args.add {
        figures = figures.behind(read(file)?).with_context(|| format!("nothing can be added to {}", file.display()))?;
    }
    let mut is_well = true;
    for flavor in args.flavors() {
        for measurement in args.measurements() {
            let mut taken = figures.blank();
            if let Err(error) = take(flavor, measurement, args, &mut taken).await {
                let broken = Broken::new(flavor, measurement, &error);
                tell(format_args!("{}", broken.line()));
                taken.broken.push(broken);
            }
            is_well &= taken.failures().is_empty();
            figures.put(flavor, measurement, taken);
            write_json(&args.json, &figures)?;
        }
    }
    write(args, &figures)?;
    Ok(is_well)
}

async fn take(flavor: Flavor, measurement: Measurement, args: &Args, figures: &mut Figures) -> Result<()> {
    match measurement {
        Measurement::Throughput(workload) => throughput(flavor, workload, Durability::Durable, args, figures).await,
        Measurement::Relaxed => {
            for workload in [Workload::Inserts, Workload::Updates, Workload::Mixed] {
                throughput(flavor, workload, Durability::Relaxed, args, figures).await?;
            }
            Ok(())
        }
        Measurement::Delay => delays(flavor, args, figures).await,
        Measurement::Capture => captures(flavor, args, figures).await,
        Measurement::Echoes => echoes_of_all(flavor, args, figures).await,
        Measurement::Growth(growing) => growth::measure(flavor, growing, args, &mut figures.growth).await,
        Measurement::History(work) => history::measure(flavor, work, args, &mut figures.history).await,
        Measurement::Decoding => {
            let run = decoding::measure(flavor, args).await?;
            tell(format_args!("{flavor} decoding: {:.0} rows/s per core", run.rows_per_cpu_second));
            figures.decoding.push(run);
            Ok(())
        }
    }
}

async fn throughput(
    flavor: Flavor,
    workload: Workload,
    durability: Durability,
    args: &Args,
    figures: &mut Figures,
) -> Result<()> {
    let recording = Recording::find_or_make(flavor, workload, args, &args.crossfade()?).await?;
    for round in 1..=args.rounds {
        for contender in args.contenders().into_iter().filter(|contender| contender.takes_part(workload)) {
            let run = contender::consume(contender, round, &recording, durability, args).await?;
            tell(format_args!("{}", run.line()));
            figures.runs.push(run);
        }
    }
    Ok(())
}

async fn captures(flavor: Flavor, args: &Args, figures: &mut Figures) -> Result<()> {
    for_each_recording(flavor, args, async |recording, round| {
        let run = capture::measure(recording, round, args).await?;
        tell(format_args!("{}", run.line()));
        figures.captures.push(run);
        Ok(())
    })
    .await
}

async fn echoes_of_all(flavor: Flavor, args: &Args, figures: &mut Figures) -> Result<()> {
    for_each_recording(flavor, args, async |recording, round| {
        let Some(run) = echoes::measure(recording, round, args).await? else {
            let Recording { flavor, workload, .. } = recording;
            tell(format_args!("{flavor} echoes of {workload}, round {round}: too few rows to be timed, see --rows"));
            return Ok(());
        };
        tell(format_args!("{}", run.line()));
        figures.echoes.push(run);
        Ok(())
    })
    .await
}

/// Of the workloads that only the source's users write, in each round.
async fn for_each_recording(
    flavor: Flavor,
    args: &Args,
    mut measure: impl AsyncFnMut(&Recording, u32) -> Result<()>,
) -> Result<()> {
    for workload in Workload::one_way() {
        let recording = Recording::find_or_make(flavor, workload, args, &args.crossfade()?).await?;
        for round in 1..=args.rounds {
            measure(&recording, round).await?;
        }
    }
    Ok(())
}

async fn delays(flavor: Flavor, args: &Args, figures: &mut Figures) -> Result<()> {
    for &rate in &args.rate {
        for round in 1..=args.rounds {
            for contender in args.contenders().into_iter().filter(|contender| contender.is_measured_for_delay()) {
                let run = delay::measure(flavor, contender, rate, round, args).await?;
                tell(format_args!("{}", run.line()));
                figures.delays.push(run);
            }
        }
    }
    Ok(())
}

fn write(args: &Args, figures: &Figures) -> Result<()> {
    println!("{}", tables::all(figures));
    tell(format_args!("written: {}", args.json.display()));
    if let Some(page) = &args.page {
        let picture = page.with_extension("svg");
        let json = page.with_extension("json");
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write_file(page, &page::render(figures, &name(&picture), &name(&json)))?;
        if let Some(chart) = chart::render(figures) {
            write_file(&picture, &chart)?;
        }
        write_json(&json, figures)?;
        tell(format_args!("written: {}", page.display()));
    }
    Ok(())
}

fn write_json(path: &Path, figures: &Figures) -> Result<()> {
    write_file(path, &serde_json::to_string_pretty(&figures.to_json())?)
}

fn read(path: &Path) -> Result<Figures> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no figures", path.display()))
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Progress, to standard error: standard output is for the tables.
fn tell(line: std::fmt::Arguments<'_>) {
    eprintln!("{} {line}", chrono::Utc::now().format("%H:%M:%S"));
}
