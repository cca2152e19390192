//! Transactions that MySQL has compressed: whole, in bounded memory, and never with a part missing.

use std::os::unix::fs::FileExt;
use std::process::Command;

use crossfade_binlog::{BinlogReader, ReaderOptions, SyncedTables};
use crossfade_catalog::{Purpose, connect, table_shape};
use crossfade_config::ServerUrl;
use crossfade_model::{Direction, Origin, Position, TableName, Value};
use crossfade_servers::{Flavor, Server};
use mysql_async::prelude::Queryable;

use crate::bench::{Bench, PATIENCE, drain, story};

const COMPRESS: &str = "SET SESSION binlog_transaction_compression = 1";

/// What the child of [`giant_in_bounded_memory`] is told: URL, start, end, bytes in a part.
const READ: &str = "CROSSFADE_TEST_READ";
const GIANT_ROWS: u64 = 25_000;
const GIANT_ROW_BYTES: u64 = 8_000;
const PART_BYTES: usize = 4 << 20;
/// Everything: the process, its runtime and connections, parts, and what is unpacked ahead. The transaction is 200 MB.
const BOUND_KIB: u64 = 32 << 10;

/// P8: the transaction is never in memory as a whole, neither unpacked by the reader nor as changes.
#[tokio::test]
async fn giant_in_bounded_memory() {
    if let Ok(told) = std::env::var(READ) {
        return read_giant(&told).await;
    }
    let server = Server::builder(Flavor::MySql).relaxed().start().await.unwrap();
    let mut bench = Bench::on(&server, "giant").await;
    bench.run_all(&["CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", COMPRESS]).await;
    bench.run("SET SESSION cte_max_recursion_depth = 1000000").await;
    let start = bench.here().await;
    let numbers =
        format!("WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < {GIANT_ROWS})");
    bench.run(&format!("INSERT INTO t {numbers} SELECT id, REPEAT('x', {GIANT_ROW_BYTES}) FROM n")).await;
    let end = bench.here().await;
    let payload = payload_event(&mut bench, "binlog.000001").await;
    assert!(payload.1 - payload.0 < 1 << 20, "not compressed: {payload:?}");

    let read = |part_bytes: usize| {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "compressed::giant_in_bounded_memory", "--nocapture"])
            .env(READ, format!("{}\n{start}\n{end}\n{part_bytes}", server.root_url()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        let line = text.lines().find_map(|line| line.split_once("read:")).expect("what was read").1;
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        (numbers[0], numbers[1], numbers[2])
    };
    let (rows, parts, peak_kib) = read(PART_BYTES);
    println!("{rows} rows in {parts} parts: {peak_kib} KiB at most");
    assert_eq!(rows, GIANT_ROWS);
    assert!(parts >= GIANT_ROWS * GIANT_ROW_BYTES / (PART_BYTES as u64 * 11 / 10), "{parts} parts");
    assert!(peak_kib < BOUND_KIB, "{peak_kib} KiB");
    // The measure can tell: with the transaction in one part it is in memory, and seen there.
    let (rows, parts, peak_kib) = read(usize::MAX);
    assert_eq!((rows, parts), (GIANT_ROWS, 1));
    assert!(peak_kib > GIANT_ROWS * GIANT_ROW_BYTES / 1024, "{peak_kib} KiB");
}

/// The child: reads, keeps nothing but the part at hand, and tells rows, parts, and the most memory it ever had.
async fn read_giant(told: &str) {
    let mut told = told.lines();
    let url = ServerUrl::parse(told.next().unwrap()).unwrap();
    let [start, end] =
        [told.next(), told.next()].map(|gtids| Position::MySql { executed: gtids.unwrap().parse().unwrap() });
    let table = TableName::new("giant", "t");
    let mut conn = connect(&url, Purpose::Catalog).await.unwrap();
    let mut tables = SyncedTables::new();
    tables.insert_whole(table_shape(&mut conn, &table).await.unwrap().unwrap().into());
    let mut options = ReaderOptions::new(url, "pair", Direction::Forward, tables, start);
    options.part_bytes = told.next().unwrap().parse().unwrap();
    let mut reader = BinlogReader::open(options).await.unwrap();
    let (mut rows, mut parts) = (0, 0);
    while let Some(part) = reader.next_until(&end).await.unwrap() {
        assert_eq!(part.rows_before, rows);
        for change in &part.changes {
            rows += 1;
            let row = change.after.as_ref().unwrap();
            assert_eq!(row[0], Value::Int(rows as i64));
            assert!(matches!(&row[1], Value::Text(text) if text.len() as u64 == GIANT_ROW_BYTES));
        }
        parts += 1;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("read: {rows} {parts} {}", peak.trim().trim_end_matches(" kB"));
}

/// Where the last compressed transaction of a file begins and ends.
async fn payload_event(bench: &mut Bench<'_>, file: &str) -> (usize, usize) {
    let events: Vec<mysql_async::Row> = bench.conn.query(format!("SHOW BINLOG EVENTS IN '{file}'")).await.unwrap();
    let event = events.iter().rfind(|event| event.get::<String, _>(2).unwrap() == "Transaction_payload").unwrap();
    (event.get(1).unwrap(), event.get(4).unwrap())
}

/// Several tables, partial JSON, rows of many kinds; and going on in the middle, at every row.
#[tokio::test]
async fn tables_and_partial_documents() {
    let mut bench = Bench::shared(Flavor::MySql, "packed").await.with_table().await;
    bench
        .run_all(&[
            "CREATE TABLE d (id INT PRIMARY KEY, doc JSON, other JSON)",
            "CREATE TABLE unsynced (id INT PRIMARY KEY)",
            r#"INSERT INTO d VALUES (1, '{"a": 1, "b": [1, 2, 3], "c": "long enough to be left alone"}', '[]')"#,
            COMPRESS,
            "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
        ])
        .await;
    let start = bench.here().await;
    bench
        .run_all(&[
            "BEGIN",
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
            "INSERT INTO unsynced VALUES (1)",
            "UPDATE d SET doc = JSON_SET(JSON_REMOVE(doc, '$.b[0]'), '$.a', 2) WHERE id = 1",
            "UPDATE t JOIN d ON d.id = t.id SET t.v = 'c', d.doc = JSON_SET(d.doc, '$.a', 7)",
            "DELETE FROM t WHERE id = 2",
            "COMMIT",
            "INSERT INTO t VALUES (9, 'after')",
        ])
        .await;
    let end = bench.here().await;
    let tables = bench.tables(&["t", "d"]).await;
    let mut options = bench.options(start).await;
    options.tables = tables;
    // Every row a part of its own.
    options.part_bytes = 1;
    let parts = drain(&mut BinlogReader::open(options.clone()).await.unwrap(), &end).await.unwrap();
    let changes: Vec<_> = parts.iter().flat_map(|part| &part.changes).collect();
    let documents: Vec<_> = changes.iter().filter(|change| &*change.layout.name.table == "d").collect();
    let document = |value: &Value| match value {
        Value::Json(document) => serde_json::from_str::<serde_json::Value>(&document.text).unwrap(),
        other => panic!("{other:?}"),
    };
    let after: Vec<_> = documents.iter().map(|change| document(&change.after.as_ref().unwrap()[1])).collect();
    let text = "long enough to be left alone";
    let document = |a: u8| serde_json::json!({"a": a, "b": [2, 3], "c": text});
    assert_eq!(after, [document(2), document(7)]);
    let of_t: Vec<_> =
        changes.iter().filter(|change| &*change.layout.name.table == "t").map(|c| crate::bench::told(c)).collect();
    assert_eq!(of_t, ["+1:a", "+2:b", "1:a>1:c", "-2:b", "+9:after"]);
    // Other tests write to the server, too.
    let first = parts.iter().find(|part| !part.changes.is_empty()).unwrap();
    let packed: Vec<_> = parts.iter().filter(|part| part.head.source_position == first.head.source_position).collect();
    assert!(packed.len() > 3 && packed.iter().all(|part| part.bytes > 0 || part.last), "{} parts", packed.len());
    let whole = story(&parts);
    let mut done = 0;
    for part in packed {
        done += part.changes.len();
        options.start = part.resume.clone();
        let rest = drain(&mut BinlogReader::open(options.clone()).await.unwrap(), &end).await.unwrap();
        assert_eq!(story(&rest), whole[done..], "after {done}");
    }
}

/// P3: what crossfade wrote is known by the first row inside the compressed transaction; the rest is counted.
#[tokio::test]
async fn marked_inside() {
    let mut bench = Bench::shared(Flavor::MySql, "packed_mark").await.with_table().await;
    let pair = bench.pair.clone();
    let checkpoint = |lane: u32, seq: u32| {
        format!(
            "INSERT INTO crossfade.checkpoint (pair, stream, lane, seq, batch_first, batch_last, lanes, epoch) \
             VALUES ('{pair}', 'reverse/new', {lane}, {seq}, 1, {seq}, 1, 1)"
        )
    };
    bench.run(COMPRESS).await;
    let start = bench.here().await;
    for (first, second) in [
        (checkpoint(0, 9), "INSERT INTO t VALUES (1, 'a')".to_owned()),
        ("INSERT INTO t VALUES (2, 'user')".to_owned(), checkpoint(1, 10)),
    ] {
        bench.run_all(&["BEGIN", &first, &second]).await;
        for id in 0..200 {
            let id = id + if second.contains("'a'") { 100 } else { 1000 };
            bench.run(&format!("INSERT INTO t VALUES ({id}, REPEAT('z', 80))")).await;
        }
        bench.run("COMMIT").await;
    }
    let end = bench.here().await;
    let mut options = bench.options(start).await;
    options.part_bytes = 4 << 10;
    let mut reader = BinlogReader::open(options).await.unwrap();
    let parts = drain(&mut reader, &end).await.unwrap();
    let sync: Vec<_> = parts.iter().filter(|part| part.head.origin == Origin::Sync).collect();
    assert_eq!((sync.len(), sync[0].echoes, sync[0].changes.len()), (1, 201, 0));
    assert!(sync[0].last);
    let user: Vec<_> = parts.iter().filter(|part| part.head.origin == Origin::User).collect();
    assert_eq!((story(&parts).len(), user.iter().map(|part| part.echoes).sum::<u64>()), (201, 0));
    assert!(user.len() > 5 && story(&parts)[0] == "+2:user");
    let lanes: Vec<_> = reader.seen().streams["reverse/new"].lanes.keys().copied().collect();
    assert_eq!(lanes, [0]);
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Where the head of a block begins in the first frame after `from`, whose own head is 9 bytes: it names the size in 4 (RFC 8878).
fn zstd_block(bytes: &[u8], from: usize, number: usize) -> usize {
    let frame = from + bytes[from..].windows(4).position(|bytes| bytes == ZSTD_MAGIC).unwrap();
    assert_eq!(bytes[frame + 4] & 0xe3, 0xa0, "a frame of one segment with its size");
    (0..number).fold(frame + 9, |at, _| {
        let head = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], 0]);
        assert_eq!(head & 1, 0, "the last block");
        at + 3 + (head >> 3) as usize
    })
}

/// P1: damage inside, a method that nobody knows, and events that are cut off stop the stream, with place and remedy; what was
/// given before is whole, and once the place is mended the rest follows it.
#[tokio::test]
async fn damaged_inside() {
    // Without checksums nothing but the payload itself tells.
    let server = Server::builder(Flavor::MySql).relaxed().option("binlog_checksum", "NONE").start().await.unwrap();
    let mut bench = Bench::on(&server, "damaged").await.with_table().await;
    bench.run(COMPRESS).await;
    let start = bench.here().await;
    bench.run("BEGIN").await;
    // Nothing that compresses well, so that damage in the middle is after thousands of rows.
    for id in 0..3000 {
        bench.run(&format!("INSERT INTO t VALUES ({id}, SHA2({id}, 256))")).await;
    }
    bench.run_all(&["COMMIT", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (5000, 'after')"]).await;
    let end = bench.here().await;
    let (from, to) = payload_event(&mut bench, "binlog.000001").await;
    let path = server.data_dir().join("binlog.000001");
    let good = std::fs::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let body = from + 19;
    assert_eq!(good[body..body + 3], [2, 1, 0], "the compression's field comes first");
    let mut options = bench.options(start).await;
    options.part_bytes = 8 << 10;
    let mut reader: Option<BinlogReader> = None;
    let mut delivered = Vec::new();
    let (first_block, third_block) = (zstd_block(&good[..to], body, 0), zstd_block(&good[..to], body, 2));
    let damage: [(usize, u8, &str); 4] = [
        // A kind of block that there is not, behind more than a thousand rows; and no frame of zstd's at all.
        (third_block, !good[third_block] & 6, "unpacked"),
        (first_block - 9, 1, "unpacked"),
        (body + 2, 7, "method 7"),
        // The announced size is one byte off.
        (body + 6, 1, "unpacked"),
    ];
    for (at, flip, told) in damage {
        // In place: the server reads the file at any time.
        file.write_all_at(&[good[at] ^ flip], at as u64).unwrap();
        if reader.is_none() {
            reader = Some(BinlogReader::open(options.clone()).await.unwrap());
        }
        let reader = reader.as_mut().unwrap();
        let error = loop {
            match tokio::time::timeout(PATIENCE, reader.next()).await.expect("the stream stops") {
                Ok(part) => delivered.push(part),
                Err(error) => break error,
            }
        };
        let mut text = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            text = format!("{text}: {cause}");
        }
        assert!(text.contains(told) && text.contains(&format!("binlog.000001:{from}")), "{at}: {text}");
        let remedy = if told == "method 7" { "binlog_transaction_compression" } else { "mysqlbinlog" };
        assert!(error.hint().is_some_and(|hint| hint.contains(remedy)) && !error.is_transient());
        file.write_all_at(&[good[at]], at as u64).unwrap();
    }
    assert!(!delivered.is_empty(), "the damage was before the first part");
    delivered.extend(drain(reader.as_mut().unwrap(), &end).await.unwrap());
    let ids: Vec<_> = story(&delivered).iter().map(|told| told[1..].split(':').next().unwrap().to_owned()).collect();
    assert_eq!(ids, (0..3000).chain([5000]).map(|id: u32| id.to_string()).collect::<Vec<_>>());
}
