//! Forms in which a binlog comes: compressed, tagged, encrypted on the way, with and without checksums and metadata.

use crossfade_binlog::BinlogReader;
use crossfade_config::TlsMode;
use crossfade_model::{Origin, Position};
use crossfade_servers::{Flavor, Server};
use mysql_async::prelude::Queryable;

use crate::bench::{Bench, drain, story};
use crate::on_both;

on_both!(least_privileges, over_tls, without_checksums_and_metadata, prepared_rows_beyond_the_bound);

/// Everything at once: updates, deletes, a mark of the opposite direction, and a statement between.
async fn write_a_bit_of_everything(bench: &mut Bench<'_>) {
    let pair = bench.pair.clone();
    bench
        .run_all(&[
            "INSERT INTO t VALUES (1, REPEAT('a', 60)), (2, 'b')",
            "UPDATE t SET v = 'c' WHERE id = 1",
            "BEGIN",
            &format!(
                "INSERT INTO crossfade.checkpoint (pair, stream, lane, seq, batch_first, batch_last, lanes, epoch) \
                 VALUES ('{pair}', 'reverse/new', 0, 9, 1, 9, 1, 1)"
            ),
            "INSERT INTO t VALUES (3, REPEAT('echo', 20))",
            "COMMIT",
            "DELETE FROM t WHERE id = 2",
        ])
        .await;
}

fn everything() -> Vec<String> {
    let a = "a".repeat(60);
    vec![format!("+1:{a}"), "+2:b".to_owned(), format!("1:{a}>1:c"), "-2:b".to_owned()]
}

/// An account that may replicate and read definitions, and nothing else.
async fn least_privileges(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "least").await.with_table().await;
    let (schema, user) = (bench.schema.clone(), format!("u_{}", bench.schema));
    bench
        .run_all(&[
            &format!("CREATE USER {user}@'%' IDENTIFIED BY 'Pass-1'"),
            &format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}@'%'"),
            &format!("GRANT SELECT ON {schema}.* TO {user}@'%'"),
            &format!("GRANT SELECT ON crossfade.* TO {user}@'%'"),
        ])
        .await;
    let start = bench.here().await;
    let mut options = bench.options(start).await;
    (options.server.user, options.server.password) = (user, crossfade_config::Secret::new("Pass-1"));
    let mut reader = BinlogReader::open(options).await.unwrap();
    bench.run_all(&["INSERT INTO t VALUES (1, 'a')", "ALTER TABLE t ADD COLUMN n INT", "DELETE FROM t"]).await;
    let end = bench.here().await;
    assert_eq!(story(&drain(&mut reader, &end).await.unwrap()), ["+1:a", "-1:a:null"]);
}

#[tokio::test]
async fn without_gtids_on_mysql() {
    let builder = Server::builder(Flavor::MySql).relaxed();
    let server = builder.option("gtid_mode", "OFF").option("enforce_gtid_consistency", "OFF").start().await.unwrap();
    let mut bench = Bench::on(&server, "anonymous").await.with_table().await;
    let start = bench.here().await;
    assert!(matches!(start, Position::File { .. }));
    write_a_bit_of_everything(&mut bench).await;
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), everything());
    let mine: Vec<_> = parts.iter().filter(|part| !part.changes.is_empty()).collect();
    assert!(mine.iter().all(|part| part.head.committed_at_micros % 1_000_000 != 0));
    assert!(mine[0].head.source_position.starts_with("binlog.0"), "{}", mine[0].head.source_position);
    assert_eq!(story(&bench.read_from(mine[1].resume.clone()).await), everything()[3..]);
}

#[tokio::test]
async fn domains_on_mariadb() {
    let mut bench = Bench::shared(Flavor::MariaDb, "domains").await.with_table().await;
    let start = bench.here().await;
    for (id, domain) in [(1, 7), (2, 0), (3, 7)] {
        bench.run(&format!("SET SESSION gtid_domain_id = {domain}")).await;
        bench.run(&format!("INSERT INTO t VALUES ({id}, 'a')")).await;
    }
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), ["+1:a", "+2:a", "+3:a"]);
    let mine: Vec<_> = parts.iter().filter(|part| !part.changes.is_empty()).collect();
    assert!(mine[0].head.source_position.starts_with("7-"));
    for (at, part) in mine.iter().enumerate() {
        assert_eq!(story(&bench.read_from(part.resume.clone()).await).len(), 2 - at);
    }
}

async fn over_tls(flavor: Flavor) {
    let mut bench = if flavor == Flavor::MySql {
        Bench::shared(flavor, "tls").await
    } else {
        // MariaDB 10.11 makes no certificates of its own.
        return over_tls_with_own_certificates().await;
    }
    .with_table()
    .await;
    reads_encrypted(&mut bench).await;
}

async fn reads_encrypted(bench: &mut Bench<'_>) {
    bench.run("CREATE USER IF NOT EXISTS secure@'127.0.0.1' IDENTIFIED BY 'Pass-1' REQUIRE SSL").await;
    bench.run("GRANT ALL ON *.* TO secure@'127.0.0.1'").await;
    let start = bench.here().await;
    write_a_bit_of_everything(bench).await;
    let end = bench.here().await;
    let mut options = bench.options(start).await;
    options.server.user = "secure".to_owned();
    options.server.password = crossfade_config::Secret::new("Pass-1");
    options.server.tls_mode = TlsMode::Required;
    let mut reader = BinlogReader::open(options.clone()).await.unwrap();
    assert_eq!(story(&drain(&mut reader, &end).await.unwrap()), everything());
    // The account proves it: without encryption it is refused.
    options.server.tls_mode = TlsMode::Disabled;
    assert!(!BinlogReader::open(options).await.expect_err("refused").is_transient());
}

async fn over_tls_with_own_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl, from the distribution's package of that name");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = Server::builder(Flavor::MariaDb)
        .relaxed()
        .option("ssl_key", key.to_str().unwrap())
        .option("ssl_cert", certificate.to_str().unwrap())
        .start()
        .await
        .unwrap();
    let mut bench = Bench::on(&server, "tls").await.with_table().await;
    reads_encrypted(&mut bench).await;
}

async fn without_checksums_and_metadata(flavor: Flavor) {
    let server = Server::builder(flavor)
        .relaxed()
        .option("binlog_checksum", "NONE")
        .option("binlog_row_metadata", if flavor == Flavor::MySql { "MINIMAL" } else { "NO_LOG" })
        .start()
        .await
        .unwrap();
    let mut bench = Bench::on(&server, "bare").await.with_table().await;
    let file = crossfade_binlog::current_file_position(&mut bench.conn, "test").await.unwrap();
    let start = bench.here().await;
    let mut reader = bench.reader(start).await;
    write_a_bit_of_everything(&mut bench).await;
    let end = bench.here().await;
    let parts = drain(&mut reader, &end).await.unwrap();
    assert_eq!(story(&parts), everything());
    assert_eq!(parts.iter().filter(|part| part.head.origin == Origin::Sync).map(|part| part.echoes).sum::<u64>(), 1);
    assert_eq!(reader.seen().streams["reverse/new"].lanes[&0].seq, 9);
    assert_eq!(story(&bench.read_from_file(file).await), everything());
    // The tracked definition follows an ALTER.
    bench.run_all(&["ALTER TABLE t ADD COLUMN n INT FIRST", "INSERT INTO t (id, v) VALUES (7, 'n')"]).await;
    let end = bench.here().await;
    assert_eq!(story(&drain(&mut reader, &end).await.unwrap()), ["+null:7:n"]);
    // With checksums again, from now on, under the same connection.
    bench.run_all(&["SET GLOBAL binlog_checksum = 'CRC32'", "INSERT INTO t (id, v) VALUES (8, 'sum')"]).await;
    let end = bench.here().await;
    assert_eq!(story(&drain(&mut reader, &end).await.unwrap()), ["+null:8:sum"]);
}

async fn prepared_rows_beyond_the_bound(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "xa_big").await.with_table().await;
    let xid = bench.schema.clone();
    let start = bench.here().await;
    for (id, decision) in [(1, "COMMIT"), (501, "COMMIT"), (1001, "ROLLBACK")] {
        bench.run(&format!("XA START '{xid}'")).await;
        for id in id..id + 300 {
            bench.run(&format!("INSERT INTO t VALUES ({id}, REPEAT('x', 80))")).await;
        }
        bench.run(&format!("XA END '{xid}'")).await;
        let one_phase = if id == 501 { " ONE PHASE" } else { "" };
        if one_phase.is_empty() {
            bench.run(&format!("XA PREPARE '{xid}'")).await;
        }
        bench.run(&format!("XA {decision} '{xid}'{one_phase}")).await;
    }
    bench.run("INSERT INTO t VALUES (0, 'after')").await;
    let end = bench.here().await;
    let mut options = bench.options(start).await;
    options.prepared_bytes = 10 << 10;
    options.part_bytes = 8 << 10;
    let mut reader = BinlogReader::open(options.clone()).await.unwrap();
    let parts = drain(&mut reader, &end).await.unwrap();
    let ids = (1..301).chain(501..801).map(|id| format!("+{id}:{}", "x".repeat(80)));
    let expected: Vec<String> = ids.chain(["+0:after".to_owned()]).collect();
    let told = story(&parts);
    let differs = told.iter().zip(&expected).position(|(told, expected)| told != expected);
    assert!(told == expected, "{} of {} changes, different at {differs:?}", told.len(), expected.len());
    assert!(parts.iter().filter(|part| !part.last).count() > 4);
    // Starting in the middle of the commit finds the rows again.
    let middle = parts.iter().position(|part| !part.last).unwrap();
    options.start = parts[middle].resume.clone();
    let rest = drain(&mut BinlogReader::open(options).await.unwrap(), &end).await.unwrap();
    let delivered = story(&parts[..=middle]).len();
    assert!(delivered > 0);
    assert_eq!(story(&rest), expected[delivered..]);
}

#[tokio::test]
async fn compressed_and_tagged_on_mysql() {
    let mut bench = Bench::shared(Flavor::MySql, "compressed").await.with_table().await;
    let start = bench.here().await;
    let file = crossfade_binlog::current_file_position(&mut bench.conn, "test").await.unwrap();
    bench
        .run_all(&["SET SESSION binlog_transaction_compression = 1", "SET SESSION gtid_next = 'AUTOMATIC:blue'"])
        .await;
    write_a_bit_of_everything(&mut bench).await;
    bench.run("SET SESSION gtid_next = 'AUTOMATIC'").await;
    let end = bench.here().await;
    let Position::MySql { executed } = &end else { panic!("a GTID set") };
    assert!(executed.sources().any(|(_, tag, _)| tag == "blue"));
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), everything());
    let mine: Vec<_> = parts.iter().filter(|part| !part.changes.is_empty()).collect();
    assert!(mine.iter().all(|part| part.head.source_position.contains(":blue:")));
    assert!(mine.iter().all(|part| part.head.committed_at_micros % 1_000_000 != 0));
    assert!(parts.iter().any(|part| part.head.origin == Origin::Sync && part.echoes == 1));
    // A tagged transaction that was read is not read again.
    assert_eq!(story(&bench.read_from(mine[0].resume.clone()).await), everything()[2..]);
    assert_eq!(story(&bench.read_from(end).await), [""; 0]);
    assert_eq!(story(&bench.read_from_file(file).await), everything());
    let payloads: Vec<mysql_async::Row> = bench.conn.query("SHOW BINLOG EVENTS").await.unwrap();
    assert!(payloads.iter().any(|event| event.get::<String, _>(2).unwrap() == "Transaction_payload"));
}

#[tokio::test]
async fn compressed_events_on_mariadb() {
    let server = Server::builder(Flavor::MariaDb)
        .relaxed()
        .option("log_bin_compress", "ON")
        .option("log_bin_compress_min_len", "10")
        .start()
        .await
        .unwrap();
    let mut bench = Bench::on(&server, "compressed").await.with_table().await;
    let start = bench.here().await;
    write_a_bit_of_everything(&mut bench).await;
    bench.run("CREATE TABLE long_enough_to_be_compressed (id INT PRIMARY KEY, v VARCHAR(100))").await;
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), everything());
    let events: Vec<mysql_async::Row> = bench.conn.query("SHOW BINLOG EVENTS").await.unwrap();
    let kinds: Vec<String> = events.iter().map(|event| event.get(2).unwrap()).collect();
    assert!(kinds.iter().any(|kind| kind.starts_with("Write_rows_compressed")), "{kinds:?}");
    assert!(kinds.iter().any(|kind| kind == "Query_compressed"), "{kinds:?}");
    // A statement inside a compressed event is read as well.
    let start = bench.here().await;
    bench.run("TRUNCATE TABLE t -- and something to make it longer").await;
    assert!(bench.stops_from(start).await.to_string().contains("emptied"));
}
