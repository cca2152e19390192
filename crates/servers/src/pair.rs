//! An old and a new server that all tests of a test binary share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mysql_async::prelude::Queryable;

use crate::{Error, Flavor, Server, ServerBuilder};

/// An old and a new server, started once per test binary and brand. Each test takes schemas of its own.
///
/// Both are relaxed (no sync at commit). A test that stops, kills or reconfigures a server starts one of its own instead.
/// The servers end with the process.
#[derive(Debug)]
pub struct SharedPair {
    old: Server,
    new: Server,
}

/// What `OnceLock` keeps: the text, since every test that asks shall see why there are no servers.
type Started = Result<SharedPair, String>;

impl SharedPair {
    /// The pair of a brand; the first call starts it, calls meanwhile wait for that.
    ///
    /// # Panics
    ///
    /// If the servers cannot be started, with the reason and the command that installs them: a test without servers fails.
    pub async fn get(flavor: Flavor) -> &'static SharedPair {
        let pair =
            tokio::task::spawn_blocking(move || Self::started(flavor)).await.expect("starting servers does not panic");
        pair.as_ref().unwrap_or_else(|error| panic!("{error}"))
    }

    fn started(flavor: Flavor) -> &'static Started {
        static MYSQL: OnceLock<Started> = OnceLock::new();
        static MARIADB: OnceLock<Started> = OnceLock::new();
        let cell = match flavor {
            Flavor::MySql => &MYSQL,
            Flavor::MariaDb => &MARIADB,
        };
        cell.get_or_init(|| {
            let builder = Server::builder(flavor).relaxed();
            Self::start_both(builder.clone(), builder).map_err(|error| chain(&error))
        })
    }

    fn start_both(of_old: ServerBuilder, of_new: ServerBuilder) -> Result<SharedPair, Error> {
        std::thread::scope(|scope| {
            let old = scope.spawn(move || of_old.start_blocking());
            let new = of_new.start_blocking();
            let old = old.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(SharedPair { old: old?, new: new? })
        })
    }

    /// A pair for one test alone, which may stop, kill and reconfigure it. Both servers end with the process.
    ///
    /// # Errors
    ///
    /// As those of [`ServerBuilder::start`].
    pub async fn own(builder: ServerBuilder) -> Result<&'static SharedPair, Error> {
        Self::own_of(builder.clone(), builder).await
    }

    /// As [`own`](SharedPair::own), of servers that differ.
    pub async fn own_of(old: ServerBuilder, new: ServerBuilder) -> Result<&'static SharedPair, Error> {
        let pair = crate::server::blocking(move || Self::start_both(old, new)).await?;
        Ok(Box::leak(Box::new(pair)))
    }

    pub fn old(&self) -> &Server {
        &self.old
    }

    // The lint takes `new` for a constructor; the sides are called old and new everywhere.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(&self) -> &Server {
        &self.new
    }

    pub fn flavor(&self) -> Flavor {
        self.old.flavor()
    }

    /// A schema name that no other test of this process gets: `name` (cut to 40 characters) with a number. Nothing is created.
    pub fn schema(&self, name: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .take(40)
            .collect();
        format!("{name}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates a schema of a unique name on both servers, and returns the name.
    pub async fn create_schema(&self, name: &str) -> Result<String, Error> {
        let schema = self.schema(name);
        for server in [&self.old, &self.new] {
            let mut connection = server.connect().await?;
            let statement = format!("CREATE DATABASE `{schema}`");
            connection.query_drop(&statement).await.map_err(|source| Error::Database { what: statement, source })?;
            // The schema is there; how the connection ends does not matter.
            let _ = connection.disconnect().await;
        }
        Ok(schema)
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
