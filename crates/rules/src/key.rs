//! Which keys are one: renderings and hashes of key values.
//!
//! *Exact* tells apart what the stored values tell apart; numbers are compared as numbers, whatever type carries them.
//! *Folded* is at least as coarse as any collation of either server, so keys that fold differently are different rows
//! everywhere, while keys that fold alike may or may not be one row. Both are the same in every process and version.

use crossfade_model::{CalendarDate, Row, RowChange, TableName, TimeOfDay, Value};

use crate::clock::micros_of_datetime;
use crate::digest::hash_bytes;
use crate::fold::fold_text;
use crate::mapping::TableMapping;

/// How fine a rendering is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fineness {
    /// As coarse as the coarsest collation.
    Folded,
    /// Every difference counts.
    Exact,
}

/// The hash of a key under the folding. Stable across processes and versions.
///
/// Both directions must hash under one name for their hashes to meet.
pub fn folded_hash(table: &TableName, values: &[&Value]) -> u64 {
    hash(Fineness::Folded, table, values)
}

/// The hash of a key as it is stored. Stable across processes and versions.
pub fn exact_hash(table: &TableName, values: &[&Value]) -> u64 {
    hash(Fineness::Exact, table, values)
}

/// Whether a captured change, whose table `mapping` carries, has a row key that folds to `folded`, before it or after it.
pub fn change_has_key(mapping: &TableMapping, change: &RowChange, folded: u64) -> bool {
    let of_image = |image: &Row| {
        let value = |index: &usize| {
            let name = &mapping.columns.get(*index)?.source;
            image.get(change.layout.column(name)?)
        };
        let key: Option<Vec<&Value>> = mapping.row_key.iter().map(value).collect();
        key.is_some_and(|key| folded_hash(&mapping.identity, &key) == folded)
    };
    mapping.source == change.layout.name && [&change.before, &change.after].into_iter().flatten().any(of_image)
}

fn hash(fineness: Fineness, table: &TableName, values: &[&Value]) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    for name in [&table.schema, &table.table] {
        sized(&mut bytes, |out| out.extend_from_slice(name.as_bytes()));
    }
    values.iter().for_each(|value| render(fineness, value, &mut bytes));
    hash_bytes(&bytes)
}

/// Appends one value's rendering. Renderings of different values never run into each other.
pub fn render(fineness: Fineness, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(tag::NULL),
        Value::Int(number) => render_integer(*number < 0, number.unsigned_abs(), out),
        Value::UInt(number) | Value::Bit(number) => render_integer(false, *number, out),
        Value::Year(year) => render_integer(false, u64::from(*year), out),
        Value::Float(number) => render_double(f64::from(*number), out),
        Value::Double(number) => render_double(*number, out),
        Value::Decimal(digits) => render_decimal(digits, out),
        Value::Text(text) | Value::Enum(text) | Value::Set(text) => render_text(fineness, text, out),
        Value::Encoded { charset, bytes } => render_encoded(fineness, charset, bytes, out),
        Value::Bytes(bytes) => render_bytes(fineness, bytes, out),
        Value::Geometry(bytes) | Value::Vector(bytes) => render_bytes(Fineness::Exact, bytes, out),
        Value::Json(document) => render_text(Fineness::Exact, &document.text, out),
        Value::Date(date) => render_datetime(*date, TimeOfDay::default(), out),
        Value::Datetime(date, time) => render_datetime(*date, *time, out),
        Value::Timestamp(micros) => render_micros(*micros, out),
        Value::Time { negative, hours, minute, second, micros } => {
            out.push(tag::TIME);
            let zero = *hours == 0 && *minute == 0 && *second == 0 && *micros == 0;
            out.push(u8::from(*negative && !zero));
            out.extend_from_slice(&hours.to_le_bytes());
            out.extend_from_slice(&[*minute, *second]);
            out.extend_from_slice(&micros.to_le_bytes());
        }
    }
}

mod tag {
    pub const NULL: u8 = 0;
    pub const INTEGER: u8 = 1;
    pub const DECIMAL: u8 = 2;
    pub const DOUBLE: u8 = 3;
    pub const TEXT: u8 = 4;
    pub const ENCODED: u8 = 5;
    pub const BYTES: u8 = 6;
    pub const MICROS: u8 = 7;
    pub const PARTIAL_DATE: u8 = 8;
    pub const TIME: u8 = 9;
}

/// Writes something with its length before it.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn render_integer(negative: bool, magnitude: u64, out: &mut Vec<u8>) {
    out.push(tag::INTEGER);
    out.push(u8::from(negative && magnitude != 0));
    out.extend_from_slice(&magnitude.to_le_bytes());
}

fn render_double(number: f64, out: &mut Vec<u8>) {
    // Whole numbers below 2^53 are the same number in every type.
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return render_integer(number < 0.0, number.abs() as u64, out);
    }
    out.push(tag::DOUBLE);
    out.extend_from_slice(&number.to_bits().to_le_bytes());
}

fn render_decimal(digits: &str, out: &mut Vec<u8>) {
    let (negative, unsigned) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits),
    };
    let number = match unsigned.split_once('.') {
        Some(_) => unsigned.trim_end_matches('0').trim_end_matches('.'),
        None => unsigned,
    };
    let number = number.trim_start_matches('0');
    if number.is_empty() {
        return render_integer(false, 0, out);
    }
    if let Ok(magnitude) = number.parse::<u64>() {
        return render_integer(negative, magnitude, out);
    }
    out.push(tag::DECIMAL);
    out.push(u8::from(negative));
    sized(out, |out| out.extend_from_slice(number.as_bytes()));
}

fn render_text(fineness: Fineness, text: &str, out: &mut Vec<u8>) {
    out.push(tag::TEXT);
    sized(out, |out| match fineness {
        Fineness::Folded => fold_text(text, out),
        Fineness::Exact => out.extend_from_slice(text.as_bytes()),
    });
}

fn render_encoded(fineness: Fineness, charset: &str, bytes: &[u8], out: &mut Vec<u8>) {
    match fineness {
        Fineness::Exact => {
            out.push(tag::ENCODED);
            sized(out, |out| out.extend_from_slice(charset.as_bytes()));
            sized(out, |out| out.extend_from_slice(bytes));
        }
        Fineness::Folded => match crate::fold::decode_roughly(charset, bytes) {
            Some(text) => render_text(Fineness::Folded, &text, out),
            // Nothing is known about what such a text equals, so it may equal every other of its kind.
            None => out.push(tag::ENCODED),
        },
    }
}

fn render_bytes(fineness: Fineness, bytes: &[u8], out: &mut Vec<u8>) {
    // BINARY(n) of two lengths differ in padding.
    let kept = match fineness {
        Fineness::Exact => bytes.len(),
        Fineness::Folded => bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
    };
    out.push(tag::BYTES);
    sized(out, |out| out.extend_from_slice(&bytes[..kept]));
}

fn render_micros(micros: i64, out: &mut Vec<u8>) {
    out.push(tag::MICROS);
    out.extend_from_slice(&micros.to_le_bytes());
}

fn render_datetime(date: CalendarDate, time: TimeOfDay, out: &mut Vec<u8>) {
    if let Some(micros) = micros_of_datetime(date, time) {
        return render_micros(micros, out);
    }
    out.push(tag::PARTIAL_DATE);
    out.extend_from_slice(&date.year.to_le_bytes());
    out.extend_from_slice(&[date.month, date.day, time.hour, time.minute, time.second]);
    out.extend_from_slice(&time.micros.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(fineness: Fineness, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        render(fineness, value, &mut out);
        out
    }

    fn same(fineness: Fineness, a: &Value, b: &Value) -> bool {
        rendered(fineness, a) == rendered(fineness, b)
    }

    fn decimal(digits: &str) -> Value {
        Value::Decimal(digits.to_owned())
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_number_is_one_number_whatever_type_carries_it() {
        let equal = [
            (Value::Int(5), Value::UInt(5)),
            (Value::Int(5), decimal("5.00")),
            (Value::Int(-5), decimal("-5")),
            (Value::Int(0), decimal("-0.0")),
            (Value::UInt(u64::MAX), decimal("18446744073709551615")),
            (Value::Int(7), Value::Double(7.0)),
            (Value::Double(0.0), Value::Double(-0.0)),
            (Value::Float(1.5), Value::Double(1.5)),
            (decimal("0.50"), decimal("0.5")),
            (Value::Year(2020), Value::Int(2020)),
            (Value::Bit(3), Value::UInt(3)),
        ];
        for (a, b) in &equal {
            assert!(same(Fineness::Exact, a, b) && same(Fineness::Folded, a, b), "{a:?} {b:?}");
        }
        let unequal = [
            (Value::Int(5), Value::Int(-5)),
            (Value::Int(-1), Value::UInt(u64::MAX)),
            (decimal("0.5"), decimal("0.05")),
            (decimal("-0.5"), decimal("0.5")),
            (decimal("100"), decimal("1")),
            (Value::Double(1.5), Value::Double(1.25)),
            (Value::Int(0), Value::Null),
            (Value::Int(1), text("1")),
        ];
        for (a, b) in &unequal {
            assert!(!same(Fineness::Exact, a, b) && !same(Fineness::Folded, a, b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn texts_fold_and_stay_exact() {
        for (a, b) in [("a", "A"), ("a", "a "), ("é", "e")] {
            assert!(same(Fineness::Folded, &text(a), &text(b)));
            assert!(!same(Fineness::Exact, &text(a), &text(b)));
        }
        assert!(same(Fineness::Exact, &text("x"), &Value::Enum("x".to_owned())));
        let encoded = Value::Encoded { charset: "cp1251", bytes: vec![0xcf] };
        assert!(same(Fineness::Folded, &encoded, &text("п")));
        assert!(!same(Fineness::Exact, &encoded, &text("П")));
        let unknown = |byte| Value::Encoded { charset: "hp8", bytes: vec![byte] };
        assert!(same(Fineness::Folded, &unknown(0xe0), &unknown(0xe1)));
        assert!(!same(Fineness::Exact, &unknown(0xe0), &unknown(0xe1)));
    }

    #[test]
    fn padding_of_bytes_folds_away() {
        let (short, long) = (Value::Bytes(vec![1, 2]), Value::Bytes(vec![1, 2, 0, 0]));
        assert!(same(Fineness::Folded, &short, &long));
        assert!(!same(Fineness::Exact, &short, &long));
        assert!(!same(Fineness::Folded, &short, &Value::Bytes(vec![1])));
    }

    #[test]
    fn one_point_in_time_is_one_key() {
        let date = CalendarDate { year: 2024, month: 2, day: 29 };
        let datetime = Value::Datetime(date, TimeOfDay { hour: 0, minute: 0, second: 1, micros: 0 });
        assert!(same(Fineness::Exact, &datetime, &Value::Timestamp(1_709_164_801_000_000)));
        assert!(same(Fineness::Exact, &Value::Date(date), &Value::Datetime(date, TimeOfDay::default())));
        let zero = CalendarDate::default();
        let partial = CalendarDate { year: 2001, month: 0, day: 0 };
        assert!(!same(Fineness::Folded, &Value::Date(zero), &Value::Date(partial)));
        let time = |negative, second| Value::Time { negative, hours: 0, minute: 0, second, micros: 0 };
        assert!(same(Fineness::Exact, &time(true, 0), &time(false, 0)));
        assert!(!same(Fineness::Exact, &time(true, 1), &time(false, 1)));
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let table = TableName::new("app", "users");
        let hash = |a: &str, b: &str| exact_hash(&table, &[&text(a), &text(b)]);
        assert_ne!(hash("a", "bc"), hash("ab", "c"));
        assert_ne!(hash("", "a"), hash("a", ""));
        let other = TableName::new("app", "user");
        assert_ne!(exact_hash(&table, &[&text("a")]), exact_hash(&other, &[&text("a")]));
    }

    /// Hashes are kept in the store, so a change of these numbers needs a migration.
    #[test]
    fn hashes_are_the_same_in_every_version() {
        let table = TableName::new("app", "users");
        assert_eq!(exact_hash(&table, &[&Value::Int(1)]), folded_hash(&table, &[&decimal("1.0")]));
        assert_eq!(exact_hash(&table, &[&Value::Int(1)]), 14_699_732_745_235_735_467);
        assert_eq!(folded_hash(&table, &[&text("Ada@Example.org"), &Value::Null]), 3_504_161_110_571_309_009);
    }
}
