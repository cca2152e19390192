//! Times as text, fast. Microseconds since the epoch to `YYYY-MM-DD hh:mm:ss.ffffff` and back.

use crossfade_model::{CalendarDate, TimeOfDay};

const DAY_MICROS: i64 = 86_400_000_000;

/// Year, month, day of a day number since 1970-01-01, in the proleptic Gregorian calendar; `None` outside years 0 to 9999.
fn date_of_day(day: i64) -> Option<CalendarDate> {
    // Days since 0000-03-01, so that the leap day is a year's last.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let year = u16::try_from(year).ok().filter(|year| *year <= 9999)?;
    Some(CalendarDate { year, month: month as u8, day: day_of_month as u8 })
}

/// The inverse of [`date_of_day`], for real dates.
fn day_of_date(date: CalendarDate) -> i64 {
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `None` outside years 0 to 9999.
pub fn split_micros(micros: i64) -> Option<(CalendarDate, TimeOfDay)> {
    let date = date_of_day(micros.div_euclid(DAY_MICROS))?;
    let rest = micros.rem_euclid(DAY_MICROS);
    let seconds = rest / 1_000_000;
    let time = TimeOfDay {
        hour: (seconds / 3600) as u8,
        minute: (seconds / 60 % 60) as u8,
        second: (seconds % 60) as u8,
        micros: (rest % 1_000_000) as u32,
    };
    Some((date, time))
}

pub fn join_micros(date: CalendarDate, time: TimeOfDay) -> i64 {
    let seconds = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second);
    day_of_date(date) * DAY_MICROS + seconds * 1_000_000 + i64::from(time.micros)
}

/// Two digits; `number` below 100.
pub fn push_two(out: &mut Vec<u8>, number: u8) {
    out.extend_from_slice(&[b'0' + number / 10, b'0' + number % 10]);
}

/// `false`, and nothing written, if a part has too many digits for its place.
pub fn push_date(out: &mut Vec<u8>, date: CalendarDate) -> bool {
    if date.year > 9999 || date.month > 99 || date.day > 99 {
        return false;
    }
    push_two(out, (date.year / 100) as u8);
    push_two(out, (date.year % 100) as u8);
    out.push(b'-');
    push_two(out, date.month);
    out.push(b'-');
    push_two(out, date.day);
    true
}

/// `:mm:ss` and the fraction. `false`, and nothing written, if a part has too many digits for its place.
pub fn push_minutes(out: &mut Vec<u8>, minute: u8, second: u8, micros: u32, fraction_digits: u8) -> bool {
    if minute > 99 || second > 99 || micros > 999_999 {
        return false;
    }
    out.push(b':');
    push_two(out, minute);
    out.push(b':');
    push_two(out, second);
    push_fraction(out, micros, fraction_digits);
    true
}

/// As many digits as the column has, or six where they would not do.
fn push_fraction(out: &mut Vec<u8>, micros: u32, fraction_digits: u8) {
    let kept = usize::from(fraction_digits.min(6));
    let digits = if micros.is_multiple_of(10_u32.pow(6 - kept as u32)) { kept } else { 6 };
    if digits == 0 {
        return;
    }
    let mut text = *b".000000";
    let mut rest = micros;
    for place in text[1..].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[..=digits]);
}

/// `YYYY-MM-DD hh:mm:ss[.f]`. `false`, and nothing written, if a part has too many digits for its place.
pub fn push_datetime(out: &mut Vec<u8>, date: CalendarDate, time: TimeOfDay, fraction_digits: u8) -> bool {
    let start = out.len();
    let fits = push_date(out, date) && time.hour <= 99 && {
        out.push(b' ');
        push_two(out, time.hour);
        push_minutes(out, time.minute, time.second, time.micros, fraction_digits)
    };
    if !fits {
        out.truncate(start);
    }
    fits
}

/// Reads digits; `None` if there is anything else, or nothing.
fn number(text: &str) -> Option<u32> {
    if text.is_empty() || text.len() > 6 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.bytes().fold(0, |sum, byte| sum * 10 + u32::from(byte - b'0')))
}

fn small(text: &str) -> Option<u8> {
    number(text)?.try_into().ok()
}

pub fn parse_date(text: &str) -> Option<CalendarDate> {
    let date = CalendarDate {
        year: number(text.get(..4)?)? as u16,
        month: small(text.get(5..7)?)?,
        day: small(text.get(8..10)?)?,
    };
    (text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-').then_some(date)
}

/// Hours of any length, minutes, seconds, microseconds.
pub fn parse_time(text: &str) -> Option<(u16, u8, u8, u32)> {
    let (hours, rest) = text.split_once(':')?;
    let (minute, rest) = rest.split_once(':')?;
    let (second, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let micros = match fraction.len() {
        0 => 0,
        digits @ 1..=6 => number(fraction)? * 10_u32.pow(6 - digits as u32),
        _ => return None,
    };
    Some((u16::try_from(number(hours)?).ok()?, small(minute)?, small(second)?, micros))
}

pub fn parse_datetime(text: &str) -> Option<(CalendarDate, TimeOfDay)> {
    let (date, time) = text.split_once(' ')?;
    let (hour, minute, second, micros) = parse_time(time)?;
    Some((parse_date(date)?, TimeOfDay { hour: u8::try_from(hour).ok()?, minute, second, micros }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(micros: i64) -> String {
        let (date, time) = split_micros(micros).unwrap();
        let mut out = Vec::new();
        assert!(push_datetime(&mut out, date, time, 6));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_moments_have_their_known_text() {
        assert_eq!(text(0), "1970-01-01 00:00:00.000000");
        assert_eq!(text(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(text(951_782_400_000_000), "2000-02-29 00:00:00.000000");
        assert_eq!(text(253_402_300_799_999_999), "9999-12-31 23:59:59.999999");
        assert_eq!(split_micros(253_402_300_800_000_000), None);
        assert_eq!(split_micros(i64::MIN), None);
        assert_eq!(split_micros(i64::MAX), None);
    }

    #[test]
    fn fractions_have_the_columns_digits_or_all() {
        let mut out = Vec::new();
        push_minutes(&mut out, 1, 2, 120_000, 2);
        push_minutes(&mut out, 1, 2, 120_001, 2);
        push_minutes(&mut out, 1, 2, 0, 0);
        assert_eq!(out, b":01:02.12:01:02.120001:01:02");
    }

    proptest! {
        #[test]
        fn every_moment_survives_its_text(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let (date, time) = parse_datetime(&text(micros)).unwrap();
            prop_assert_eq!(join_micros(date, time), micros);
        }
    }
}
