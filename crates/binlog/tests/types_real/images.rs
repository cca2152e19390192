//! What surrounds the values: metadata that is minimal, images that are not full, columns that the server computes, rows that
//! are compressed.

use crossfade_binlog::decode::{DecodeError, RowsEvent, TableMap};
use crossfade_model::{ColumnKind, TableShape, Value};
use crossfade_servers::{Flavor, SharedPair};
use mysql_async::prelude::Queryable;

use super::log;
use super::matrix::{connect, shape};

const BOTH: [Flavor; 2] = [Flavor::MySql, Flavor::MariaDb];

fn text(charset: &str) -> ColumnKind {
    ColumnKind::Text { charset: charset.to_owned() }
}

fn integer(bytes: u8, unsigned: bool) -> ColumnKind {
    ColumnKind::Integer { bytes, unsigned }
}

/// Settings of `new` that are global are changed one test at a time.
static NEW_SERVER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn with_minimal_metadata_the_tracked_definition_gives_names_and_labels() {
    let _alone = NEW_SERVER.lock().await;
    for flavor in BOTH {
        let pair = SharedPair::get(flavor).await;
        let server = pair.new();
        let schema = pair.schema("minimal");
        let mut conn = connect(server).await;
        conn.query_drop("SET GLOBAL binlog_row_metadata = MINIMAL").await.unwrap();
        conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
        let columns = "(id BIGINT UNSIGNED PRIMARY KEY, small TINYINT, l1 VARCHAR(9) CHARSET latin1, u8 TEXT CHARSET utf8mb4, \
                       e ENUM('x','ä'), s SET('p','q'), b BINARY(3))";
        conn.query_drop(format!("CREATE TABLE {schema}.t {columns}")).await.unwrap();
        let row = "(18446744073709551615, -128, 'é', '漢', 'ä', 'p,q', 'a')";
        conn.query_drop(format!("INSERT INTO {schema}.t VALUES {row}")).await.unwrap();
        conn.query_drop("SET GLOBAL binlog_row_metadata = FULL").await.unwrap();

        let tracked = minimal_shape(&format!("{schema}.t"));
        let events = log::events(server, &schema);
        let changes = log::changes(&events["t"], log::dialect(server), Some(&tracked)).unwrap();
        let expected = vec![
            Value::UInt(u64::MAX),
            Value::Int(-128),
            Value::Text("é".to_owned()),
            Value::Text("漢".to_owned()),
            Value::Enum("ä".to_owned()),
            Value::Set("p,q".to_owned()),
            Value::Bytes(b"a\0\0".to_vec()),
        ];
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].after.as_ref(), Some(&expected));
        assert_eq!(&*changes[0].layout.columns[4], "e");

        assert!(matches!(
            log::changes(&events["t"], log::dialect(server), None),
            Err(DecodeError::NoDefinition { .. })
        ));
        let mut wrong = tracked.clone();
        wrong.columns.pop();
        let refused = log::changes(&events["t"], log::dialect(server), Some(&wrong));
        assert!(matches!(refused, Err(DecodeError::ColumnCount { event: 7, tracked: 6, .. })));
        let mut wrong = tracked;
        wrong.columns.swap(1, 2);
        let refused = log::changes(&events["t"], log::dialect(server), Some(&wrong));
        assert!(matches!(refused, Err(DecodeError::ColumnType { .. })), "{refused:?}");
        conn.disconnect().await.unwrap();
    }
}

fn minimal_shape(table: &str) -> TableShape {
    shape(
        table,
        &[
            ("id", integer(8, true)),
            ("small", integer(1, false)),
            ("l1", text("latin1")),
            ("u8", text("utf8mb4")),
            ("e", ColumnKind::Enum { labels: vec!["x".to_owned(), "ä".to_owned()] }),
            ("s", ColumnKind::Set { labels: vec!["p".to_owned(), "q".to_owned()] }),
            ("b", ColumnKind::Bytes { fixed_len: 3 }),
        ],
    )
}

#[tokio::test]
async fn p1_a_row_image_that_is_not_full_is_an_error_that_names_the_table() {
    for flavor in BOTH {
        let pair = SharedPair::get(flavor).await;
        let server = pair.old();
        for image in ["MINIMAL", "NOBLOB"] {
            let schema = pair.schema("image");
            let mut conn = connect(server).await;
            conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
            conn.query_drop(format!("CREATE TABLE {schema}.t (id INT PRIMARY KEY, a INT, b BLOB)")).await.unwrap();
            conn.query_drop(format!("INSERT INTO {schema}.t VALUES (1, 1, 'b'), (2, 2, 'c')")).await.unwrap();
            conn.query_drop(format!("SET SESSION binlog_row_image = {image}")).await.unwrap();
            conn.query_drop(format!("UPDATE {schema}.t SET a = a + 1")).await.unwrap();
            conn.disconnect().await.unwrap();

            let events = log::events(server, &schema);
            let raws = &events["t"];
            assert_eq!(raws.len(), 2, "an insert and an update");
            assert_eq!(log::changes(&raws[..1], log::dialect(server), None).unwrap().len(), 2);
            let refused = log::changes(&raws[1..], log::dialect(server), None).unwrap_err();
            assert!(matches!(refused, DecodeError::PartialRowImage { .. }), "{image}: {refused}");
            assert!(refused.to_string().contains(&format!("{schema}.t")));
            // Rows of other origin are only counted, whatever their image.
            let (code, body) = &raws[1].rows[0];
            assert_eq!(RowsEvent::parse(*code, body, 0).unwrap().count(&raws[1].map), Ok(2));
        }
    }
}

#[tokio::test]
async fn generated_and_invisible_columns_keep_their_places() {
    for flavor in BOTH {
        let pair = SharedPair::get(flavor).await;
        let server = pair.old();
        let schema = pair.schema("generated");
        let mut conn = connect(server).await;
        conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
        let columns = "(a VARCHAR(9) PRIMARY KEY, v INT AS (LENGTH(a)) VIRTUAL, s INT AS (LENGTH(a) * 2) STORED, \
                       hidden INT INVISIBLE DEFAULT 7, `we``ird. \"n,ame` INT)";
        conn.query_drop(format!("CREATE TABLE {schema}.t {columns}")).await.unwrap();
        conn.query_drop(format!("INSERT INTO {schema}.t (a, `we``ird. \"n,ame`) VALUES ('abc', 5)")).await.unwrap();
        conn.disconnect().await.unwrap();

        let changes = log::changes(&log::events(server, &schema)["t"], log::dialect(server), None).unwrap();
        let row = changes[0].after.as_ref().unwrap();
        let expected = [Value::Text("abc".to_owned()), Value::Int(3), Value::Int(6), Value::Int(7), Value::Int(5)];
        assert_eq!(row.as_slice(), expected);
        let names: Vec<&str> = changes[0].layout.columns.iter().map(|name| &**name).collect();
        assert_eq!(names, ["a", "v", "s", "hidden", "we`ird. \"n,ame"]);
    }
}

/// MariaDB from 11 on leaves generated columns out of images; the layout must leave them out too, and only them.
#[tokio::test]
async fn an_image_may_lack_what_the_server_computes() {
    let pair = SharedPair::get(Flavor::MySql).await;
    let server = pair.old();
    let schema = pair.schema("lacking");
    let mut conn = connect(server).await;
    conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    conn.query_drop(format!("CREATE TABLE {schema}.t (a INT PRIMARY KEY, b INT, c INT)")).await.unwrap();
    conn.query_drop("SET SESSION binlog_row_image = MINIMAL").await.unwrap();
    conn.query_drop(format!("INSERT INTO {schema}.t (a, c) VALUES (1, 3)")).await.unwrap();
    conn.disconnect().await.unwrap();

    let mut tracked =
        shape(&format!("{schema}.t"), &[("a", integer(4, false)), ("b", integer(4, false)), ("c", integer(4, false))]);
    let events = log::events(server, &schema);
    let refused = log::changes(&events["t"], log::dialect(server), Some(&tracked));
    assert!(matches!(refused, Err(DecodeError::PartialRowImage { .. })));
    tracked.columns[1].generated = true;
    let changes = log::changes(&events["t"], log::dialect(server), Some(&tracked)).unwrap();
    assert_eq!(changes[0].layout.columns.len(), 2);
    assert_eq!(&*changes[0].layout.columns[1], "c");
    assert_eq!(changes[0].after, Some(vec![Value::Int(1), Value::Int(3)]));
    tracked.primary_key = vec![1];
    assert!(log::changes(&events["t"], log::dialect(server), Some(&tracked)).is_err(), "a key is never left out");
}

#[tokio::test]
async fn nulls_are_found_among_many_columns() {
    for flavor in BOTH {
        let pair = SharedPair::get(flavor).await;
        let server = pair.old();
        let schema = pair.schema("nulls");
        let mut conn = connect(server).await;
        conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
        let columns: Vec<String> =
            (0..300).map(|n| format!("c{n} {}", if n % 3 == 0 { "INT" } else { "VARCHAR(5) CHARSET ascii" })).collect();
        conn.query_drop(format!("CREATE TABLE {schema}.t ({})", columns.join(", "))).await.unwrap();
        let is_null = |row: usize, column: usize| (row * 7 + column * 5).is_multiple_of(4);
        for row in 0..5 {
            let cell = |column| if is_null(row, column) { "NULL".to_owned() } else { format!("'{column}'") };
            let cells: Vec<String> = (0..300).map(cell).collect();
            conn.query_drop(format!("INSERT INTO {schema}.t VALUES ({})", cells.join(", "))).await.unwrap();
        }
        conn.disconnect().await.unwrap();
        let changes = log::changes(&log::events(server, &schema)["t"], log::dialect(server), None).unwrap();
        assert_eq!(changes.len(), 5);
        for (row, change) in changes.iter().enumerate() {
            assert!(change.layout.row_key.is_empty(), "the table has no key");
            for (column, value) in change.after.as_ref().unwrap().iter().enumerate() {
                let expected = match (is_null(row, column), column % 3) {
                    (true, _) => Value::Null,
                    (false, 0) => Value::Int(column as i64),
                    (false, _) => Value::Text(column.to_string()),
                };
                assert_eq!(*value, expected);
            }
        }
    }
}

/// Metadata lists run over the columns of a kind; whatever stands between them must not shift them.
#[tokio::test]
async fn signs_and_character_sets_stay_with_their_columns() {
    for flavor in BOTH {
        let pair = SharedPair::get(flavor).await;
        let server = pair.old();
        let schema = pair.schema("metadata");
        let mut conn = connect(server).await;
        conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
        let own_type = if flavor == Flavor::MySql { ("VECTOR(1)", "TO_VECTOR('[1]')") } else { ("INET6", "'::1'") };
        let mut kinds: Vec<(&str, &str, Option<Value>)> = vec![
            ("TINYINT UNSIGNED", "200", Some(Value::UInt(200))),
            ("TINYINT", "-100", Some(Value::Int(-100))),
            ("YEAR", "2026", Some(Value::Year(2026))),
            ("DECIMAL(3,1)", "-1.5", Some(Value::Decimal("-1.5".to_owned()))),
            ("FLOAT UNSIGNED", "1.5", Some(Value::Float(1.5))),
            ("BIT(5)", "3", Some(Value::Bit(3))),
            ("DATE", "'2026-01-02'", None),
            ("GEOMETRY", "ST_GeomFromText('POINT(1 2)')", None),
            ("JSON", "'[]'", None),
            ("VARBINARY(3)", "'é'", Some(Value::Bytes("é".as_bytes().to_vec()))),
            (own_type.0, own_type.1, None),
        ];
        let texts = [
            "VARCHAR(3) CHARSET latin1",
            "CHAR(3) CHARSET utf8mb4",
            "TEXT CHARSET utf16",
            "VARCHAR(3) CHARSET utf8mb4",
        ];
        kinds.extend(texts.map(|sql_type| (sql_type, "'é'", Some(Value::Text("é".to_owned())))));
        let labels = ["ENUM('a','é') CHARSET latin1", "ENUM('b','é') CHARSET utf8mb4", "ENUM('c','é') CHARSET utf16"];
        kinds.extend(labels.map(|sql_type| (sql_type, "'é'", Some(Value::Enum("é".to_owned())))));
        kinds.push(("SET('é','x') CHARSET latin1", "'é,x'", Some(Value::Set("é,x".to_owned()))));
        kinds.push(("SET('x','é') CHARSET utf8mb4", "'é'", Some(Value::Set("é".to_owned()))));

        // Some tables have one character set nearly everywhere, some have many: the server writes them differently.
        let mut compared = 0;
        for round in 0..24_usize {
            let common = if round % 2 == 0 { 0 } else { 12 };
            let places: Vec<usize> = (0..30)
                .map(|place| {
                    if place % 4 == 1 && common > 0 { common } else { (place * (round + 5) + round * 3) % kinds.len() }
                })
                .collect();
            let columns: Vec<String> =
                places.iter().enumerate().map(|(n, kind)| format!("c{n} {}", kinds[*kind].0)).collect();
            conn.query_drop(format!("CREATE TABLE {schema}.t{round} ({})", columns.join(", "))).await.unwrap();
            let cells: Vec<&str> = places.iter().map(|kind| kinds[*kind].1).collect();
            conn.query_drop(format!("INSERT INTO {schema}.t{round} VALUES ({})", cells.join(", "))).await.unwrap();
            let events = log::events(server, &schema);
            let changes = log::changes(&events[&format!("t{round}")], log::dialect(server), None).unwrap();
            for (kind, value) in places.iter().zip(changes[0].after.as_ref().unwrap()) {
                if let Some(expected) = &kinds[*kind].2 {
                    assert_eq!(value, expected, "{flavor}: {} in {columns:?}", kinds[*kind].0);
                    compared += 1;
                }
            }
        }
        conn.disconnect().await.unwrap();
        assert!(compared > 500, "{compared}");
    }
}

#[tokio::test]
async fn compressed_rows_of_mariadb_are_unpacked() {
    let _alone = NEW_SERVER.lock().await;
    let pair = SharedPair::get(Flavor::MariaDb).await;
    let server = pair.new();
    let schema = pair.schema("compressed");
    let mut conn = connect(server).await;
    conn.query_drop("SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10").await.unwrap();
    // The session takes the setting when it begins.
    let mut conn_compressed = connect(server).await;
    conn_compressed.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    conn_compressed.query_drop(format!("CREATE TABLE {schema}.t (id INT PRIMARY KEY, t TEXT)")).await.unwrap();
    conn_compressed.query_drop(format!("USE {schema}")).await.unwrap();
    conn_compressed
        .query_drop("INSERT INTO t SELECT seq, REPEAT('compress me ', seq) FROM seq_1_to_200")
        .await
        .unwrap();
    conn_compressed.query_drop(format!("UPDATE {schema}.t SET t = CONCAT(t, 'x')")).await.unwrap();
    conn_compressed.query_drop(format!("DELETE FROM {schema}.t")).await.unwrap();
    conn.query_drop("SET GLOBAL log_bin_compress = OFF").await.unwrap();
    conn_compressed.disconnect().await.unwrap();
    conn.disconnect().await.unwrap();

    let events = log::events(server, &schema);
    for code in [166, 167, 168] {
        assert!(events["t"].iter().flat_map(|raw| &raw.rows).any(|(other, _)| *other == code), "no event {code}");
    }
    let changes = log::changes(&events["t"], log::dialect(server), None).unwrap();
    assert_eq!(changes.len(), 600);
    for change in &changes {
        let id = match change.last_image()[0] {
            Value::Int(id) => id as usize,
            ref other => panic!("the id is {other:?}"),
        };
        let written = "compress me ".repeat(id);
        if let Some(before) = &change.before {
            let expected = if change.after.is_none() { format!("{written}x") } else { written.clone() };
            assert_eq!(before[1], Value::Text(expected));
        }
        if let Some(after) = &change.after {
            let expected = if change.before.is_some() { format!("{written}x") } else { written };
            assert_eq!(after[1], Value::Text(expected));
        }
    }
}

/// A session decides whether compressed columns keep the header of zlib; the event then shows it.
#[tokio::test]
async fn compressed_columns_are_unpacked_with_and_without_zlib_header() {
    let pair = SharedPair::get(Flavor::MariaDb).await;
    let server = pair.old();
    let schema = pair.schema("wrapped");
    let mut conn = connect(server).await;
    conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    conn.query_drop(format!("CREATE TABLE {schema}.t (t TEXT COMPRESSED)")).await.unwrap();
    for wrap in ["ON", "OFF"] {
        conn.query_drop(format!("SET SESSION column_compression_zlib_wrap = {wrap}")).await.unwrap();
        conn.query_drop(format!("INSERT INTO {schema}.t VALUES (REPEAT('again and ', 300))")).await.unwrap();
    }
    conn.disconnect().await.unwrap();
    let events = log::events(server, &schema);
    let changes = log::changes(&events["t"], log::dialect(server), None).unwrap();
    let written = vec![Value::Text("again and ".repeat(300))];
    assert_eq!(
        changes.iter().map(|change| change.after.clone()).collect::<Vec<_>>(),
        [Some(written.clone()), Some(written)]
    );
    let stored: Vec<usize> = events["t"].iter().flat_map(|raw| &raw.rows).map(|(_, body)| body.len()).collect();
    assert!(
        stored[0] == stored[1] + 6 && stored[0] < 200,
        "{stored:?}: compressed, two bytes of header, four of checksum"
    );
}

#[tokio::test]
async fn temporal_columns_of_before_5_6_read_as_the_server_answers() {
    let _alone = NEW_SERVER.lock().await;
    let pair = SharedPair::get(Flavor::MariaDb).await;
    let server = pair.new();
    let schema = pair.schema("old_temporal");
    let mut conn = connect(server).await;
    conn.query_drop("SET GLOBAL mysql56_temporal_format = OFF").await.unwrap();
    conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    let mut compared = 0;
    for digits in 0..=6_u8 {
        let table = format!("{schema}.t{digits}");
        let columns = format!("id INT PRIMARY KEY, t TIME({digits}), d DATETIME({digits}), s TIMESTAMP({digits}) NULL");
        conn.query_drop(format!("CREATE TABLE {table} ({columns})")).await.unwrap();
        let rows = "(1, '-838:59:59.999999', '0000-00-00', '0000-00-00'), (2, '12:34:56.987654', '9999-12-31 23:59:59.987654', \
                    '2038-01-19 03:14:06.987654'), (3, '-00:00:00.5', '2001-02-03 04:05:06.7', '2001-02-03 04:05:06.7'), \
                    (4, '00:00:00', '1000-01-01', '1970-01-01 00:00:01')";
        conn.query_drop(format!("INSERT INTO {table} VALUES {rows}")).await.unwrap();
        let question = format!(
            "SELECT CAST(t AS CHAR), CAST(d AS CHAR), CAST(CAST(UNIX_TIMESTAMP(s) * 1000000 AS SIGNED) AS CHAR) FROM {table} ORDER BY id"
        );
        let answers: Vec<(String, String, String)> = conn.query(question).await.unwrap();
        let tracked = shape(
            &table,
            &[
                ("id", integer(4, false)),
                ("t", ColumnKind::Time { fraction_digits: digits }),
                ("d", ColumnKind::Datetime { fraction_digits: digits }),
                ("s", ColumnKind::Timestamp { fraction_digits: digits }),
            ],
        );
        let events = log::events(server, &schema);
        let raws = &events[&format!("t{digits}")];
        assert!(log::changes(raws, log::dialect(server), None).is_err(), "fraction digits are never guessed");
        let changes = log::changes(raws, log::dialect(server), Some(&tracked)).unwrap();
        for (change, answer) in changes.iter().zip(&answers) {
            use super::cases::Judge;
            let row = change.after.as_ref().unwrap();
            let digits = usize::from(digits);
            let ours = |place: usize, judge| super::judge::rendered(&row[place], judge).unwrap();
            assert_eq!(ours(1, Judge::Temporal(digits)), answer.0);
            assert_eq!(ours(2, Judge::Temporal(digits)), answer.1);
            assert_eq!(ours(3, Judge::Epoch), answer.2);
            compared += 3;
        }
    }
    conn.query_drop("SET GLOBAL mysql56_temporal_format = ON").await.unwrap();
    conn.disconnect().await.unwrap();
    assert_eq!(compared, 7 * 4 * 3);
}

#[tokio::test]
async fn every_collation_of_both_servers_is_known() {
    let questions = [
        (Flavor::MySql, "SELECT id, character_set_name FROM information_schema.collations"),
        (
            Flavor::MariaDb,
            "SELECT id, character_set_name FROM information_schema.collation_character_set_applicability WHERE id IS NOT NULL",
        ),
    ];
    for (flavor, question) in questions {
        let mut conn = connect(SharedPair::get(flavor).await.old()).await;
        let collations: Vec<(u64, String)> = conn.query(question).await.unwrap();
        assert!(collations.len() > 200);
        for (id, charset) in collations {
            assert_eq!(crossfade_binlog::decode::charset_of(id), Some(charset.as_str()), "collation {id}");
        }
        conn.disconnect().await.unwrap();
    }
}

#[tokio::test]
async fn a_rows_event_is_not_decoded_with_another_tables_map() {
    let pair = SharedPair::get(Flavor::MySql).await;
    let server = pair.old();
    let schema = pair.schema("mixed_up");
    let mut conn = connect(server).await;
    conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    for table in ["a", "b"] {
        conn.query_drop(format!("CREATE TABLE {schema}.{table} (id INT PRIMARY KEY)")).await.unwrap();
        conn.query_drop(format!("INSERT INTO {schema}.{table} VALUES (1)")).await.unwrap();
    }
    conn.disconnect().await.unwrap();
    let events = log::events(server, &schema);
    let map = TableMap::parse(&events["a"][0].map, log::dialect(server), None).unwrap();
    let (code, body) = &events["b"][0].rows[0];
    let event = RowsEvent::parse(*code, body, 3).unwrap();
    assert!(matches!(event.count(&events["a"][0].map), Err(DecodeError::WrongTable { .. })));
    let mut changes = map.changes(event);
    assert!(matches!(changes.next(), Some(Err(DecodeError::WrongTable { .. }))));
    assert!(changes.next().is_none(), "after an error there are no more");
}
