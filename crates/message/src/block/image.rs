//! Row images as JSON objects, for people and for the view.
//!
//! Numbers are numbers while JSON readers keep them exact; decimals, larger integers and times are strings; SQL NULL is
//! null; a JSON column is a string of its text; bytes, and text that has no Unicode form, are `{"$base64": …}`.

use crossfade_model::{ColumnKind, RowChange, TableLayout, Value};

use super::{calendar, json, layout::StoredLayout, number};

/// What a value becomes when it is moved out of the payload.
pub const LARGE_OBJECT: &[u8] = b"{\"$large\":";

/// Appends a value. `true` if the column's kind and the text give exactly this value back.
pub fn push_value(out: &mut Vec<u8>, kind: &ColumnKind, value: &Value) -> bool {
    match (kind, value) {
        (_, Value::Null) => {
            out.extend_from_slice(b"null");
            true
        }
        (ColumnKind::Integer { unsigned: false, .. }, Value::Int(number)) => {
            number::push_signed(out, *number);
            true
        }
        (ColumnKind::Integer { unsigned: true, .. }, Value::UInt(number)) => {
            number::push_unsigned(out, *number);
            true
        }
        (ColumnKind::Text { .. } | ColumnKind::Inet4 | ColumnKind::Inet6 | ColumnKind::Uuid, Value::Text(text))
        | (ColumnKind::Decimal { .. }, Value::Decimal(text))
        | (ColumnKind::Enum { .. }, Value::Enum(text))
        | (ColumnKind::Set { .. }, Value::Set(text)) => {
            json::push_string(out, text);
            true
        }
        (ColumnKind::Bytes { .. }, Value::Bytes(bytes))
        | (ColumnKind::Geometry, Value::Geometry(bytes))
        | (ColumnKind::Vector, Value::Vector(bytes)) => {
            json::push_bytes_object(out, bytes);
            true
        }
        (ColumnKind::Json, Value::Json(document)) => {
            json::push_string(out, &document.text);
            document.opaque.is_empty()
        }
        (ColumnKind::Bit { .. }, Value::Bit(bits)) => {
            number::push_unsigned(out, *bits);
            true
        }
        (ColumnKind::Float, Value::Float(_))
        | (ColumnKind::Double, Value::Double(_))
        | (ColumnKind::Date, Value::Date(_))
        | (ColumnKind::Time { .. }, Value::Time { .. })
        | (ColumnKind::Datetime { .. }, Value::Datetime(..))
        | (ColumnKind::Timestamp { .. }, Value::Timestamp(_))
        | (ColumnKind::Year, Value::Year(_)) => push_natural(out, value, fraction_digits(kind)),
        _ => {
            push_natural(out, value, 6);
            false
        }
    }
}

fn fraction_digits(kind: &ColumnKind) -> u8 {
    match kind {
        ColumnKind::Time { fraction_digits }
        | ColumnKind::Datetime { fraction_digits }
        | ColumnKind::Timestamp { fraction_digits } => *fraction_digits,
        _ => 6,
    }
}

/// Appends a value as it reads best, whatever its column. `true` if the text says all of it to who knows its type;
/// what has no text at all is null.
fn push_natural(out: &mut Vec<u8>, value: &Value, fraction_digits: u8) -> bool {
    let start = out.len();
    let said = match value {
        Value::Null => false,
        Value::Float(number) => number::push_float(out, *number, number.is_finite()),
        Value::Double(number) => number::push_float(out, *number, number.is_finite()),
        Value::Year(_) | Value::Date(_) | Value::Datetime(..) | Value::Timestamp(_) | Value::Time { .. } => {
            out.push(b'"');
            let said = push_temporal(out, value, fraction_digits);
            out.push(b'"');
            said
        }
        _ => {
            push_plain(out, value);
            true
        }
    };
    if !said {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
    said
}

/// Those values that always have a text.
fn push_plain(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Int(number) => number::push_signed(out, *number),
        Value::UInt(number) | Value::Bit(number) => number::push_unsigned(out, *number),
        Value::Decimal(text) | Value::Text(text) | Value::Enum(text) | Value::Set(text) => json::push_string(out, text),
        Value::Json(document) => json::push_string(out, &document.text),
        Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => json::push_bytes_object(out, bytes),
        Value::Encoded { charset, bytes } => push_encoded(out, charset, bytes),
        _ => out.extend_from_slice(b"null"),
    }
}

fn push_temporal(out: &mut Vec<u8>, value: &Value, fraction_digits: u8) -> bool {
    match value {
        Value::Year(year) if *year <= 9999 => {
            calendar::push_two(out, (year / 100) as u8);
            calendar::push_two(out, (year % 100) as u8);
            true
        }
        Value::Date(date) => calendar::push_date(out, *date),
        Value::Datetime(date, time) => calendar::push_datetime(out, *date, *time, fraction_digits),
        // The zero timestamp has a text of its own; the epoch itself is not a legal TIMESTAMP.
        Value::Timestamp(0) => {
            let zero = (Default::default(), Default::default());
            calendar::push_datetime(out, zero.0, zero.1, fraction_digits)
        }
        Value::Timestamp(micros) => calendar::split_micros(*micros)
            .is_some_and(|(date, time)| calendar::push_datetime(out, date, time, fraction_digits)),
        Value::Time { negative, hours, minute, second, micros } => {
            if *negative {
                out.push(b'-');
            }
            if *hours < 10 {
                out.push(b'0');
            }
            number::push_plain(out, *hours);
            calendar::push_minutes(out, *minute, *second, *micros, fraction_digits)
        }
        _ => false,
    }
}

/// Text in a character set that is not decoded on the way: its Unicode form where that loses nothing, else the bytes.
fn push_encoded(out: &mut Vec<u8>, charset: &str, bytes: &[u8]) {
    let text = encoding(charset).and_then(|encoding| {
        let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
        let (back, _, failed) = encoding.encode(&text);
        (!failed && *back == *bytes).then_some(text)
    });
    match text {
        Some(text) => json::push_string(out, &text),
        None => json::push_bytes_object(out, bytes),
    }
}

/// The encoding of a server's character set, where the two agree. `latin5` and `tis620` differ from the encodings of
/// their labels only in bytes that do not come back, which are shown as bytes.
fn encoding(charset: &str) -> Option<&'static encoding_rs::Encoding> {
    Some(match charset {
        "big5" => encoding_rs::BIG5,
        "cp1250" => encoding_rs::WINDOWS_1250,
        "cp1251" => encoding_rs::WINDOWS_1251,
        "cp1256" => encoding_rs::WINDOWS_1256,
        "cp1257" => encoding_rs::WINDOWS_1257,
        "cp866" => encoding_rs::IBM866,
        "cp932" | "sjis" => encoding_rs::SHIFT_JIS,
        "eucjpms" | "ujis" => encoding_rs::EUC_JP,
        "euckr" => encoding_rs::EUC_KR,
        "gb18030" => encoding_rs::GB18030,
        "gb2312" | "gbk" => encoding_rs::GBK,
        "greek" => encoding_rs::ISO_8859_7,
        "hebrew" => encoding_rs::ISO_8859_8,
        "koi8r" => encoding_rs::KOI8_R,
        "koi8u" => encoding_rs::KOI8_U,
        "latin1" => encoding_rs::WINDOWS_1252,
        "latin2" => encoding_rs::ISO_8859_2,
        "latin5" => encoding_rs::WINDOWS_1254,
        "latin7" => encoding_rs::ISO_8859_13,
        "tis620" => encoding_rs::WINDOWS_874,
        _ => return None,
    })
}

/// One image as the view shows it.
pub fn image_json(layout: &TableLayout, row: &[Value]) -> String {
    object(layout.columns.iter().zip(&layout.kinds).zip(row).map(|((name, kind), value)| (&**name, kind, value)))
}

/// The key of the row that a change is about, as the view shows it: of the before image, which has the key that the row
/// was found by, else of the after image. `None` for a keyless table.
pub fn row_key_json(change: &RowChange) -> Option<String> {
    let layout = &change.layout;
    let row = change.before.as_ref().or(change.after.as_ref())?;
    let column = |index: &usize| Some((&**layout.columns.get(*index)?, layout.kinds.get(*index)?, row.get(*index)?));
    (!layout.row_key.is_empty()).then(|| object(layout.row_key.iter().filter_map(column)))
}

fn object<'a>(columns: impl Iterator<Item = (&'a str, &'a ColumnKind, &'a Value)>) -> String {
    let mut out = vec![b'{'];
    for (number, (name, kind, value)) in columns.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        json::push_string(&mut out, name);
        out.push(b':');
        push_value(&mut out, kind, value);
    }
    out.push(b'}');
    // Only whole strings and ASCII were written.
    String::from_utf8(out).unwrap_or_default()
}

/// The row key inside a payload.
pub fn push_row_key(out: &mut Vec<u8>, stored: &StoredLayout, row: &[Value]) {
    for (index, before_value) in stored.layout.row_key.iter().zip(stored.before_key_values.iter()) {
        out.extend_from_slice(before_value);
        push_value(out, &stored.layout.kinds[*index], &row[*index]);
    }
    out.push(b'}');
}
