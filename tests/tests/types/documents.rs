//! JSON documents of MySQL, with what text cannot say; and the comparison that sees it.

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};
use serde_json::Value;

use crate::cases::Case;

/// Paths of one document that are asked for; a long array proves no more with its thousandth element.
const MOST_PATHS: usize = 200;

/// The documents, beside columns that give some of their values types that only columns have.
pub fn case() -> Case {
    let columns = [
        "BIT(12) NULL",
        "BLOB NULL",
        "BINARY(5) NULL",
        "VARBINARY(9) NULL",
        "TIMESTAMP(6) NULL",
        "TINYBLOB NULL",
        "LONGBLOB NULL",
        "JSON NULL",
    ];
    let beside = ["5", "x'00ff'", "x'01'", "x'0203'", "'2026-01-02 03:04:05.5'", "x'aa'", "REPEAT(x'ab', 70000)"];
    let row = |document: &str| beside.iter().chain(&[document]).map(|value| (*value).to_owned()).collect();
    let mut rows: Vec<Vec<String>> = documents().iter().map(|document| row(document)).collect();
    rows.push(vec!["NULL".to_owned(); columns.len()]);
    Case {
        group: "JSON".to_owned(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        written: columns.len(),
        rows,
    }
}

fn documents() -> Vec<String> {
    let deep = format!("'{}1{}'", "[".repeat(90), "]".repeat(90));
    let long = format!("CAST('{{\"k\": \"{}\", \"n\": [1, 2, 3]}}' AS JSON)", "v".repeat(70_000));
    let wide = format!("'[{}]'", (0..5_000).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let plain = [
        "'null'",
        "'true'",
        "'[]'",
        "'{}'",
        "'\"text\"'",
        "'{\"b\": 1, \"a\": [1, 2.5, {\"\": null}], \"ccc\": \"x\"}'",
        r#"'"\\u0000\\u001f\\u007f\\/\\"\\\\\\b\\f\\n\\r\\t\\u2028\\ud83d\\ude00é"'"#,
        "'[0, -1, 32767, -32768, 32768, 65535, 65536, 2147483647, -2147483648, 4294967295, 4294967296]'",
        "'[9223372036854775807, -9223372036854775808, 18446744073709551615, 9007199254740993]'",
        "'[1.0, -0.0, 1e15, 1e-15, 1e-16, 1.5e300, 5e-324, 123456789012345.6, 18446744073709551616]'",
        "CAST(12.340 AS JSON)",
        "CAST(x'00ff' AS JSON)",
        "JSON_ARRAY(12.340, CAST(-0.5 AS DECIMAL(10,3)), CAST('1e10' AS DECIMAL(65,30)), 0.000)",
        "JSON_OBJECT('d', CAST('2026-01-02' AS DATE), 't', CAST('-12:00:00.5' AS TIME(6)), 'z', 1.0)",
        "JSON_ARRAY(CAST('00:01:20' AS TIME), CAST('10:11:12.5' AS TIME(6)), CAST('-838:59:59' AS TIME))",
        "JSON_OBJECT('dt', TIMESTAMP'2026-01-02 03:04:05.123456', 'x y', x'00ff', 'long', REPEAT(x'00', 100))",
        "JSON_ARRAY(JSON_ARRAY(JSON_ARRAY(x'')), JSON_OBJECT('$x', 1.5, '1a', 2.5, 'A\"', 3.5, 'ä', 4.5, '', 5.5, 'b\\\\', 6.5))",
        "JSON_OBJECT('bit', c0, 'blob', c1, 'binary', c2, 'varbinary', c3, 'timestamp', c4, 'tinyblob', c5)",
        "JSON_ARRAY(c0, JSON_ARRAY(c6), JSON_OBJECT('year', CAST(2026 AS YEAR)), ST_GeomFromText('POINT(1 2)'))",
        "JSON_OBJECT('cast', CAST('a' AS BINARY), 'fixed', CAST('a' AS BINARY(3)), 'true', TRUE, 'e', 1e0, 'f', CAST(1.1 AS FLOAT))",
    ];
    // Thousands of values that have to be put in one by one.
    let numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 900)";
    let decimals =
        format!("({numbers} SELECT JSON_ARRAYAGG(JSON_ARRAY(n + 0.25, x'00ff', 'text', -0.5)) FROM numbers)");
    plain.iter().map(|document| (*document).to_owned()).chain([deep, long, wide, decimals]).collect()
}

/// What was asked about the documents of a table, on both sides.
#[derive(Debug, Default, Clone, Copy)]
pub struct Paths {
    pub compared: usize,
    pub equal: usize,
    /// Of a type that JSON text does not have.
    pub beyond_text: usize,
}

/// Asks both sides for type and text of every path of every document in `column` of `table`.
pub async fn compare(old: &Pool, new: &Pool, table: &str, column: &str) -> Result<Paths> {
    let mut conns = [old.get_conn().await?, new.get_conn().await?];
    let list = format!("SELECT id, CAST({column} AS CHAR) FROM {table} WHERE {column} IS NOT NULL ORDER BY id");
    let documents: Vec<(i64, String)> = conns[0].query(list).await?;
    ensure!(!documents.is_empty(), "there are no documents in {table}");
    let mut paths = Paths::default();
    for (id, text) in documents {
        let document: Value = serde_json::from_str(&text).with_context(|| format!("document {id} is no JSON"))?;
        let mut asked = Vec::new();
        list_paths(&document, "$".to_owned(), &mut asked);
        asked.truncate(MOST_PATHS);
        let [old, new] = &mut conns;
        let old = answers(old, table, column, id, &asked).await?;
        let new = answers(new, table, column, id, &asked).await?;
        for ((path, old), new) in asked.iter().zip(old).zip(new) {
            paths.compared += 1;
            paths.equal += usize::from(old == new);
            let kind = old.split(' ').next().unwrap_or_default();
            let has_text = ["OBJECT", "ARRAY", "STRING", "INTEGER", "DOUBLE", "BOOLEAN", "NULL"].contains(&kind);
            paths.beyond_text += usize::from(!has_text);
            if old != new {
                eprintln!("document {id}, {path}: {old:.100} on old, {new:.100} on new");
            }
        }
    }
    Ok(paths)
}

async fn answers(conn: &mut Conn, table: &str, column: &str, id: i64, paths: &[String]) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    for chunk in paths.chunks(50) {
        let question: Vec<String> = chunk
            .iter()
            .map(|_| {
                let value = format!("JSON_EXTRACT({column}, ?)");
                format!("CONCAT(JSON_TYPE({value}), ' ', LEFT(CAST({value} AS CHAR), 200))")
            })
            .collect();
        let question = format!("SELECT {} FROM {table} WHERE id = {id}", question.join(", "));
        let asked: Vec<mysql_async::Value> =
            chunk.iter().flat_map(|path| [path.as_str().into(), path.as_str().into()]).collect();
        let row: mysql_async::Row = conn.exec_first(question, asked).await?.context("a row is gone")?;
        for answer in row.unwrap() {
            let answer = mysql_async::from_value_opt::<String>(answer).unwrap_or_else(|_| "nothing".to_owned());
            // The server keeps the sign of the type of a small integer, which is no part of its value: text gives signed ones.
            answers.push(answer.replacen("UNSIGNED INTEGER ", "INTEGER ", 1));
        }
    }
    Ok(answers)
}

fn list_paths(value: &Value, path: String, paths: &mut Vec<String>) {
    match value {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                list_paths(element, format!("{path}[{index}]"), paths);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let name = Value::String(name.clone());
                list_paths(member, format!("{path}.{name}"), paths);
            }
        }
        _ => {}
    }
    paths.push(path);
}
