//! Which server it is, and whether anybody has tried it.

use std::fmt;

use crate::CatalogError;

/// The brand of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    MySql,
    MariaDb,
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavor::MySql => "MySQL",
            Flavor::MariaDb => "MariaDB",
        })
    }
}

/// A server's release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub flavor: Flavor,
    pub major: u16,
    pub minor: u16,
    pub patch: u16,
    /// As the server prints it: `9.7.4-2`, `10.11.14-MariaDB-0+deb12u2-log`.
    pub text: String,
}

/// How far crossfade vouches for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupportLevel {
    /// The whole test suite runs against this release series.
    Supported,
    /// Has what crossfade needs, but no test runs against it: say so, and go on.
    Expected,
    /// Too old, or newer than anything that was looked at: nobody has seen what it writes into its binlog.
    Refused,
}

impl fmt::Display for SupportLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SupportLevel::Supported => "supported",
            SupportLevel::Expected => "expected to work",
            SupportLevel::Refused => "refused",
        })
    }
}

/// The releases behind [`SupportLevel`], for messages.
pub const SUPPORTED_VERSIONS: &str =
    "supported: MySQL 9.7, MariaDB 10.11; expected to work: MySQL 8.0.19 and later, MariaDB 10.6 and later";

impl Version {
    /// Reads `@@version`. The part before the first letter counts; the letters tell the brand.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unexpected`] where the text does not begin with three numbers.
    pub fn parse(text: &str) -> Result<Version, CatalogError> {
        // MariaDB behind some proxies claims to be `5.5.5-10.6.12-MariaDB`.
        let flavor = if text.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql };
        let numbers = if flavor == Flavor::MariaDb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        let mut parts = numbers.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u16>().ok());
        let mut next = || {
            let unexpected = || CatalogError::Unexpected { what: "the server's version", found: text.to_owned() };
            parts.next().flatten().ok_or_else(unexpected)
        };
        Ok(Version { flavor, major: next()?, minor: next()?, patch: next()?, text: text.to_owned() })
    }

    pub fn at_least(&self, major: u16, minor: u16, patch: u16) -> bool {
        (self.major, self.minor, self.patch) >= (major, minor, patch)
    }

    /// The lower bounds: MySQL 8.0.19 is the first with `binlog_row_metadata` (8.0.1) that takes row aliases in
    /// `INSERT … ON DUPLICATE KEY UPDATE`; MariaDB 10.6 has `JSON_TABLE`, and `binlog_row_metadata` (10.5).
    pub fn support_level(&self) -> SupportLevel {
        match (self.flavor, self.major, self.minor, self.patch) {
            (Flavor::MySql, 9, 7, _) | (Flavor::MariaDb, 10, 11, _) => SupportLevel::Supported,
            (Flavor::MySql, 8, 0, 19..) | (Flavor::MySql, 8, 1.., _) | (Flavor::MySql, 9, _, _) => {
                SupportLevel::Expected
            }
            (Flavor::MariaDb, 10, 6.., _) | (Flavor::MariaDb, 11, _, _) => SupportLevel::Expected,
            _ => SupportLevel::Refused,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}.{}", self.flavor, self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_all_their_suffixes() {
        let cases = [
            ("9.7.4-2", Flavor::MySql, (9, 7, 4)),
            ("8.0.36-0ubuntu0.22.04.1-log", Flavor::MySql, (8, 0, 36)),
            ("10.11.14-MariaDB-0+deb12u2-log", Flavor::MariaDb, (10, 11, 14)),
            ("5.5.5-10.6.12-MariaDB", Flavor::MariaDb, (10, 6, 12)),
        ];
        for (text, flavor, numbers) in cases {
            let version = Version::parse(text).unwrap();
            assert_eq!((version.flavor, (version.major, version.minor, version.patch)), (flavor, numbers), "{text}");
        }
        for text in ["", "9", "9.7", "nine.seven.four", "99999.1.1"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_tested_is_supported_and_what_nobody_saw_is_refused() {
        use SupportLevel::{Expected, Refused, Supported};
        let cases = [
            ("5.7.44", Refused),
            ("8.0.18", Refused),
            ("8.0.19", Expected),
            ("8.4.0", Expected),
            ("9.6.1", Expected),
            ("9.7.0", Supported),
            ("10.0.0", Refused),
            ("10.5.29-MariaDB", Refused),
            ("10.6.0-MariaDB", Expected),
            ("10.11.14-MariaDB", Supported),
            ("11.8.2-MariaDB", Expected),
            ("12.0.0-MariaDB", Refused),
        ];
        for (text, level) in cases {
            assert_eq!(Version::parse(text).unwrap().support_level(), level, "{text}");
        }
    }
}
