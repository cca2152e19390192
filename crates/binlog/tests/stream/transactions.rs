//! What is in a transaction, whatever its form in the binlog.

use crossfade_binlog::{BinlogError, BinlogReader, StopReason, current_file_position, is_reached};
use crossfade_model::{Origin, Position, ResumePoint, RowOp};
use crossfade_servers::Flavor;

use crate::bench::{Bench, drain, story};
use crate::on_both;

on_both!(
    whole_transactions,
    savepoints,
    prepared_transactions,
    prepared_before_a_restart,
    file_positions,
    big_in_parts
);

async fn whole_transactions(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "whole").await.with_table().await;
    let start = bench.here().await;
    bench
        .run_all(&[
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
            "BEGIN",
            "UPDATE t SET v = 'c' WHERE id = 1",
            "DELETE FROM t WHERE id = 2",
            "COMMIT",
            "CREATE TABLE other AS SELECT * FROM t",
            "INSERT INTO other VALUES (9, 'z')",
            "BEGIN",
            "INSERT INTO t VALUES (3, 'never')",
            "ROLLBACK",
        ])
        .await;
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), ["+1:a", "+2:b", "1:a>1:c", "-2:b"]);
    let mine: Vec<_> = parts.iter().filter(|part| !part.changes.is_empty()).collect();
    assert_eq!(mine.len(), 2);
    for part in &mine {
        assert!(part.last && part.rows_before == 0 && part.bytes > 0 && !part.only_crossfade);
        assert_eq!((part.head.origin, part.echoes), (Origin::User, 0));
        assert_eq!(part.head.end, part.resume.position);
        let age = chrono_now_micros() - part.head.committed_at_micros;
        assert!((0..60_000_000).contains(&age), "{age}");
        assert!(flavor == Flavor::MariaDb || part.head.committed_at_micros % 1_000_000 != 0);
    }
    let changes = &mine[1].changes;
    assert_eq!((changes[0].op, changes[0].event_index, changes[1].event_index), (RowOp::Update, 0, 1));
    assert_eq!(changes[0].layout.columns.iter().map(|name| &**name).collect::<Vec<_>>(), ["id", "v"]);
    assert_eq!(changes[0].layout.row_key, [0]);
    // Going on from a part's end gives what follows it, and nothing twice.
    let rest = bench.read_from(mine[0].resume.clone()).await;
    assert_eq!(story(&rest), ["1:a>1:c", "-2:b"]);
}

fn chrono_now_micros() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_micros()).expect("before the year 294000") + 1_000_000
}

/// Rows that were rolled back to a savepoint are in the binlog of MariaDB, when a MyISAM table changed after them.
async fn savepoints(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "savepoints").await.with_table().await;
    bench.run("CREATE TABLE m (id INT PRIMARY KEY) ENGINE=MyISAM").await;
    let start = bench.here().await;
    let statements = ["BEGIN", "INSERT INTO t VALUES (1, 'a')", "SAVEPOINT s1", "INSERT INTO t VALUES (2, 'b')"];
    bench.run_all(&statements).await;
    if flavor == Flavor::MariaDb {
        bench.run("INSERT INTO m VALUES (1)").await;
    }
    bench.run_all(&["ROLLBACK TO s1", "INSERT INTO t VALUES (3, 'c')", "SAVEPOINT s2", "COMMIT"]).await;
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), ["+1:a", "+3:c"]);
}

async fn prepared_transactions(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "xa").await.with_table().await;
    let xid = bench.schema.clone();
    let start = bench.here().await;
    bench
        .run_all(&[
            &format!("XA START '{xid}'"),
            "INSERT INTO t VALUES (1, 'committed')",
            &format!("XA END '{xid}'"),
            &format!("XA PREPARE '{xid}'"),
        ])
        .await;
    bench.beside("INSERT INTO t VALUES (2, 'meanwhile')").await;
    bench
        .run_all(&[
            &format!("XA COMMIT '{xid}'"),
            &format!("XA START '{xid}'"),
            "INSERT INTO t VALUES (3, 'dropped')",
            &format!("XA END '{xid}'"),
            &format!("XA PREPARE '{xid}'"),
            &format!("XA ROLLBACK '{xid}'"),
            &format!("XA START '{xid}'"),
            "INSERT INTO t VALUES (4, 'one phase')",
            &format!("XA END '{xid}'"),
            &format!("XA COMMIT '{xid}' ONE PHASE"),
        ])
        .await;
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), ["+2:meanwhile", "+1:committed", "+4:one phase"]);
}

/// The rows stand before the position that the second reader starts from; it finds them in an older file.
async fn prepared_before_a_restart(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "xa_restart").await.with_table().await;
    let xid = bench.schema.clone();
    let prepare = |id: u32, xid: &str| {
        [
            format!("XA START '{xid}'"),
            format!("INSERT INTO t VALUES ({id}, 'a'), ({id} + 1, 'b'), ({id} + 2, 'c')"),
            format!("XA END '{xid}'"),
            format!("XA PREPARE '{xid}'"),
        ]
    };
    for statement in prepare(10, &xid) {
        bench.run(&statement).await;
    }
    bench.run(&format!("XA ROLLBACK '{xid}'")).await;
    for statement in prepare(20, &xid) {
        bench.run(&statement).await;
    }
    bench.beside("FLUSH BINARY LOGS").await;
    bench.beside("INSERT INTO t VALUES (1, 'between')").await;
    let start = bench.here().await;
    bench.run(&format!("XA COMMIT '{xid}'")).await;
    bench.run("INSERT INTO t VALUES (2, 'after')").await;
    let parts = bench.read_from(start.clone()).await;
    assert_eq!(story(&parts), ["+20:a", "+21:b", "+22:c", "+2:after"]);
    // And in the middle of it.
    let rest = bench.read_from(ResumePoint { position: start, rows_done: 2 }).await;
    assert_eq!(story(&rest), ["+22:c", "+2:after"]);
    assert_eq!(rest.iter().find(|part| !part.changes.is_empty()).unwrap().rows_before, 2);
}

async fn file_positions(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "files").await.with_table().await;
    let start = current_file_position(&mut bench.conn, "test").await.unwrap();
    bench
        .run_all(&[
            "INSERT INTO t VALUES (1, 'a')",
            "FLUSH BINARY LOGS",
            "INSERT INTO t VALUES (2, 'b')",
            "FLUSH BINARY LOGS",
        ])
        .await;
    let mut reader = bench.reader(start.clone()).await;
    let end = current_file_position(&mut bench.conn, "test").await.unwrap();
    assert!(!reader.reached(&end));
    let parts = drain(&mut reader, &end).await.unwrap();
    assert_eq!(story(&parts), ["+1:a", "+2:b"]);
    assert!(matches!(&parts[0].resume.position, Position::File { offset, .. } if *offset > 4));
    // The position went on into the new file without a transaction there.
    assert!(is_reached(&reader.position().position, &end));
    let first = parts.iter().find(|part| !part.changes.is_empty()).unwrap();
    assert_eq!(story(&bench.read_from_file(first.resume.clone()).await), ["+2:b"]);
    let Position::File { file, offset, .. } = start else { panic!("a file position") };
    let elsewhere = Position::File { server: "another".to_owned(), file, offset };
    let options = bench.options(elsewhere).await;
    assert!(matches!(BinlogReader::open(options).await, Err(BinlogError::WrongServer { .. })));
}

/// A transaction larger than the bound comes in parts; a reader that starts in the middle gives the rest.
async fn big_in_parts(flavor: Flavor) {
    const ROWS: u64 = 4000;
    let mut bench = Bench::shared(flavor, "big").await.with_table().await;
    let limit = if flavor == Flavor::MySql { "cte_max_recursion_depth" } else { "max_recursive_iterations" };
    bench.run(&format!("SET SESSION {limit} = 10000")).await;
    let start = bench.here().await;
    let numbers = format!("WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < {ROWS})");
    bench.run(&format!("INSERT INTO t {numbers} SELECT id, REPEAT('x', 90) FROM n")).await;
    bench.run("INSERT INTO t VALUES (0, 'after')").await;
    let end = bench.here().await;
    let mut options = bench.options(start).await;
    options.part_bytes = 64 << 10;
    let mut reader = BinlogReader::open(options.clone()).await.unwrap();
    let parts = drain(&mut reader, &end).await.unwrap();
    // Other tests write to the server, too.
    let first = parts.iter().find(|part| !part.changes.is_empty()).unwrap();
    let big: Vec<_> = parts.iter().filter(|part| part.head.source_position == first.head.source_position).collect();
    assert!(big.len() > 5, "{} parts", big.len());
    let mut before = 0;
    for (i, part) in big.iter().enumerate() {
        assert_eq!((part.rows_before, part.last), (before, i + 1 == big.len()));
        let bytes: usize = part.changes.iter().map(|change| change.memory_bytes()).sum();
        assert!(bytes < 128 << 10, "{bytes}");
        before += part.changes.len() as u64;
    }
    assert_eq!(before, ROWS);
    let whole = story(&parts);
    assert_eq!(whole.len() as u64, ROWS + 1);
    let done = big[2].resume.rows_done;
    assert!(done > 0);
    options.start = big[2].resume.clone();
    let rest = drain(&mut BinlogReader::open(options.clone()).await.unwrap(), &end).await.unwrap();
    assert_eq!(rest[0].rows_before, done);
    assert_eq!(story(&rest), whole[usize::try_from(done).unwrap()..]);
    // More rows than the transaction has: it is not the one that was read before.
    options.start.rows_done = ROWS + 1;
    let error = drain(&mut BinlogReader::open(options).await.unwrap(), &end).await.unwrap_err();
    assert!(matches!(error, BinlogError::Stopped { reason: StopReason::TransactionChanged { .. }, .. }), "{error}");
}
