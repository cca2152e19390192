//! JSON documents of MySQL: text, numbers, opaque values, partial updates, against the server's own text.

use crossfade_model::{OpaqueKind, Value};
use crossfade_servers::{Flavor, SharedPair};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::log;
use super::matrix::connect;

/// A small generator, so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn document(dice: &mut Dice, depth: u64) -> String {
    const TEXTS: [&str; 9] = ["", "a", "b c", "ä漢😀", "q\\\"uote", "back\\\\slash", "\\u0001\\n\\t", "$x", "key"];
    match dice.roll(if depth > 5 { 6 } else { 9 }) {
        0 => ["null", "true", "false"][dice.roll(3) as usize].to_owned(),
        1 => format!("\"{}\"", TEXTS[dice.roll(9) as usize]),
        2 => (dice.roll(u64::MAX) >> dice.roll(64)).to_string(),
        3 => format!("-{}", dice.roll(u64::MAX) >> (1 + dice.roll(63))),
        4 => format!("\"{}\"", "long ".repeat(dice.roll(400) as usize)),
        5 => loop {
            let number = f64::from_bits(dice.roll(u64::MAX));
            if number.is_finite() {
                break format!("{number:e}");
            }
        },
        6 | 7 => {
            let members = (0..dice.roll(8)).map(|n| {
                let key = TEXTS[dice.roll(9) as usize];
                format!("\"{key}{}\": {}", if dice.roll(2) == 0 { n } else { n * 1000 }, document(dice, depth + 1))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        _ => {
            let elements: Vec<String> = (0..dice.roll(12)).map(|_| document(dice, depth + 1)).collect();
            format!("[{}]", elements.join(","))
        }
    }
}

async fn server_text(conn: &mut Conn, table: &str, column: &str) -> Vec<Option<String>> {
    conn.query(format!("SELECT CAST({column} AS CHAR CHARACTER SET utf8mb4) FROM {table} ORDER BY id")).await.unwrap()
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Json(document) => Some(document.text.clone()),
        other => panic!("no document: {other:?}"),
    }
}

#[tokio::test]
async fn random_documents_print_as_the_server_prints_them() {
    let pair = SharedPair::get(Flavor::MySql).await;
    let server = pair.old();
    let schema = pair.schema("documents");
    let mut conn = connect(server).await;
    conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    conn.query_drop(format!("CREATE TABLE {schema}.t (id INT PRIMARY KEY AUTO_INCREMENT, j JSON)")).await.unwrap();
    let mut dice = Dice(0x5eed_cafe);
    for _ in 0..30 {
        let documents: Vec<(String,)> = (0..20).map(|_| (document(&mut dice, 0),)).collect();
        conn.exec_batch(format!("INSERT INTO {schema}.t (j) VALUES (?)"), documents).await.unwrap();
    }
    // Doubles alone, many of them, over all magnitudes that people use and beyond.
    for _ in 0..40 {
        let number = |dice: &mut Dice| {
            let exponent = dice.roll(50) as i32 - 25;
            format!("{}e{exponent}", dice.roll(1 << 53) as f64 / 10_f64.powi(dice.roll(17) as i32))
        };
        let numbers: Vec<String> = (0..100).map(|_| number(&mut dice)).collect();
        conn.exec_drop(format!("INSERT INTO {schema}.t (j) VALUES (?)"), (format!("[{}]", numbers.join(",")),))
            .await
            .unwrap();
    }
    let answers = server_text(&mut conn, &format!("{schema}.t"), "j").await;
    conn.disconnect().await.unwrap();
    let changes = log::changes(&log::events(server, &schema)["t"], log::dialect(server), None).unwrap();
    assert_eq!((changes.len(), answers.len()), (640, 640));
    for (change, answer) in changes.iter().zip(&answers) {
        assert_eq!(text_of(&change.after.as_ref().unwrap()[1]), *answer);
    }
    let bytes: usize = answers.iter().flatten().map(String::len).sum();
    println!("random documents: 640, {bytes} bytes of text equal");
    assert!(bytes > 200_000);
}

#[tokio::test]
async fn what_json_has_no_type_for_is_listed_with_its_path() {
    let pair = SharedPair::get(Flavor::MySql).await;
    let server = pair.old();
    let schema = pair.schema("opaque");
    let mut conn = connect(server).await;
    conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    let columns = "(id INT PRIMARY KEY, ts TIMESTAMP(6), b BIT(12), bl BLOB, c CHAR(3), j JSON)";
    conn.query_drop(format!("CREATE TABLE {schema}.t {columns}")).await.unwrap();
    conn.query_drop(format!(
        "INSERT INTO {schema}.t VALUES (1, '2026-01-02 03:04:05.5', 5, x'00ff', 'abc', NULL), (2, '1970-01-01 00:00:01', 4095, '', '', NULL)"
    ))
    .await
    .unwrap();
    conn.query_drop(format!(
        "UPDATE {schema}.t SET j = JSON_OBJECT('ts', ts, 'b c', JSON_ARRAY(1, b), 'bl', bl, 'c', c, '', -12.50, 'd', \
         CAST('2026-02-03' AS DATE), 't', CAST('-12:00:00.25' AS TIME(6)), 'dt', TIMESTAMP'2026-02-03 04:05:06', \
         'bin', CAST('xyz' AS BINARY), 'a\"\\\\', JSON_ARRAY(JSON_ARRAY(0.10)))"
    ))
    .await
    .unwrap();
    let events = log::events(server, &schema);
    let changes = log::changes(&events["t"], log::dialect(server), None).unwrap();
    let mut compared = 0;
    for change in changes.iter().filter(|change| change.before.is_some()) {
        let row = change.after.as_ref().unwrap();
        let (Value::Int(id), Value::Json(document)) = (&row[0], &row[5]) else { panic!("not as created: {row:?}") };
        assert_eq!(document.opaque.len(), 9, "{document:?}");
        for node in &document.opaque {
            let question = format!(
                "SELECT JSON_TYPE(JSON_EXTRACT(j, ?)), CAST(JSON_UNQUOTE(JSON_EXTRACT(j, ?)) AS CHAR) FROM {schema}.t WHERE id = {id}"
            );
            let (kind, text): (String, String) =
                conn.exec_first(question, (&node.path, &node.path)).await.unwrap().unwrap();
            let (expected, printed) = match node.kind {
                OpaqueKind::Decimal => ("DECIMAL", true),
                OpaqueKind::Date => ("DATE", true),
                OpaqueKind::Time => ("TIME", true),
                OpaqueKind::Datetime => ("DATETIME", true),
                OpaqueKind::Timestamp => ("TIMESTAMP", true),
                OpaqueKind::Bytes { .. } => ("BLOB", false),
                OpaqueKind::Bit => ("BIT", false),
            };
            // The server has no name of its own for a timestamp.
            let kind = if expected == "TIMESTAMP" && kind == "DATETIME" { "TIMESTAMP" } else { &kind };
            assert_eq!(kind, expected, "{}", node.path);
            if printed {
                assert_eq!(String::from_utf8(node.bytes.clone()).unwrap(), text, "{}", node.path);
            } else {
                assert!(text.starts_with("base64:type"));
            }
            compared += 1;
        }
    }
    conn.disconnect().await.unwrap();
    assert_eq!(compared, 18);
}

#[tokio::test]
async fn partial_updates_give_the_whole_document() {
    let pair = SharedPair::get(Flavor::MySql).await;
    let server = pair.old();
    let schema = pair.schema("partial");
    let table = format!("{schema}.t");
    let mut conn = connect(server).await;
    conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    let columns = "(id INT PRIMARY KEY, n INT, j JSON, v JSON AS (JSON_EXTRACT(j, '$.a')) VIRTUAL, k JSON, t TEXT)";
    conn.query_drop(format!("CREATE TABLE {table} {columns}")).await.unwrap();
    let start =
        r#"{"a": {"b c": [1, 2, {"x": null}], "long": "LONG"}, "bb": 1.5, "q\"uote": "x", "ü": [], "arr": [1, 2, 3]}"#;
    let start = start.replace("LONG", &"x".repeat(300));
    for id in 0..4 {
        let row = (id, start.clone(), start.clone());
        conn.exec_drop(format!("INSERT INTO {table} (id, n, j, k, t) VALUES (?, 0, ?, ?, 't')"), row).await.unwrap();
    }
    conn.query_drop("SET SESSION binlog_row_value_options = PARTIAL_JSON").await.unwrap();
    let updates = [
        "j = JSON_SET(j, '$.a.\"b c\"[1]', 'changed')",
        "j = JSON_SET(j, '$.new', JSON_OBJECT('k', CAST('2026-01-02' AS DATE), 'd', 1.250)), k = JSON_REMOVE(k, '$.bb')",
        "k = JSON_REPLACE(k, '$.\"q\\\\\"uote\"', JSON_ARRAY(1, 'two', 3.0))",
        "j = JSON_REMOVE(j, '$.arr[1]'), k = JSON_SET(k, '$.arr[10]', 4, '$.\"ü\"[0]', TRUE)",
        "n = n + 1",
        "j = JSON_SET(j, '$.bb', REPEAT('grown', 100)), n = n + 1",
        "j = JSON_SET(j, '$.\"weird \\\\\\\\ key\"', 1)",
        "j = JSON_SET(JSON_REMOVE(j, '$.a.long'), '$.a.short', CAST(x'00ff' AS JSON))",
        "j = NULL",
        "j = JSON_OBJECT('fresh', 1), k = JSON_SET(k, '$', JSON_ARRAY(1))",
        "j = JSON_SET(j, '$.fresh[1]', 2)",
        "k = JSON_ARRAY()",
    ];
    let mut answers = Vec::new();
    for update in updates {
        let update = update.replace("CAST(x'00ff' AS JSON)", "x'00ff'");
        conn.query_drop(format!("UPDATE {table} SET {update} WHERE id < 3")).await.unwrap();
        let columns = [server_text(&mut conn, &table, "j").await, server_text(&mut conn, &table, "v").await];
        let k = server_text(&mut conn, &table, "k").await;
        answers.extend((0..3).map(|id| [columns[0][id].clone(), columns[1][id].clone(), k[id].clone()]));
    }
    conn.disconnect().await.unwrap();
    let events = log::events(server, &schema);
    let partial: Vec<&(u8, Vec<u8>)> =
        events["t"].iter().flat_map(|raw| &raw.rows).filter(|(code, _)| *code == 39).collect();
    assert_eq!(partial.len(), updates.len(), "the server wrote partial updates");
    // Whole images would hold the long text three times before (j, v, k) and three times after.
    let long_texts = partial[0].1.windows(300).filter(|window| window.iter().all(|byte| *byte == b'x')).count();
    assert!(long_texts < 3 * 6, "and not as whole documents: {long_texts}");
    let changes = log::changes(&events["t"], log::dialect(server), None).unwrap();
    let updated: Vec<_> = changes.iter().filter(|change| change.before.is_some()).collect();
    assert_eq!(updated.len(), answers.len());
    for (nth, (change, answer)) in updated.iter().zip(&answers).enumerate() {
        let row = change.after.as_ref().unwrap();
        let ours = [text_of(&row[2]), text_of(&row[3]), text_of(&row[4])];
        assert_eq!(ours, *answer, "{}", updates[nth / 3]);
        assert_eq!(row[5], Value::Text("t".to_owned()));
    }
    println!("partial updates: {} rows in {} events equal", updated.len(), partial.len());
}
