//! Accounts that the reader's own connection cannot log in with.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossfade_binlog::{BinlogError, BinlogReader, ReaderOptions};
use crossfade_config::{Secret, ServerUrl};
use crossfade_model::Position;
use crossfade_servers::{Flavor, Server};
use mysql_async::prelude::Queryable;

use crate::bench::{Bench, drain, story};
use crate::relay::{Relay, Trouble};

const COMPRESS: &str = "SET SESSION binlog_transaction_compression = 1";
const ROWS: usize = 300;

/// What is logged, as a person reads it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines_with(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

/// An account that may read, and options to read as it through a relay, unencrypted so that the relay can take part.
async fn reading_as(
    bench: &mut Bench<'_>,
    name: &str,
    identified: &str,
    relay: &Relay,
    start: Position,
) -> ReaderOptions {
    bench.run(&format!("CREATE USER {name}@'%' IDENTIFIED {identified} BY 'Pass-1'")).await;
    bench.run(&format!("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {name}@'%'")).await;
    let mut options = bench.options(start).await;
    let url = ServerUrl::parse(&format!("mysql://{name}@127.0.0.1:{}?ssl-mode=DISABLED", relay.port)).unwrap();
    options.server = ServerUrl { password: Secret::new("Pass-1"), ..url };
    options
}

/// The server cannot tell readers over either connection apart, but by names.
async fn asked_alike(bench: &mut Bench<'_>) {
    let sessions = "performance_schema.threads JOIN performance_schema.user_variables_by_thread USING (thread_id) \
                    WHERE processlist_command = 'Binlog Dump GTID'";
    let names = "('slave_uuid', 'replica_uuid', 'master_binlog_checksum')";
    // The server begins to send a moment after the reader has asked it to.
    let both = format!("SELECT COUNT(DISTINCT thread_id) FROM {sessions}");
    while bench.conn.query_first::<u64, _>(&both).await.unwrap() != Some(2) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let variables: Vec<(u64, String, String)> = bench
        .conn
        .query(format!(
            "SELECT thread_id, variable_name, CONVERT(variable_value USING utf8mb4) FROM {sessions} \
             AND variable_name NOT IN {names} ORDER BY 1, 2"
        ))
        .await
        .unwrap();
    let of = |thread: u64| variables.iter().filter(move |row| row.0 == thread).map(|row| (&row.1, &row.2));
    let (first, last) = (variables.first().unwrap().0, variables.last().unwrap().0);
    assert_ne!(first, last, "{variables:?}");
    assert_eq!(of(first).collect::<Vec<_>>(), of(last).collect::<Vec<_>>());
    let has = |name: &str| of(first).any(|(known, _)| known == name);
    assert!(has("source_heartbeat_period") && has("source_binlog_checksum"), "{variables:?}");
    // What would make the server wait for a reader's acknowledgements.
    assert!(!variables.iter().any(|(_, name, _)| name.contains("semi_sync")), "{variables:?}");
    let time_outs: Vec<String> = bench
        .conn
        .query(
            "SELECT variable_value FROM performance_schema.threads \
             JOIN performance_schema.variables_by_thread USING (thread_id) \
             WHERE processlist_command = 'Binlog Dump GTID' AND variable_name = 'net_write_timeout'",
        )
        .await
        .unwrap();
    assert_eq!(time_outs, ["86400", "86400"]);
    let replicas: Vec<mysql_async::Row> = bench.conn.query("SHOW REPLICAS").await.unwrap();
    let hosts: Vec<String> = replicas.iter().map(|row| row.get(1).unwrap()).collect();
    assert_eq!(hosts, ["crossfade", "crossfade"]);
}

/// The driver takes over, which is said once, however often it connects; and what comes over it is the same.
#[tokio::test]
async fn unknown_plugin_is_left_to_the_driver() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let server = Server::builder(Flavor::MySql).relaxed().option("performance_schema", "ON").start().await.unwrap();
    let mut bench = Bench::on(&server, "accounts").await.with_table().await;
    let relay = Relay::to(server.port(), Trouble::OtherPlugin).await;
    let start = bench.here().await;
    let mut options = reading_as(&mut bench, "other", "WITH caching_sha2_password", &relay, start.clone()).await;
    // Every row of a compressed transaction a part of its own.
    options.part_bytes = 1;
    let mut reader = BinlogReader::open(options.clone()).await.unwrap();
    // One to ask for definitions, one of the driver's, and the reader's own.
    assert_eq!(relay.connections(), 3);
    let direct = bench.reader(start).await;
    asked_alike(&mut bench).await;
    drop(direct);
    let mut expected = Vec::new();
    for (round, checksum) in ["CRC32", "NONE", "CRC32"].into_iter().enumerate() {
        bench.run(&format!("SET GLOBAL binlog_checksum = {checksum}")).await;
        bench.run_all(&[COMPRESS, "BEGIN"]).await;
        for id in round * 1000..round * 1000 + ROWS {
            bench.run(&format!("INSERT INTO t VALUES ({id}, REPEAT('a', 90))")).await;
            expected.push(format!("+{id}:{}", "a".repeat(90)));
        }
        bench.run_all(&["COMMIT", "SET SESSION binlog_transaction_compression = 0"]).await;
        bench.run(&format!("UPDATE t SET v = 'b' WHERE id = {}", round * 1000)).await;
        expected.push(format!("{0}:{1}>{0}:b", round * 1000, "a".repeat(90)));
        let events: Vec<mysql_async::Row> = bench.conn.query("SHOW BINARY LOGS").await.unwrap();
        let last: String = events.last().unwrap().get(0).unwrap();
        let events: Vec<mysql_async::Row> = bench.conn.query(format!("SHOW BINLOG EVENTS IN '{last}'")).await.unwrap();
        let packed = |event: &mysql_async::Row| event.get::<String, _>(2).unwrap() == "Transaction_payload";
        assert_eq!(events.iter().filter(|event| packed(event)).count(), 1, "in {last}");
    }
    let end = bench.here().await;
    let parts = drain(&mut reader, &end).await.unwrap();
    assert_eq!(story(&parts), expected);
    assert!(parts.len() > 3 * 2, "{} parts", parts.len());
    // Again, from the middle of the second compressed transaction, over a new connection.
    let middle =
        parts.iter().position(|part| story(std::slice::from_ref(part)).contains(&expected[ROWS + 50])).unwrap();
    options.start = parts[middle].resume.clone();
    let mut again = BinlogReader::open(options).await.unwrap();
    let given: usize = parts[..=middle].iter().map(|part| part.changes.len()).sum();
    assert_eq!(story(&drain(&mut again, &end).await.unwrap()), expected[given..]);
    assert_eq!(relay.connections(), 6);
    let told = log.lines_with("driver");
    assert!(
        matches!(&told[..], [one] if one.contains("authentication_of_tomorrow") && one.contains("WARN")),
        "{told:#?}"
    );
    assert!(log.lines_with("Pass-1").is_empty());
}

/// Who is refused is not tried again in another way.
#[tokio::test]
async fn refusal_is_final() {
    let mut bench = Bench::shared(Flavor::MySql, "refused").await.with_table().await;
    let relay = Relay::to(bench.server.port(), Trouble::OtherUser).await;
    // Of users that do not exist a server may ask anything, so that nobody learns who does.
    bench.run("CREATE USER sefused@'%' IDENTIFIED WITH caching_sha2_password BY 'Pass-2'").await;
    let start = bench.here().await;
    let options = reading_as(&mut bench, "refused", "WITH caching_sha2_password", &relay, start).await;
    let error = BinlogReader::open(options).await.expect_err("another user");
    assert!(!error.is_transient() && error.hint().unwrap().contains("user and password"), "{error:?}");
    assert_eq!(relay.connections(), 3);
}

/// An account that neither knows: the plugin is named, and the password is not sent in the hope that it helps.
#[tokio::test]
async fn plugin_that_nobody_knows() {
    let mut bench = Bench::shared(Flavor::MySql, "nobody").await.with_table().await;
    let relay = Relay::to(bench.server.port(), Trouble::OtherPlugin).await;
    let start = bench.here().await;
    let options = reading_as(&mut bench, "nobody_knows", "WITH sha256_password", &relay, start).await;
    let error = BinlogReader::open(options).await.expect_err("a plugin that nobody knows");
    assert!(matches!(error, BinlogError::Catalog(_)) && !error.is_transient(), "{error:?}");
    assert!(format!("{error:?}").contains("sha256_password"), "{error:?}");
}
