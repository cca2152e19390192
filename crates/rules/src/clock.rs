//! The clock of a change.

use crossfade_model::{CalendarDate, Clock, Row, RowOp, TimeOfDay, Value};

use crate::mapping::{ClockColumn, ClockKind};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A change's own clock, truncated to the precision that both sides share.
///
/// `index` is the place of the clock column in the images given. An insert or update has what its after image says. A
/// delete has its commit time, but never less than its before image said; under a version, the before image's plus
/// one. `None` without a clock column, and where the column is NULL or no point in time (`0000-00-00`).
pub fn own(
    column: &ClockColumn,
    index: usize,
    op: RowOp,
    before: Option<&Row>,
    after: Option<&Row>,
    committed_at_micros: i64,
) -> Option<Clock> {
    let read = |row: Option<&Row>| row.and_then(|row| row.get(index)).and_then(|value| clock_of(column, value));
    match (op, column.kind) {
        (RowOp::Insert | RowOp::Update, _) => read(after),
        (RowOp::Delete, ClockKind::Version) => read(before).map(|clock| Clock(clock.0.saturating_add(1))),
        (RowOp::Delete, ClockKind::Time { fraction_digits }) => {
            read(before).max(Some(Clock(committed_at_micros).truncated(fraction_digits)))
        }
    }
}

/// The effective clock of a change: the maximum of its own clock, the clock in its before image, and the effective clocks
/// of earlier changes of the row on the same side.
///
/// What the change has seen of the other side need not be counted. Two changes are only ever compared when neither has
/// seen the other, and then every change that arrives later from a side meets the same last change of the other: it is
/// enough that a side's own clocks never go back.
pub fn effective(own: Option<Clock>, earlier: impl IntoIterator<Item = Option<Clock>>) -> Option<Clock> {
    earlier.into_iter().fold(own, Option::max)
}

/// What a value of the clock column says, truncated to the shared precision.
pub fn clock_of(column: &ClockColumn, value: &Value) -> Option<Clock> {
    match column.kind {
        ClockKind::Version => version_of(value),
        ClockKind::Time { fraction_digits } => time_of(value).map(|clock| clock.truncated(fraction_digits)),
    }
}

fn version_of(value: &Value) -> Option<Clock> {
    match value {
        Value::Int(number) => Some(Clock(*number)),
        Value::UInt(number) => Some(Clock(i64::try_from(*number).unwrap_or(i64::MAX))),
        _ => None,
    }
}

fn time_of(value: &Value) -> Option<Clock> {
    match value {
        // 0 is the zero timestamp, which is no point in time.
        Value::Timestamp(0) => None,
        Value::Timestamp(micros) => Some(Clock(*micros)),
        Value::Datetime(date, time) => micros_of_datetime(*date, *time).map(Clock),
        _ => None,
    }
}

/// A date and time taken as UTC, in microseconds since the epoch; `None` for zero, partial and impossible dates.
pub(crate) fn micros_of_datetime(date: CalendarDate, time: TimeOfDay) -> Option<i64> {
    let days = days_since_epoch(date)?;
    if time.hour > 23 || time.minute > 59 || time.second > 59 || time.micros >= 1_000_000 {
        return None;
    }
    let seconds = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second);
    Some((days * SECONDS_PER_DAY + seconds) * MICROS_PER_SECOND + i64::from(time.micros))
}

/// Days from 1970-01-01 in the Gregorian calendar, which MySQL uses for all years.
fn days_since_epoch(date: CalendarDate) -> Option<i64> {
    let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    // Years that begin in March have their leap day last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_year = year * 365 + year / 4 - year / 100 + year / 400;
    Some(before_year + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ClockKind) -> ClockColumn {
        ClockColumn { source: "c".to_owned(), target: "c".to_owned(), index: 0, kind }
    }

    fn time(fraction_digits: u8) -> ClockColumn {
        column(ClockKind::Time { fraction_digits })
    }

    fn datetime(year: u16, month: u8, day: u8, hour: u8) -> Value {
        Value::Datetime(CalendarDate { year, month, day }, TimeOfDay { hour, minute: 0, second: 0, micros: 5 })
    }

    #[test]
    fn a_write_has_the_clock_of_its_after_image() {
        let (before, after) = (vec![Value::Timestamp(9_000_000)], vec![Value::Timestamp(1_234_567)]);
        let own = |digits| own(&time(digits), 0, RowOp::Update, Some(&before), Some(&after), 99_000_000);
        assert_eq!(own(6), Some(Clock(1_234_567)));
        assert_eq!(own(3), Some(Clock(1_234_000)));
        assert_eq!(own(0), Some(Clock(1_000_000)));
    }

    #[test]
    fn a_delete_has_its_commit_time_but_not_less_than_the_row_said() {
        let own = |clock, committed| own(&time(0), 0, RowOp::Delete, Some(&vec![clock]), None, committed);
        assert_eq!(own(Value::Timestamp(1_000_000), 5_900_000), Some(Clock(5_000_000)));
        assert_eq!(own(Value::Timestamp(8_700_000), 5_900_000), Some(Clock(8_000_000)));
        assert_eq!(own(Value::Null, 5_900_000), Some(Clock(5_000_000)));
    }

    #[test]
    fn a_deleted_version_counts_as_the_next() {
        let own =
            |op, row: Value| own(&column(ClockKind::Version), 0, op, Some(&vec![row.clone()]), Some(&vec![row]), 9);
        assert_eq!(own(RowOp::Delete, Value::Int(4)), Some(Clock(5)));
        assert_eq!(own(RowOp::Update, Value::Int(4)), Some(Clock(4)));
        assert_eq!(own(RowOp::Delete, Value::UInt(u64::MAX)), Some(Clock(i64::MAX)));
        assert_eq!(own(RowOp::Delete, Value::Null), None);
    }

    #[test]
    fn what_is_no_point_in_time_is_no_clock() {
        for value in [Value::Null, Value::Timestamp(0), datetime(0, 0, 0, 0), datetime(2001, 0, 0, 0), Value::Int(5)] {
            assert_eq!(clock_of(&time(6), &value), None, "{value:?}");
        }
        for date in [(2023, 2, 29), (1900, 2, 29), (2024, 4, 31), (2024, 13, 1), (2024, 1, 32)] {
            assert_eq!(clock_of(&time(6), &datetime(date.0, date.1, date.2, 0)), None, "{date:?}");
        }
        assert_eq!(clock_of(&time(6), &datetime(2024, 1, 1, 24)), None);
    }

    #[test]
    fn a_day_has_so_many_microseconds_and_no_more() {
        let at = |hour, minute, second, micros| {
            let date = CalendarDate { year: 1970, month: 1, day: 1 };
            clock_of(&time(6), &Value::Datetime(date, TimeOfDay { hour, minute, second, micros }))
        };
        assert_eq!(at(23, 59, 59, 999_999), Some(Clock(86_399_999_999)));
        for impossible in [at(24, 0, 0, 0), at(0, 60, 0, 0), at(0, 0, 60, 0), at(0, 0, 0, 1_000_000)] {
            assert_eq!(impossible, None);
        }
    }

    /// From the first year to the last that a server knows, every day follows the one before it.
    #[test]
    fn no_day_is_missing_or_counted_twice() {
        let mut next = days_since_epoch(CalendarDate { year: 1, month: 1, day: 1 });
        for year in 1..=9999_u16 {
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (month, days) in (1..).zip([31, 28 + u8::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                for day in [1, days] {
                    let passed = next.map(|next| next + i64::from(day) - 1);
                    assert_eq!(days_since_epoch(CalendarDate { year, month, day }), passed, "{year}-{month}-{day}");
                }
                assert_eq!(days_since_epoch(CalendarDate { year, month, day: days + 1 }), None);
                next = next.map(|next| next + i64::from(days));
            }
        }
        assert_eq!(days_since_epoch(CalendarDate { year: 1970, month: 1, day: 1 }), Some(0));
        assert_eq!(next, Some(2_932_897));
    }

    #[test]
    fn a_datetime_is_taken_as_utc() {
        let seconds = |value| clock_of(&time(0), &value).map(|clock| clock.0 / MICROS_PER_SECOND);
        assert_eq!(seconds(datetime(1970, 1, 1, 0)), Some(0));
        assert_eq!(seconds(datetime(2000, 2, 29, 12)), Some(951_825_600));
        assert_eq!(seconds(datetime(2038, 1, 19, 3)), Some(2_147_482_800));
        assert_eq!(seconds(datetime(1969, 12, 31, 23)), Some(-3600));
        assert_eq!(seconds(datetime(9999, 12, 31, 23)), Some(253_402_297_200));
        assert_eq!(clock_of(&time(6), &datetime(1970, 1, 1, 0)), Some(Clock(5)));
    }

    #[test]
    fn the_effective_clock_never_goes_back() {
        let clocks = [Some(Clock(3)), None, Some(Clock(7))];
        assert_eq!(effective(Some(Clock(5)), clocks), Some(Clock(7)));
        assert_eq!(effective(Some(Clock(9)), clocks), Some(Clock(9)));
        assert_eq!(effective(None, clocks), Some(Clock(7)));
        assert_eq!(effective(None, [None]), None);
    }

    #[test]
    fn images_that_are_too_short_have_no_clock() {
        assert_eq!(own(&time(6), 0, RowOp::Insert, None, Some(&vec![]), 9), None);
        assert_eq!(own(&time(6), 0, RowOp::Insert, None, None, 9), None);
    }
}
