//! A service that reads and writes users while crossfade moves their database: the flag says on which side. README.md beside it
//! shows how to run it.

mod api;
mod failure;
mod users;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use crossfade_flag::FlagClient;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use users::Users;

/// How long the end of writes under way is waited for.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Reads and writes users on the side that crossfade's flag names.
#[derive(Debug, Parser)]
#[command(name = "users-service", version, after_help = EXAMPLES)]
struct Args {
    /// Where to answer; port 0 takes any that is free
    #[arg(long, env = "USERS_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// The name by which `crossfade flag get` lists this instance
    #[arg(long, env = "USERS_INSTANCE", value_name = "NAME")]
    instance: String,

    /// Where `crossfade serve` answers
    #[arg(long, env = "USERS_FLAG_URL", default_value = "http://127.0.0.1:8420", value_name = "URL")]
    flag_url: String,

    /// The old database, with its schema: mysql://user:password@host:port/schema
    #[arg(long, env = "USERS_OLD_URL", hide_env_values = true, value_name = "URL")]
    old_url: String,

    /// The new database
    #[arg(long, env = "USERS_NEW_URL", hide_env_values = true, value_name = "URL")]
    new_url: String,

    /// Connections to each database at most
    #[arg(long, env = "USERS_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,

    /// A flag that was asked for longer ago is not used
    #[arg(long, env = "USERS_FLAG_MAX_AGE", default_value = "5s", value_name = "DURATION")]
    flag_max_age: humantime::Duration,

    /// How long a cutover waits for this instance when it is not heard
    #[arg(long, env = "USERS_FLAG_TTL", default_value = "10s", value_name = "DURATION")]
    flag_ttl: humantime::Duration,

    /// How long a write waits while nobody may write
    #[arg(long, env = "USERS_FENCE_WAIT", default_value = "15s", value_name = "DURATION")]
    fence_wait: humantime::Duration,
}

const EXAMPLES: &str = "\
Examples:
  users-service --instance web-1 --old-url mysql://app:secret@10.0.0.1/app --new-url mysql://app:secret@10.0.0.2/app
  curl -d '{\"email\":\"ada@example.com\",\"name\":\"Ada\"}' -H 'Content-Type: application/json' 127.0.0.1:8080/users
  curl 127.0.0.1:8080/users/1

Paths:
  POST /users       {\"email\",\"name\"}: 201 with the id, the side and the version of the flag, when it is committed
  PUT /users/<id>   as POST, of a user that is there: 200
  GET /users/<id>   200, or 404
  GET /healthz      200 while the flag is known, else 503

503 with `Retry-After` where nothing was written and it may be tried again; 500 with `\"outcome\":\"unknown\"` where the answer to
COMMIT was lost.";

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tokio::runtime::Runtime::new().context("the runtime cannot start")?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let flag = FlagClient::builder(args.flag_url)
        .instance(args.instance)
        .max_age(args.flag_max_age.into())
        .ttl(args.flag_ttl.into())
        .fence_wait(args.fence_wait.into())
        // It starts without the flag as well, and answers 503 until it is known.
        .start()?;
    let users = Users::new(flag.clone(), &args.old_url, &args.new_url, usize::from(args.connections))?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    eprintln!("http://{address}: {} answers", flag.instance());
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be handled")?;
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    axum::serve(listener, api::router(users)).with_graceful_shutdown(stop).await.context("serving has ended")?;
    // Writes whose caller has gone are still under way; whoever is killed before that is waited for as long as its ttl.
    tokio::time::timeout(END_LIMIT, flag.close()).await.context("a write did not come to its end")
}
