//! Values of columns as people write them.

use std::fmt::Display;

use crossfade_model::{CalendarDate, ColumnKind, JsonDocument, TimeOfDay, Value};

/// The hours that a TIME can have.
const MOST_HOURS: u16 = 838;

/// A value of a column from text. Times are UTC, as the message table shows them.
///
/// # Errors
///
/// Why the text is no value of such a column, for people.
pub fn from_text(kind: &ColumnKind, text: &str) -> Result<Value, String> {
    match kind {
        ColumnKind::Integer { bytes, unsigned } => integer(*bytes, *unsigned, text),
        ColumnKind::Float => finite(text.parse::<f32>(), f32::is_finite).map(Value::Float),
        ColumnKind::Double => finite(text.parse::<f64>(), f64::is_finite).map(Value::Double),
        ColumnKind::Decimal { precision, scale } => decimal(*precision, *scale, text).map(Value::Decimal),
        ColumnKind::Text { .. } | ColumnKind::Uuid => Ok(Value::Text(text.to_owned())),
        ColumnKind::Inet4 => text.parse::<std::net::Ipv4Addr>().map(|a| Value::Text(a.to_string())).map_err(told),
        ColumnKind::Inet6 => text.parse::<std::net::Ipv6Addr>().map(|a| Value::Text(a.to_string())).map_err(told),
        ColumnKind::Bytes { fixed_len } => padded(hexadecimal(text)?, *fixed_len).map(Value::Bytes),
        ColumnKind::Geometry => hexadecimal(text).map(Value::Geometry),
        ColumnKind::Vector => hexadecimal(text).map(Value::Vector),
        ColumnKind::Date => date(text).map(Value::Date),
        ColumnKind::Datetime { fraction_digits } => {
            datetime(text, *fraction_digits).map(|(date, time)| Value::Datetime(date, time))
        }
        ColumnKind::Timestamp { fraction_digits } => timestamp(text, *fraction_digits),
        ColumnKind::Time { fraction_digits } => time(text, *fraction_digits),
        ColumnKind::Year => match text.parse::<u16>() {
            Ok(year) if year == 0 || (1901..=2155).contains(&year) => Ok(Value::Year(year)),
            _ => Err("it is a year from 1901 to 2155, or 0".to_owned()),
        },
        ColumnKind::Bit { bits } => bit(*bits, text),
        ColumnKind::Enum { labels } if labels.iter().any(|label| label == text) => Ok(Value::Enum(text.to_owned())),
        ColumnKind::Enum { labels } => Err(format!("it is one of {}", labels.join(", "))),
        ColumnKind::Set { labels } => set(labels, text),
        ColumnKind::Json => document(text),
        ColumnKind::Other { name } => Err(format!("columns of type {name} are not supported")),
    }
}

/// A value of a column from JSON, as the message table shows it.
///
/// # Errors
///
/// As [`from_text`].
pub fn from_json(kind: &ColumnKind, value: &serde_json::Value) -> Result<Value, String> {
    use serde_json::Value as Json;
    match (value, kind) {
        (Json::Null, _) => Ok(Value::Null),
        (Json::String(text), _) => from_text(kind, text),
        (Json::Object(object), _) if object.len() == 1 && object.contains_key("$base64") => {
            let bytes = object["$base64"].as_str().and_then(base64).ok_or("its base64 is broken")?;
            match kind {
                ColumnKind::Bytes { fixed_len } => padded(bytes, *fixed_len).map(Value::Bytes),
                ColumnKind::Geometry => Ok(Value::Geometry(bytes)),
                ColumnKind::Vector => Ok(Value::Vector(bytes)),
                _ => Err("only columns of bytes take base64".to_owned()),
            }
        }
        (_, ColumnKind::Json) => document(&value.to_string()),
        (Json::Bool(is_true), _) => from_text(kind, if *is_true { "1" } else { "0" }),
        (Json::Number(number), _) => from_text(kind, &number.to_string()),
        (Json::Array(_) | Json::Object(_), _) => Err("it takes a string, a number or null".to_owned()),
    }
}

fn told(error: impl Display) -> String {
    error.to_string()
}

fn integer(bytes: u8, unsigned: bool, text: &str) -> Result<Value, String> {
    let bits = u32::from(bytes) * 8;
    let (least, most) =
        if unsigned { (0, (1_i128 << bits) - 1) } else { (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1) };
    let number = text.parse::<i128>().ok().filter(|number| (least..=most).contains(number));
    let out_of_range = || format!("it is an integer from {least} to {most}");
    let number = number.ok_or_else(out_of_range)?;
    if unsigned {
        u64::try_from(number).map(Value::UInt).map_err(|_| out_of_range())
    } else {
        i64::try_from(number).map(Value::Int).map_err(|_| out_of_range())
    }
}

fn finite<T: Copy>(parsed: Result<T, std::num::ParseFloatError>, is_finite: fn(T) -> bool) -> Result<T, String> {
    parsed.ok().filter(|number| is_finite(*number)).ok_or_else(|| "it is a finite number, such as -1.5e3".to_owned())
}

/// As the server prints it: no leading zeros, all digits of the scale.
fn decimal(precision: u8, scale: u8, text: &str) -> Result<String, String> {
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    let form = || {
        let whole = precision - scale;
        format!("it is a number of at most {whole} digits before the point and {scale} after it")
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(form());
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.len() > precision - scale || fraction.len() > scale {
        return Err(form());
    }
    let sign = if whole.is_empty() && fraction.is_empty() { "" } else { sign };
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if scale > 0 { "." } else { "" };
    Ok(format!("{sign}{whole}{point}{fraction:0<scale$}"))
}

/// `0x` and an even number of hexadecimal digits.
pub fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let form = || "bytes are written as 0x and an even number of hexadecimal digits".to_owned();
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or_else(form)?;
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(form());
    }
    let pair = |pair: &[u8; 2]| {
        let is_digits = pair.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(pair).ok().filter(|_| is_digits)?;
        u8::from_str_radix(text, 16).ok()
    };
    pairs.iter().map(pair).collect::<Option<_>>().ok_or_else(form)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// BINARY(n) is filled up with zero bytes.
fn padded(mut bytes: Vec<u8>, fixed_len: u32) -> Result<Vec<u8>, String> {
    let len = fixed_len as usize;
    if len > 0 && bytes.len() > len {
        return Err(format!("it has at most {len} bytes"));
    }
    bytes.resize(bytes.len().max(len), 0);
    Ok(bytes)
}

fn bit(bits: u8, text: &str) -> Result<Value, String> {
    let most = u64::MAX >> (64 - u32::from(bits.clamp(1, 64)));
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let number = number.filter(|number| *number <= most);
    number.map(Value::Bit).ok_or_else(|| format!("it is a number from 0 to {most}"))
}

fn set(labels: &[String], text: &str) -> Result<Value, String> {
    let wanted: Vec<&str> = text.split(',').filter(|label| !label.is_empty()).collect();
    if wanted.iter().any(|label| !labels.iter().any(|known| known == label)) {
        return Err(format!("it is a list, with commas, of {}", labels.join(", ")));
    }
    let in_order: Vec<&str> = labels.iter().map(String::as_str).filter(|label| wanted.contains(label)).collect();
    Ok(Value::Set(in_order.join(",")))
}

fn document(text: &str) -> Result<Value, String> {
    serde_json::from_str::<&serde_json::value::RawValue>(text).map_err(|error| format!("it is no JSON: {error}"))?;
    Ok(Value::Json(JsonDocument { text: text.to_owned(), opaque: Vec::new() }))
}

/// Zero and partial dates are legal, as they are for the source.
fn date(text: &str) -> Result<CalendarDate, String> {
    let form = || "a date is written as 2026-01-31".to_owned();
    let mut parts = text.splitn(3, '-');
    let (Some(year), Some(month), Some(day)) = (parts.next(), parts.next(), parts.next()) else { return Err(form()) };
    if year.len() != 4 {
        return Err(form());
    }
    let year = number(year, 9999).ok_or_else(form)?;
    let month = number(month, 12).and_then(|month| month.try_into().ok()).ok_or_else(form)?;
    let day = number(day, 31).and_then(|day| day.try_into().ok()).ok_or_else(form)?;
    Ok(CalendarDate { year, month, day })
}

fn number(text: &str, most: u16) -> Option<u16> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_digits && *number <= most)
}

fn small(text: &str, most: u16) -> Option<u8> {
    number(text, most).and_then(|number| number.try_into().ok())
}

fn datetime(text: &str, fraction_digits: u8) -> Result<(CalendarDate, TimeOfDay), String> {
    let Some((day, time)) = text.split_once([' ', 'T']) else { return Ok((date(text)?, TimeOfDay::default())) };
    let (hours, minute, second, micros) = clock_time(time.trim_end_matches('Z'), fraction_digits)?;
    let hour = u8::try_from(hours).ok().filter(|hour| *hour < 24).ok_or("a day has 24 hours")?;
    Ok((date(day)?, TimeOfDay { hour, minute, second, micros }))
}

fn timestamp(text: &str, fraction_digits: u8) -> Result<Value, String> {
    let (date, time) = datetime(text, fraction_digits)?;
    if date == CalendarDate::default() && time == TimeOfDay::default() {
        return Ok(Value::Timestamp(0));
    }
    let day = chrono::NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into());
    let moment = day
        .and_then(|day| day.and_hms_micro_opt(time.hour.into(), time.minute.into(), time.second.into(), time.micros));
    let micros = moment.map(|moment| moment.and_utc().timestamp_micros()).filter(|micros| *micros > 0);
    micros.map(Value::Timestamp).ok_or_else(|| "a timestamp is a moment after 1970-01-01 00:00:00 UTC".to_owned())
}

fn time(text: &str, fraction_digits: u8) -> Result<Value, String> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (hours, minute, second, micros) = clock_time(text, fraction_digits)?;
    if hours > MOST_HOURS {
        return Err(format!("a time has at most {MOST_HOURS} hours"));
    }
    Ok(Value::Time { negative, hours, minute, second, micros })
}

/// Hours, minutes, seconds and microseconds. What the column would round is refused.
fn clock_time(text: &str, fraction_digits: u8) -> Result<(u16, u8, u8, u32), String> {
    let form = || "a time is written as 12:30:00, with a fraction where the column has one".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.splitn(3, ':');
    let hours = parts.next().and_then(|hours| number(hours, u16::MAX)).ok_or_else(form)?;
    let minute = parts.next().and_then(|minute| small(minute, 59)).ok_or_else(form)?;
    let second = parts.next().and_then(|second| small(second, 59)).ok_or_else(form)?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > usize::from(fraction_digits) {
        return Err(format!("the column keeps {fraction_digits} digits of a second's fraction"));
    }
    let is_digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let micros = format!("{fraction:0<6}").parse().ok().filter(|_| is_digits).ok_or_else(form)?;
    Ok((hours, minute, second, micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> ColumnKind {
        ColumnKind::Text { charset: "utf8mb4".to_owned() }
    }

    #[test]
    fn values_are_parsed_by_the_columns_type() {
        let date = CalendarDate { year: 2026, month: 1, day: 31 };
        let time = TimeOfDay { hour: 12, minute: 30, second: 0, micros: 500_000 };
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let json = |text: &str| Value::Json(JsonDocument { text: text.to_owned(), opaque: Vec::new() });
        for (kind, text, value) in [
            (ColumnKind::Integer { bytes: 1, unsigned: false }, "-128", Value::Int(-128)),
            (ColumnKind::Integer { bytes: 8, unsigned: true }, "18446744073709551615", Value::UInt(u64::MAX)),
            (ColumnKind::Double, "-1.5e3", Value::Double(-1500.0)),
            (ColumnKind::Decimal { precision: 5, scale: 2 }, "-007.5", Value::Decimal("-7.50".to_owned())),
            (ColumnKind::Decimal { precision: 5, scale: 0 }, "-0", Value::Decimal("0".to_owned())),
            (text(), "NULL and 'quotes'", Value::Text("NULL and 'quotes'".to_owned())),
            (ColumnKind::Bytes { fixed_len: 4 }, "0x0aFF", Value::Bytes(vec![10, 255, 0, 0])),
            (ColumnKind::Bytes { fixed_len: 0 }, "0x", Value::Bytes(Vec::new())),
            (ColumnKind::Date, "2026-01-31", Value::Date(date)),
            (ColumnKind::Date, "0000-00-00", Value::Date(CalendarDate::default())),
            (ColumnKind::Datetime { fraction_digits: 1 }, "2026-01-31T12:30:00.5", Value::Datetime(date, time)),
            (
                ColumnKind::Timestamp { fraction_digits: 6 },
                "2026-01-31 12:30:00.5",
                Value::Timestamp(1_769_862_600_500_000),
            ),
            (ColumnKind::Timestamp { fraction_digits: 0 }, "0000-00-00 00:00:00", Value::Timestamp(0)),
            (
                ColumnKind::Time { fraction_digits: 0 },
                "-838:59:58",
                Value::Time { negative: true, hours: 838, minute: 59, second: 58, micros: 0 },
            ),
            (ColumnKind::Year, "2155", Value::Year(2155)),
            (ColumnKind::Bit { bits: 3 }, "7", Value::Bit(7)),
            (ColumnKind::Bit { bits: 64 }, "0xffffffffffffffff", Value::Bit(u64::MAX)),
            (ColumnKind::Enum { labels: labels.clone() }, "b", Value::Enum("b".to_owned())),
            (ColumnKind::Set { labels: labels.clone() }, "c,a", Value::Set("a,c".to_owned())),
            (ColumnKind::Json, r#"{"a": [1, null]}"#, json(r#"{"a": [1, null]}"#)),
        ] {
            assert_eq!(from_text(&kind, text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_of_the_column_is_refused_with_its_form() {
        let labels = vec!["a".to_owned()];
        for (kind, text, told) in [
            (ColumnKind::Integer { bytes: 1, unsigned: false }, "128", "from -128 to 127"),
            (ColumnKind::Integer { bytes: 4, unsigned: true }, "-1", "from 0 to 4294967295"),
            (ColumnKind::Integer { bytes: 4, unsigned: true }, "1.5", "integer"),
            (ColumnKind::Float, "inf", "finite"),
            (ColumnKind::Decimal { precision: 5, scale: 2 }, "1000", "3 digits before"),
            (ColumnKind::Decimal { precision: 5, scale: 2 }, "1.005", "2 after"),
            (ColumnKind::Bytes { fixed_len: 0 }, "ab", "0x"),
            (ColumnKind::Bytes { fixed_len: 0 }, "0x+1", "hexadecimal"),
            (ColumnKind::Bytes { fixed_len: 1 }, "0x0102", "at most 1"),
            (ColumnKind::Date, "31.1.2026", "2026-01-31"),
            (ColumnKind::Datetime { fraction_digits: 0 }, "2026-01-31 24:00:00", "24 hours"),
            (ColumnKind::Datetime { fraction_digits: 3 }, "2026-01-31 12:00:00.1234", "3 digits"),
            (ColumnKind::Timestamp { fraction_digits: 0 }, "1969-12-31 00:00:00", "1970"),
            (ColumnKind::Time { fraction_digits: 0 }, "839:00:00", "838"),
            (ColumnKind::Year, "1900", "1901"),
            (ColumnKind::Bit { bits: 3 }, "8", "from 0 to 7"),
            (ColumnKind::Enum { labels: labels.clone() }, "A", "one of a"),
            (ColumnKind::Set { labels }, "a,x", "of a"),
            (ColumnKind::Json, "{a: 1}", "no JSON"),
        ] {
            let error = from_text(&kind, text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn json_gives_values_as_messages_show_them() {
        use serde_json::json;
        let integer = ColumnKind::Integer { bytes: 8, unsigned: false };
        assert_eq!(from_json(&integer, &json!(null)), Ok(Value::Null));
        assert_eq!(from_json(&integer, &json!(42)), Ok(Value::Int(42)));
        assert_eq!(from_json(&integer, &json!("9007199254740993")), Ok(Value::Int(9_007_199_254_740_993)));
        assert_eq!(from_json(&text(), &json!("NULL")), Ok(Value::Text("NULL".to_owned())));
        let bytes = json!({"$base64": "3q2+7w=="});
        assert_eq!(
            from_json(&ColumnKind::Bytes { fixed_len: 0 }, &bytes),
            Ok(Value::Bytes(vec![0xde, 0xad, 0xbe, 0xef]))
        );
        assert!(from_json(&text(), &bytes).is_err());
        assert!(from_json(&integer, &json!([1])).is_err());
        let document = Value::Json(JsonDocument { text: r#"{"a":1}"#.to_owned(), opaque: Vec::new() });
        assert_eq!(from_json(&ColumnKind::Json, &json!({"a": 1})), Ok(document));
    }
}
