//! Connections that break, servers that die, positions that are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossfade_binlog::{BinlogError, BinlogReader, Notice, ReaderOptions};
use crossfade_config::{Endpoint, ServerUrl};
use crossfade_model::{GtidSet, Position};
use crossfade_servers::{Flavor, Server};
use mysql_async::prelude::Queryable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{Bench, PATIENCE, drain, story};
use crate::on_both;
use crate::relay::{Relay, Trouble};

on_both!(
    killed_server,
    dead_link,
    cut_links,
    cancelled_calls,
    purged_and_foreign_positions,
    two_readers,
    slow_consumer,
    damaged_events
);

async fn killed_server(flavor: Flavor) {
    let server = Server::builder(flavor).start().await.unwrap();
    let mut bench = Bench::on(&server, "killed").await.with_table().await;
    let start = bench.here().await;
    let mut reader = bench.reader(start).await;
    bench.run("INSERT INTO t VALUES (1, 'before')").await;
    let end = bench.here().await;
    let mut parts = drain(&mut reader, &end).await.unwrap();
    server.kill9().await.unwrap();
    assert!(reader.next_within(Duration::from_secs(1)).await.unwrap().is_none());
    assert!(reader.trouble().is_some());
    server.restart().await.unwrap();
    bench.conn = server.connect().await.unwrap();
    bench.run_all(&["USE killed", "INSERT INTO t VALUES (2, 'after')"]).await;
    let end = bench.here().await;
    parts.extend(drain(&mut reader, &end).await.unwrap());
    // An orderly restart in the middle of things.
    server.restart().await.unwrap();
    bench.conn = server.connect().await.unwrap();
    bench.run_all(&["USE killed", "INSERT INTO t VALUES (3, 'again')"]).await;
    let end = bench.here().await;
    parts.extend(drain(&mut reader, &end).await.unwrap());
    assert_eq!(story(&parts), ["+1:before", "+2:after", "+3:again"]);
    assert_eq!(reader.trouble(), None);
    assert!(reader.take_notices().iter().any(|notice| matches!(notice, Notice::Reconnected { .. })));
}

/// Forwards a port until it is told to stop; connections then stay open and silent.
struct Link {
    port: u16,
    silent: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Link {
    async fn to(port: u16) -> Link {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let link =
            Link { port: listener.local_addr().unwrap().port(), silent: Arc::default(), connections: Arc::default() };
        let (silent, connections) = (link.silent.clone(), link.connections.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                // A link that was silent once stays so; those made later work.
                tokio::spawn(forward(from_client, to_server, silent.clone()));
                tokio::spawn(forward(from_server, to_client, silent.clone()));
            }
        });
        link
    }
}

async fn forward(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, silent: Arc<AtomicBool>) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if silent.load(Ordering::SeqCst) {
            // Neither an end nor a byte more.
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A link that takes packets and delivers none: only the missing heartbeats tell.
async fn dead_link(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "link").await.with_table().await;
    let start = bench.here().await;
    let link = Link::to(bench.server.port()).await;
    let mut options = bench.options(start).await;
    options.server.endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: link.port };
    let mut reader = BinlogReader::open(options).await.unwrap();
    bench.run("INSERT INTO t VALUES (1, 'before')").await;
    let end = bench.here().await;
    let mut parts = drain(&mut reader, &end).await.unwrap();
    // Heartbeats keep an idle link alive for longer than the read time-out.
    let connections = link.connections.load(Ordering::SeqCst);
    let idle_until = tokio::time::Instant::now() + Duration::from_secs(4);
    while tokio::time::Instant::now() < idle_until {
        // Others use the server as well; what they write has no rows of this table.
        parts.extend(reader.next_within(idle_until - tokio::time::Instant::now()).await.unwrap());
    }
    assert_eq!(link.connections.load(Ordering::SeqCst), connections);
    link.silent.store(true, Ordering::SeqCst);
    bench.run("INSERT INTO t VALUES (2, 'unheard')").await;
    let waited = tokio::time::Instant::now();
    while reader.trouble().is_none() {
        assert!(reader.next_within(Duration::from_millis(100)).await.unwrap().is_none());
        assert!(waited.elapsed() < PATIENCE);
    }
    assert!(waited.elapsed() < Duration::from_secs(20), "{:?}", waited.elapsed());
    link.silent.store(false, Ordering::SeqCst);
    let end = bench.here().await;
    parts.extend(drain(&mut reader, &end).await.unwrap());
    assert_eq!(story(&parts), ["+1:before", "+2:unheard"]);
    assert!(link.connections.load(Ordering::SeqCst) > connections);
}

const LARGE_BYTES: usize = 3 << 20;

/// Options to read through a relay, and where the reader will stand when it has read one large row.
async fn large_row_through(bench: &mut Bench<'_>, trouble: Trouble) -> (Relay, ReaderOptions, Position) {
    bench.run("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)").await;
    let start = bench.here().await;
    bench.run(&format!("INSERT INTO t VALUES (1, REPEAT('x', {LARGE_BYTES}))")).await;
    let end = bench.here().await;
    let relay = Relay::to(bench.server.port(), trouble).await;
    let mut options = bench.options(start).await;
    options.server = ServerUrl::parse(&format!("mysql://root@127.0.0.1:{}?ssl-mode=DISABLED", relay.port)).unwrap();
    (relay, options, end)
}

/// Links that break in the middle of an event, again and again at the same place, have damaged nothing.
async fn cut_links(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "cut").await;
    let trouble = Trouble::Cut { connections: 4, bytes: LARGE_BYTES / 2 };
    let (relay, options, end) = large_row_through(&mut bench, trouble).await;
    let mut reader = BinlogReader::open(options).await.unwrap();
    let parts = drain(&mut reader, &end).await.unwrap();
    assert_eq!(story(&parts), [format!("+1:{}", "x".repeat(LARGE_BYTES))]);
    assert!(relay.connections() >= 5, "{} connections", relay.connections());
}

/// An event that takes longer than the read time-out, on a link that is slow and not dead.
#[tokio::test]
async fn slow_link() {
    let mut bench = Bench::shared(Flavor::MySql, "slow_link").await;
    let trouble = Trouble::Slow { bytes: LARGE_BYTES / 6 };
    let (relay, options, end) = large_row_through(&mut bench, trouble).await;
    let read_timeout = options.read_timeout;
    let mut reader = BinlogReader::open(options).await.unwrap();
    let (connections, began) = (relay.connections(), std::time::Instant::now());
    let parts = drain(&mut reader, &end).await.unwrap();
    assert_eq!(story(&parts), [format!("+1:{}", "x".repeat(LARGE_BYTES))]);
    assert!(began.elapsed() > 2 * read_timeout, "{:?}", began.elapsed());
    assert_eq!(relay.connections(), connections);
}

/// Callers who never wait longer than a moment get everything once.
async fn cancelled_calls(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "cancelled").await.with_table().await;
    let start = bench.here().await;
    let mut options = bench.options(start).await;
    options.part_bytes = 4 << 10;
    let mut reader = BinlogReader::open(options).await.unwrap();
    let expected = |id| [format!("+{id}:{}", "y".repeat(50)), format!("+{}:z", id + 1000)];
    let write = async {
        for id in 0..200 {
            bench.run(&format!("INSERT INTO t VALUES ({id}, REPEAT('y', 50)), ({id} + 1000, 'z')")).await;
        }
    };
    let read = async {
        let (mut changes, mut given_up) = (Vec::new(), 0);
        while changes.len() < 400 {
            tokio::select! {
                biased;
                part = reader.next() => changes.extend(story(&[part.unwrap()])),
                () = tokio::task::yield_now() => given_up += 1,
            }
        }
        (changes, given_up)
    };
    let ((), (changes, given_up)) = tokio::join!(write, async { tokio::time::timeout(PATIENCE, read).await.unwrap() });
    assert!(given_up > 0);
    assert_eq!(changes, (0..200).flat_map(expected).collect::<Vec<_>>());
}

async fn purged_and_foreign_positions(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().start().await.unwrap();
    let mut bench = Bench::on(&server, "purged").await.with_table().await;
    let start = bench.here().await;
    let file = crossfade_binlog::current_file_position(&mut bench.conn, "test").await.unwrap();
    bench.run_all(&["INSERT INTO t VALUES (1, 'a')", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (2, 'b')"]).await;
    let kept = bench.here().await;
    // MariaDB needs the old file until what it wrote there is checkpointed.
    bench.run_all(&["FLUSH BINARY LOGS", "INSERT INTO t VALUES (3, 'c')", "FLUSH BINARY LOGS"]).await;
    let Position::File { file: now, .. } =
        crossfade_binlog::current_file_position(&mut bench.conn, "test").await.unwrap()
    else {
        panic!("a file position")
    };
    let began = tokio::time::Instant::now();
    while bench.conn.query_first::<mysql_async::Row, _>("SHOW BINARY LOGS").await.unwrap().unwrap().get(0)
        != Some(now.clone())
    {
        bench.run(&format!("PURGE BINARY LOGS TO '{now}'")).await;
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for start in [start.clone(), kept, file] {
        let options = bench.options(start.clone()).await;
        let error = BinlogReader::open(options).await.expect_err("a purged position");
        assert!(matches!(&error, BinlogError::Purged { .. }), "{start}: {error}");
        assert!(!error.is_transient() && error.hint().unwrap().contains("retention"));
    }
    let ahead = match start {
        Position::MySql { mut executed } => {
            executed.insert("3e11fa47-71ca-11e1-9e33-c80aa9429562", "", 5);
            Position::MySql { executed: executed.union(&bench_executed(&mut bench).await) }
        }
        Position::MariaDb { mut gtid } => {
            let (domain, (id, _)) = gtid.domains.iter().next().map(|(domain, last)| (*domain, *last)).unwrap();
            gtid.advance(domain, id, 1_000_000);
            Position::MariaDb { gtid }
        }
        Position::File { .. } => panic!("a GTID position"),
    };
    let options = bench.options(ahead).await;
    let error = BinlogReader::open(options).await.expect_err("a position of the future");
    assert!(matches!(error, BinlogError::PositionAhead { .. }), "{error}");
    let other_kind = match flavor {
        Flavor::MySql => Position::MariaDb { gtid: "0-1-1".parse().unwrap() },
        Flavor::MariaDb => Position::MySql { executed: GtidSet::default() },
    };
    let options = bench.options(other_kind).await;
    assert!(matches!(BinlogReader::open(options).await, Err(BinlogError::PositionKind { .. })));
    // Nobody there, and a wrong password: the one passes, the other does not.
    let start = bench.here().await;
    let mut options = bench.options(start).await;
    let root = options.server.clone();
    options.server = ServerUrl::parse("mysql://root@127.0.0.1:1").unwrap();
    assert!(BinlogReader::open(options.clone()).await.expect_err("no server").is_transient());
    options.server = ServerUrl { user: "nobody".to_owned(), ..root };
    assert!(!BinlogReader::open(options).await.expect_err("no account").is_transient());
}

async fn bench_executed(bench: &mut Bench<'_>) -> GtidSet {
    match bench.here().await {
        Position::MySql { executed } => executed,
        other => panic!("{other}"),
    }
}

/// Two readers of one server live side by side, under server ids that nobody else has.
async fn two_readers(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "two").await.with_table().await;
    let start = bench.here().await;
    let (mut first, mut second) = (bench.reader(start.clone()).await, bench.reader(start).await);
    for id in 0..5 {
        bench.run(&format!("INSERT INTO t VALUES ({id}, 'a')")).await;
        let end = bench.here().await;
        for reader in [&mut first, &mut second] {
            assert_eq!(story(&drain(reader, &end).await.unwrap()), [format!("+{id}:a")]);
            assert!(reader.take_notices().is_empty());
        }
    }
    let listed = if flavor == Flavor::MySql { "SHOW REPLICAS" } else { "SHOW SLAVE HOSTS" };
    let replicas: Vec<mysql_async::Row> = bench.conn.query(listed).await.unwrap();
    let mut ids: Vec<u32> = replicas.iter().map(|row| row.get(0).unwrap()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert!(count >= 2 && ids.len() == count && ids.iter().all(|id| *id >= 3_000_000_000), "{ids:?}");
}

/// A consumer that takes its time is not thrown out, however impatient the server's setting.
async fn slow_consumer(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().option("net_write_timeout", 1).start().await.unwrap();
    let mut bench = Bench::on(&server, "slow").await;
    bench.run("CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)").await;
    let start = bench.here().await;
    let mut reader = bench.reader(start).await;
    // More than the sockets' buffers hold.
    for id in 0..24 {
        bench.run(&format!("INSERT INTO t VALUES ({id}, REPEAT('x', 2 << 20))")).await;
    }
    assert_eq!(reader.next().await.unwrap().changes.len(), 1);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let end = bench.here().await;
    let parts = drain(&mut reader, &end).await.unwrap();
    assert_eq!(parts.iter().map(|part| part.changes.len()).sum::<usize>(), 23);
    assert!(reader.take_notices().is_empty(), "the connection was lost");
}

/// Damage on the source's disk: found by the checksum, and by what is inside where the checksum is right.
async fn damaged_events(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().start().await.unwrap();
    let mut bench = Bench::on(&server, "damaged").await.with_table().await;
    if flavor == Flavor::MySql {
        bench.run("SET SESSION binlog_transaction_compression = 1").await;
    }
    let start = bench.here().await;
    bench.run("INSERT INTO t VALUES (1, REPEAT('abc', 30))").await;
    bench.run_all(&["FLUSH BINARY LOGS", "INSERT INTO t VALUES (2, 'b')"]).await;
    let end = bench.here().await;
    let events: Vec<mysql_async::Row> = bench.conn.query("SHOW BINLOG EVENTS IN 'binlog.000001'").await.unwrap();
    let kind = if flavor == Flavor::MySql { "Transaction_payload" } else { "Write_rows_v1" };
    let event = events.iter().rfind(|event| event.get::<String, _>(2).unwrap() == kind).expect(kind);
    let (from, to) = (event.get::<usize, _>(1).unwrap(), event.get::<usize, _>(4).unwrap());
    let path = server.data_dir().join("binlog.000001");
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = (from + to) / 2;
    bad[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&path, &bad).unwrap();
    let mut reader = bench.reader(start.clone()).await;
    let error = drain(&mut reader, &end).await.expect_err("the checksum is wrong");
    assert!(error.to_string().contains("checksum") && error.to_string().contains("binlog.000001:"), "{error}");
    if flavor == Flavor::MySql {
        let sum = crc32fast::hash(&bad[from..to - 4]);
        bad[to - 4..to].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(&path, &bad).unwrap();
        let error = drain(&mut reader, &end).await.expect_err("the payload cannot be unpacked");
        // Where the damage lies in what zstd takes literally, it unpacks to events that cannot be read.
        let (told, place) = (error.to_string(), "binlog.000001:");
        assert!(told.contains(place) && (told.contains("unpacked") || told.contains("cannot be read")), "{told}");
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(story(&drain(&mut reader, &end).await.unwrap()).len(), 2);
}
