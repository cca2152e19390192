//! One cell: what its bytes mean.

use crossfade_model::Value;

use super::charset::{Charset, text_value};
use super::cursor::{be_uint, le_uint};
use super::{address, decimal, json, packed, temporal};

/// What is done to each cell of a column. Made once per table map, so that rows need no look-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decoder {
    Signed,
    Unsigned,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Text {
        charset: Charset,
        name: &'static str,
    },
    CompressedText {
        charset: Charset,
        name: &'static str,
    },
    Bytes,
    /// BINARY(n): the event drops trailing zero bytes.
    FixedBytes {
        len: usize,
    },
    CompressedBytes,
    Date,
    Time,
    Datetime,
    Timestamp,
    OldTime,
    OldDatetime,
    OldTimestamp,
    HiresTime {
        digits: u8,
    },
    HiresDatetime {
        digits: u8,
    },
    HiresTimestamp {
        digits: u8,
    },
    Year,
    Bit,
    Enum {
        labels: Box<[Box<str>]>,
    },
    Set {
        labels: Box<[Box<str>]>,
    },
    Json,
    Geometry,
    Vector,
    Inet4,
    Inet6,
    Uuid,
}

impl Decoder {
    /// The cell's value. The error says what is wrong with the bytes, never what they are.
    #[inline]
    pub fn value(&self, cell: &[u8]) -> Result<Value, &'static str> {
        Ok(match self {
            Decoder::Signed => Value::Int(signed(cell)),
            Decoder::Unsigned => Value::UInt(le_uint(cell)),
            Decoder::Text { charset, name } => text_value(*charset, name, cell),
            Decoder::Bytes => Value::Bytes(cell.to_vec()),
            Decoder::Decimal { precision, scale } => Value::Decimal(decimal::text(cell, *precision, *scale)?),
            Decoder::Float => Value::Float(f32::from_bits(le_uint(cell) as u32)),
            Decoder::Double => Value::Double(f64::from_bits(le_uint(cell))),
            Decoder::Timestamp => temporal::timestamp2(cell),
            Decoder::Datetime => temporal::datetime2(cell),
            Decoder::Date => Value::Date(temporal::date(cell)),
            Decoder::Time => temporal::time2(cell),
            Decoder::Enum { labels } => Value::Enum(enum_label(labels, le_uint(cell))?),
            Decoder::Set { labels } => Value::Set(set_labels(labels, le_uint(cell))?),
            Decoder::Json => Value::Json(json::document(cell)?),
            Decoder::FixedBytes { len } => Value::Bytes(padded(cell, *len)),
            Decoder::Year => Value::Year(year(le_uint(cell))),
            Decoder::Bit => Value::Bit(be_uint(cell)),
            _ => self.rare_value(cell)?,
        })
    }

    fn rare_value(&self, cell: &[u8]) -> Result<Value, &'static str> {
        Ok(match self {
            Decoder::Geometry => Value::Geometry(cell.to_vec()),
            Decoder::Vector => Value::Vector(cell.to_vec()),
            Decoder::CompressedText { charset, name } => text_value(*charset, name, &packed::column(cell)?),
            Decoder::CompressedBytes => Value::Bytes(packed::column(cell)?.into_owned()),
            Decoder::Inet4 => Value::Text(address::inet4(cell)?),
            Decoder::Inet6 => Value::Text(address::inet6(cell)?),
            Decoder::Uuid => Value::Text(address::uuid(cell)?),
            Decoder::OldTime => temporal::old_time(cell),
            Decoder::OldDatetime => temporal::old_datetime(cell),
            Decoder::OldTimestamp => temporal::old_timestamp(cell),
            Decoder::HiresTime { digits } => temporal::hires::time(cell, *digits),
            Decoder::HiresDatetime { digits } => temporal::hires::datetime(cell, *digits),
            Decoder::HiresTimestamp { digits } => temporal::hires::timestamp(cell, *digits),
            _ => return Err("a type without a decoder"),
        })
    }
}

/// A little-endian number of 1 to 8 bytes with its sign.
#[inline]
fn signed(cell: &[u8]) -> i64 {
    let unused = 64 - 8 * cell.len().clamp(1, 8) as u32;
    ((le_uint(cell) << unused) as i64) >> unused
}

fn year(stored: u64) -> u16 {
    match stored as u8 {
        0 => 0,
        since_1900 => 1900 + u16::from(since_1900),
    }
}

fn padded(cell: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len.max(cell.len()));
    bytes.extend_from_slice(cell);
    bytes.resize(len.max(cell.len()), 0);
    bytes
}

/// 0 is the error value, whose label is empty.
fn enum_label(labels: &[Box<str>], ordinal: u64) -> Result<String, &'static str> {
    match usize::try_from(ordinal) {
        Ok(0) => Ok(String::new()),
        Ok(ordinal) => labels.get(ordinal - 1).map(|label| label.to_string()).ok_or("an ENUM ordinal without a label"),
        Err(_) => Err("an ENUM ordinal without a label"),
    }
}

fn set_labels(labels: &[Box<str>], mask: u64) -> Result<String, &'static str> {
    if labels.len() < 64 && mask >> labels.len() != 0 {
        return Err("a SET bit without a label");
    }
    let mut text = String::new();
    for (place, label) in labels.iter().take(64).enumerate() {
        if mask >> place & 1 == 1 {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(label);
        }
    }
    Ok(text)
}
