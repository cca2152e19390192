//! The server's own answer for a cell, and the decoded value in the same form. Shares no code with the decoder.

use crossfade_model::Value;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value as Wire};

use super::cases::{Case, Judge};

/// Character sets whose text must come out as text.
const DECODED: [&str; 8] = ["utf8mb4", "utf8mb3", "ascii", "latin1", "utf16", "utf16le", "ucs2", "utf32"];

/// What the server says a column holds: by id, `None` for NULL.
pub async fn answers(conn: &mut Conn, table: &str, case: &Case) -> Vec<(u32, Option<String>)> {
    if case.judge == Judge::Float {
        // Only the binary protocol gives the bits.
        let rows: Vec<(u32, Wire)> = conn.exec(format!("SELECT id, c FROM {table} ORDER BY id"), ()).await.unwrap();
        return rows.into_iter().map(|(id, cell)| (id, bits(cell))).collect();
    }
    let charset = charset_of(conn, table).await;
    let expression = match case.judge {
        Judge::Printed => "CAST(c AS CHAR)".to_owned(),
        Judge::Temporal(_) => "CAST(c AS CHAR)".to_owned(),
        Judge::Epoch => "CAST(CAST(UNIX_TIMESTAMP(c) * 1000000 AS SIGNED) AS CHAR)".to_owned(),
        Judge::Hex => "HEX(c)".to_owned(),
        Judge::Number => "CAST(c + 0 AS CHAR)".to_owned(),
        Judge::Label => "HEX(CONVERT(c USING utf8mb4))".to_owned(),
        Judge::Json => "HEX(CAST(c AS CHAR CHARACTER SET utf8mb4))".to_owned(),
        Judge::Text if DECODED.contains(&charset.as_str()) => {
            let there = "CONVERT(c USING utf8mb4)";
            let back = format!("HEX(CONVERT({there} USING {charset}))");
            format!("IF({back} = HEX(c), CONCAT('text ', HEX({there})), CONCAT('{charset} ', HEX(c)))")
        }
        Judge::Text => format!("CONCAT('{charset} ', HEX(c))"),
        Judge::Float => unreachable!("answered above"),
    };
    conn.query_map(format!("SELECT id, {expression} FROM {table} ORDER BY id"), |mut row: Row| {
        let text: Option<Vec<u8>> = row.take(1).unwrap();
        (row.take(0).unwrap(), text.map(|text| String::from_utf8(text).unwrap()))
    })
    .await
    .unwrap()
}

async fn charset_of(conn: &mut Conn, table: &str) -> String {
    let (schema, name) = table.split_once('.').unwrap();
    let charset: Option<Option<String>> = conn
        .exec_first(
            "SELECT character_set_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ? AND column_name = 'c'",
            (schema, name),
        )
        .await
        .unwrap();
    charset.flatten().unwrap_or_default()
}

fn bits(cell: Wire) -> Option<String> {
    match cell {
        Wire::NULL => None,
        Wire::Float(number) => Some(format!("{:08x}", number.to_bits())),
        Wire::Double(number) => Some(format!("{:016x}", number.to_bits())),
        other => panic!("no float: {other:?}"),
    }
}

/// A decoded value in the form of the answers.
pub fn rendered(value: &Value, judge: Judge) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    Some(match (value, judge) {
        (Value::Null, _) => return None,
        (Value::Int(number), _) => number.to_string(),
        (Value::UInt(number), _) => number.to_string(),
        (Value::Float(number), Judge::Float) => format!("{:08x}", number.to_bits()),
        (Value::Double(number), Judge::Float) => format!("{:016x}", number.to_bits()),
        (Value::Decimal(text), Judge::Printed) => text.clone(),
        (Value::Year(year), Judge::Printed) => format!("{year:04}"),
        (Value::Bit(bits), Judge::Number) => bits.to_string(),
        (Value::Date(date), Judge::Printed) => format!("{:04}-{:02}-{:02}", date.year, date.month, date.day),
        (Value::Time { negative, hours, minute, second, micros }, Judge::Temporal(digits)) => {
            let sign = if *negative { "-" } else { "" };
            format!("{sign}{hours:02}:{minute:02}:{second:02}{}", fraction(*micros, digits))
        }
        (Value::Datetime(date, time), Judge::Temporal(digits)) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}",
            date.year,
            date.month,
            date.day,
            time.hour,
            time.minute,
            time.second,
            fraction(time.micros, digits)
        ),
        (Value::Timestamp(micros), Judge::Epoch) => micros.to_string(),
        (Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes), Judge::Hex) => hex(bytes),
        (Value::Text(text), Judge::Printed) => text.clone(),
        (Value::Text(text), Judge::Text) => format!("text {}", hex(text.as_bytes())),
        (Value::Encoded { charset, bytes }, Judge::Text) => format!("{charset} {}", hex(bytes)),
        (Value::Enum(label) | Value::Set(label), Judge::Label) => hex(label.as_bytes()),
        (Value::Json(document), Judge::Json) => hex(document.text.as_bytes()),
        (other, judge) => format!("{other:?} where {judge:?} was expected"),
    })
}

fn fraction(micros: u32, digits: usize) -> String {
    let all = format!(".{micros:06}");
    let shown = if digits == 0 { 0 } else { digits + 1 };
    assert!(all[shown.max(1)..].chars().all(|digit| digit == '0'), "more fraction digits than the column has: {all}");
    all[..shown].to_owned()
}
