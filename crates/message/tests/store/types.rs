//! Every column type through the store: from the source's binlog into a block, and from the view, with plain SQL, back
//! beside the source row.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine;
use crossfade_binlog::decode::file::FileEvents;
use crossfade_binlog::decode::{DecodeError, Flavor as Dialect, RowsEvent, TableMap};
use crossfade_model::{Column, ColumnKind, Message, Origin, RowChange, Seen, TableName, TableShape};
use crossfade_servers::{Flavor, Server};
use sqlx::mysql::MySqlPool;
use sqlx::{AssertSqlSafe, Executor};

use crate::{at, forward, on_both_servers, started, store_at};

on_both_servers!(every_column_type_reads_the_same_in_the_view);

/// How the source row is asked for what the view should show.
#[derive(Clone, Copy)]
enum Shown {
    /// As the server prints it.
    Printed,
    /// Text, in Unicode; or its bytes where the view has bytes.
    Text,
    Bytes,
    Number,
    Float,
    Double,
}

struct Case {
    column_type: String,
    shown: Shown,
    values: Vec<String>,
}

fn case(column_type: &str, shown: Shown, values: &[&str]) -> Case {
    let values = values.iter().map(ToString::to_string).collect();
    Case { column_type: column_type.to_owned(), shown, values }
}

fn numbers() -> Vec<Case> {
    use Shown::*;
    vec![
        case("TINYINT", Printed, &["-128", "127", "NULL"]),
        case("TINYINT UNSIGNED", Printed, &["0", "255"]),
        case("SMALLINT", Printed, &["-32768", "32767"]),
        case("MEDIUMINT", Printed, &["-8388608", "8388607"]),
        case("MEDIUMINT UNSIGNED", Printed, &["16777215"]),
        case("INT", Printed, &["-2147483648", "2147483647"]),
        case("INT UNSIGNED", Printed, &["4294967295"]),
        case(
            "BIGINT",
            Printed,
            &[
                "-9223372036854775808",
                "9223372036854775807",
                "9007199254740992",
                "9007199254740993",
                "-9007199254740993",
            ],
        ),
        case("BIGINT UNSIGNED", Printed, &["18446744073709551615", "0", "9007199254740993"]),
        case("DECIMAL(65,30)", Printed, &["-12345678901234567890123456789012345.000000000000000000000000000001", "0"]),
        case("DECIMAL(5,2)", Printed, &["-0.5", "999.99"]),
        case("FLOAT", Float, &["0.1", "-0e0", "3.4028234e38", "1e-45", "16777217"]),
        case("DOUBLE", Double, &["0.1", "-0e0", "-1.7976931348623157e308", "5e-324", "9007199254740993"]),
        case("BIT(1)", Number, &["0", "1"]),
        case("BIT(64)", Number, &["18446744073709551615", "9007199254740992"]),
        case("YEAR", Printed, &["0", "1901", "2155"]),
    ]
}

fn times() -> Vec<Case> {
    let mut cases = vec![case("DATE", Shown::Printed, &["'0000-00-00'", "'2001-00-00'", "'9999-12-31'"])];
    for digits in [0, 1, 3, 6] {
        let typed = |name: &str| format!("{name}({digits})");
        cases.push(case(&typed("TIME"), Shown::Printed, &["'-838:59:59'", "'-00:00:00.999999'", "'12:34:56.789123'"]));
        cases.push(case(
            &typed("DATETIME"),
            Shown::Printed,
            &[
                "'0000-00-00 00:00:00'",
                "'2001-00-00 01:02:03'",
                "'9999-12-31 23:59:59'",
                "'2026-03-29 02:30:00.123456'",
            ],
        ));
        cases.push(case(
            &format!("TIMESTAMP({digits}) NULL"),
            Shown::Printed,
            &[
                "'0000-00-00 00:00:00'",
                "'1970-01-01 00:00:01'",
                "'2038-01-19 03:14:07'",
                "'2026-10-25 02:30:00.654321'",
            ],
        ));
    }
    cases
}

fn others(flavor: Flavor) -> Vec<Case> {
    use Shown::*;
    let mut cases = vec![
        case("BINARY(5)", Bytes, &["''", "x'0001'", "x'ff00000000'"]),
        case("VARBINARY(300)", Bytes, &["''", "x'00ff5c22'", "REPEAT(x'80', 300)"]),
        case("MEDIUMBLOB", Bytes, &["''", "REPEAT(x'0a', 70000)", "NULL"]),
        case("ENUM('a','it''s','x,y','ä') CHARACTER SET utf8mb4", Text, &["1", "2", "'x,y'", "'ä'", "0", "NULL"]),
        case("SET('a','b','it''s') CHARACTER SET utf8mb4", Text, &["''", "'a,b'", "7"]),
        case("GEOMETRY", Bytes, &["ST_GeomFromText('POINT(1 -2.5)')", "ST_GeomFromText('POINT(1 2)', 4326)", "NULL"]),
        case("JSON", Text, &["'null'", "'{\"b\": 1, \"a\": [1, 2.5, {\"\": null}]}'", "'\"\\\\u0000 ä 😀\"'", "NULL"]),
        case("LONGTEXT CHARACTER SET utf8mb4", Text, &["''", "'a\\0\\b\\n\\r\\t\\Z\"\\\\ü😀'", "REPEAT('ü', 40000)"]),
    ];
    match flavor {
        Flavor::MySql => {
            cases.push(case("VECTOR(3)", Bytes, &["TO_VECTOR('[1,2.5,-3e38]')"]));
            cases.push(case("JSON", Text, &["JSON_ARRAY(1.50, TIMESTAMP'2026-01-02 03:04:05.123456', x'00ff')"]));
        }
        Flavor::MariaDb => {
            cases.push(case("INET6", Printed, &["'::1'", "'2001:db8::'"]));
            cases.push(case("UUID", Printed, &["'00112233-4455-1677-8899-aabbccddeeff'"]));
        }
    }
    cases
}

/// Each character set with texts that it can hold, and with every byte alone.
async fn charsets(pool: &MySqlPool) -> Vec<Case> {
    const SAMPLES: [&str; 8] = ["abc 1", "äöüß", "Łódź", "Привет", "γειά", "你好", "日本語ｱ", "한글"];
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT CAST(character_set_name AS CHAR) FROM information_schema.character_sets
         WHERE character_set_name <> 'binary' ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut cases = Vec::new();
    for name in names {
        let mut values = Vec::new();
        for sample in SAMPLES {
            let query = format!(
                "SELECT CONVERT(CONVERT('{sample}' USING {name}) USING utf8mb4) = '{sample}' COLLATE utf8mb4_bin"
            );
            if sqlx::query_scalar::<_, Option<i64>>(AssertSqlSafe(query)).fetch_one(pool).await.unwrap() == Some(1) {
                values.push(format!("CONVERT('{sample}' USING {name})"));
            }
        }
        assert!(!values.is_empty(), "{name} can hold something");
        cases.push(Case { column_type: format!("VARCHAR(50) CHARACTER SET {name}"), shown: Shown::Text, values });
    }
    cases
}

async fn every_column_type_reads_the_same_in_the_view(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().start().await.unwrap();
    let store = store_at(&server.root_url(), "types");
    store.migrate().await.unwrap();
    let pool = MySqlPool::connect(&server.root_url()).await.unwrap();
    pool.execute("CREATE DATABASE app DEFAULT CHARACTER SET utf8mb4").await.unwrap();
    let mut cases = [numbers(), times(), others(flavor)].concat_cases();
    cases.extend(charsets(&pool).await);
    for (number, case) in cases.iter().enumerate() {
        write(&pool, number, case).await;
    }

    let mut state = started(&store, &forward()).await;
    let changes = changes(&server, &cases);
    let rows_written: usize = cases.iter().map(|case| case.values.len()).sum();
    assert_eq!(changes.len(), rows_written);
    let batch: Vec<Message> = (1..).zip(changes).map(|(seq, change)| message(seq, change)).collect();
    for part in batch.chunks(37) {
        let end = at(part[part.len() - 1].seq);
        state = store.capture(&state, part, &[], &end, &Seen::default(), &[]).await.unwrap().state;
    }
    // A process that has seen none of it reads values that are equal in every bit.
    let reader = store_at(&server.root_url(), "types");
    assert_eq!(reader.read_range(&forward(), 1, state.last_seq).await.unwrap(), batch);

    let kinds: HashMap<String, ColumnKind> = batch
        .iter()
        .map(|message| (message.change.layout.name.table.to_string(), message.change.layout.kinds[1].clone()))
        .collect();
    let mut compared: BTreeMap<String, usize> = BTreeMap::new();
    for (number, case) in cases.iter().enumerate() {
        let rows = compare(&pool, number, case).await;
        assert_eq!(rows, case.values.len(), "{}", case.column_type);
        let kind = format!("{:?}", kinds[&format!("t{number}")]);
        *compared.entry(kind.split([' ', '{']).next().unwrap_or_default().to_owned()).or_default() += rows;
    }
    println!("{flavor}: cells of the view equal to the source row, by kind: {compared:?}");
    assert!(compared.len() >= 17, "{compared:?}");
}

trait Concat {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> Concat for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

async fn write(pool: &MySqlPool, number: usize, case: &Case) {
    let mut connection = pool.acquire().await.unwrap();
    let values: Vec<String> = (1..).zip(&case.values).map(|(id, value)| format!("({id}, {value})")).collect();
    for statement in [
        "SET sql_mode = ''".to_owned(),
        format!("CREATE TABLE app.t{number} (id INT PRIMARY KEY, v {}) ENGINE=InnoDB", case.column_type),
        format!("INSERT INTO app.t{number} VALUES {}", values.join(", ")),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await.unwrap();
    }
}

fn changes(server: &Server, cases: &[Case]) -> Vec<RowChange> {
    const TABLE_MAP: u8 = 19;
    let dialect = match server.flavor() {
        Flavor::MySql => Dialect::MySql,
        Flavor::MariaDb => Dialect::MariaDb,
    };
    let mut changes = Vec::new();
    let mut paths: Vec<_> = std::fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("binlog.0")));
    paths.sort();
    for path in paths {
        let file = std::fs::read(path).unwrap();
        let mut maps: HashMap<u64, TableMap> = HashMap::new();
        for event in FileEvents::new(&file).unwrap() {
            let event = match event {
                Ok(event) => event,
                Err(DecodeError::Truncated { .. }) => break,
                Err(error) => panic!("{error}"),
            };
            if event.code == TABLE_MAP && TableMap::peek(event.body).unwrap().1 == "app" {
                let (_, _, table) = TableMap::peek(event.body).unwrap();
                let number: usize = table.strip_prefix('t').unwrap().parse().unwrap();
                let tracked = definition(table, &cases[number].column_type);
                let map = TableMap::parse(event.body, dialect, tracked.as_ref()).unwrap();
                maps.insert(map.table_id, map);
            } else if RowsEvent::is_rows(event.code) {
                let Some(map) = maps.get(&RowsEvent::peek_table_id(event.body).unwrap()) else { continue };
                let rows = RowsEvent::parse(event.code, event.body, 0).unwrap();
                changes.extend(map.changes(rows).map(Result::unwrap));
            }
        }
    }
    changes
}

/// What the catalog would say of a table whose types the binlog does not tell apart.
fn definition(table: &str, column_type: &str) -> Option<TableShape> {
    let column = |name: &str, kind: ColumnKind| Column { nullable: true, ..Column::plain(name, kind) };
    let kind = match column_type {
        "INET6" => ColumnKind::Inet6,
        "UUID" => ColumnKind::Uuid,
        _ => return None,
    };
    Some(TableShape {
        name: TableName::new("app", table),
        columns: vec![column("id", ColumnKind::Integer { bytes: 4, unsigned: false }), column("v", kind)],
        primary_key: vec![0],
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        engine: "InnoDB".to_owned(),
    })
}

fn message(seq: u64, change: RowChange) -> Message {
    Message {
        seq,
        change,
        origin: Origin::User,
        seen: Arc::default(),
        committed_at_micros: 0,
        source_position: "somewhere".into(),
        effective: None,
    }
}

/// Reads a table and the view side by side; gives the number of equal cells.
async fn compare(pool: &MySqlPool, number: usize, case: &Case) -> usize {
    let source = match case.shown {
        Shown::Printed => "CAST(t.v AS CHAR CHARACTER SET utf8mb4)",
        Shown::Text => "CONVERT(t.v USING utf8mb4)",
        Shown::Bytes => "HEX(t.v)",
        Shown::Number => "CAST(t.v + 0 AS CHAR)",
        // Compared as numbers: the server's text of them is lossy.
        Shown::Float | Shown::Double => "'a number'",
    };
    let double = if matches!(case.shown, Shown::Float | Shown::Double) { "t.v" } else { "NULL" };
    let query = format!(
        "SELECT CAST({source} AS CHAR CHARACTER SET utf8mb4), HEX(t.v),
                CAST(JSON_UNQUOTE(JSON_EXTRACT(m.after_image, '$.v')) AS CHAR CHARACTER SET utf8mb4),
                CAST(JSON_UNQUOTE(JSON_EXTRACT(m.after_image, '$.v.\"$base64\"')) AS CHAR CHARACTER SET utf8mb4),
                CAST(JSON_TYPE(JSON_EXTRACT(m.after_image, '$.v')) AS CHAR), CAST({double} AS DOUBLE)
         FROM app.t{number} t
         JOIN crossfade.message m ON m.table_schema = 'app' AND m.table_name = 't{number}'
          AND CAST(JSON_EXTRACT(m.row_key, '$.id') AS SIGNED) = t.id
         ORDER BY t.id"
    );
    type Cells = (Option<String>, Option<String>, Option<String>, Option<String>, Option<String>, Option<f64>);
    let rows: Vec<Cells> = sqlx::query_as(AssertSqlSafe(query)).fetch_all(pool).await.unwrap();
    for (source, hex, text, base64, json_type, double) in &rows {
        let context = || format!("{} {source:?} against {text:?}", case.column_type);
        let Some(source) = source.as_deref().filter(|_| hex.is_some()) else {
            assert_eq!(json_type.as_deref(), Some("NULL"), "{}", context());
            continue;
        };
        let same = match (case.shown, base64, text) {
            (Shown::Bytes | Shown::Text, Some(base64), _) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
                let bytes: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
                Some(bytes) == *hex
            }
            (Shown::Printed | Shown::Text | Shown::Number, None, Some(text)) => text == source,
            (Shown::Float, None, Some(text)) => {
                text.parse::<f32>().unwrap().to_bits() == (double.unwrap() as f32).to_bits()
            }
            (Shown::Double, None, Some(text)) => text.parse::<f64>().unwrap().to_bits() == double.unwrap().to_bits(),
            _ => false,
        };
        assert!(same, "{}", context());
    }
    rows.len()
}
