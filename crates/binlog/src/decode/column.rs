//! One column of a table map: which decoder its cells get, and what the layout says of it.

use crossfade_model::{Column, ColumnKind};

use super::cell::Decoder;
use super::charset::Charset;
use super::collation::known_charset;
use super::temporal::hires;
use super::wire::{Width, WireColumn, code};

/// What is known of a column beside its wire type.
pub(super) struct Known<'a> {
    /// From row metadata; `None` where the event does not say.
    pub unsigned: Option<bool>,
    pub charset: Option<&'static str>,
    pub labels: Option<Vec<String>>,
    /// The tracked definition of the column, where it is known to be this one.
    pub tracked: Option<&'a Column>,
}

/// Why a column cannot be planned; `table_map` adds the names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unplanned {
    /// The event does not say, and no definition is at hand.
    Missing(&'static str),
    /// The tracked definition is of another type.
    Mismatch,
    UnknownType,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnPlan {
    pub width: Width,
    pub decoder: Decoder,
    /// Computed by the server; a row image may lack it.
    pub generated: bool,
}

pub(super) fn plan(wire: WireColumn, known: &mut Known<'_>) -> Result<(ColumnPlan, ColumnKind), Unplanned> {
    let (width, decoder, kind) = match wire.code {
        code::TINY | code::SHORT | code::INT24 | code::LONG | code::LONGLONG => integer(wire, known)?,
        code::STRING | code::VAR_STRING | code::VARCHAR | code::VARCHAR_COMPRESSED => string(wire, known)?,
        code::TINY_BLOB | code::MEDIUM_BLOB | code::LONG_BLOB | code::BLOB | code::BLOB_COMPRESSED => {
            string(wire, known)?
        }
        code::ENUM => {
            let labels = labels(known)?;
            (wire.width, Decoder::Enum { labels: boxed(&labels) }, ColumnKind::Enum { labels })
        }
        code::SET => {
            let labels = labels(known)?;
            (wire.width, Decoder::Set { labels: boxed(&labels) }, ColumnKind::Set { labels })
        }
        code::TIMESTAMP | code::DATETIME | code::TIME => old_temporal(wire, known)?,
        _ => simple(wire)?,
    };
    if let Some(tracked) = known.tracked
        && !same_family(&tracked.kind, &kind)
    {
        return Err(Unplanned::Mismatch);
    }
    let generated = known.tracked.is_some_and(|column| column.generated);
    Ok((ColumnPlan { width, decoder, generated }, kind))
}

type Planned = (Width, Decoder, ColumnKind);

/// Types that the wire alone decides.
fn simple(wire: WireColumn) -> Result<Planned, Unplanned> {
    let fraction_digits = wire.detail as u8;
    let (decoder, kind) = match wire.code {
        code::FLOAT => (Decoder::Float, ColumnKind::Float),
        code::DOUBLE => (Decoder::Double, ColumnKind::Double),
        code::NEWDECIMAL => {
            let (precision, scale) = (wire.detail as u8, wire.scale);
            (Decoder::Decimal { precision, scale }, ColumnKind::Decimal { precision, scale })
        }
        code::DATE | code::NEWDATE => (Decoder::Date, ColumnKind::Date),
        code::TIME2 => (Decoder::Time, ColumnKind::Time { fraction_digits }),
        code::DATETIME2 => (Decoder::Datetime, ColumnKind::Datetime { fraction_digits }),
        code::TIMESTAMP2 => (Decoder::Timestamp, ColumnKind::Timestamp { fraction_digits }),
        code::YEAR => (Decoder::Year, ColumnKind::Year),
        code::BIT => (Decoder::Bit, ColumnKind::Bit { bits: wire.detail as u8 }),
        code::JSON => (Decoder::Json, ColumnKind::Json),
        code::GEOMETRY => (Decoder::Geometry, ColumnKind::Geometry),
        code::VECTOR => (Decoder::Vector, ColumnKind::Vector),
        _ => return Err(Unplanned::UnknownType),
    };
    Ok((wire.width, decoder, kind))
}

fn integer(wire: WireColumn, known: &Known<'_>) -> Result<Planned, Unplanned> {
    let bytes = match wire.width {
        Width::Fixed(bytes) => bytes as u8,
        _ => return Err(Unplanned::UnknownType),
    };
    let tracked = known.tracked.map(|column| &column.kind);
    let unsigned = match (known.unsigned, tracked) {
        (Some(unsigned), _) => unsigned,
        (None, Some(ColumnKind::Integer { unsigned, .. })) => *unsigned,
        (None, Some(_)) => return Err(Unplanned::Mismatch),
        (None, None) => return Err(Unplanned::Missing("the signs of integers")),
    };
    let decoder = if unsigned { Decoder::Unsigned } else { Decoder::Signed };
    Ok((wire.width, decoder, ColumnKind::Integer { bytes, unsigned }))
}

/// CHAR, VARCHAR, TEXT, BINARY, VARBINARY, BLOB, and MariaDB's types that the event disguises as BINARY.
fn string(wire: WireColumn, known: &Known<'_>) -> Result<Planned, Unplanned> {
    let tracked = known.tracked.map(|column| &column.kind);
    let charset = match (known.charset, tracked) {
        (Some(charset), _) => charset,
        (None, Some(ColumnKind::Text { charset })) => known_charset(charset).ok_or(Unplanned::Mismatch)?,
        (None, Some(_)) => "binary",
        (None, None) => return Err(Unplanned::Missing("the character sets")),
    };
    let compressed = matches!(wire.code, code::VARCHAR_COMPRESSED | code::BLOB_COMPRESSED);
    let fixed = wire.code == code::STRING;
    if charset != "binary" {
        let (text, name) = (Charset::named(charset), charset);
        let decoder = if compressed {
            Decoder::CompressedText { charset: text, name }
        } else {
            Decoder::Text { charset: text, name }
        };
        return Ok((wire.width, decoder, ColumnKind::Text { charset: charset.to_owned() }));
    }
    let (decoder, kind) = match tracked {
        Some(ColumnKind::Inet4) if fixed && wire.detail == 4 => (Decoder::Inet4, ColumnKind::Inet4),
        Some(ColumnKind::Inet6) if fixed && wire.detail == 16 => (Decoder::Inet6, ColumnKind::Inet6),
        Some(ColumnKind::Uuid) if fixed && wire.detail == 16 => (Decoder::Uuid, ColumnKind::Uuid),
        // MariaDB 11.7 and later send VECTOR as VARBINARY.
        Some(ColumnKind::Vector) if wire.code == code::VARCHAR => (Decoder::Vector, ColumnKind::Vector),
        _ if compressed => (Decoder::CompressedBytes, ColumnKind::Bytes { fixed_len: 0 }),
        _ if fixed => (
            Decoder::FixedBytes { len: usize::from(wire.detail) },
            ColumnKind::Bytes { fixed_len: u32::from(wire.detail) },
        ),
        _ => (Decoder::Bytes, ColumnKind::Bytes { fixed_len: 0 }),
    };
    Ok((wire.width, decoder, kind))
}

/// The types of before 5.6. Their fractions, which only MariaDB had, are not in the event.
fn old_temporal(wire: WireColumn, known: &Known<'_>) -> Result<Planned, Unplanned> {
    let digits = match known.tracked.map(|column| &column.kind) {
        Some(
            ColumnKind::Time { fraction_digits }
            | ColumnKind::Datetime { fraction_digits }
            | ColumnKind::Timestamp { fraction_digits },
        ) => *fraction_digits,
        Some(_) => return Err(Unplanned::Mismatch),
        None => return Err(Unplanned::Missing("the fraction digits of old temporal columns")),
    };
    let len = |lens: [u16; 7]| lens.get(usize::from(digits)).copied().map(Width::Fixed).ok_or(Unplanned::Mismatch);
    let plain = digits == 0;
    Ok(match wire.code {
        code::TIME => (
            len(hires::TIME_LEN)?,
            if plain { Decoder::OldTime } else { Decoder::HiresTime { digits } },
            ColumnKind::Time { fraction_digits: digits },
        ),
        code::DATETIME => (
            len(hires::DATETIME_LEN)?,
            if plain { Decoder::OldDatetime } else { Decoder::HiresDatetime { digits } },
            ColumnKind::Datetime { fraction_digits: digits },
        ),
        _ => (
            len(hires::TIMESTAMP_LEN)?,
            if plain { Decoder::OldTimestamp } else { Decoder::HiresTimestamp { digits } },
            ColumnKind::Timestamp { fraction_digits: digits },
        ),
    })
}

fn labels(known: &mut Known<'_>) -> Result<Vec<String>, Unplanned> {
    if let Some(labels) = known.labels.take() {
        return Ok(labels);
    }
    match known.tracked.map(|column| &column.kind) {
        Some(ColumnKind::Enum { labels } | ColumnKind::Set { labels }) => Ok(labels.clone()),
        Some(_) => Err(Unplanned::Mismatch),
        None => Err(Unplanned::Missing("the labels of ENUM and SET columns")),
    }
}

fn boxed(labels: &[String]) -> Box<[Box<str>]> {
    labels.iter().map(|label| label.as_str().into()).collect()
}

/// Whether two kinds read the same bytes the same way. Lengths and labels may differ: they change nothing that the event
/// does not say itself.
fn same_family(tracked: &ColumnKind, event: &ColumnKind) -> bool {
    use ColumnKind::*;
    match (tracked, event) {
        (Integer { bytes: a, .. }, Integer { bytes: b, .. }) => a == b,
        (Decimal { precision: a, scale: b }, Decimal { precision: c, scale: d }) => (a, b) == (c, d),
        (Bit { bits: a }, Bit { bits: b }) => a == b,
        (Time { fraction_digits: a }, Time { fraction_digits: b })
        | (Datetime { fraction_digits: a }, Datetime { fraction_digits: b })
        | (Timestamp { fraction_digits: a }, Timestamp { fraction_digits: b }) => a == b,
        (tracked, event) => std::mem::discriminant(tracked) == std::mem::discriminant(event),
    }
}
