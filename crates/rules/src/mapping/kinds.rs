//! Which column can carry the values of which.

use crossfade_model::{Column, ColumnKind};

/// How well a target column holds what a source column can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fit {
    Whole,
    /// Some values may not fit; such a row is parked.
    Partly(String),
    /// Values that are too long are refused by the server.
    Narrow(String),
    /// Values would be changed without anybody noticing, or could never be written.
    No(String),
}

/// Compares two declared columns: their kinds, and how long their values may be.
pub(crate) fn fit_columns(source: &Column, target: &Column) -> Fit {
    let fit = fit_kinds(&source.kind, &target.kind);
    let (Some(from), Some(to)) = (capacity(&source.declared), capacity(&target.declared)) else { return fit };
    if to < from && !matches!(fit, Fit::No(_)) {
        return Fit::Narrow(format!("it holds {to} where the source holds {from}"));
    }
    fit
}

/// Compares two kinds.
pub(crate) fn fit_kinds(source: &ColumnKind, target: &ColumnKind) -> Fit {
    use ColumnKind::*;
    match (source, target) {
        (Other { .. }, _) | (_, Other { .. }) => no("the type is not supported"),
        (Integer { .. }, Integer { .. }) => whole_if(range(target).contains(range(source)), "its range is smaller"),
        (Integer { .. }, Decimal { precision, scale }) => {
            whole_if(integer_digits(source) <= precision.saturating_sub(*scale), "it has fewer digits")
        }
        (Year, Integer { bytes, .. }) => whole_if(*bytes >= 2, "its range is smaller"),
        (Decimal { precision: p, scale: s }, Decimal { precision, scale }) => whole_if(
            s <= scale && p.saturating_sub(*s) <= precision.saturating_sub(*scale),
            "it has fewer digits before or after the point",
        ),
        (Float, Float | Double) | (Double, Double) => Fit::Whole,
        (Text { charset: from }, Text { charset: to }) => fit_charsets(from, to),
        (Enum { .. } | Set { .. }, Text { .. }) => Fit::Whole,
        (Enum { labels: from }, Enum { labels: to }) | (Set { labels: from }, Set { labels: to }) => {
            fit_labels(from, to)
        }
        (Bytes { fixed_len: from }, Bytes { fixed_len: to }) => {
            whole_if(*to == 0 || from == to, "it pads values to another length")
        }
        (Bit { bits: from }, Bit { bits: to }) => whole_if(from <= to, "it has fewer bits"),
        (Date, Datetime { .. }) => Fit::Whole,
        (Datetime { fraction_digits: from }, Timestamp { fraction_digits: to }) => match from <= to {
            true => Fit::Partly("it holds the years 1970 to 2038 only, and is taken as UTC".to_owned()),
            false => fewer_fraction_digits(),
        },
        (Time { fraction_digits: from }, Time { fraction_digits: to })
        | (Datetime { fraction_digits: from }, Datetime { fraction_digits: to })
        | (Timestamp { fraction_digits: from }, Timestamp { fraction_digits: to }) => match from <= to {
            true => Fit::Whole,
            false => fewer_fraction_digits(),
        },
        (Timestamp { fraction_digits: from }, Datetime { fraction_digits: to }) => match from <= to {
            true => Fit::Partly("it has no time zone and is written in UTC".to_owned()),
            false => fewer_fraction_digits(),
        },
        (Date, Date) | (Year, Year) | (Json, Json) | (Geometry, Geometry) | (Vector, Vector) => Fit::Whole,
        (Inet4, Inet4) | (Inet6, Inet6) | (Uuid, Uuid) => Fit::Whole,
        _ => no("the types do not carry each other"),
    }
}

/// Digits of the fraction of a point in time, `None` for every other kind.
pub(crate) fn time_fraction_digits(kind: &ColumnKind) -> Option<u8> {
    match kind {
        ColumnKind::Datetime { fraction_digits } | ColumnKind::Timestamp { fraction_digits } => Some(*fraction_digits),
        _ => None,
    }
}

fn no(reason: &str) -> Fit {
    Fit::No(reason.to_owned())
}

fn whole_if(fits: bool, reason: &str) -> Fit {
    if fits { Fit::Whole } else { no(reason) }
}

fn fewer_fraction_digits() -> Fit {
    no("it keeps fewer digits of the second")
}

struct Range {
    least: i128,
    most: i128,
}

impl Range {
    fn contains(&self, other: Range) -> bool {
        self.least <= other.least && other.most <= self.most
    }
}

fn range(kind: &ColumnKind) -> Range {
    let ColumnKind::Integer { bytes, unsigned } = kind else { return Range { least: 0, most: 0 } };
    let values = 1_i128 << (8 * u32::from(*bytes).min(8));
    match unsigned {
        true => Range { least: 0, most: values - 1 },
        false => Range { least: -values / 2, most: values / 2 - 1 },
    }
}

fn integer_digits(kind: &ColumnKind) -> u8 {
    range(kind).most.to_string().len() as u8
}

fn fit_labels(from: &[String], to: &[String]) -> Fit {
    let missing: Vec<&str> = from.iter().filter(|label| !to.contains(label)).map(String::as_str).collect();
    if missing.is_empty() { Fit::Whole } else { Fit::No(format!("it lacks the labels {}", missing.join(", "))) }
}

fn fit_charsets(from: &str, to: &str) -> Fit {
    // MySQL manual, "Unicode Support": utf8mb3 and ucs2 hold the basic plane only.
    const ALL: [&str; 5] = ["utf8mb4", "utf16", "utf16le", "utf32", "gb18030"];
    const BASIC_PLANE: [&str; 3] = ["utf8mb3", "utf8", "ucs2"];
    let basic_to_basic = !ALL.contains(&from) && BASIC_PLANE.contains(&to);
    if from == to || from == "ascii" || ALL.contains(&to) || basic_to_basic {
        return Fit::Whole;
    }
    Fit::Partly(format!("character set {to} lacks characters that {from} has"))
}

/// How much a text or binary column holds, in characters or bytes; `None` for other types, and for lengths that are
/// not declared.
fn capacity(declared: &str) -> Option<u64> {
    let declared = declared.to_ascii_lowercase();
    let end = declared.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(declared.len());
    let (base, rest) = declared.split_at(end);
    let length = || {
        let digits: String = rest.strip_prefix('(')?.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    match base {
        "char" | "varchar" | "binary" | "varbinary" => length(),
        "tinytext" | "tinyblob" => Some(255),
        "text" | "blob" => Some(65_535),
        "mediumtext" | "mediumblob" => Some((1 << 24) - 1),
        "longtext" | "longblob" => Some((1 << 32) - 1),
        _ => None,
    }
}
