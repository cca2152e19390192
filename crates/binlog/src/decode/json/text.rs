//! Documents as the server prints them: members in stored order, `", "` and `": "` between things.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossfade_model::{JsonDocument, OpaqueKind, OpaqueNode, Value};

use super::super::wire::code;
use super::super::{decimal, temporal};
use super::double;
use super::path::{self, Step};
use super::tree::{Scalar, Temporal, Tree};

/// The server's base64 has line breaks (`base64_encode` in MySQL's `mysys`).
const BASE64_LINE: usize = 76;

pub(super) fn print(tree: &Tree<'_>) -> Result<JsonDocument, &'static str> {
    let mut printer = Printer { text: String::new(), opaque: Vec::new(), steps: Vec::new() };
    printer.tree(tree)?;
    Ok(JsonDocument { text: printer.text, opaque: printer.opaque })
}

struct Printer<'t> {
    text: String,
    opaque: Vec<OpaqueNode>,
    steps: Vec<Step<&'t str>>,
}

impl<'t> Printer<'t> {
    fn tree(&mut self, tree: &'t Tree<'_>) -> Result<(), &'static str> {
        match tree {
            Tree::Scalar(scalar) => return self.scalar(scalar),
            Tree::Object(members) => {
                self.text.push('{');
                for (nth, (key, member)) in members.iter().enumerate() {
                    self.separate(nth);
                    quote(&mut self.text, key);
                    self.text.push_str(": ");
                    self.below(Step::Member(key), member)?;
                }
                self.text.push('}');
            }
            Tree::Array(elements) => {
                self.text.push('[');
                for (nth, element) in elements.iter().enumerate() {
                    self.separate(nth);
                    self.below(Step::Element(nth), element)?;
                }
                self.text.push(']');
            }
        }
        Ok(())
    }

    fn separate(&mut self, nth: usize) {
        if nth > 0 {
            self.text.push_str(", ");
        }
    }

    fn below(&mut self, step: Step<&'t str>, tree: &'t Tree<'_>) -> Result<(), &'static str> {
        self.steps.push(step);
        let printed = self.tree(tree);
        self.steps.pop();
        printed
    }

    fn scalar(&mut self, scalar: &Scalar<'_>) -> Result<(), &'static str> {
        match scalar {
            Scalar::Null => self.text.push_str("null"),
            Scalar::Bool(yes) => self.text.push_str(if *yes { "true" } else { "false" }),
            Scalar::Int(number) => {
                let _ = write!(self.text, "{number}");
            }
            Scalar::UInt(number) => {
                let _ = write!(self.text, "{number}");
            }
            Scalar::Double(number) => double::print(&mut self.text, *number),
            Scalar::String(text) => quote(&mut self.text, text),
            Scalar::Decimal { precision, scale, packed } => {
                let digits = decimal::text(packed, *precision, *scale)?;
                self.text.push_str(&digits);
                self.note(OpaqueKind::Decimal, digits.into_bytes());
            }
            Scalar::Temporal { kind, packed } => {
                let (kind, text) = temporal_text(*kind, *packed);
                quote(&mut self.text, &text);
                self.note(kind, text.into_bytes());
            }
            Scalar::Opaque { field_type, bytes } => {
                quote(&mut self.text, &format!("base64:type{field_type}:{}", base64_lines(bytes)));
                let kind = match *field_type {
                    code::BIT => OpaqueKind::Bit,
                    field_type => OpaqueKind::Bytes { field_type },
                };
                self.note(kind, bytes.to_vec());
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: OpaqueKind, bytes: Vec<u8>) {
        self.opaque.push(OpaqueNode { path: path::print(&self.steps), kind, bytes });
    }
}

/// Appends a string with quotes, escaped as the server does it: short forms, `\u00xx` for other control characters, and
/// nothing else.
pub(super) fn quote(text: &mut String, plain: &str) {
    text.push('"');
    let mut done = 0;
    for (place, byte) in plain.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0c => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        text.push_str(&plain[done..place]);
        text.push_str(escape);
        if escape.is_empty() {
            let _ = write!(text, "\\u{byte:04x}");
        }
        done = place + 1;
    }
    text.push_str(&plain[done..]);
    text.push('"');
}

fn base64_lines(bytes: &[u8]) -> String {
    let encoded = STANDARD.encode(bytes);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(BASE64_LINE).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    lines.join("\n")
}

/// The packed form has the whole part above 24 bits of microseconds; a negative time is negative as a whole.
fn temporal_text(kind: Temporal, packed: i64) -> (OpaqueKind, String) {
    let (negative, packed) = (packed < 0, packed.unsigned_abs());
    let (whole, micros) = (packed >> 24, (packed & 0xff_ffff) as u32);
    if kind == Temporal::Time {
        let (hours, minute, second) = (whole >> 12 & 0x3ff, whole >> 6 & 63, whole & 63);
        let sign = if negative { "-" } else { "" };
        return (OpaqueKind::Time, format!("{sign}{hours:02}:{minute:02}:{second:02}.{micros:06}"));
    }
    let Value::Datetime(date, time) = temporal::datetime_of_parts(whole, micros) else {
        return (OpaqueKind::Datetime, String::new());
    };
    match kind {
        Temporal::Date => (OpaqueKind::Date, date.to_string()),
        Temporal::Timestamp => (OpaqueKind::Timestamp, format!("{date} {time}")),
        _ => (OpaqueKind::Datetime, format!("{date} {time}")),
    }
}
