//! Values to bytes and back, exactly: for the few that JSON and the column's kind do not give back.

use std::collections::HashSet;
use std::sync::Mutex;

use crossfade_model::{CalendarDate, JsonDocument, OpaqueKind, OpaqueNode, TimeOfDay, Value};

pub fn to_bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.heap_bytes() + 16);
    match value {
        Value::Null => out.push(0),
        Value::Int(number) => tagged(&mut out, 1, &number.to_le_bytes()),
        Value::UInt(number) => tagged(&mut out, 2, &number.to_le_bytes()),
        Value::Float(number) => tagged(&mut out, 3, &number.to_bits().to_le_bytes()),
        Value::Double(number) => tagged(&mut out, 4, &number.to_bits().to_le_bytes()),
        Value::Decimal(text) => tagged(&mut out, 5, text.as_bytes()),
        Value::Text(text) => tagged(&mut out, 6, text.as_bytes()),
        Value::Encoded { charset, bytes } => {
            out.push(7);
            push_sized(&mut out, charset.as_bytes());
            out.extend_from_slice(bytes);
        }
        Value::Bytes(bytes) => tagged(&mut out, 8, bytes),
        Value::Date(date) => {
            out.push(9);
            push_date(&mut out, *date);
        }
        Value::Time { negative, hours, minute, second, micros } => {
            out.extend_from_slice(&[10, u8::from(*negative), *minute, *second]);
            out.extend_from_slice(&hours.to_le_bytes());
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::Datetime(date, time) => {
            out.push(11);
            push_date(&mut out, *date);
            out.extend_from_slice(&[time.hour, time.minute, time.second]);
            out.extend_from_slice(&time.micros.to_le_bytes());
        }
        Value::Timestamp(micros) => tagged(&mut out, 12, &micros.to_le_bytes()),
        Value::Year(year) => tagged(&mut out, 13, &year.to_le_bytes()),
        Value::Bit(bits) => tagged(&mut out, 14, &bits.to_le_bytes()),
        Value::Enum(label) => tagged(&mut out, 15, label.as_bytes()),
        Value::Set(labels) => tagged(&mut out, 16, labels.as_bytes()),
        Value::Json(document) => push_json(&mut out, document),
        Value::Geometry(bytes) => tagged(&mut out, 18, bytes),
        Value::Vector(bytes) => tagged(&mut out, 19, bytes),
    }
    out
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn push_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    // A value is at most 4 GiB (MySQL manual, "Data Type Storage Requirements").
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn push_date(out: &mut Vec<u8>, date: CalendarDate) {
    out.extend_from_slice(&date.year.to_le_bytes());
    out.extend_from_slice(&[date.month, date.day]);
}

fn push_json(out: &mut Vec<u8>, document: &JsonDocument) {
    out.push(17);
    push_sized(out, document.text.as_bytes());
    for node in &document.opaque {
        let (kind, field_type) = match node.kind {
            OpaqueKind::Decimal => (0, 0),
            OpaqueKind::Date => (1, 0),
            OpaqueKind::Time => (2, 0),
            OpaqueKind::Datetime => (3, 0),
            OpaqueKind::Timestamp => (4, 0),
            OpaqueKind::Bytes { field_type } => (5, field_type),
            OpaqueKind::Bit => (6, 0),
        };
        out.extend_from_slice(&[kind, field_type]);
        push_sized(out, node.path.as_bytes());
        push_sized(out, &node.bytes);
    }
}

/// `None` if the bytes were not made by [`to_bytes`].
pub fn from_bytes(bytes: &[u8]) -> Option<Value> {
    let (tag, rest) = bytes.split_first()?;
    let mut rest = Rest(rest);
    Some(match tag {
        0 => Value::Null,
        1 => Value::Int(i64::from_le_bytes(rest.array()?)),
        2 => Value::UInt(u64::from_le_bytes(rest.array()?)),
        3 => Value::Float(f32::from_bits(u32::from_le_bytes(rest.array()?))),
        4 => Value::Double(f64::from_bits(u64::from_le_bytes(rest.array()?))),
        5 => Value::Decimal(rest.all_text()?),
        6 => Value::Text(rest.all_text()?),
        7 => Value::Encoded { charset: charset_name(str::from_utf8(rest.sized()?).ok()?), bytes: rest.0.to_vec() },
        8 => Value::Bytes(rest.0.to_vec()),
        9 => Value::Date(rest.date()?),
        10 => {
            let [negative, minute, second] = rest.array()?;
            let hours = u16::from_le_bytes(rest.array()?);
            Value::Time { negative: negative != 0, hours, minute, second, micros: u32::from_le_bytes(rest.array()?) }
        }
        11 => {
            let date = rest.date()?;
            let [hour, minute, second] = rest.array()?;
            Value::Datetime(date, TimeOfDay { hour, minute, second, micros: u32::from_le_bytes(rest.array()?) })
        }
        12 => Value::Timestamp(i64::from_le_bytes(rest.array()?)),
        13 => Value::Year(u16::from_le_bytes(rest.array()?)),
        14 => Value::Bit(u64::from_le_bytes(rest.array()?)),
        15 => Value::Enum(rest.all_text()?),
        16 => Value::Set(rest.all_text()?),
        17 => Value::Json(rest.json()?),
        18 => Value::Geometry(rest.0.to_vec()),
        19 => Value::Vector(rest.0.to_vec()),
        _ => return None,
    })
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(self.array()?);
        self.take(len as usize)
    }

    fn all_text(&mut self) -> Option<String> {
        String::from_utf8(std::mem::take(&mut self.0).to_vec()).ok()
    }

    fn date(&mut self) -> Option<CalendarDate> {
        let year = u16::from_le_bytes(self.array()?);
        let [month, day] = self.array()?;
        Some(CalendarDate { year, month, day })
    }

    fn json(&mut self) -> Option<JsonDocument> {
        let text = str::from_utf8(self.sized()?).ok()?.to_owned();
        let mut opaque = Vec::new();
        while !self.0.is_empty() {
            let [kind, field_type] = self.array()?;
            let kind = match kind {
                0 => OpaqueKind::Decimal,
                1 => OpaqueKind::Date,
                2 => OpaqueKind::Time,
                3 => OpaqueKind::Datetime,
                4 => OpaqueKind::Timestamp,
                5 => OpaqueKind::Bytes { field_type },
                6 => OpaqueKind::Bit,
                _ => return None,
            };
            let path = str::from_utf8(self.sized()?).ok()?.to_owned();
            opaque.push(OpaqueNode { path, kind, bytes: self.sized()?.to_vec() });
        }
        Some(JsonDocument { text, opaque })
    }
}

/// The one copy of a character set's name. There are about forty on any server, so keeping them for ever is bounded.
fn charset_name(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(kept);
    kept
}
