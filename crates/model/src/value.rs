//! Typed column values, exact on both sides.

use std::fmt;

/// One column's value in a row image.
///
/// Equality is what a comparison of the stored bytes would say: floats by their bits, text by its characters.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    /// Plain decimal digits as the server prints them: sign, integer digits without leading zeros, all fraction
    /// digits of the column's scale. `-0.50`, `0`, `12.3400`.
    Decimal(String),
    /// Text that was decoded to Unicode without loss (utf8mb3, utf8mb4, ascii, latin1, utf16, utf16le, ucs2, utf32).
    Text(String),
    /// Text in any other character set, or whose bytes are not valid in their own: the bytes as stored, and the name
    /// of the server's character set.
    Encoded {
        charset: &'static str,
        bytes: Vec<u8>,
    },
    /// BINARY (padded to its length), VARBINARY, BLOB.
    Bytes(Vec<u8>),
    Date(CalendarDate),
    /// TIME, up to 838:59:59, with a sign.
    Time {
        negative: bool,
        hours: u16,
        minute: u8,
        second: u8,
        micros: u32,
    },
    /// DATETIME: no time zone. Zero and partial dates are legal.
    Datetime(CalendarDate, TimeOfDay),
    /// TIMESTAMP in microseconds since the epoch, UTC; 0 is the zero timestamp `0000-00-00 00:00:00`.
    Timestamp(i64),
    /// 0 is YEAR 0000, else 1901 to 2155.
    Year(u16),
    /// The bits as a number, most significant bit first.
    Bit(u64),
    /// The label; empty for the error value 0.
    Enum(String),
    /// The labels joined by commas in the column's order; empty for none.
    Set(String),
    Json(JsonDocument),
    /// MySQL's storage format: SRID (4 bytes little-endian), then WKB.
    Geometry(Vec<u8>),
    /// 4-byte little-endian floats.
    Vector(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CalendarDate {
    pub year: u16,
    pub month: u8,
    pub day: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TimeOfDay {
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub micros: u32,
}

/// A JSON document: its text as the server prints it, and what the text cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonDocument {
    pub text: String,
    /// Values that MySQL stores with a type that JSON text does not have, in document order.
    pub opaque: Vec<OpaqueNode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpaqueNode {
    /// MySQL JSON path of the node: `$.a[0]."b c"`.
    pub path: String,
    pub kind: OpaqueKind,
    /// The value's text (decimal digits, `2026-01-02`, `12:00:00.000000`, …); for `Bytes` and `Bit` the raw bytes.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpaqueKind {
    Decimal,
    Date,
    Time,
    Datetime,
    Timestamp,
    /// BLOB, BINARY and the like, with the MySQL field type that the document names (`base64:type15:…` in text).
    Bytes {
        field_type: u8,
    },
    Bit,
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Bytes that the value holds on the heap; the memory bound counts them.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Value::Decimal(text) | Value::Text(text) | Value::Enum(text) | Value::Set(text) => text.len(),
            Value::Encoded { bytes, .. } | Value::Bytes(bytes) | Value::Geometry(bytes) | Value::Vector(bytes) => {
                bytes.len()
            }
            Value::Json(document) => {
                document.text.len()
                    + document.opaque.iter().map(|node| node.path.len() + node.bytes.len()).sum::<usize>()
            }
            _ => 0,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        use Value::*;
        match (self, other) {
            (Null, Null) => true,
            (Int(a), Int(b)) | (Timestamp(a), Timestamp(b)) => a == b,
            (UInt(a), UInt(b)) | (Bit(a), Bit(b)) => a == b,
            (Int(a), UInt(b)) | (UInt(b), Int(a)) => u64::try_from(*a) == Ok(*b),
            (Float(a), Float(b)) => a.to_bits() == b.to_bits(),
            (Double(a), Double(b)) => a.to_bits() == b.to_bits(),
            (Decimal(a), Decimal(b)) | (Text(a), Text(b)) | (Enum(a), Enum(b)) | (Set(a), Set(b)) => a == b,
            (Encoded { charset: a, bytes: x }, Encoded { charset: b, bytes: y }) => a == b && x == y,
            (Bytes(a), Bytes(b)) | (Geometry(a), Geometry(b)) | (Vector(a), Vector(b)) => a == b,
            (Date(a), Date(b)) => a == b,
            (
                Time { negative, hours, minute, second, micros },
                Time { negative: n, hours: h, minute: m, second: s, micros: u },
            ) => (negative, hours, minute, second, micros) == (n, h, m, s, u),
            (Datetime(a, x), Datetime(b, y)) => a == b && x == y,
            (Year(a), Year(b)) => a == b,
            (Json(a), Json(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl fmt::Display for CalendarDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}:{:02}.{:06}", self.hour, self.minute, self.second, self.micros)
    }
}
