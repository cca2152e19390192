//! `crossfade demo`: a whole migration on two private servers, from an empty new side to the end.
//!
//! Nothing here is simulated: the servers are real, every command runs as a process of this very binary, one of them is killed
//! with -9 in mid-work, users change sides while an application writes by the flag, and whether the sides are equal is judged by
//! queries of the test kit, which shares no code with the product.

mod act;
mod application;
mod crossing;
mod display;
mod history;
mod stage;
mod summary;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use crossfade_servers::Flavor;

use display::Display;
use stage::Stage;

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Which servers to run
    #[arg(long, value_enum, default_value_t = FlavorName::Mysql)]
    pub flavor: FlavorName,
    /// Users to load on the old side, each with profile, addresses, orders and items
    #[arg(long, default_value_t = 50_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub users: u64,
    /// How long both sides are written at once
    #[arg(long, default_value_t = 12, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..=86_400))]
    pub seconds: u64,
    /// Leave the servers running at the end, until interrupted, and keep configuration, logs and the report
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlavorName {
    Mysql,
    Mariadb,
}

impl From<FlavorName> for Flavor {
    fn from(name: FlavorName) -> Flavor {
        match name {
            FlavorName::Mysql => Flavor::MySql,
            FlavorName::Mariadb => Flavor::MariaDb,
        }
    }
}

/// Plays the demonstration. Exit code 0 only if both sides are equal at the end, new has every write that was acknowledged, and
/// changes, echoes and conflicts happened in between; 1 if not; 130 when interrupted, whereupon servers and processes end.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    tokio::select! {
        outcome = play(&args) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
    }
}

async fn play(args: &DemoArgs) -> Result<ExitCode> {
    let began = Instant::now();
    let display = Display::new();
    let stage = Stage::set(args, &display).await?;
    match perform(args, &display, &stage, began).await {
        Ok(code) => {
            if !args.keep {
                stage.clear();
            }
            Ok(code)
        }
        Err(error) => {
            display.say(&format!("configuration and logs are kept in {}", stage.folder.display()));
            Err(error)
        }
    }
}

async fn perform(args: &DemoArgs, display: &Display, stage: &Stage, began: Instant) -> Result<ExitCode> {
    display.say("creating the crossfade schemas: crossfade init");
    stage.crossfade(&["init"]).await.context("`crossfade init` failed")?;
    let mut pair = stage.start_pair()?;
    display.say(&format!(
        "both directions run: crossfade sync forward (process {}), crossfade sync reverse (process {})",
        pair.forward.pid(),
        pair.reverse.pid()
    ));
    stage.status().until_running(Duration::from_secs(30)).await.with_context(|| pair.log_ends())?;

    history::copy(display, stage, &mut pair, stage.rows).await.with_context(|| pair.log_ends())?;
    let written = act::write_on_both_sides(args, display, stage, &mut pair).await.with_context(|| pair.log_ends())?;
    display.say("nobody writes any more; waiting until both directions have nothing left to do");
    let catching_up = Instant::now();
    act::wait_for_quiet(display, stage).await.with_context(|| pair.log_ends())?;
    let caught_up_in = catching_up.elapsed();
    history::verify(display, stage).await.with_context(|| pair.log_ends())?;

    let crossed = crossing::there_and_back(display, stage).await.with_context(|| pair.log_ends())?;
    let status = act::wait_for_quiet(display, stage).await.with_context(|| pair.log_ends())?;
    display.say("comparing both sides once more, row by row, with code that is none of the product's");
    let comparison = stage.compare().await?;
    let lost = crossed.acknowledged.lost(&stage.new).await?;
    crossing::finish(display, stage, &mut pair).await.with_context(|| pair.log_ends())?;
    let summary = summary::Summary { written, crossed, status, comparison, lost, caught_up_in, took: began.elapsed() };
    display.finish();
    println!("{summary}");
    let code = if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if !summary.is_good() {
        display.say(&format!("configuration and logs are kept in {}", stage.folder.display()));
        stage.keep_folder();
    }
    if args.keep {
        display.say(&stage.invitation());
        tokio::signal::ctrl_c().await?;
    }
    Ok(code)
}
