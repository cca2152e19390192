//! Doubles as the server prints them inside JSON.

use std::fmt::Write;

/// Digits before the point up to which the server writes a number out (`MAX_DECPT_FOR_F_FORMAT`, which is `DBL_DIG`).
const MAX_POINT: i32 = 15;

/// Appends the shortest digits that read back as the same number, with a point or an exponent so that it stays a double.
pub(super) fn print(text: &mut String, number: f64) {
    let start = text.len();
    // Rust's exponent form has the same shortest digits: `-1.2345e-7`.
    let _ = write!(text, "{number:e}");
    let Some((mantissa, exponent)) = text[start..].split_once('e') else { return };
    let Ok(exponent) = exponent.parse::<i32>() else { return };
    let negative = mantissa.starts_with('-');
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = evened(number, digits);
    // The number is 0.digits times ten to the power of `point`.
    let point = if number == 0.0 { 1 } else { exponent + 1 };
    if !(1 - MAX_POINT..=MAX_POINT).contains(&point) {
        return;
    }
    text.truncate(start);
    if negative {
        text.push('-');
    }
    if point <= 0 {
        text.push_str("0.");
        text.extend(std::iter::repeat_n('0', point.unsigned_abs() as usize));
        text.push_str(&digits);
        return;
    }
    let point = point as usize;
    let (whole, fraction) = digits.split_at(point.min(digits.len()));
    text.push_str(whole);
    text.extend(std::iter::repeat_n('0', point - whole.len()));
    text.push('.');
    text.push_str(if fraction.is_empty() { "0" } else { fraction });
}

/// Of two shortest texts that are equally near, the server takes the one that ends in an even digit, and Rust the greater one.
fn evened(number: f64, digits: String) -> String {
    // Fewer digits never leave a choice: as many decimal digits as 15 mean different doubles.
    let Some(odd) = digits.bytes().last().filter(|last| digits.len() > 15 && last % 2 == 1) else { return digits };
    // Halfway means that the number's own digits end one place later, with a 5.
    let exact = format!("{:.40e}", number.abs());
    let exact: String = exact.split('e').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    let (kept, rest) = exact.split_at(digits.len().min(exact.len()));
    if rest.trim_end_matches('0') != "5" || kept >= digits.as_str() {
        return digits;
    }
    let mut even = digits;
    even.pop();
    even.push(char::from(odd - 1));
    even
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(number: f64) -> String {
        let mut text = String::new();
        print(&mut text, number);
        text
    }

    /// What MySQL 9.7.4 prints.
    #[test]
    fn as_the_server_prints_them() {
        for (number, text) in [
            (1e14, "100000000000000.0"),
            (1e15, "1e15"),
            (1234567890123456e0, "1.234567890123456e15"),
            (1e-14, "0.00000000000001"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (1.5e-20, "1.5e-20"),
            (-0.0, "-0.0"),
            (0.0, "0.0"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (0.1, "0.1"),
            (100.0, "100.0"),
            (123456789012345.6, "123456789012345.6"),
            (f64::from(1.1_f32), "1.100000023841858"),
            (7108525246119442.0 / 8.0, "888565655764930.2"),
            (7108525246119446.0 / 8.0, "888565655764930.8"),
        ] {
            assert_eq!(printed(number), text);
        }
    }

    proptest! {
        #[test]
        fn every_number_reads_back(number: f64) {
            prop_assume!(number.is_finite());
            let text = printed(number);
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
            prop_assert!(text.contains(['.', 'e']));
        }
    }
}
