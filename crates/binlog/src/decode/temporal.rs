//! Dates and times from their stored forms (MySQL Internals, "Date and Time Data Type Representation").

use crossfade_model::{CalendarDate, TimeOfDay, Value};

use super::cursor::{be_uint, le_uint};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// What one unit of a fraction of so many stored bytes is worth in microseconds.
fn fraction_unit(bytes: usize) -> u32 {
    match bytes {
        1 => 10_000,
        2 => 100,
        _ => 1,
    }
}

/// A big-endian number that was made positive by adding half its range.
fn offset_be(bytes: &[u8]) -> i64 {
    let bits = (bytes.len().clamp(1, 8) * 8) as u32;
    (be_uint(bytes) as i64).wrapping_sub(1_i64.wrapping_shl(bits - 1))
}

/// DATE: year, month and day in 15, 4 and 5 bits.
pub(super) fn date(bytes: &[u8]) -> CalendarDate {
    let packed = le_uint(bytes);
    CalendarDate { year: (packed >> 9) as u16, month: (packed >> 5 & 15) as u8, day: (packed & 31) as u8 }
}

/// TIME since 5.6: whole and fraction are one signed number, so that a negative time's fraction needs no care.
pub(super) fn time2(bytes: &[u8]) -> Value {
    let fraction_bytes = bytes.len().saturating_sub(3);
    let packed = offset_be(bytes);
    let (negative, packed) = (packed < 0, packed.unsigned_abs());
    let whole = packed >> (8 * fraction_bytes);
    let fraction = packed - (whole << (8 * fraction_bytes));
    Value::Time {
        negative,
        hours: (whole >> 12 & 0x3ff) as u16,
        minute: (whole >> 6 & 63) as u8,
        second: (whole & 63) as u8,
        micros: fraction as u32 * fraction_unit(fraction_bytes),
    }
}

/// DATETIME since 5.6.
pub(super) fn datetime2(bytes: &[u8]) -> Value {
    let (whole, fraction) = bytes.split_at(bytes.len().min(5));
    let whole = offset_be(whole).max(0) as u64;
    datetime_of_parts(whole, be_uint(fraction) as u32 * fraction_unit(fraction.len()))
}

/// Year times 13 plus month, day, hour, minute and second in 17, 5, 5, 6 and 6 bits.
pub(super) fn datetime_of_parts(whole: u64, micros: u32) -> Value {
    let (date, time) = (whole >> 17, whole & 0x1_ffff);
    let months = date >> 5;
    Value::Datetime(
        CalendarDate { year: (months / 13) as u16, month: (months % 13) as u8, day: (date & 31) as u8 },
        TimeOfDay { hour: (time >> 12) as u8, minute: (time >> 6 & 63) as u8, second: (time & 63) as u8, micros },
    )
}

/// TIMESTAMP since 5.6. The seconds are unsigned: MariaDB 11.5 and later count on after 2038.
pub(super) fn timestamp2(bytes: &[u8]) -> Value {
    let (whole, fraction) = bytes.split_at(bytes.len().min(4));
    let micros = be_uint(fraction) as i64 * i64::from(fraction_unit(fraction.len()));
    Value::Timestamp(be_uint(whole) as i64 * MICROS_PER_SECOND + micros)
}

/// TIME before 5.6: `hhmmss` as a signed decimal number.
pub(super) fn old_time(bytes: &[u8]) -> Value {
    let number = (le_uint(bytes) << 40) as i64 >> 40;
    let digits = number.unsigned_abs();
    Value::Time {
        negative: number < 0,
        hours: (digits / 10_000) as u16,
        minute: (digits / 100 % 100) as u8,
        second: (digits % 100) as u8,
        micros: 0,
    }
}

/// DATETIME before 5.6: `yyyymmddhhmmss` as a decimal number.
pub(super) fn old_datetime(bytes: &[u8]) -> Value {
    let number = le_uint(bytes);
    let (date, time) = (number / 1_000_000, number % 1_000_000);
    Value::Datetime(
        CalendarDate {
            year: (date / 10_000).min(u64::from(u16::MAX)) as u16,
            month: (date / 100 % 100) as u8,
            day: (date % 100) as u8,
        },
        TimeOfDay {
            hour: (time / 10_000) as u8,
            minute: (time / 100 % 100) as u8,
            second: (time % 100) as u8,
            micros: 0,
        },
    )
}

/// TIMESTAMP before 5.6: seconds.
pub(super) fn old_timestamp(bytes: &[u8]) -> Value {
    Value::Timestamp(le_uint(bytes) as i64 * MICROS_PER_SECOND)
}

/// MariaDB's own temporal types with fractions, written under `mysql56_temporal_format=OFF`.
pub(super) mod hires {
    use super::*;

    /// Stored bytes by fraction digits.
    pub const TIME_LEN: [u16; 7] = [3, 4, 4, 5, 5, 5, 6];
    pub const DATETIME_LEN: [u16; 7] = [8, 6, 6, 7, 7, 7, 8];
    pub const TIMESTAMP_LEN: [u16; 7] = [4, 5, 5, 6, 6, 7, 7];

    /// The zero point is one second after the greatest time, 838:59:59.
    const TIME_ZERO_SECONDS: i64 = 838 * 3600 + 59 * 60 + 59 + 1;

    fn unit(digits: u8) -> i64 {
        10_i64.pow(6_u32.saturating_sub(u32::from(digits)))
    }

    /// Big-endian units of the fraction since the zero point.
    pub fn time(bytes: &[u8], digits: u8) -> Value {
        let zero = TIME_ZERO_SECONDS * MICROS_PER_SECOND / unit(digits);
        let micros = (be_uint(bytes) as i64).saturating_sub(zero).saturating_mul(unit(digits));
        let (negative, micros) = (micros < 0, micros.unsigned_abs());
        let seconds = micros / MICROS_PER_SECOND as u64;
        Value::Time {
            negative,
            hours: (seconds / 3600) as u16,
            minute: (seconds / 60 % 60) as u8,
            second: (seconds % 60) as u8,
            micros: (micros % MICROS_PER_SECOND as u64) as u32,
        }
    }

    /// Big-endian mixed-radix number: year, month of 13, day of 32, hour, minute, second, fraction.
    pub fn datetime(bytes: &[u8], digits: u8) -> Value {
        let micros = be_uint(bytes).saturating_mul(unit(digits) as u64);
        let mut rest = micros / MICROS_PER_SECOND as u64;
        let mut part = |radix: u64| {
            let part = rest % radix;
            rest /= radix;
            part as u8
        };
        let (second, minute, hour, day, month) = (part(60), part(60), part(24), part(32), part(13));
        let micros = (micros % MICROS_PER_SECOND as u64) as u32;
        let date = CalendarDate { year: rest.min(u64::from(u16::MAX)) as u16, month, day };
        Value::Datetime(date, TimeOfDay { hour, minute, second, micros })
    }

    /// Big-endian seconds, then big-endian units of the fraction.
    pub fn timestamp(bytes: &[u8], digits: u8) -> Value {
        let (whole, fraction) = bytes.split_at(bytes.len().min(4));
        Value::Timestamp(
            be_uint(whole) as i64 * MICROS_PER_SECOND + (be_uint(fraction) as i64).saturating_mul(unit(digits)),
        )
    }
}
