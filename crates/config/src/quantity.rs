//! Lengths of time and sizes, with units.

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

#[cfg(test)]
mod tests {
    use super::*;

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
