//! What is read of a table is what its row events say: else a row that was changed between the marks would not be known again.

use crossfade_binlog::{BinlogReader, ReaderOptions, SyncedTables, current_position};
use crossfade_catalog::chunk::{KeyRange, KeySpace};
use crossfade_catalog::{Purpose, connect, table_shape};
use crossfade_config::ServerUrl;
use crossfade_model::{Direction, Row, TableName, TableShape, Value};
use crossfade_rules::chunk::{TouchedRows, row_hash};
use crossfade_rules::{Policy, TableMapping, TableRule};
use crossfade_servers::{Flavor, SharedPair};
use mysql_async::prelude::Queryable;

use crate::source::SourceTable;

/// Types of keys, with values.
const KEYS: [(&str, &str); 22] = [
    ("INT", "-4), (0), (7"),
    ("INT(9) ZEROFILL", "1), (12"),
    ("BIGINT UNSIGNED", "0), (9223372036854775808), (18446744073709551615"),
    ("DECIMAL(30,10)", "-1.5), (0), (12345678901234567890.0000000001"),
    ("FLOAT", "-1.1), (0.1), (3.4028234e38"),
    ("DOUBLE", "-1e308), (0.1), (9007199254740993"),
    ("DATE", "'0000-00-00'), ('2001-00-00'), ('2026-11-26'"),
    ("TIME(3)", "'-838:59:59'), ('00:00:00.001'), ('12:00:00'"),
    ("DATETIME(6)", "'0000-00-00 00:00:00'), ('2026-03-29 02:30:00.000001'"),
    ("TIMESTAMP(6)", "'1970-01-01 00:00:01'), ('2026-10-25 00:30:00.5'"),
    ("YEAR", "0), (1901), (2155"),
    ("BIT(40)", "0), (1), (1099511627775"),
    ("ENUM('z','ä','a')", "1), (2), (3"),
    ("SET('z','m','a')", "0), (1), (6"),
    ("BINARY(4)", "x'00'), (x'0100'), (x'ff'), ('a'"),
    ("VARBINARY(20)", "''), (x'00'), (x'0000'), (x'c3a4'), (x'e4'"),
    ("CHAR(12) CHARACTER SET latin1", "''), ('a'), ('é1'), ('ü'"),
    ("VARCHAR(12) CHARACTER SET ascii", "'a'), ('b '"),
    ("VARCHAR(12) CHARACTER SET gbk", "'汉'), ('a'"),
    ("VARCHAR(12) CHARACTER SET cp1251", "'Ж'), ('z'"),
    ("VARCHAR(12) CHARACTER SET utf16", "'漢'), ('\u{1f600}'), ('a'"),
    ("VARCHAR(12) CHARACTER SET utf8mb4", "''), ('Wört'), ('\u{1f600}'), ('''`'"),
];

/// Columns that no key can have, or that are read in another way than others, with values.
const MORE: [(&str, &str); 8] = [
    ("TEXT CHARACTER SET latin1", "'é'"),
    ("TEXT CHARACTER SET gbk", "'汉'"),
    ("BLOB", "x'00ff'"),
    ("GEOMETRY", "ST_GeomFromText('POINT(1 2)')"),
    ("JSON", "'{\"a\": [1, 2.5, null]}'"),
    ("ENUM('a','b')", "'b'"),
    ("DECIMAL(12,2)", "-0.5"),
    ("VARCHAR(9) CHARACTER SET utf8mb3", "'ä'"),
];

fn mapping(shape: &TableShape) -> TableMapping {
    let rule = TableRule::same(shape.name.clone(), None, Policy::PreferNew);
    TableMapping::build(Direction::Forward, &rule, shape, shape).expect("the table maps")
}

async fn read_as_the_binlog_has_it(flavor: Flavor) {
    let pair = SharedPair::get(flavor).await;
    let schema = pair.create_schema("copied").await.unwrap();
    let url = ServerUrl::parse(&pair.old().root_url()).unwrap();
    let mut conn = connect(&url, Purpose::Apply).await.unwrap();
    crossfade_applier::read_session(&mut conn).await.unwrap();
    KeySpace::prepare(&mut conn).await.unwrap();
    conn.query_drop(format!("USE `{schema}`")).await.unwrap();
    let mut shapes = Vec::new();
    for (number, (definition, _)) in KEYS.iter().enumerate() {
        let more: Vec<String> = MORE.iter().enumerate().map(|(n, (sql_type, _))| format!("m{n} {sql_type}")).collect();
        let (table, more) = (format!("t{number}"), more.join(", "));
        conn.query_drop(format!("CREATE TABLE {table} (k {definition} NOT NULL PRIMARY KEY, {more})")).await.unwrap();
        let shape = table_shape(&mut conn, &TableName::new(&*schema, table)).await.unwrap();
        shapes.push(std::sync::Arc::new(shape.expect("the table exists")));
    }
    let start = current_position(&mut conn, "old").await.unwrap();
    let mut written = 0;
    for (number, (definition, values)) in KEYS.iter().enumerate() {
        conn.query_drop(format!("INSERT INTO t{number} (k) VALUES ({values})"))
            .await
            .unwrap_or_else(|error| panic!("{definition}: {error}"));
        written += conn.affected_rows();
        let more: Vec<String> = MORE.iter().enumerate().map(|(n, (_, value))| format!("m{n} = {value}")).collect();
        conn.query_drop(format!("UPDATE t{number} SET {}", more.join(", "))).await.unwrap();
        written += conn.affected_rows();
    }
    let mappings: Vec<TableMapping> = shapes.iter().map(|shape| mapping(shape)).collect();
    let mut tables = SyncedTables::new();
    for (shape, mapping) in shapes.iter().zip(&mappings) {
        tables.insert(shape.clone(), mapping.columns.iter().map(|column| column.source.clone()).collect());
    }
    let end = current_position(&mut conn, "old").await.unwrap();
    let mut finder = TouchedRows::new(mappings.clone().into());
    let mut reader =
        BinlogReader::open(ReaderOptions::new(url, "copied", Direction::Forward, tables, start)).await.unwrap();
    // The last image of each row, in the order of its table's columns.
    let (mut changes, mut images) = (0, std::collections::BTreeMap::new());
    while let Some(part) = reader.next_until(&end).await.unwrap() {
        for change in part.changes {
            let touched = finder.of(&change).expect("the table has a key");
            images.insert((touched.table, touched.keys[1]), change.after.clone());
            changes += 1;
        }
    }
    assert_eq!(changes, written);
    let mut read = 0;
    for (table, (shape, mapping)) in shapes.iter().zip(&mappings).enumerate() {
        let source = SourceTable::new(mapping, shape).expect("the table can be read");
        let rows = source.read(&mut conn, &KeyRange::default(), 1 << 20).await.unwrap().expect("they fit");
        assert!(!rows.is_empty());
        for row in rows {
            let image = images.remove(&(table, row_hash(mapping, &row)));
            let image: Row = image.unwrap_or_else(|| panic!("{}: {row:?} is in no event", KEYS[table].0)).unwrap();
            same(KEYS[table].0, &row, &image);
            let again = source.hold_keys(&mut conn, &[source.key_of(&row)]).await.unwrap();
            assert_eq!(again, [row], "{}", KEYS[table].0);
            read += 1;
        }
    }
    assert!(images.is_empty() && read > 50, "{read} rows, and events of {}", images.len());
}

fn same(definition: &str, row: &Row, image: &Row) {
    for (place, (read, logged)) in row.iter().zip(image).enumerate() {
        match (read, logged) {
            // A document's text is all that can be read of it.
            (Value::Json(read), Value::Json(logged)) => assert_eq!(read.text, logged.text, "{definition}"),
            _ => assert_eq!(read, logged, "{definition}, column {place}"),
        }
    }
}

#[tokio::test]
async fn p6_read_as_the_binlog_has_it_on_mysql() {
    read_as_the_binlog_has_it(Flavor::MySql).await;
}

#[tokio::test]
async fn p6_read_as_the_binlog_has_it_on_mariadb() {
    read_as_the_binlog_has_it(Flavor::MariaDb).await;
}
