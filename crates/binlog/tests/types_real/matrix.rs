//! Every type, written on a real server and read back from its binlog.

use std::collections::BTreeMap;

use crossfade_model::{Column, ColumnKind, RowChange, RowOp, TableName, TableShape};
use crossfade_servers::Server;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::cases::{self, Case};
use super::{judge, log, second_reader};

/// A case that was written, with what the server answered.
pub struct Written {
    pub case: Case,
    pub table: String,
    pub answers: Vec<(u32, Option<String>)>,
}

/// Added to every id by the update.
const MOVED: u32 = 10_000;

#[derive(Default)]
struct Line {
    rows: usize,
    cells: usize,
    equal: usize,
}

pub async fn connect(server: &Server) -> Conn {
    let mut conn = server.connect().await.unwrap();
    conn.query_drop(
        "SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO', group_concat_max_len = 1000000",
    )
    .await
    .unwrap();
    conn
}

/// Writes every case into a schema of its own: inserts, an update that touches every row, a delete.
pub async fn write(server: &Server, schema: &str) -> Vec<Written> {
    let mut conn = connect(server).await;
    conn.query_drop(format!("CREATE DATABASE {schema}")).await.unwrap();
    let mut cases = cases::plain(server.flavor());
    cases.extend(charset_cases(&mut conn).await);
    let mut written = Vec::new();
    for (number, case) in cases.into_iter().enumerate() {
        let table = format!("{schema}.t{number}");
        conn.query_drop(format!("CREATE TABLE {table} (id INT PRIMARY KEY, c {} NULL)", case.sql_type)).await.unwrap();
        let rows: Vec<String> = case
            .values
            .iter()
            .map(String::as_str)
            .chain(["NULL"])
            .enumerate()
            .map(|(id, value)| format!("({id}, {value})"))
            .collect();
        let insert = format!("INSERT INTO {table} VALUES {}", rows.join(", "));
        conn.query_drop(&insert).await.unwrap_or_else(|error| panic!("{}: {error}", case.sql_type));
        let answers = judge::answers(&mut conn, &table, &case).await;
        assert_eq!(answers.len(), rows.len(), "{}", case.sql_type);
        conn.query_drop(format!("UPDATE {table} SET id = id + {MOVED} ORDER BY id DESC")).await.unwrap();
        conn.query_drop(format!("DELETE FROM {table}")).await.unwrap();
        written.push(Written { case, table, answers });
    }
    conn.disconnect().await.unwrap();
    written
}

/// For each character set of the server, the first sample it can hold.
async fn charset_cases(conn: &mut Conn) -> Vec<Case> {
    let charsets: Vec<(String, u64)> = conn
        .query("SELECT character_set_name, maxlen FROM information_schema.character_sets WHERE character_set_name <> 'binary'")
        .await
        .unwrap();
    assert!(charsets.len() >= 39, "servers have about forty character sets");
    let mut cases = Vec::new();
    for (charset, max_len) in charsets {
        for (sample, letter) in cases::SAMPLES {
            let question = format!(
                "SELECT CONVERT(CONVERT('{sample}' USING {charset}) USING utf8mb4) = '{sample}' COLLATE utf8mb4_bin"
            );
            let holds: Option<bool> = conn.query_first(question).await.unwrap();
            if holds == Some(true) {
                cases.extend(cases::charset(&charset, max_len, sample, letter));
                break;
            }
        }
    }
    cases
}

/// A definition as the catalog would give it, for what events do not tell.
pub fn shape(table: &str, kinds: &[(&str, ColumnKind)]) -> TableShape {
    let (schema, name) = table.split_once('.').unwrap();
    let column = |(name, kind): &(&str, ColumnKind)| Column {
        nullable: true,
        declared: format!("{kind:?}"),
        ..Column::plain(*name, kind.clone())
    };
    TableShape {
        name: TableName::new(schema, name),
        columns: kinds.iter().map(column).collect(),
        primary_key: vec![0],
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        engine: "InnoDB".to_owned(),
    }
}

fn id_kind() -> ColumnKind {
    ColumnKind::Integer { bytes: 4, unsigned: false }
}

/// Compares every image of every change with the server's answers. Returns cells compared and cells equal.
fn compare(written: &Written, changes: &[RowChange]) -> (usize, usize) {
    let expected = |id: i64| {
        let id = u32::try_from(id).unwrap() % MOVED;
        written.answers.iter().find(|(other, _)| *other == id).map(|(_, answer)| answer.clone()).unwrap()
    };
    let (mut cells, mut equal) = (0, 0);
    for change in changes {
        assert_eq!(change.layout.row_key, vec![0]);
        assert_eq!(&*change.layout.columns[1], "c");
        for image in [&change.before, &change.after].into_iter().flatten() {
            let crossfade_model::Value::Int(id) = image[0] else { panic!("the id is {:?}", image[0]) };
            let (answer, ours) = (expected(id), judge::rendered(&image[1], written.case.judge));
            cells += 1;
            if answer == ours {
                equal += 1;
            } else {
                let value = written.case.values.get(id as usize % MOVED as usize);
                eprintln!(
                    "{} {value:.60?}: the server says {answer:.200?}, the binlog {ours:.200?}",
                    written.case.sql_type
                );
            }
        }
    }
    let ops = |op: RowOp| changes.iter().filter(|change| change.op == op).count();
    let rows = written.answers.len();
    assert_eq!(
        (ops(RowOp::Insert), ops(RowOp::Update), ops(RowOp::Delete)),
        (rows, rows, rows),
        "{}",
        written.case.sql_type
    );
    (cells, equal)
}

fn print(title: &str, lines: &BTreeMap<String, Line>) {
    println!("\n{title}\n{:<28} {:>8} {:>8} {:>8}", "type", "rows", "cells", "equal");
    for (group, line) in lines {
        println!("{group:<28} {:>8} {:>8} {:>8}", line.rows, line.cells, line.equal);
    }
    let sum = |of: fn(&Line) -> usize| lines.values().map(of).sum::<usize>();
    println!("{:<28} {:>8} {:>8} {:>8}", "all", sum(|l| l.rows), sum(|l| l.cells), sum(|l| l.equal));
}

/// The whole matrix on one server: full metadata; the same events as MySQL 5.7 would have written them, with a tracked
/// definition; and the second reader.
pub async fn run(server: &Server, schema: &str) {
    let written = write(server, schema).await;
    let events = log::events(server, schema);
    let flavor = log::dialect(server);
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for one in &written {
        let raws = &events[one.table.split_once('.').unwrap().1];
        let kinds = one.case.tracked.clone().map(|kind| shape(&one.table, &[("id", id_kind()), ("c", kind)]));
        let changes =
            log::changes(raws, flavor, kinds.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", one.case.sql_type));
        let (cells, equal) = compare(one, &changes);
        let line = lines.entry(one.case.group.clone()).or_default();
        line.rows += one.answers.len();
        line.cells += cells;
        line.equal += equal;
        bare_events_with_a_definition(one, raws, flavor, &changes);
    }
    print(&format!("type matrix, {}", server.version()), &lines);
    for (group, line) in &lines {
        assert!(line.rows > 0 && line.cells == 4 * line.rows, "{group} was not compared");
        assert_eq!(line.cells, line.equal, "{group}");
    }
    second_reader::compare(server, schema, &written, &events);
}

/// Without metadata, the definition that full metadata gave must lead to the same values; and without any definition
/// nothing may be guessed.
fn bare_events_with_a_definition(
    one: &Written,
    raws: &[log::Raw],
    flavor: crossfade_binlog::decode::Flavor,
    full: &[RowChange],
) {
    let bare: Vec<log::Raw> =
        raws.iter().map(|raw| log::Raw { map: log::without_metadata(&raw.map), rows: raw.rows.clone() }).collect();
    assert!(log::changes(&bare, flavor, None).is_err());
    let kinds = &full[0].layout.kinds;
    let tracked = shape(&one.table, &[("id", kinds[0].clone()), ("c", kinds[1].clone())]);
    let again =
        log::changes(&bare, flavor, Some(&tracked)).unwrap_or_else(|error| panic!("{}: {error}", one.case.sql_type));
    assert_eq!(again, full, "{}", one.case.sql_type);
    let wrong = if kinds[1] == ColumnKind::Date { ColumnKind::Year } else { ColumnKind::Date };
    let wrong = shape(&one.table, &[("id", kinds[0].clone()), ("c", wrong)]);
    assert!(log::changes(&bare, flavor, Some(&wrong)).is_err(), "{}", one.case.sql_type);
    let short = shape(&one.table, &[("id", kinds[0].clone())]);
    assert!(log::changes(&bare, flavor, Some(&short)).is_err());
}
