//! How columns stand in the event: type codes, their metadata, and how many bytes a cell takes.

use super::DecodeError;
use super::cursor::Cursor;

/// Type codes of table map events (MySQL `field_types.h`; 140 and 141 are MariaDB's).
pub(super) mod code {
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// One column as the fixed part of a table map event declares it. ENUM and SET, which the event disguises as
/// STRING, have their own codes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireColumn {
    pub code: u8,
    /// Precision, fraction digits, BIT's bits or the greatest length, as the type needs it.
    pub detail: u16,
    /// DECIMAL's digits after the point.
    pub scale: u8,
    pub width: Width,
}

/// How many bytes a cell takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fixed(u16),
    /// A little-endian length of so many bytes comes first.
    Prefixed(u8),
    /// Only the table's definition tells: temporal types of before 5.6, which on MariaDB can have fractions. Also types that
    /// are not known. An error as soon as a row has such a cell.
    Unknown,
}

impl Width {
    #[inline]
    pub fn take<'a>(self, rows: &mut Cursor<'a>) -> Result<&'a [u8], DecodeError> {
        match self {
            Width::Fixed(len) => rows.take(usize::from(len), "a row"),
            Width::Prefixed(1) => rows.prefixed(1, "a row"),
            Width::Prefixed(2) => rows.prefixed(2, "a row"),
            Width::Prefixed(prefix) => rows.prefixed(usize::from(prefix), "a row"),
            Width::Unknown => Err(DecodeError::Malformed { what: "a cell whose length is not known" }),
        }
    }
}

impl WireColumn {
    /// Reads the type's part of the metadata block. A type that is not known has none, so that the error can come later
    /// and name the column.
    pub fn parse(code: u8, metadata: &mut Cursor<'_>) -> Result<WireColumn, DecodeError> {
        let plain = |width: u16| Ok(WireColumn { code, detail: 0, scale: 0, width: Width::Fixed(width) });
        let mut u8 = || metadata.u8("column metadata");
        match code {
            code::TINY | code::YEAR => plain(1),
            code::SHORT => plain(2),
            code::INT24 | code::DATE | code::NEWDATE => plain(3),
            code::LONG => plain(4),
            code::LONGLONG => plain(8),
            code::FLOAT | code::DOUBLE => {
                let size = u8()?;
                plain(u16::from(size))
            }
            code::TIMESTAMP2 | code::DATETIME2 | code::TIME2 => {
                let digits = u8()?;
                let whole = match code {
                    code::TIMESTAMP2 => 4,
                    code::DATETIME2 => 5,
                    _ => 3,
                };
                if digits > 6 {
                    return Err(DecodeError::Malformed { what: "fraction digits" });
                }
                let width = Width::Fixed(whole + u16::from(digits.div_ceil(2)));
                Ok(WireColumn { code, detail: u16::from(digits), scale: 0, width })
            }
            code::VARCHAR | code::VAR_STRING | code::VARCHAR_COMPRESSED => {
                let detail = u16::from_le_bytes([u8()?, u8()?]);
                let width = Width::Prefixed(if detail > 255 { 2 } else { 1 });
                Ok(WireColumn { code, detail, scale: 0, width })
            }
            code::BIT => {
                let (rest, bytes) = (u8()?, u8()?);
                let bits = u16::from(bytes) * 8 + u16::from(rest);
                if rest > 7 || bits == 0 || bits > 64 {
                    return Err(DecodeError::Malformed { what: "bits of a BIT column" });
                }
                Ok(WireColumn { code, detail: bits, scale: 0, width: Width::Fixed(bits.div_ceil(8)) })
            }
            code::NEWDECIMAL => {
                let (precision, scale) = (u8()?, u8()?);
                let width = super::decimal::stored_len(precision, scale)
                    .ok_or(DecodeError::Malformed { what: "precision of a DECIMAL column" })?;
                Ok(WireColumn { code, detail: u16::from(precision), scale, width: Width::Fixed(width) })
            }
            code::TINY_BLOB
            | code::MEDIUM_BLOB
            | code::LONG_BLOB
            | code::BLOB
            | code::BLOB_COMPRESSED
            | code::JSON
            | code::VECTOR
            | code::GEOMETRY => {
                let prefix = u8()?;
                if !(1..=4).contains(&prefix) {
                    return Err(DecodeError::Malformed { what: "length bytes of a BLOB column" });
                }
                Ok(WireColumn { code, detail: 0, scale: 0, width: Width::Prefixed(prefix) })
            }
            code::STRING => {
                let (real, len) = (u8()?, u8()?);
                Ok(string(real, len))
            }
            _ => Ok(WireColumn { code, detail: 0, scale: 0, width: Width::Unknown }),
        }
    }
}

/// STRING hides three types: the first metadata byte is the real one, and two of its bits, inverted, are the high bits of a
/// CHAR's length (MySQL bug 37426).
fn string(real: u8, len: u8) -> WireColumn {
    if matches!(real, code::ENUM | code::SET) {
        return WireColumn { code: real, detail: u16::from(len), scale: 0, width: Width::Fixed(u16::from(len)) };
    }
    let len = u16::from(len) | (u16::from(real & 0x30) ^ 0x30) << 4;
    WireColumn { code: code::STRING, detail: len, scale: 0, width: Width::Prefixed(if len > 255 { 2 } else { 1 }) }
}
