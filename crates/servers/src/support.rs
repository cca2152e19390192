//! The one place that says which server releases crossfade works with.
//!
//! What was tested is supported. Releases between and beside the tested ones that offer the same features are expected to
//! work. All others are refused, because nobody has seen what they write into their binary log.

use crate::Flavor;

/// How far crossfade vouches for a server release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupportLevel {
    /// The whole test suite runs against this release series.
    Supported,
    /// Has the features crossfade needs, but the tests do not run against it: say so, and go on.
    Expected,
    /// Too old, or newer than anything that was looked at: do not start.
    Refused,
}

/// Says how far crossfade vouches for a release. Pure.
///
/// The lower bounds: MySQL 8.0.19 has row aliases in `INSERT … ON DUPLICATE KEY UPDATE`, and `binlog_row_metadata` (8.0.1);
/// MariaDB 10.6 has `JSON_TABLE`, and `binlog_row_metadata` (10.5).
pub fn support_level(flavor: Flavor, major: u16, minor: u16, patch: u16) -> SupportLevel {
    match (flavor, major, minor, patch) {
        (Flavor::MySql, 9, 7, _) => SupportLevel::Supported,
        (Flavor::MySql, 8, 0, 19..) | (Flavor::MySql, 8, 1.., _) | (Flavor::MySql, 9, _, _) => SupportLevel::Expected,
        (Flavor::MariaDb, 10, 11, _) => SupportLevel::Supported,
        (Flavor::MariaDb, 10, 6.., _) | (Flavor::MariaDb, 11, _, _) => SupportLevel::Expected,
        _ => SupportLevel::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tested_is_supported_and_what_nobody_saw_is_refused() {
        use Flavor::{MariaDb, MySql};
        use SupportLevel::{Expected, Refused, Supported};
        let cases = [
            (MySql, (5, 7, 44), Refused),
            (MySql, (8, 0, 18), Refused),
            (MySql, (8, 0, 19), Expected),
            (MySql, (8, 4, 0), Expected),
            (MySql, (9, 6, 1), Expected),
            (MySql, (9, 7, 0), Supported),
            (MySql, (10, 0, 0), Refused),
            (MariaDb, (10, 5, 29), Refused),
            (MariaDb, (10, 6, 0), Expected),
            (MariaDb, (10, 11, 14), Supported),
            (MariaDb, (11, 8, 2), Expected),
            (MariaDb, (12, 0, 0), Refused),
        ];
        for (flavor, (major, minor, patch), level) in cases {
            assert_eq!(support_level(flavor, major, minor, patch), level, "{flavor} {major}.{minor}.{patch}");
        }
    }
}
