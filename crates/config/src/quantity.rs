//! Lengths of time, sizes and shares, with units.

use std::time::Duration;

/// Reads `250ms`, `10s`, `7d`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Reads `512MiB`, `4 KiB`, `20GB`, `100B`: a whole number and a unit.
pub(crate) fn size_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Reads `1%`, `0.25 %`, `100%`: at most four digits after the point, at most 100. As parts of a million.
pub(crate) fn share_ppm(text: &str) -> Option<u32> {
    const PPM_PER_PERCENT: u32 = 10_000;
    let number = text.trim().strip_suffix('%')?.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 4 {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<4}").parse().ok()?;
    let ppm = whole.parse::<u32>().ok()?.checked_mul(PPM_PER_PERCENT)?.checked_add(fraction)?;
    (ppm <= 100 * PPM_PER_PERCENT).then_some(ppm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent() {
        let cases = [
            ("1%", Some(10_000)),
            ("0.25 %", Some(2_500)),
            ("0.0001%", Some(1)),
            ("100%", Some(1_000_000)),
            ("100.1%", None),
            ("1", None),
            ("-1%", None),
            (".5%", None),
            ("0.00001%", None),
            ("99999999999%", None),
            ("%", None),
        ];
        for (text, expected) in cases {
            assert_eq!(share_ppm(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_need_a_unit() {
        let cases = [
            ("512MiB", Some(512 << 20)),
            ("4 KiB", Some(4096)),
            ("20GB", Some(20_000_000_000)),
            ("0B", Some(0)),
            ("512", None),
            ("MiB", None),
            ("1.5GiB", None),
            ("-1B", None),
            ("99999999999TiB", None),
            ("4mib", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(size_bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("1h 30m"), Some(Duration::from_secs(5_400)));
        for text in ["7", "", "7 parsecs", "-1s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
