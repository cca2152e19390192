//! One migration under test: its schema on both sides, its configuration, its processes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::{Flavor, Server, SharedPair};
use crossfade_testkit::compare::{self, Comparison};
use crossfade_testkit::process::{self, Process};
use crossfade_testkit::quiet::{Progress, Status, StatusReader, until};
use crossfade_testkit::sql;
use crossfade_testkit::userdb::{CLOCK, UserDb};
use crossfade_testkit::workload::Side;
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

use crate::log;

/// How long a command that ends by itself may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// A process whose predecessor was killed waits for the lease to run out first.
const START_LIMIT: Duration = Duration::from_secs(45);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Each side's connections for writers and for the judge.
const CONNECTIONS: usize = 12;

/// Whom the processes log in as. Nothing that they write may repeat the password.
const ACCOUNT: &str = "sync";
const LOG_END: &str = ".log.txt";
const PASSWORD: &str = "0pen+S3same/never%told";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Reverse,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

    pub fn opposite(self) -> Direction {
        match self {
            Direction::Forward => Direction::Reverse,
            Direction::Reverse => Direction::Forward,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
        }
    }
}

/// What a test asks of its migration.
#[derive(Debug, Clone)]
pub struct Setup {
    pub flavor: Flavor,
    /// The test's name; part of the pair's and the schema's name.
    pub name: &'static str,
    /// The `[[table]]` entries; `{schema}` stands for the migration's schema.
    pub tables: String,
    /// Added to the least configuration, as TOML after the `[[table]]` entries.
    pub settings: String,
    /// Where the processes find the sides, if not at the servers themselves.
    pub urls: Option<SideUrls>,
}

/// A way to each side.
#[derive(Debug, Clone)]
pub struct SideUrls {
    pub old: String,
    pub new: String,
}

impl Setup {
    pub fn new(flavor: Flavor, name: &'static str) -> Setup {
        let tables = format!("[[table]]\nname = \"{{schema}}.*\"\nclock = \"{CLOCK}\"\n");
        Setup { flavor, name, tables, settings: String::new(), urls: None }
    }
}

/// A migration of one schema. Dropping it kills its processes; configuration and logs are kept unless [`Migration::stop_both`]
/// ended it well.
pub struct Migration {
    pub servers: &'static SharedPair,
    pub pair: String,
    pub schema: String,
    pub old: Pool,
    pub new: Pool,
    pub folder: PathBuf,
    binary: PathBuf,
    forward: Option<Process>,
    reverse: Option<Process>,
    ended_well: bool,
    /// Parts of WARN and ERROR lines that the test has reason for.
    expected: Mutex<Vec<String>>,
}

impl Migration {
    /// Writes the configuration. The schema exists on both sides and is empty: create tables, then call [`init`](Self::init).
    pub async fn new(setup: &Setup) -> Result<Migration> {
        Migration::on_servers(setup, SharedPair::get(setup.flavor).await).await
    }

    /// As [`new`](Self::new), on servers that the test has for itself.
    pub async fn on_servers(setup: &Setup, servers: &'static SharedPair) -> Result<Migration> {
        let schema = servers.create_schema(setup.name).await?;
        for server in [servers.old(), servers.new()] {
            create_account(server).await?;
        }
        let pair = unique(setup.name);
        let folder = std::env::temp_dir().join(format!("crossfade-test-{}-{pair}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let migration = Migration {
            old: sql::pool(&servers.old().root_url(), CONNECTIONS)?,
            new: sql::pool(&servers.new().root_url(), CONNECTIONS)?,
            servers,
            pair,
            schema,
            folder,
            binary: crate::binary(),
            forward: None,
            reverse: None,
            ended_well: false,
            expected: Mutex::default(),
        };
        std::fs::write(migration.config(), migration.configuration(setup))?;
        Ok(migration)
    }

    /// A migration of the users database, loaded alike on both sides and initialised.
    pub async fn of_users(setup: &Setup, users: u64) -> Result<Migration> {
        let migration = Migration::new(setup).await?;
        let data = UserDb { schema: migration.schema.clone(), users, seed: 1 };
        for pool in [&migration.old, &migration.new] {
            data.create(pool).await?;
            data.load(pool, |_| ()).await?;
        }
        migration.init().await?;
        Ok(migration)
    }

    /// The whole configuration for `setup`.
    pub fn configuration(&self, setup: &Setup) -> String {
        let (old, new) = match &setup.urls {
            Some(urls) => (urls.old.clone(), urls.new.clone()),
            None => (self.url(Side::Old), self.url(Side::New)),
        };
        format!(
            "pair = \"{}\"\n\n[old]\nurl = \"{old}\"\n\n[new]\nurl = \"{new}\"\n\n{}{}\n",
            self.pair,
            setup.tables.replace("{schema}", &self.schema),
            setup.settings
        )
    }

    /// A side's URL as the configuration has it.
    pub fn url(&self, side: Side) -> String {
        account_url(match side {
            Side::Old => self.servers.old(),
            Side::New => self.servers.new(),
        })
    }

    /// The configuration file that every command is given.
    pub fn config(&self) -> PathBuf {
        self.folder.join("crossfade.toml")
    }

    pub fn log(&self, direction: Direction) -> PathBuf {
        self.folder.join(format!("{}{LOG_END}", direction.as_str()))
    }

    /// Runs statements on both sides; `{schema}` stands for the migration's schema.
    pub async fn on_both(&self, statements: &[&str]) -> Result<()> {
        for pool in [&self.old, &self.new] {
            self.on(pool, statements).await?;
        }
        Ok(())
    }

    /// Runs statements on one side, in one session.
    pub async fn on(&self, pool: &Pool, statements: &[&str]) -> Result<()> {
        let mut connection = pool.get_conn().await?;
        let each_commits = !statements.iter().any(|statement| opens_transaction(statement));
        for statement in statements {
            let statement = statement.replace("{schema}", &sql::name(&self.schema));
            let mut ran = connection.query_drop(&statement).await;
            // As users do with a transaction of one statement; of several, all would have to be repeated.
            while each_commits && ran.as_ref().is_err_and(sql::is_rolled_back) {
                ran = connection.query_drop(&statement).await;
            }
            ran.with_context(|| format!("cannot run: {statement}"))?;
        }
        Ok(())
    }

    fn arguments(&self, words: &[&str]) -> Vec<String> {
        let mut arguments = vec!["--config".to_owned(), self.config().to_string_lossy().into_owned()];
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        arguments
    }

    /// Runs a command to its end; anything but exit code 0 is an error.
    pub async fn crossfade(&self, words: &[&str]) -> Result<String> {
        let (code, output, errors) = self.crossfade_any(words).await?;
        ensure!(code == Some(0), "`crossfade {}` ended with {code:?}\n{output}{errors}", words.join(" "));
        Ok(output)
    }

    /// Runs a command whatever its exit code: code, standard output, standard error.
    pub async fn crossfade_any(&self, words: &[&str]) -> Result<(Option<i32>, String, String)> {
        let ran = process::run_any(&self.binary, &self.arguments(words), &[], COMMAND_LIMIT).await?;
        ensure!(
            log::repeats(&ran.1, &secrets()).or(log::repeats(&ran.2, &secrets())).is_none(),
            "`crossfade {}` tells the password",
            words.join(" ")
        );
        Ok(ran)
    }

    /// Runs a command with environment variables such as a fail point: code (`None` after a signal), and both outputs together.
    pub async fn crossfade_with(&self, words: &[&str], environment: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
        let (code, output, errors) =
            process::run_any(&self.binary, &self.arguments(words), environment, COMMAND_LIMIT).await?;
        Ok((code, format!("{output}{errors}")))
    }

    /// Starts a command that the test does something to before it ends. Its outputs are in `<name>.log.txt`.
    pub fn tool(&self, name: &str, words: &[&str], environment: &[(&str, &str)]) -> Result<Process> {
        let log = self.folder.join(format!("{name}{LOG_END}"));
        Process::start(&self.binary, &self.arguments(words), environment, &log)
    }

    pub async fn init(&self) -> Result<()> {
        self.crossfade(&["init"]).await.context("init")?;
        Ok(())
    }

    /// Starts one direction, with environment variables such as a fail point.
    pub fn start(&mut self, direction: Direction, environment: &[(&str, &str)]) -> Result<()> {
        self.start_with(direction, &[], environment)
    }

    /// As [`start`](Self::start), with more words after `sync` and the direction.
    pub fn start_with(&mut self, direction: Direction, words: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let words: Vec<&str> = ["sync", direction.as_str()].into_iter().chain(words.iter().copied()).collect();
        let process = Process::start(&self.binary, &self.arguments(&words), environment, &self.log(direction))?;
        *self.slot(direction) = Some(process);
        self.ended_well = false;
        Ok(())
    }

    /// Starts another process for a direction, beside the one that runs it. Dropping it kills it.
    pub fn standby(&self, direction: Direction) -> Result<Process> {
        let log = self.folder.join(format!("{}-standby{LOG_END}", direction.as_str()));
        Process::start(&self.binary, &self.arguments(&["sync", direction.as_str()]), &[], &log)
    }

    /// As [`standby`](Self::standby), and takes itself for one on another machine, from where nobody can see whether the
    /// holder still lives. Only root can give it another host name.
    pub fn standby_elsewhere(&self, direction: Direction) -> Result<Process> {
        let log = self.folder.join(format!("{}-elsewhere{LOG_END}", direction.as_str()));
        let script = "hostname elsewhere && exec \"$0\" \"$@\"";
        let mut arguments: Vec<String> = ["--uts", "sh", "-c", script].map(str::to_owned).into();
        arguments.push(self.binary.to_string_lossy().into_owned());
        arguments.extend(self.arguments(&["sync", direction.as_str()]));
        Process::start(Path::new("unshare"), &arguments, &[], &log)
    }

    /// From now on the given process is the one of this direction; the former one is killed if it still runs.
    pub fn replace(&mut self, direction: Direction, process: Process) {
        *self.slot(direction) = Some(process);
    }

    /// Starts both directions and waits until both run.
    pub async fn start_both(&mut self) -> Result<()> {
        for direction in Direction::BOTH {
            self.start(direction, &[])?;
        }
        self.status().until_running(START_LIMIT).await.with_context(|| self.log_ends())?;
        Ok(())
    }

    fn slot(&mut self, direction: Direction) -> &mut Option<Process> {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Reverse => &mut self.reverse,
        }
    }

    /// The running process of a direction.
    pub fn process(&mut self, direction: Direction) -> Result<&mut Process> {
        self.slot(direction).as_mut().with_context(|| format!("{} was not started", direction.as_str()))
    }

    /// Asks one process to stop, and expects exit code 0.
    pub async fn stop(&mut self, direction: Direction) -> Result<()> {
        let process = self.process(direction)?;
        process.terminate()?;
        let status = process.wait(STOP_LIMIT).await?;
        ensure!(status.success(), "{} ended with {status}\n{}", direction.as_str(), self.log_ends());
        Ok(())
    }

    /// Asks both processes to stop, and expects exit code 0 of each.
    pub async fn stop_both(&mut self) -> Result<()> {
        for direction in Direction::BOTH {
            self.process(direction)?.terminate()?;
        }
        for direction in Direction::BOTH {
            let status = self.process(direction)?.wait(STOP_LIMIT).await?;
            ensure!(status.success(), "{} ended with {status}\n{}", direction.as_str(), self.log_ends());
        }
        self.check_logs()?;
        self.ended_well = true;
        Ok(())
    }

    /// For a test that ended well without [`stop_both`](Self::stop_both): configuration and logs need not be kept.
    ///
    /// # Panics
    ///
    /// As [`check_logs`](Self::check_logs) fails.
    pub fn forget(mut self) {
        if let Err(error) = self.check_logs() {
            panic!("{error:#}");
        }
        self.ended_well = true;
    }

    /// From now on WARN and ERROR lines with one of these parts are no reason to fail, whether they come or not. Whoever
    /// breaks something says here what that makes the processes say.
    pub fn expect_lines(&self, parts: &[&str]) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.extend(parts.iter().map(|part| (*part).to_owned()));
    }

    /// Fails on WARN and ERROR lines of the processes that nobody expected, and on anything that tells a password.
    pub fn check_logs(&self) -> Result<()> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.ends_with(LOG_END) {
                continue;
            }
            let log = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            ensure!(log::repeats(&log, &secrets()).is_none(), "{} tells a password", path.display());
            let lines = log::unexpected(&log, &expected);
            ensure!(lines.is_empty(), "{name} has lines that nobody expected:\n{}", lines.join("\n"));
        }
        Ok(())
    }

    /// Lets applying rest in these directions, and returns when it does; capture goes on.
    pub async fn rest(&self, directions: &[Direction]) -> Result<()> {
        self.wish("stop", directions, |state| state == "paused").await
    }

    /// Ends a [`rest`](Self::rest), and returns when the processes have obeyed.
    pub async fn go_on(&self, directions: &[Direction]) -> Result<()> {
        self.wish("start", directions, |state| state != "paused").await
    }

    /// What users of both sides do without knowing of each other: nothing is applied until both have done it.
    pub async fn apart(&self, on_old: &[&str], on_new: &[&str]) -> Result<()> {
        self.rest(&Direction::BOTH).await?;
        self.on(&self.old, on_old).await?;
        self.on(&self.new, on_new).await?;
        self.go_on(&Direction::BOTH).await
    }

    async fn wish(&self, command: &str, directions: &[Direction], is_obeyed: fn(&str) -> bool) -> Result<()> {
        for direction in directions {
            self.crossfade(&[command, direction.as_str()]).await?;
        }
        until("the processes obey", START_LIMIT, || async {
            let status = self.status().read().await?;
            let obeyed = directions.iter().all(|direction| status.state(direction.as_str()).is_some_and(is_obeyed));
            Ok(if obeyed { Progress::Reached(()) } else { Progress::NotYet(status.0.to_string()) })
        })
        .await
        .with_context(|| self.log_ends())
    }

    pub fn status(&self) -> StatusReader {
        StatusReader::new(&self.binary, &self.config())
    }

    pub async fn compare(&self) -> Result<Comparison> {
        compare::schemas(&self.old, &self.new, &self.schema).await
    }

    /// Waits until both directions have nothing left to do, then compares every row. Differences are an error that lists the
    /// first of them.
    pub async fn until_quiet_and_equal(&self, limit: Duration) -> Result<(Status, Comparison)> {
        let status = self.status().until_quiet(limit).await.with_context(|| self.log_ends())?;
        let comparison = self.compare().await?;
        ensure!(
            comparison.is_equal(),
            "the sides of {} differ when all is quiet\n{comparison}\n{}\n{}",
            self.pair,
            status.0,
            self.log_ends()
        );
        Ok((status, comparison))
    }

    /// The ends of both logs, for messages.
    pub fn log_ends(&self) -> String {
        let end = |direction| process::log_end(&self.log(direction), 15);
        format!("forward's log ends:\n{}\nreverse's log ends:\n{}", end(Direction::Forward), end(Direction::Reverse))
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        if self.ended_well && !std::thread::panicking() {
            // What stays in a temporary folder does no harm.
            let _ = std::fs::remove_dir_all(&self.folder);
        } else {
            eprintln!("configuration and logs are kept in {}", self.folder.display());
        }
    }
}

/// An account that may do everything, and needs a password for it. Made once per server.
pub async fn create_account(server: &Server) -> Result<()> {
    let mut connection = server.connect().await?;
    let known: Option<u8> =
        connection.exec_first("SELECT 1 FROM mysql.user WHERE user = ? AND host = '127.0.0.1'", (ACCOUNT,)).await?;
    if known.is_none() {
        let account = format!("{ACCOUNT}@'127.0.0.1'");
        connection.query_drop(format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{PASSWORD}'")).await?;
        connection.query_drop(format!("GRANT ALL ON *.* TO {account} WITH GRANT OPTION")).await?;
    }
    connection.disconnect().await?;
    Ok(())
}

/// The URL by which the processes log in to a server that has [the account](create_account).
pub fn account_url(server: &Server) -> String {
    server.url(ACCOUNT, PASSWORD)
}

/// The password, and as it stands in a URL.
pub fn secrets() -> [String; 2] {
    let encoded = PASSWORD.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    });
    [PASSWORD.to_owned(), encoded]
}

/// A pair name that no other test of this process has.
fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let short: String = name.chars().map(|c| if c == '_' { '-' } else { c }).take(24).collect();
    format!("{short}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether what follows in the session is not committed by itself.
fn opens_transaction(statement: &str) -> bool {
    let statement = statement.trim_start().to_ascii_uppercase();
    ["BEGIN", "START TRANSACTION", "XA ", "SET AUTOCOMMIT", "SET SESSION AUTOCOMMIT"]
        .iter()
        .any(|word| statement.starts_with(word))
}
