//! Rows of the target as values that compare with what a binlog gave.

use crossfade_model::{CalendarDate, ColumnKind, JsonDocument, TimeOfDay, Value as Cell};
use mysql_async::Value as Raw;

use crate::bind::decodes_to_unicode;

/// One column of a row that came over the binary protocol.
///
/// What does not fit its column's kind comes back as [`Cell::Bytes`]; it then equals nothing, which only costs a look-up.
pub(crate) fn cell(raw: Raw, kind: &ColumnKind) -> Cell {
    match (raw, kind) {
        (Raw::NULL, _) => Cell::Null,
        (Raw::Int(number), ColumnKind::Year) => Cell::Year(number.try_into().unwrap_or(0)),
        (Raw::UInt(number), ColumnKind::Year) => Cell::Year(number.try_into().unwrap_or(0)),
        (Raw::Int(number), _) => Cell::Int(number),
        (Raw::UInt(number), _) => Cell::UInt(number),
        (Raw::Float(number), _) => Cell::Float(number),
        (Raw::Double(number), _) => Cell::Double(number),
        (Raw::Date(year, month, day, hour, minute, second, micros), kind) => {
            let date = CalendarDate { year, month, day };
            let time = TimeOfDay { hour, minute, second, micros };
            match kind {
                ColumnKind::Date => Cell::Date(date),
                ColumnKind::Timestamp { .. } => Cell::Timestamp(epoch_micros(date, time).unwrap_or(0)),
                _ => Cell::Datetime(date, time),
            }
        }
        (Raw::Time(negative, days, hours, minute, second, micros), _) => {
            let hours = days.saturating_mul(24).saturating_add(hours.into()).try_into().unwrap_or(u16::MAX);
            Cell::Time { negative, hours, minute, second, micros }
        }
        (Raw::Bytes(bytes), kind) => from_bytes(bytes, kind),
    }
}

fn from_bytes(bytes: Vec<u8>, kind: &ColumnKind) -> Cell {
    match kind {
        ColumnKind::Bit { .. } => {
            Cell::Bit(bytes.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte)))
        }
        ColumnKind::Bytes { .. } => Cell::Bytes(bytes),
        ColumnKind::Geometry => Cell::Geometry(bytes),
        ColumnKind::Vector => Cell::Vector(bytes),
        _ => match (String::from_utf8(bytes), kind) {
            (Ok(text), ColumnKind::Decimal { .. }) => Cell::Decimal(text),
            (Ok(text), ColumnKind::Enum { .. }) => Cell::Enum(text),
            (Ok(text), ColumnKind::Set { .. }) => Cell::Set(text),
            (Ok(text), ColumnKind::Json) => Cell::Json(JsonDocument { text, opaque: Vec::new() }),
            (Ok(text), _) => Cell::Text(text),
            (Err(bytes), _) => Cell::Bytes(bytes.into_bytes()),
        },
    }
}

/// Whether a row read from the target holds exactly what an image of the source says.
pub(crate) fn same_image(target: &[Cell], image: &[Cell]) -> bool {
    target.len() == image.len() && target.iter().zip(image).all(|(target, image)| same_cell(target, image))
}

pub(crate) fn same_cell(target: &Cell, image: &Cell) -> bool {
    match (target, image) {
        // Read with the source's character set applied, as bytes; plain letters look like text.
        (Cell::Bytes(target), Cell::Encoded { bytes, .. }) => target == bytes,
        (Cell::Text(target), Cell::Encoded { charset, bytes }) => {
            !decodes_to_unicode(charset) && target.as_bytes() == bytes
        }
        // The document's text is the same for equal documents; types that text cannot say are not compared by sight.
        (Cell::Json(target), Cell::Json(image)) => image.opaque.is_empty() && target.text == image.text,
        (target, image) => target == image,
    }
}

fn epoch_micros(date: CalendarDate, time: TimeOfDay) -> Option<i64> {
    let day = chrono::NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into())?;
    let moment = day.and_hms_micro_opt(time.hour.into(), time.minute.into(), time.second.into(), time.micros)?;
    Some(moment.and_utc().timestamp_micros())
}
