//! The clock of a change.

use crossfade_model::{CalendarDate, Clock, Row, RowChange, RowOp, TimeOfDay, Value};

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

/// [`own`] for a captured change, whose images are in the order of its layout. `None` where the layout lacks the column.
pub fn own_of_change(column: &ClockColumn, change: &RowChange, committed_at_micros: i64) -> Option<Clock> {
    let index = change.layout.columns.iter().position(|name| name.eq_ignore_ascii_case(&column.source))?;
    own(column, index, change.op, change.before.as_ref(), change.after.as_ref(), committed_at_micros)
}

/// The effective clock of a change: the maximum of its own clock and of the effective clocks of all earlier changes of
/// the row that it follows or has seen.
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
