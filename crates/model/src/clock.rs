//! The clock that orders versions of a row.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01 00:00:00 UTC for a modification time, or the number itself for a version.
///
/// Clocks of one table are only ever compared with clocks of the same table. `None` (a NULL clock, or a table without
/// one) is older than every clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Clock(pub i64);

impl Clock {
    /// Drops the digits below a fractional precision of 0 to 6 digits, towards the past.
    pub fn truncated(self, fraction_digits: u8) -> Clock {
        let unit = 10_i64.pow(6_u32.saturating_sub(u32::from(fraction_digits)));
        Clock(self.0 - self.0.rem_euclid(unit))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
