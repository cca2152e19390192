//! The command line of crossfade: where all parts are wired together.

mod args;
mod command;
mod demo;
mod differences;
mod failure;
mod meeting;
mod output;
mod pair;
mod store_home;
mod sync;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use crossfade_config::Settings;
use crossfade_control::Change;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use args::{BackfillCommand, Cli, Command, FlagCommand, MarkCommand, MessagesCommand, SchemaCommand, ThrottleCommand};

/// Rows are many small values: glibc's allocator takes up to 1.6 times the CPU for them (docs/performance.md, "What was tried").
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Forced by a second signal.
const EXIT_FORCED: i32 = 130;

/// Applying calls deep, and a development build keeps every step of it on the stack: 2 MiB, as usual, are hardly enough.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    bound_driver_buffers();
    let cli = Cli::parse();
    let log_json = cli.log_json;
    let runtime = match start(&cli) {
        Ok(runtime) => runtime,
        Err(error) => {
            failure::report(&error, false);
            return ExitCode::from(2);
        }
    };
    let code = match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(error) => {
            failure::report(&error, log_json);
            ExitCode::from(failure::exit_code(&error))
        }
    };
    // Nothing that still runs has anything to lose: what counts is committed.
    runtime.shutdown_background();
    code
}

/// The driver keeps up to 128 buffers of up to 4 MiB for all connections, which `[memory] limit` knows nothing of. Its
/// environment variables are the only way to have it keep less; who has set them knows why.
#[allow(unsafe_code)]
fn bound_driver_buffers() {
    for (name, value) in [("MYSQL_ASYNC_BUFFER_SIZE_CAP", "65536"), ("MYSQL_ASYNC_BUFFER_POOL_CAP", "32")] {
        if std::env::var_os(name).is_none() {
            // SAFETY: called first of all in `main`, while no other thread runs that could read the environment.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

fn start(cli: &Cli) -> anyhow::Result<tokio::runtime::Runtime> {
    // The drivers log servers' errors as they come, and those quote values of rows; they also warn of what is tried again
    // anyway. Who asks for them by name gets them.
    let quiet = ["mysql_async", "sqlx"].into_iter().filter(|driver| !cli.log.contains(driver));
    let wanted = quiet.fold(cli.log.clone(), |filter, driver| format!("{filter},{driver}=off"));
    let filter = tracing_subscriber::EnvFilter::try_new(&wanted)
        .with_context(|| format!("`--log {}` is not a level or a filter", cli.log))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if cli.log_json {
        subscriber.json().init();
    } else {
        subscriber.with_target(false).init();
    }
    if cfg!(feature = "without-messages") {
        let is_measured = std::env::var_os("CROSSFADE_WITHOUT_MESSAGES").is_some_and(|value| value == "measured");
        anyhow::ensure!(
            is_measured,
            "this build keeps no messages, so that changes can be lost: it is for `make bench` only; build crossfade without the feature \
             `without-messages`"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    runtime.context("the runtime cannot start")
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Demo(args) => return demo::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "crossfade", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let mut settings = Settings::load(&cli.config)?;
    // A process that runs until it is stopped waits for its store, too.
    if let Command::Sync(args) = &cli.command {
        let from_mark = args.from_mark.clone();
        sync::run(settings, args.direction.into(), args.until_caught_up, from_mark, stop_on_signals()?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    // These ask no store.
    if !matches!(cli.command, Command::Check(_) | Command::Schema(_)) {
        store_home::find(&mut settings).await?;
    }
    let settings = Arc::new(settings);
    match cli.command {
        Command::Check(args) => {
            return Ok(ExitCode::from(command::check::run(&settings, &args, stop_on_signals()?).await?));
        }
        Command::Schema(SchemaCommand::Diff(args)) => return Ok(command::schema::diff(&settings, &args).await?.into()),
        Command::Schema(SchemaCommand::Copy(args)) => command::schema::copy(&settings, &args).await?,
        Command::Init(args) => command::init::run(settings, &args).await?,
        Command::Status(args) => command::status::run(&settings, &args).await?,
        Command::Serve(args) => command::serve::run(settings, &args, stop_on_signals()?).await?,
        Command::Start(args) => command::wish::start(&settings, args.direction.into()).await?,
        Command::Stop(args) => command::wish::stop(&settings, args.direction.into(), args.capture).await?,
        Command::Backfill(BackfillCommand::Start(args)) => command::backfill::start(settings, &args).await?,
        Command::Backfill(BackfillCommand::Status(args)) => return command::backfill::status(&settings, &args).await,
        Command::Backfill(BackfillCommand::Pause) => command::backfill::pause(&settings).await?,
        Command::Backfill(BackfillCommand::Resume) => command::backfill::resume(&settings).await?,
        Command::Backfill(BackfillCommand::Restart(args)) => command::backfill::restart(settings, &args).await?,
        Command::Throttle(ThrottleCommand::Get(args)) => command::throttle::get(&settings, args).await?,
        Command::Throttle(ThrottleCommand::Set(args)) => command::throttle::set(&settings, &args).await?,
        Command::Throttle(ThrottleCommand::Reset) => command::throttle::reset(&settings).await?,
        Command::Flag(FlagCommand::Get(args)) => command::flag::get(&settings, &args).await?,
        Command::Mark(MarkCommand::Take(args)) => command::mark::take(&settings, &args).await?,
        Command::Mark(MarkCommand::List(args)) => command::mark::list(&settings, args).await?,
        Command::Messages(MessagesCommand::List(args)) => command::messages::list(settings, &args).await?,
        Command::Messages(MessagesCommand::Show(args)) => command::show::run(settings, &args).await?,
        Command::Messages(MessagesCommand::History(args)) => command::history::run(settings, &args).await?,
        Command::Messages(MessagesCommand::Purge(args)) => command::messages::purge(&settings, &args).await?,
        Command::Retry(args) => return Ok(command::retry::retry(settings, &args, stop_on_signals()?).await?.into()),
        Command::Discard(args) => {
            return Ok(command::retry::discard(settings, &args, stop_on_signals()?).await?.into());
        }
        Command::Verify(args) => return Ok(command::verify::run(settings, &args, stop_on_signals()?).await?.into()),
        Command::Flag(FlagCommand::Set(args)) => return Ok(command::flag::set(&settings, &args).await?.into()),
        Command::Cutover(args) => {
            let code = command::switch::run(settings, Change::Cutover, &args, stop_on_signals()?).await?;
            return Ok(code.into());
        }
        Command::Rollback(args) => {
            let code = command::switch::run(settings, Change::Rollback, &args, stop_on_signals()?).await?;
            return Ok(code.into());
        }
        Command::Entity(entity) => {
            return Ok(command::entity::run(settings, &entity, stop_on_signals()?).await?.into());
        }
        Command::Finish(args) => return Ok(command::end::finish(settings, &args, stop_on_signals()?).await?.into()),
        Command::Abort(args) => return Ok(command::end::abort(settings, &args, stop_on_signals()?).await?.into()),
        Command::Demo(_) | Command::Completions { .. } | Command::Sync(_) => unreachable!("handled above"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The first SIGTERM or SIGINT asks everything to end in order; the second ends the process at once.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be handled")?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping; a second signal forces");
        asked.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(EXIT_FORCED);
    });
    Ok(stop)
}
