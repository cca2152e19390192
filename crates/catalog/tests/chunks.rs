//! Tables with keys of every type, split into chunks by both servers: no row is left out or in two chunks, and only the rows
//! of a chunk are read.

use std::collections::BTreeSet;

use crossfade_catalog::chunk::{ChunkWalk, KeyBound, KeyRange, KeySpace};
use crossfade_catalog::{Purpose, connect, table_shape};
use crossfade_config::ServerUrl;
use crossfade_model::TableName;
use crossfade_servers::{Flavor, SharedPair};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row};

async fn fresh_schema(flavor: Flavor, name: &str) -> (Conn, String) {
    let pair = SharedPair::get(flavor).await;
    let schema = pair.create_schema(name).await.unwrap();
    let url = ServerUrl::parse(&pair.old().root_url()).unwrap();
    let mut conn = connect(&url, Purpose::Catalog).await.unwrap();
    KeySpace::prepare(&mut conn).await.unwrap();
    conn.query_drop(format!("USE `{schema}`")).await.unwrap();
    (conn, schema)
}

async fn space_of(conn: &mut Conn, schema: &str, table: &str) -> KeySpace {
    let shape = table_shape(conn, &TableName::new(schema, table)).await.unwrap().expect("the table exists");
    KeySpace::new(&shape, shape.row_key().unwrap()).unwrap()
}

/// The numbers of the rows in a range, in the key's order.
async fn rows_of(conn: &mut Conn, space: &KeySpace, range: &KeyRange) -> Vec<u64> {
    let (condition, params) = space.within(range);
    let sql = format!("SELECT n FROM {} WHERE {condition} ORDER BY {}", space.from(), space.order());
    conn.exec(sql, Params::Positional(params)).await.unwrap()
}

async fn chunks_of(conn: &mut Conn, space: &KeySpace, rows: u64) -> Vec<KeyRange> {
    let mut walk = ChunkWalk::through(KeyRange::default());
    let mut chunks = Vec::new();
    while let Some(chunk) = walk.next(conn, space, rows).await.unwrap() {
        assert!(chunks.len() < 5_000, "the walk does not end: {:?}", &chunks[4_990..]);
        chunks.push(chunk);
    }
    chunks
}

/// A key of one column, and values in the order of their comparison or any other.
struct Keyed {
    definition: String,
    values: Vec<String>,
}

fn keyed(definition: &str, values: &[&str]) -> Keyed {
    Keyed { definition: definition.to_owned(), values: values.iter().map(|value| (*value).to_owned()).collect() }
}

fn keys(flavor: Flavor) -> Vec<Keyed> {
    let many = |from: i64| (from..from + 8).map(|n| n.to_string()).collect::<Vec<_>>();
    let mut keys = vec![
        Keyed { definition: "INT".to_owned(), values: many(-4) },
        Keyed { definition: "INT(9) ZEROFILL".to_owned(), values: many(1) },
        keyed("BIGINT UNSIGNED", &["0", "1", "9223372036854775807", "9223372036854775808", "18446744073709551615"]),
        keyed("BIGINT", &["-9223372036854775808", "-1", "0", "9223372036854775807"]),
        keyed("DECIMAL(65,30)", &["-1.000000000000000000000000000002", "-1.000000000000000000000000000001", "0", "7"]),
        keyed("DECIMAL(40,0)", &["9007199254740993000000000000001", "9007199254740993000000000000002", "-5", "3"]),
        keyed("FLOAT", &["-1.1", "0", "0.1", "16777216", "16777218", "3.4028234e38", "1e-45"]),
        keyed("DOUBLE", &["-1.7976931348623157e308", "5e-324", "0.1", "9007199254740991", "9007199254740992"]),
        keyed("DATE", &["'0000-00-00'", "'2001-00-00'", "'2001-02-31'", "'2001-03-01'", "'9999-12-31'"]),
        keyed("TIME(6)", &["'-838:59:59'", "'-00:00:00.000001'", "'00:00:00'", "'12:00:00.5'", "'838:59:59'"]),
        keyed("DATETIME(3)", &["'0000-00-00 00:00:00'", "'2026-03-29 02:30:00.001'", "'2026-03-29 02:30:00.002'"]),
        keyed("TIMESTAMP(6)", &["'1970-01-01 00:00:01'", "'2026-10-25 00:30:00.5'", "'2026-10-25 01:30:00'"]),
        keyed("YEAR", &["0", "1901", "1970", "2000", "2155"]),
        keyed("BIT(64)", &["0", "1", "255", "9223372036854775808", "18446744073709551615"]),
        keyed("ENUM('z','m','a','10','2')", &["1", "2", "3", "4", "5"]),
        keyed("SET('z','m','a')", &["0", "1", "2", "3", "4", "7"]),
        keyed("BINARY(3)", &["''", "x'00ff'", "x'01'", "x'ff0000'", "x'ffffff'", "'a'"]),
        keyed("VARBINARY(20)", &["''", "x'00'", "x'0000'", "'a'", "x'e4'", "x'ff'", "x'ffff'"]),
        keyed(
            "VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_swedish_ci",
            &["''", "'a'", "'B'", "'c'", "'Ä'", "'é'", "'z '"],
        ),
        keyed("VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_bin", &["x'00'", "x'81'", "x'ff'", "'a'", "'B'"]),
        keyed("CHAR(20) CHARACTER SET ascii COLLATE ascii_general_ci", &["''", "'a'", "'B'", "'c d'"]),
        keyed("VARCHAR(20) CHARACTER SET gbk COLLATE gbk_chinese_ci", &["'汉'", "'字'", "'a'", "'中'", "''"]),
        keyed("VARCHAR(20) CHARACTER SET sjis COLLATE sjis_japanese_ci", &["'漢'", "'あ'", "'a'", "'ー'"]),
        keyed("VARCHAR(20) CHARACTER SET utf16 COLLATE utf16_general_ci", &["''", "'a'", "'B'", "'漢'", "'\u{1f600}'"]),
        keyed(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            &["''", "'a'", "'B'", "'ä'", "'漢'", "'\u{1f600}'", "'''`\\\\'"],
        ),
        keyed(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
            &["''", "'a'", "'B'", "'é'", "'漢'", "'\u{1f600}'"],
        ),
    ];
    keys.extend(match flavor {
        Flavor::MySql => vec![
            keyed(
                "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci",
                &["''", "'a'", "'a '", "'B'", "'é'", "'ß'", "'漢'"],
            ),
            keyed(
                "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_sv_0900_ai_ci",
                &["'a'", "'z'", "'ä'", "'ö'", "'å'"],
            ),
        ],
        Flavor::MariaDb => vec![
            keyed("INET4", &["'0.0.0.0'", "'10.0.0.1'", "'9.0.0.1'", "'255.255.255.255'"]),
            keyed("INET6", &["'::'", "'::1'", "'::1.2.3.4'", "'2001:db8::'", "'ffff::'"]),
            keyed(
                "UUID",
                &[
                    "'00112233-4455-1677-8899-aabbccddeeff'",
                    "'00112233-4455-4677-8899-aabbccddee00'",
                    "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                ],
            ),
            keyed(
                "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_nopad_ci",
                &["''", "'a'", "'a '", "'B'", "'é'", "'ß'"],
            ),
        ],
    });
    keys
}

async fn every_row_is_in_one_chunk(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "chunks_by_type").await;
    for (number, key) in keys(flavor).iter().enumerate() {
        let name = format!("t{number}");
        conn.query_drop(format!("CREATE TABLE {name} (k {} NOT NULL PRIMARY KEY, n INT)", key.definition))
            .await
            .unwrap();
        for (n, value) in key.values.iter().enumerate() {
            let inserted = conn.query_drop(format!("INSERT INTO {name} VALUES ({value}, {n})")).await;
            inserted.unwrap_or_else(|error| panic!("{} {value}: {error}", key.definition));
        }
        let space = space_of(&mut conn, &schema, &name).await;
        let in_order = rows_of(&mut conn, &space, &KeyRange::default()).await;
        assert_eq!(in_order.len(), key.values.len(), "{}", key.definition);
        for rows in [1, 2, 3] {
            let chunks = chunks_of(&mut conn, &space, rows).await;
            let mut found = Vec::new();
            for chunk in &chunks {
                let in_chunk = rows_of(&mut conn, &space, chunk).await;
                assert!(in_chunk.len() as u64 <= rows, "{}: {chunk:?} has {in_chunk:?}", key.definition);
                found.extend(in_chunk);
            }
            assert_eq!(found, in_order, "{} by {rows}: {chunks:?}", key.definition);
        }
        every_row_is_found_by_its_key(&mut conn, &space, &in_order).await;
    }
}

async fn every_row_is_found_by_its_key(conn: &mut Conn, space: &KeySpace, in_order: &[u64]) {
    for (place, n) in in_order.iter().enumerate() {
        let key = space.nth(conn, &KeyRange::default(), place as u64 + 1).await.unwrap().unwrap();
        let kept: KeyBound = serde_json::from_str(&serde_json::to_string(&key).unwrap()).unwrap();
        assert_eq!(kept, key);
        let (condition, params) = space.is(&kept);
        let sql = format!("SELECT n FROM {} WHERE {condition}", space.from());
        let found: Vec<u64> = conn.exec(sql, Params::Positional(params)).await.unwrap();
        assert_eq!(found, [*n], "{key:?}");
    }
}

#[tokio::test]
async fn p1_every_row_is_in_one_chunk_mysql() {
    every_row_is_in_one_chunk(Flavor::MySql).await;
}

#[tokio::test]
async fn p1_every_row_is_in_one_chunk_mariadb() {
    every_row_is_in_one_chunk(Flavor::MariaDb).await;
}

/// Rows that the session's statements have read so far, by whatever way.
async fn rows_read(conn: &mut Conn) -> u64 {
    let counts: Vec<(String, u64)> = conn.query("SHOW SESSION STATUS LIKE 'Handler_read%'").await.unwrap();
    counts.into_iter().map(|(_, count)| count).sum()
}

/// The way that the server takes to a chunk, as it tells it.
async fn explained(conn: &mut Conn, space: &KeySpace, chunk: &KeyRange) -> (String, String) {
    let (condition, params) = space.within(chunk);
    let sql = format!("EXPLAIN FORMAT=TRADITIONAL SELECT COUNT(*), SUM(n) FROM {} WHERE {condition}", space.from());
    let row: Row = conn.exec_first(sql, Params::Positional(params)).await.unwrap().unwrap();
    (row.get("type").unwrap(), row.get::<Option<String>, _>("key").unwrap().unwrap_or_default())
}

async fn only_a_chunks_rows_are_read(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "chunks_by_range").await;
    let keys = [
        ("one", "a INT", "a"),
        ("two", "a INT, b INT", "a, b"),
        ("three", "a INT, b VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, c DATETIME(3)", "a, b, c"),
        ("labels", "a ENUM('z','m','a'), b VARBINARY(10), c DECIMAL(20,5)", "a, b, c"),
        ("latin", "a VARCHAR(20) CHARACTER SET latin1, b BIT(20), c BIGINT UNSIGNED", "a, b, c"),
        ("moment", "a TIMESTAMP(6), b DATE, c TIME(3)", "a, b, c"),
        ("doubles", "a DOUBLE, b YEAR, c SET('x','y')", "a, b, c"),
    ];
    conn.query_drop("CREATE TABLE digits (d INT PRIMARY KEY)").await.unwrap();
    conn.query_drop("INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)").await.unwrap();
    let numbers =
        "SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d AS n FROM digits a, digits b, digits c, digits e WHERE e.d < 3";
    for (name, columns, key) in keys {
        let not_null = columns.replace(", ", " NOT NULL, ");
        conn.query_drop(format!("CREATE TABLE {name} ({not_null} NOT NULL, n INT, PRIMARY KEY ({key}))"))
            .await
            .unwrap();
        let values = match name {
            "one" => "n",
            "two" => "n DIV 700, n",
            "three" => "n DIV 700, CONCAT('Key ', n DIV 50), '2026-01-01' + INTERVAL n SECOND",
            "labels" => "1 + n MOD 3, CONCAT('k', n DIV 100), n + 0.25",
            "latin" => "CONCAT('é', n DIV 1000), n DIV 40, n",
            "moment" => {
                "'2026-01-01' + INTERVAL n DIV 1000 SECOND, '2026-01-01' + INTERVAL n DIV 100 DAY, SEC_TO_TIME(n)"
            }
            _ => "n DIV 700 + 0.1, 2000 + n DIV 30, 1 + n MOD 3",
        };
        conn.query_drop(format!("INSERT IGNORE INTO {name} SELECT {values}, n FROM ({numbers}) AS numbers"))
            .await
            .unwrap();
        let space = space_of(&mut conn, &schema, name).await;
        let all: u64 = conn.query_first(format!("SELECT COUNT(*) FROM {name}")).await.unwrap().unwrap();
        assert!(all >= 300, "{name} has {all} rows");
        let chunks = chunks_of(&mut conn, &space, 40).await;
        assert!(chunks.len() as u64 >= all / 40, "{name}");
        let (mut counted, asked) = (0, chunks.len());
        for chunk in &chunks {
            let before = rows_read(&mut conn).await;
            let rows = rows_of(&mut conn, &space, chunk).await.len() as u64;
            let read = rows_read(&mut conn).await - before;
            assert!(rows <= 40, "{name}: {rows} rows in {chunk:?}");
            // Each of the ranges that a condition is made of is entered and left.
            assert!(read <= rows + 12, "{name}: {read} rows were read for {rows} of {chunk:?}");
            counted += rows;
        }
        assert_eq!(counted, all, "{name}");
        let middle = &chunks[asked / 2];
        let way = explained(&mut conn, &space, middle).await;
        assert_eq!(way, ("range".to_owned(), "PRIMARY".to_owned()), "{name}: {middle:?}");
    }
}

#[tokio::test]
async fn p10_only_a_chunks_rows_are_read_mysql() {
    only_a_chunks_rows_are_read(Flavor::MySql).await;
}

#[tokio::test]
async fn p10_only_a_chunks_rows_are_read_mariadb() {
    only_a_chunks_rows_are_read(Flavor::MariaDb).await;
}

/// The bounds that were found in one table split another one, whose server has other ideas of their order.
async fn bounds_split_a_table_with_another_collation(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "chunks_elsewhere").await;
    let tables = [
        ("binary_order", "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
        ("letters", "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"),
        ("latin", "VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german2_ci"),
    ];
    let values = ["a", "B", "c", "D", "ä1", "é2", "Z", "z9", "ß3", "o", "P", "q", "_x", "0", "10", "9"];
    for (name, definition) in tables {
        conn.query_drop(format!("CREATE TABLE {name} (k {definition} PRIMARY KEY, n INT)")).await.unwrap();
        for (n, value) in values.iter().enumerate() {
            conn.exec_drop(format!("INSERT INTO {name} VALUES (?, ?)"), (value, n)).await.unwrap();
        }
    }
    // Text that the other character set does not know.
    conn.query_drop("INSERT INTO binary_order VALUES ('漢', 100), ('\u{1f600}', 101)").await.unwrap();
    for (from, _) in tables {
        let finder = space_of(&mut conn, &schema, from).await;
        for rows in [1, 2, 5] {
            let chunks = chunks_of(&mut conn, &finder, rows).await;
            for (other, _) in tables {
                let space = space_of(&mut conn, &schema, other).await;
                let mut found = BTreeSet::new();
                for chunk in &chunks {
                    found.extend(rows_of(&mut conn, &space, chunk).await);
                }
                let all: BTreeSet<u64> = rows_of(&mut conn, &space, &KeyRange::default()).await.into_iter().collect();
                assert_eq!(found, all, "bounds of {from} by {rows} in {other}");
            }
        }
    }
}

#[tokio::test]
async fn p1_bounds_split_a_table_with_another_collation_mysql() {
    bounds_split_a_table_with_another_collation(Flavor::MySql).await;
}

#[tokio::test]
async fn p1_bounds_split_a_table_with_another_collation_mariadb() {
    bounds_split_a_table_with_another_collation(Flavor::MariaDb).await;
}

async fn a_walk_ends_at_what_was_the_last_row(flavor: Flavor) {
    let (mut conn, schema) = fresh_schema(flavor, "chunks_walk").await;
    conn.query_drop("CREATE TABLE t (k INT PRIMARY KEY, n INT)").await.unwrap();
    let space = space_of(&mut conn, &schema, "t").await;
    let empty = ChunkWalk::to_the_last_row(&mut conn, &space, None).await.unwrap();
    assert_eq!(empty.rest(), None);
    for n in 1..=10 {
        conn.exec_drop("INSERT INTO t VALUES (?, ?)", (n, n)).await.unwrap();
    }
    let mut walk = ChunkWalk::to_the_last_row(&mut conn, &space, None).await.unwrap();
    let first = walk.next(&mut conn, &space, 4).await.unwrap().unwrap();
    assert_eq!(rows_of(&mut conn, &space, &first).await, [1, 2, 3, 4]);
    conn.query_drop("INSERT INTO t VALUES (11, 11), (12, 12)").await.unwrap();
    // Another process goes on from there.
    let mut walk = ChunkWalk::through(walk.rest().cloned().unwrap());
    let mut found = Vec::new();
    while let Some(chunk) = walk.next(&mut conn, &space, 3).await.unwrap() {
        assert!(chunk.through.is_some());
        found.extend(rows_of(&mut conn, &space, &chunk).await);
    }
    assert_eq!(found, [5, 6, 7, 8, 9, 10]);
    let later = ChunkWalk::to_the_last_row(&mut conn, &space, first.through).await.unwrap();
    assert!(later.rest().is_some());
}

#[tokio::test]
async fn p8_a_walk_ends_at_what_was_the_last_row_mysql() {
    a_walk_ends_at_what_was_the_last_row(Flavor::MySql).await;
}

#[tokio::test]
async fn p8_a_walk_ends_at_what_was_the_last_row_mariadb() {
    a_walk_ends_at_what_was_the_last_row(Flavor::MariaDb).await;
}
