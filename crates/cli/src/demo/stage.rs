//! What the demonstration is played on: two servers with a users database each, a configuration, two sync processes.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server};
use crossfade_testkit::compare::{self, Comparison};
use crossfade_testkit::process::{self, Process};
use crossfade_testkit::quiet::{Progress, StatusReader, until};
use crossfade_testkit::sql;
use crossfade_testkit::userdb::{CLOCK, UserDb};
use mysql_async::Pool;

use super::DemoArgs;
use super::display::Display;

pub const SCHEMA: &str = "app";
const SEED: u64 = 2026;
/// To each side, of all writers together.
const CONNECTIONS: usize = 16;
/// No command takes long here; comparing takes longest.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// A process that listens does so at once.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A sync process promises to stop within 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(15);

pub struct Stage {
    old_server: Server,
    new_server: Server,
    pub old: Pool,
    pub new: Pool,
    pub data: UserDb,
    /// Configuration and logs.
    pub folder: PathBuf,
    binary: PathBuf,
    config: PathBuf,
    keep_folder: Cell<bool>,
    /// What the old side begins with.
    pub rows: u64,
}

/// `crossfade serve`. Dropping it kills it.
pub struct Served {
    _process: Process,
    pub address: String,
}

/// The two sync processes.
pub struct Pair {
    pub forward: Process,
    pub reverse: Process,
}

impl Stage {
    /// Starts the servers, writes the configuration, loads the old one with users, and has the new one's tables created.
    pub async fn set(args: &DemoArgs, display: &Display) -> Result<Stage> {
        let binary = std::env::current_exe().context("cannot find this program's own file")?;
        let folder = std::env::temp_dir().join(format!("crossfade-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let flavor = Flavor::from(args.flavor);
        display.say(&format!("starting two private {} servers", name(flavor)));
        let (old_server, new_server) = tokio::try_join!(server(flavor, 1), server(flavor, 2))?;
        let config = folder.join("crossfade.toml");
        std::fs::write(&config, configuration(&old_server, &new_server)).context("cannot write the configuration")?;
        let mut stage = Stage {
            old: sql::pool(&old_server.root_url(), CONNECTIONS)?,
            new: sql::pool(&new_server.root_url(), CONNECTIONS)?,
            old_server,
            new_server,
            data: UserDb { schema: SCHEMA.to_owned(), users: args.users, seed: SEED },
            folder,
            binary,
            config,
            keep_folder: Cell::new(args.keep),
            rows: 0,
        };
        stage.rows = stage.load(display).await?;
        Ok(stage)
    }

    async fn load(&self, display: &Display) -> Result<u64> {
        display.say(&format!(
            "old {} on port {}, new on port {}; loading {} users on old",
            self.old_server.version().text,
            self.old_server.port(),
            self.new_server.port(),
            super::display::grouped(self.data.users)
        ));
        let bar = display.bar("loading", self.data.users);
        let before = Cell::new(0);
        self.data.create(&self.old).await?;
        let rows = self.data.load(&self.old, |users| bar.advance(users - before.replace(users))).await?;
        bar.finish();
        display.say(&format!(
            "{} rows on old; creating its tables on new: crossfade schema copy",
            super::display::grouped(rows)
        ));
        self.crossfade(&["schema", "copy", "--yes"]).await.context("`crossfade schema copy` failed")?;
        Ok(rows)
    }

    fn arguments<'a>(&'a self, words: &'a [&'a str]) -> Vec<&'a std::ffi::OsStr> {
        let mut arguments = vec!["--config".as_ref(), self.config.as_os_str()];
        arguments.extend(words.iter().map(std::ffi::OsStr::new));
        arguments
    }

    /// Runs one command of this binary to its end.
    pub async fn crossfade(&self, words: &[&str]) -> Result<String> {
        process::run(&self.binary, &self.arguments(words), &[], COMMAND_LIMIT).await
    }

    pub fn start_pair(&self) -> Result<Pair> {
        Ok(Pair { forward: self.start_sync("forward")?, reverse: self.start_sync("reverse")? })
    }

    pub fn start_sync(&self, direction: &str) -> Result<Process> {
        let log = self.folder.join(format!("{direction}.log"));
        Process::start(&self.binary, &self.arguments(&["sync", direction]), &[], &log)
    }

    /// Returns when it listens.
    pub async fn serve(&self) -> Result<Served> {
        let log = self.folder.join("serve.log");
        let words = ["serve", "--listen", "127.0.0.1:0"];
        let process = Process::start(&self.binary, &self.arguments(&words), &[], &log)?;
        let address = until("the address of `crossfade serve`", START_LIMIT, || async {
            let told = std::fs::read_to_string(&log)?;
            let address = told.split_once("http://").and_then(|(_, rest)| rest.split_once(": "));
            Ok(match address {
                Some((address, _)) => Progress::Reached(address.to_owned()),
                None => Progress::NotYet(told),
            })
        })
        .await?;
        Ok(Served { _process: process, address })
    }

    pub fn status(&self) -> StatusReader {
        StatusReader::new(&self.binary, &self.config)
    }

    pub async fn compare(&self) -> Result<Comparison> {
        compare::schemas(&self.old, &self.new, SCHEMA).await
    }

    /// What one can do while everything is left running.
    pub fn invitation(&self) -> String {
        format!(
            "both servers still run; look around, and press Ctrl-C to end them:\n  \
             crossfade --config {} status\n  mysql -h 127.0.0.1 -P {} -u root {SCHEMA}    # old\n  \
             mysql -h 127.0.0.1 -P {} -u root {SCHEMA}    # new",
            self.config.display(),
            self.old_server.port(),
            self.new_server.port()
        )
    }

    pub fn keep_folder(&self) {
        self.keep_folder.set(true);
    }

    /// Removes configuration and logs, unless they shall be kept.
    pub fn clear(&self) {
        if !self.keep_folder.get() {
            // What cannot be removed from a temporary folder does no harm.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl Pair {
    /// The ends of both logs, for messages.
    pub fn log_ends(&self) -> String {
        let end = |process: &Process| process::log_end(process.log(), 8);
        format!("the log of forward ends:\n{}\nthe log of reverse ends:\n{}", end(&self.forward), end(&self.reverse))
    }

    /// Both end by themselves when the migration has ended.
    pub async fn until_ended(&mut self) -> Result<()> {
        for (direction, process) in [("forward", &mut self.forward), ("reverse", &mut self.reverse)] {
            let status = process.wait(STOP_LIMIT).await.with_context(|| format!("{direction} did not end"))?;
            ensure!(status.success(), "{direction} ended with {status}");
        }
        Ok(())
    }
}

/// `offset` keeps generated keys of the two sides apart.
async fn server(flavor: Flavor, offset: u8) -> Result<Server> {
    Ok(Server::builder(flavor)
        .option("auto_increment_increment", 2)
        .option("auto_increment_offset", offset)
        .option("innodb_buffer_pool_size", "256M")
        .start()
        .await?)
}

fn configuration(old: &Server, new: &Server) -> String {
    format!(
        "pair = \"demo\"\n\n[old]\nurl = \"{}\"\n\n[new]\nurl = \"{}\"\n\n[[table]]\nname = \"{SCHEMA}.*\"\nclock = \"{CLOCK}\"\n",
        old.root_url(),
        new.root_url()
    )
}

fn name(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MySql => "MySQL",
        Flavor::MariaDb => "MariaDB",
    }
}
