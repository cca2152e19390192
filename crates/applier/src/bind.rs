//! How a value becomes a bound parameter: the placeholder's SQL and the parameter itself.
//!
//! Values are always bound, never written into SQL text. Most values need a plain `?`; a few need an expression around
//! it so that the server stores exactly what the source held.

use std::borrow::Cow;
use std::fmt::Write;

use crossfade_model::{Column, ColumnKind, JsonDocument, OpaqueKind, OpaqueNode, Value as Cell, quote_identifier};
use mysql_async::Value as Param;

/// The placeholder for `cell` in a column of the target. `?` for nearly all.
pub(crate) fn placeholder(cell: &Cell, column: &Column) -> Cow<'static, str> {
    match cell {
        // A binary string converted "using" a character set is reinterpreted, not recoded (MySQL manual, "CONVERT()").
        // MariaDB looks through a bare cast, and takes the bytes for text of the connection.
        Cell::Encoded { charset, .. } => format!("CONVERT(CONCAT(CAST(? AS BINARY), x'') USING {charset})").into(),
        Cell::Vector(_) => "CAST(? AS BINARY)".into(),
        Cell::Json(document) if column.kind == ColumnKind::Json => json_placeholder(document),
        _ => Cow::Borrowed("?"),
    }
}

/// JSON text goes in as it is; what text cannot say is set over it with a typed value at its path.
fn json_placeholder(document: &JsonDocument) -> Cow<'static, str> {
    if document.opaque.is_empty() {
        return Cow::Borrowed("?");
    }
    let mut sql = String::from("JSON_SET(CAST(? AS JSON)");
    for node in &document.opaque {
        let typed = match node.kind {
            OpaqueKind::Decimal => decimal_cast(node),
            OpaqueKind::Date => "CAST(? AS DATE)".to_owned(),
            // MySQL takes the parameter of a bare CAST for a point in time, and reads `00:01:20` as a day in January.
            OpaqueKind::Time => "CAST(CAST(? AS CHAR) AS TIME(6))".to_owned(),
            OpaqueKind::Datetime => "CAST(? AS DATETIME(6))".to_owned(),
            OpaqueKind::Timestamp => of_column_type("?", "TIMESTAMP(6)"),
            OpaqueKind::Bit => of_column_type("CAST(? AS UNSIGNED)", &format!("BIT({})", bit_width(node))),
            OpaqueKind::Bytes { field_type } => match blob_type(field_type, node.bytes.len()) {
                Some(column_type) => of_column_type("CAST(? AS BINARY)", &column_type),
                None => "CAST(? AS BINARY)".to_owned(),
            },
        };
        let _ = write!(sql, ", ?, {typed}");
    }
    sql.push(')');
    sql.into()
}

/// A value of a type that only columns have, as a document keeps it.
fn of_column_type(value: &str, column_type: &str) -> String {
    format!(
        "(SELECT JSON_EXTRACT(JSON_ARRAY(typed.v), '$[0]') \
         FROM JSON_TABLE(JSON_ARRAY({value}), '$[*]' COLUMNS (v {column_type} PATH '$')) AS typed)"
    )
}

/// The column type whose values a document marks with this number. Casts make values of VARBINARY, which need none.
fn blob_type(field_type: u8, len: usize) -> Option<String> {
    Some(match field_type {
        249 => "TINYBLOB".to_owned(),
        250 => "MEDIUMBLOB".to_owned(),
        251 => "LONGBLOB".to_owned(),
        252 => "BLOB".to_owned(),
        254 if len <= 255 => format!("BINARY({len})"),
        _ => return None,
    })
}

/// A BIT column is kept in as few bytes as hold its bits.
fn bit_width(node: &OpaqueNode) -> usize {
    (8 * node.bytes.len()).clamp(1, 64)
}

/// The digits decide precision and scale, since DECIMAL in a document keeps both.
fn decimal_cast(node: &OpaqueNode) -> String {
    let digits = node.bytes.iter().filter(|b| b.is_ascii_digit()).count().clamp(1, 65);
    let scale = node.bytes.iter().position(|b| *b == b'.').map_or(0, |dot| node.bytes.len() - dot - 1).min(30);
    format!("CAST(? AS DECIMAL({},{scale}))", digits.max(scale))
}

/// Appends the parameters that [`placeholder`] asks for, in its order.
pub(crate) fn push_params(cell: &Cell, column: &Column, params: &mut Vec<Param>) {
    match cell {
        Cell::Json(document) => {
            params.push(Param::Bytes(document.text.clone().into_bytes()));
            if column.kind == ColumnKind::Json {
                for node in &document.opaque {
                    params.push(Param::Bytes(node.path.clone().into_bytes()));
                    params.push(opaque_param(node));
                }
            }
        }
        _ => params.push(param(cell)),
    }
}

fn opaque_param(node: &OpaqueNode) -> Param {
    match node.kind {
        OpaqueKind::Bit => {
            Param::UInt(node.bytes.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte)))
        }
        _ => Param::Bytes(node.bytes.clone()),
    }
}

fn param(cell: &Cell) -> Param {
    match cell {
        Cell::Null => Param::NULL,
        Cell::Int(number) => Param::Int(*number),
        Cell::UInt(number) | Cell::Bit(number) => Param::UInt(*number),
        Cell::Float(number) => Param::Float(*number),
        Cell::Double(number) => Param::Double(*number),
        Cell::Decimal(text) | Cell::Text(text) | Cell::Enum(text) | Cell::Set(text) => {
            Param::Bytes(text.clone().into_bytes())
        }
        // A geometry in the server's own form, with its SRID, is taken as it is by both servers.
        Cell::Encoded { bytes, .. } | Cell::Bytes(bytes) | Cell::Geometry(bytes) | Cell::Vector(bytes) => {
            Param::Bytes(bytes.clone())
        }
        // Text, since the binary protocol's date has no room for what zero and partial dates mean.
        Cell::Date(date) => Param::Bytes(date.to_string().into_bytes()),
        Cell::Datetime(date, time) => Param::Bytes(format!("{date} {time}").into_bytes()),
        Cell::Time { negative, hours, minute, second, micros } => {
            let sign = if *negative { "-" } else { "" };
            Param::Bytes(format!("{sign}{hours:02}:{minute:02}:{second:02}.{micros:06}").into_bytes())
        }
        Cell::Timestamp(micros) => Param::Bytes(timestamp_text(*micros).into_bytes()),
        // A number, since the string '0' means 2000 (MySQL manual, "The YEAR Type").
        Cell::Year(year) => Param::UInt((*year).into()),
        Cell::Json(document) => Param::Bytes(document.text.clone().into_bytes()),
    }
}

/// `0000-00-00 00:00:00` for 0, else the UTC time; every session's time zone is UTC.
pub(crate) fn timestamp_text(micros: i64) -> String {
    match chrono::DateTime::from_timestamp_micros(micros) {
        Some(time) if micros != 0 => time.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
        _ => "0000-00-00 00:00:00".to_owned(),
    }
}

/// How many parameters [`push_params`] appends.
pub(crate) fn param_count(cell: &Cell, column: &Column) -> usize {
    match cell {
        Cell::Json(document) if column.kind == ColumnKind::Json => 1 + 2 * document.opaque.len(),
        _ => 1,
    }
}

/// Appends a condition that only a column with exactly this value fulfils, and its parameters. Text is compared by its
/// bytes, whatever the collation; the plain comparison stands beside that for the sake of indexes.
pub(crate) fn push_equals(cell: &Cell, column: &Column, sql: &mut String, params: &mut Vec<Param>) {
    let name = quote_identifier(&column.name);
    if let (Cell::Json(_), ColumnKind::Json) = (cell, &column.kind) {
        let _ = write!(sql, "CAST({name} AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin = ?");
        return params.push(param(cell));
    }
    let value = placeholder(cell, column);
    let _ = write!(sql, "{name} <=> {value}");
    push_params(cell, column, params);
    if let (Cell::Text(_) | Cell::Encoded { .. }, Some(charset)) = (cell, &column.charset) {
        let _ = write!(sql, " AND CAST({name} AS BINARY) = CAST(CONVERT({value} USING {charset}) AS BINARY)");
        push_params(cell, column, params);
    }
}

/// Whether the value needs a session without strict mode: ENUM 0 (`''`) where no label is empty.
pub(crate) fn needs_lenient_mode(cell: &Cell, column: &Column) -> bool {
    match (cell, &column.kind) {
        (Cell::Enum(label), ColumnKind::Enum { labels }) => label.is_empty() && !labels.iter().any(String::is_empty),
        _ => false,
    }
}

/// The expression that reads a column so that it compares with what the binlog gave, byte by byte.
pub(crate) fn select_expression(column: &Column, source_kind: &ColumnKind) -> String {
    let name = quote_identifier(&column.name);
    match source_kind {
        ColumnKind::Text { charset } if !decodes_to_unicode(charset) => {
            format!("CAST(CONVERT({name} USING {charset}) AS BINARY)")
        }
        _ => name,
    }
}

/// Character sets whose text the reader gives as Unicode.
pub(crate) fn decodes_to_unicode(charset: &str) -> bool {
    matches!(charset, "utf8mb4" | "utf8mb3" | "utf8" | "ascii" | "latin1" | "utf16" | "utf16le" | "ucs2" | "utf32")
}
