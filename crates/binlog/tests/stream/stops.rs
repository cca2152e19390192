//! What stops the stream, and what does not.

use std::sync::Arc;

use crossfade_binlog::{BinlogError, Notice, StopReason};
use crossfade_servers::Flavor;

use crate::bench::{Bench, drain, story};
use crate::on_both;

on_both!(
    statement_format,
    loaded_from_a_file,
    partial_image,
    statements_that_end_the_stream,
    statements_that_pass,
    definitions_change,
    definition_newer_than_events,
    mapped_column_lost
);

fn reason(error: &BinlogError) -> &StopReason {
    match error {
        BinlogError::Stopped { place, reason, .. } => {
            assert!(place.file.contains("binlog.") && place.offset > 4, "{place}");
            assert!(!place.transaction.is_empty());
            assert!(error.hint().is_some());
            assert!(!error.is_transient());
            reason
        }
        other => panic!("{other}"),
    }
}

async fn statement_format(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "statement").await.with_table().await;
    bench.run("CREATE TABLE other (id INT PRIMARY KEY)").await;
    let start = bench.here().await;
    bench.run_all(&["SET SESSION binlog_format = 'STATEMENT'", "INSERT INTO other VALUES (1)"]).await;
    assert_eq!(story(&bench.read_from(start.clone()).await), [""; 0]);
    bench.run("INSERT INTO t VALUES (77, 'secret')").await;
    let error = bench.stops_from(start).await;
    assert_eq!(*reason(&error), StopReason::StatementFormat { table: bench.table("t") });
    let text = error.to_string();
    assert!(text.contains("INSERT") && !text.contains("secret"), "{text}");
}

async fn loaded_from_a_file(flavor: Flavor) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows");
    std::fs::write(&file, "1\ta\n2\tb\n").unwrap();
    let mut bench = Bench::shared(flavor, "load").await.with_table().await;
    let start = bench.here().await;
    let load = format!("LOAD DATA INFILE '{}' INTO TABLE t", file.display());
    bench.run(&load).await;
    assert_eq!(story(&bench.read_from(start).await), ["+1:a", "+2:b"]);
    let start = bench.here().await;
    bench.run_all(&["DELETE FROM t", "SET SESSION binlog_format = 'STATEMENT'", &load]).await;
    let error = bench.stops_from(start).await;
    assert_eq!(*reason(&error), StopReason::StatementFormat { table: bench.table("t") });
}

async fn partial_image(flavor: Flavor) {
    for image in ["MINIMAL", "NOBLOB"] {
        let mut bench = Bench::shared(flavor, "image").await;
        bench.run("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(100), b BLOB)").await;
        bench.run("INSERT INTO t VALUES (1, 'a', 'b')").await;
        let start = bench.here().await;
        bench.run(&format!("SET SESSION binlog_row_image = '{image}'")).await;
        bench.run("UPDATE t SET v = 'c'").await;
        let error = bench.stops_from(start).await;
        assert_eq!(*reason(&error), StopReason::PartialRowImage { table: bench.table("t") }, "{image}");
    }
}

/// Each statement against a table `t`, and what it does there.
async fn statements_that_end_the_stream(flavor: Flavor) {
    type Case = (&'static str, &'static [&'static str], fn(crossfade_model::TableName) -> StopReason);
    let truncated: fn(_) -> _ = |table| StopReason::Truncated { table };
    let dropped: fn(_) -> _ = |table| StopReason::Dropped { table };
    let renamed: fn(_) -> _ = |table| StopReason::Renamed { table };
    let cases: &[Case] = &[
        ("truncate", &["TRUNCATE t"], truncated),
        ("truncate_table", &["TRUNCATE TABLE `t`"], truncated),
        ("drop", &["DROP TABLE t"], dropped),
        ("drop_list", &["CREATE TABLE a (id INT)", "DROP TABLE IF EXISTS a, t"], dropped),
        ("drop_schema", &["DROP DATABASE `drop_schema`"], dropped),
        ("rename", &["RENAME TABLE t TO a"], renamed),
        ("alter_rename", &["ALTER TABLE t ADD COLUMN x INT, RENAME TO a"], renamed),
        ("swap", &["CREATE TABLE _t_gho LIKE t", "RENAME TABLE t TO _t_del, _t_gho TO t"], renamed),
        (
            "partition",
            &["ALTER TABLE t PARTITION BY HASH (id) PARTITIONS 2", "ALTER TABLE t TRUNCATE PARTITION p0"],
            truncated,
        ),
    ];
    for (name, statements, expected) in cases {
        let mut bench = Bench::shared(flavor, name).await.with_table().await;
        let start = bench.here().await;
        let mut reader = bench.reader(start).await;
        bench.run("INSERT INTO t VALUES (1, 'a')").await;
        for statement in *statements {
            bench.run(&statement.replace("drop_schema", &bench.schema.clone())).await;
        }
        let end = bench.here().await;
        let error = drain(&mut reader, &end).await.expect_err(name);
        assert_eq!(*reason(&error), expected(bench.table("t")), "{name}");
        let statement = statements.last().unwrap().replace("drop_schema", &bench.schema);
        let shown = error.to_string();
        assert!(shown.contains(statement.split(' ').next().unwrap()), "{shown}");
        // Asking again gives the same answer, from the same place.
        let again = drain(&mut reader, &end).await.expect_err(name);
        assert_eq!(again.to_string(), shown);
    }
}

async fn statements_that_pass(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "passes").await.with_table().await;
    let start = bench.here().await;
    bench
        .run_all(&[
            "CREATE TABLE IF NOT EXISTS t (other INT)",
            "CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(100))",
            "INSERT INTO a VALUES (1, 'x')",
            "CREATE TABLE b SELECT * FROM a",
            "TRUNCATE a",
            "RENAME TABLE a TO c",
            "DROP TABLE b, c",
            "CREATE TEMPORARY TABLE t2 (id INT)",
            "DROP TEMPORARY TABLE t2",
            "CREATE VIEW w AS SELECT * FROM t",
            "CREATE TRIGGER r BEFORE UPDATE ON t FOR EACH ROW SET NEW.v = NEW.v",
            "CREATE PROCEDURE p() DELETE FROM t",
            "ANALYZE TABLE t",
            "FLUSH TABLES t",
            "CREATE USER `t` IDENTIFIED BY 'Secret-1'",
            "DROP USER `t`",
            "INSERT INTO t VALUES (1, 'a')",
        ])
        .await;
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), ["+1:a"]);
    assert!(parts.len() > 10);
}

async fn definitions_change(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "alter").await.with_table().await;
    let start = bench.here().await;
    let mut reader = bench.reader(start).await;
    bench
        .run_all(&[
            "INSERT INTO t VALUES (1, 'a')",
            "ALTER TABLE t ADD COLUMN n INT NOT NULL DEFAULT 7 FIRST, ADD COLUMN twice INT AS (id * 2) STORED, MODIFY v VARCHAR(300)",
            "CREATE UNIQUE INDEX u ON t (v)",
            "INSERT INTO t (id, v) VALUES (2, 'b')",
        ])
        .await;
    let end = bench.here().await;
    let parts = drain(&mut reader, &end).await.unwrap();
    assert_eq!(story(&parts), ["+1:a", "+7:2:b:4"]);
    let last = parts.iter().rfind(|part| !part.changes.is_empty()).unwrap();
    let layout = &last.changes[0].layout;
    assert_eq!((&*layout.columns[0], layout.row_key.as_slice()), ("n", &[1_usize][..]));
    // Of a column that is computed nobody is told: it has nothing to carry.
    let notices = reader.take_notices();
    let unmapped = Notice::UnmappedColumns { table: bench.table("t"), columns: vec!["n".to_owned()] };
    assert_eq!(notices.iter().filter(|notice| **notice == unmapped).count(), 1, "{notices:?}");
    assert_eq!(notices.iter().filter(|notice| matches!(notice, Notice::DefinitionChanged { .. })).count(), 2);
}

/// A reader that is behind knows only the present definition; the events' own names decide.
async fn definition_newer_than_events(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "newer").await.with_table().await;
    let start = bench.here().await;
    bench
        .run_all(&[
            "INSERT INTO t VALUES (1, 'a')",
            "ALTER TABLE t ADD COLUMN n INT FIRST, MODIFY v TEXT",
            "ALTER TABLE t MODIFY v TEXT FIRST",
            "INSERT INTO t (id, v) VALUES (2, 'b')",
        ])
        .await;
    let mut options = bench.options(start).await;
    let shape = Arc::clone(&options.tables.get(&bench.table("t")).unwrap().shape);
    assert_eq!(shape.columns.len(), 3);
    options.tables.insert(shape, vec!["id".to_owned(), "v".to_owned()]);
    let end = bench.here().await;
    let mut reader = crossfade_binlog::BinlogReader::open(options).await.unwrap();
    assert_eq!(story(&drain(&mut reader, &end).await.unwrap()), ["+1:a", "+b:null:2"]);
}

async fn mapped_column_lost(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "lost").await.with_table().await;
    let start = bench.here().await;
    let options = bench.options(start.clone()).await;
    bench.run_all(&["INSERT INTO t VALUES (1, 'a')", "ALTER TABLE t DROP COLUMN v"]).await;
    let end = bench.here().await;
    let mut reader = crossfade_binlog::BinlogReader::open(options.clone()).await.unwrap();
    let error = drain(&mut reader, &end).await.unwrap_err();
    let lost = StopReason::ColumnsLost { table: bench.table("t"), columns: vec!["v".to_owned()] };
    assert_eq!(*reason(&error), lost);
    // A mapping without the column goes on.
    let mut without = options;
    let shape = Arc::clone(&without.tables.get(&bench.table("t")).unwrap().shape);
    without.tables.insert(shape, vec!["id".to_owned()]);
    bench.run("INSERT INTO t VALUES (2)").await;
    let end = bench.here().await;
    let mut reader = crossfade_binlog::BinlogReader::open(without).await.unwrap();
    assert_eq!(story(&drain(&mut reader, &end).await.unwrap()), ["+1:a", "+2"]);
}
