//! Adding up and comparing values of a column, exactly.

use std::cmp::Ordering;

use crossfade_model::{MergeRule, Value};
use num_bigint::{BigInt, Sign};

use crate::clock::micros_of_datetime;
use crate::key::{Fineness, render};

/// `value + (after - before)`. NULL, which sums should not have, counts as 0.
///
/// A sum that no column of the kind can hold is given as a DECIMAL, so that the server refuses it.
pub fn with_difference(value: &Value, before: &Value, after: &Value) -> Value {
    let numbers = [value, before, after].map(Decimal::of);
    let scale = numbers.iter().map(|number| number.scale).max().unwrap_or(0);
    let [value_digits, before, after] = numbers.map(|number| number.at_scale(scale));
    let sum = Decimal { digits: value_digits + after - before, scale };
    let is_decimal = matches!(value, Value::Decimal(_)) || scale > 0;
    let whole = (!is_decimal).then(|| {
        let signed = i64::try_from(&sum.digits).ok().map(Value::Int);
        signed.or_else(|| u64::try_from(&sum.digits).ok().map(Value::UInt))
    });
    whole.flatten().unwrap_or_else(|| Value::Decimal(sum.text()))
}

/// Whether a column keeps `value` against `other`. Equal values do not prevail over each other.
pub(super) fn prevails(rule: MergeRule, value: &Value, other: &Value) -> bool {
    match (value.is_null(), other.is_null()) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => {
            let order = compare(value, other);
            if rule == MergeRule::Min { order == Ordering::Less } else { order == Ordering::Greater }
        }
    }
}

/// An order of all values of one column, the same on both sides.
fn compare(a: &Value, b: &Value) -> Ordering {
    use Value::*;
    match (a, b) {
        (Int(_) | UInt(_) | Decimal(_), Int(_) | UInt(_) | Decimal(_)) => {
            let numbers = [a, b].map(self::Decimal::of);
            let scale = numbers.iter().map(|number| number.scale).max().unwrap_or(0);
            let [a, b] = numbers.map(|number| number.at_scale(scale));
            a.cmp(&b)
        }
        (Float(a), Float(b)) => a.total_cmp(b),
        (Double(a), Double(b)) => a.total_cmp(b),
        (Date(a), Date(b)) => a.cmp(b),
        (Datetime(date, time), Datetime(other_date, other_time)) => (date, time).cmp(&(other_date, other_time)),
        (Timestamp(a), Timestamp(b)) => a.cmp(b),
        // What is no point in time is before all that are.
        (Timestamp(a), Datetime(date, time)) => Some(*a).filter(|a| *a != 0).cmp(&micros_of_datetime(*date, *time)),
        (Datetime(..), Timestamp(_)) => compare(b, a).reverse(),
        (Time { .. }, Time { .. }) => time_micros(a).cmp(&time_micros(b)),
        (Year(a), Year(b)) => a.cmp(b),
        _ => {
            let [a, b] = [a, b].map(|value| {
                let mut bytes = Vec::new();
                render(Fineness::Exact, value, &mut bytes);
                bytes
            });
            a.cmp(&b)
        }
    }
}

fn time_micros(time: &Value) -> i64 {
    let Value::Time { negative, hours, minute, second, micros } = time else { return 0 };
    let seconds = i64::from(*hours) * 3600 + i64::from(*minute) * 60 + i64::from(*second);
    let size = seconds * 1_000_000 + i64::from(*micros);
    if *negative { -size } else { size }
}

/// A number as its digits, without a point, and how many of them stand after it.
#[derive(Debug, Default)]
struct Decimal {
    digits: BigInt,
    scale: usize,
}

impl Decimal {
    fn of(value: &Value) -> Decimal {
        match value {
            Value::Int(number) => Decimal { digits: BigInt::from(*number), scale: 0 },
            Value::UInt(number) => Decimal { digits: BigInt::from(*number), scale: 0 },
            Value::Decimal(text) => {
                let scale = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
                let digits = text.replace('.', "").parse();
                digits.map_or_else(|_| Decimal::default(), |digits| Decimal { digits, scale })
            }
            _ => Decimal::default(),
        }
    }

    fn at_scale(self, scale: usize) -> BigInt {
        let missing = u32::try_from(scale.saturating_sub(self.scale)).unwrap_or(0);
        self.digits * BigInt::from(10).pow(missing)
    }

    /// As servers print it.
    fn text(&self) -> String {
        let digits = self.digits.magnitude().to_string();
        let sign = if self.digits.sign() == Sign::Minus { "-" } else { "" };
        if self.scale == 0 {
            return format!("{sign}{digits}");
        }
        let digits = format!("{digits:0>width$}", width = self.scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - self.scale);
        format!("{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfade_model::{CalendarDate, TimeOfDay};

    fn decimal(text: &str) -> Value {
        Value::Decimal(text.to_owned())
    }

    #[test]
    fn integers_add_up() {
        let sum = |value, before, after| with_difference(&Value::Int(value), &Value::Int(before), &Value::Int(after));
        assert_eq!(sum(10, 3, 5), Value::Int(12));
        assert_eq!(sum(-10, 5, 3), Value::Int(-12));
        let great = Value::UInt(u64::MAX - 1);
        assert_eq!(with_difference(&great, &Value::Int(0), &Value::Int(1)), Value::UInt(u64::MAX));
        assert_eq!(with_difference(&great, &great, &Value::Int(0)), Value::Int(0));
        let too_great = with_difference(&great, &Value::Int(0), &Value::Int(2));
        assert_eq!(too_great, decimal("18446744073709551616"), "no column holds it, and the server says so");
        assert_eq!(with_difference(&Value::Null, &Value::Int(1), &Value::Int(3)), Value::Int(2));
    }

    #[test]
    fn decimals_add_up_to_the_last_digit() {
        let sum = |value, before, after| match with_difference(&decimal(value), &decimal(before), &decimal(after)) {
            Value::Decimal(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(sum("10.50", "0.25", "0.75"), "11.00");
        assert_eq!(sum("0.05", "0.10", "0.00"), "-0.05");
        assert_eq!(sum("-0.50", "0.00", "0.50"), "0.00");
        assert_eq!(sum("7", "10", "5"), "2");
        let nines = format!("{}.{}", "9".repeat(34), "9".repeat(30));
        let one = format!("0.{}1", "0".repeat(29));
        assert_eq!(
            sum(&nines, "0.000000000000000000000000000000", &one),
            format!("1{}.{}", "0".repeat(34), "0".repeat(30))
        );
        assert_eq!(sum("1.5", "1", "2.25"), "2.75", "a column whose scale has changed");
    }

    #[test]
    fn the_greater_and_the_smaller_value_prevail_and_null_never_does() {
        let date = |year| CalendarDate { year, month: 1, day: 1 };
        let time = |negative, hours| Value::Time { negative, hours, minute: 0, second: 0, micros: 0 };
        let datetime = |year| Value::Datetime(date(year), TimeOfDay::default());
        let ascending = [
            (Value::Int(-1), Value::UInt(u64::MAX)),
            (decimal("-1.50"), decimal("-1.25")),
            (decimal("9.00"), decimal("10.00")),
            (Value::Double(-0.5), Value::Double(2.0)),
            (Value::Float(9.0), Value::Float(10.0)),
            (Value::Date(date(999)), Value::Date(date(2000))),
            (datetime(1969), datetime(1970)),
            (datetime(1971), Value::Timestamp(i64::MAX)),
            (Value::Timestamp(0), datetime(1971)),
            (Value::Timestamp(5), Value::Timestamp(6)),
            (time(true, 9), time(true, 8)),
            (time(true, 9), time(false, 8)),
            (Value::Year(0), Value::Year(1901)),
        ];
        for (less, more) in ascending {
            for (rule, strong, weak) in [(MergeRule::Max, &more, &less), (MergeRule::Min, &less, &more)] {
                assert!(prevails(rule, strong, weak) && !prevails(rule, weak, strong), "{less:?} {more:?}");
                assert!(!prevails(rule, strong, strong), "{strong:?}");
                assert!(prevails(rule, weak, &Value::Null) && !prevails(rule, &Value::Null, weak));
            }
        }
        assert!(!prevails(MergeRule::Max, &Value::Null, &Value::Null));
    }
}
