//! What the tests of the stream share: a schema with tables on a real server, and a reader of them.

use std::sync::Arc;
use std::time::Duration;

use crossfade_binlog::{
    BinlogError, BinlogReader, ReaderOptions, SyncedTables, TransactionPart, current_file_position, current_position,
};
use crossfade_catalog::table_shape;
use crossfade_config::ServerUrl;
use crossfade_model::{Direction, Position, ResumePoint, RowChange, TableName, Value};
use crossfade_servers::{Flavor, Server, SharedPair};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// Longer than anything takes on a busy machine; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A schema of its own on a server, with a connection for writing.
pub struct Bench<'a> {
    pub server: &'a Server,
    pub schema: String,
    pub conn: Conn,
    /// The pair's name, which no other test has.
    pub pair: String,
}

/// The checkpoint and heartbeat tables in the form that the applier writes.
const OWN_TABLES: [&str; 3] = [
    "CREATE DATABASE IF NOT EXISTS crossfade",
    "CREATE TABLE IF NOT EXISTS crossfade.checkpoint (pair VARCHAR(64) NOT NULL, stream VARCHAR(64) NOT NULL, \
     lane SMALLINT UNSIGNED NOT NULL, seq BIGINT UNSIGNED NOT NULL, batch_first BIGINT UNSIGNED NOT NULL, \
     batch_last BIGINT UNSIGNED NOT NULL, lanes SMALLINT UNSIGNED NOT NULL, epoch BIGINT UNSIGNED NOT NULL, \
     writes BIGINT UNSIGNED NOT NULL DEFAULT 0, updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), \
     PRIMARY KEY (pair, stream, lane)) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS crossfade.heartbeat (pair VARCHAR(64) NOT NULL, writer VARCHAR(64) NOT NULL, \
     counter BIGINT UNSIGNED NOT NULL, beat_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), \
     PRIMARY KEY (pair, writer)) ENGINE=InnoDB",
];

impl Bench<'static> {
    /// On the servers that all tests share.
    pub async fn shared(flavor: Flavor, name: &str) -> Bench<'static> {
        let pair = SharedPair::get(flavor).await;
        Bench::on(pair.old(), &pair.schema(name)).await
    }
}

impl<'a> Bench<'a> {
    pub async fn on(server: &'a Server, schema: &str) -> Bench<'a> {
        let mut bench = Bench {
            server,
            schema: schema.to_owned(),
            conn: server.connect().await.expect("a connection"),
            pair: format!("pair_{schema}"),
        };
        for statement in OWN_TABLES {
            bench.run(statement).await;
        }
        bench.run(&format!("CREATE DATABASE `{schema}`")).await;
        bench.run(&format!("USE `{schema}`")).await;
        bench
    }

    /// As [`Bench::shared`] or [`Bench::on`], with a table `t (id, v)`.
    pub async fn with_table(mut self) -> Self {
        self.run("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(100))").await;
        self
    }

    pub async fn run(&mut self, statement: &str) {
        self.conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    pub async fn run_all(&mut self, statements: &[&str]) {
        for statement in statements {
            self.run(statement).await;
        }
    }

    /// Runs a statement on a connection of its own.
    pub async fn beside(&mut self, statement: &str) {
        let mut conn = self.server.connect().await.expect("a connection");
        conn.query_drop(format!("USE `{}`", self.schema)).await.expect("the schema");
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        conn.disconnect().await.expect("the connection ends");
    }

    pub async fn here(&mut self) -> Position {
        current_position(&mut self.conn, "test").await.expect("a position")
    }

    /// The names of the server's binlog files, oldest first.
    pub async fn files(&mut self) -> Vec<String> {
        let rows: Vec<mysql_async::Row> = self.conn.query("SHOW BINARY LOGS").await.expect("the list of files");
        rows.iter().map(|row| row.get(0).expect("a file's name")).collect()
    }

    pub fn url(&self) -> ServerUrl {
        ServerUrl::parse(&self.server.root_url()).expect("the server's URL")
    }

    pub fn table(&self, name: &str) -> TableName {
        TableName::new(self.schema.as_str(), name)
    }

    pub async fn tables(&mut self, names: &[&str]) -> SyncedTables {
        let mut tables = SyncedTables::new();
        for name in names {
            let name = self.table(name);
            let shape = table_shape(&mut self.conn, &name).await.expect("a definition");
            tables.insert_whole(Arc::new(shape.expect("the table exists")));
        }
        tables
    }

    /// Options to read `t` from a position, with short times so that a test of an outage does not last.
    pub async fn options(&mut self, start: impl Into<ResumePoint>) -> ReaderOptions {
        let tables = self.tables(&["t"]).await;
        let mut options = ReaderOptions::new(self.url(), self.pair.as_str(), Direction::Forward, tables, start);
        options.heartbeat = Duration::from_millis(500);
        options.read_timeout = Duration::from_secs(2);
        options.backoff_longest = Duration::from_millis(500);
        options
    }

    pub async fn reader(&mut self, start: impl Into<ResumePoint>) -> BinlogReader {
        let options = self.options(start).await;
        BinlogReader::open(options).await.expect("a reader")
    }

    /// Everything from a position to the end of the binlog.
    pub async fn read_from(&mut self, start: impl Into<ResumePoint>) -> Vec<TransactionPart> {
        let mut reader = self.reader(start).await;
        let end = self.here().await;
        drain(&mut reader, &end).await.expect("no error")
    }

    /// As [`Bench::read_from`], from and to a file position.
    pub async fn read_from_file(&mut self, start: impl Into<ResumePoint>) -> Vec<TransactionPart> {
        let mut reader = self.reader(start).await;
        let end = current_file_position(&mut self.conn, "test").await.expect("a position");
        drain(&mut reader, &end).await.expect("no error")
    }

    /// The error that stops a reader of `t` before the end of the binlog.
    pub async fn stops_from(&mut self, start: Position) -> BinlogError {
        let mut reader = self.reader(start).await;
        let end = self.here().await;
        drain(&mut reader, &end).await.expect_err("the stream stops")
    }
}

/// Parts up to a position.
pub async fn drain(reader: &mut BinlogReader, end: &Position) -> Result<Vec<TransactionPart>, BinlogError> {
    let mut parts = Vec::new();
    let all = async {
        while let Some(part) = reader.next_until(end).await? {
            parts.push(part);
        }
        Ok::<(), BinlogError>(())
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the reader gets there")?;
    Ok(parts)
}

/// Changes in all parts, as `+1:a` (insert), `1:a>1:b` (update), `-1:a` (delete).
pub fn story(parts: &[TransactionPart]) -> Vec<String> {
    parts.iter().flat_map(|part| &part.changes).map(told).collect()
}

pub fn told(change: &RowChange) -> String {
    let image = |row: &Vec<Value>| {
        let cell = |value: &Value| match value {
            Value::Int(number) => number.to_string(),
            Value::UInt(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Null => "null".to_owned(),
            other => format!("{other:?}"),
        };
        row.iter().map(cell).collect::<Vec<_>>().join(":")
    };
    match (&change.before, &change.after) {
        (None, Some(after)) => format!("+{}", image(after)),
        (Some(before), Some(after)) => format!("{}>{}", image(before), image(after)),
        (Some(before), None) => format!("-{}", image(before)),
        (None, None) => "nothing".to_owned(),
    }
}

/// Makes a test for each brand of server from an async function that takes it.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test]
            async fn mysql() {
                super::$name(crossfade_servers::Flavor::MySql).await;
            }
            #[tokio::test]
            async fn mariadb() {
                super::$name(crossfade_servers::Flavor::MariaDb).await;
            }
        }
    )+};
}
