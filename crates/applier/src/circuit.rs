//! The circuit: where too much is set aside, more is wrong than rows, and the direction stops instead of setting aside
//! the rest of the source row by row.
//!
//! Two limits. What the target refuses, counted by rows among the last messages of the stream: a table that lost a column's
//! width fails thousands of rows within minutes. Rows that it has taken since do not count: users of both sides who work on one
//! family have many refused for a moment, until the other direction has brought a parent, or its end. And all that is set
//! aside at a time, what waits behind a refused row included: it is held in memory, and listed in the target's checkpoint row.
//! Both are counts, not shares of whatever has been seen so far, so that one refused row of twenty is one refused row.

use std::collections::BTreeSet;
use std::fmt;

/// Messages among which refused rows are counted.
const WINDOW: u64 = 10_000;

/// When the circuit opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Most messages that may be set aside at a time.
    pub most_parked: usize,
    /// Most rows, as parts of a million, that the target may refuse among the last 10,000 messages.
    pub most_refused_ppm: u32,
}

impl CircuitLimits {
    fn most_refused(&self) -> usize {
        usize::try_from(u64::from(self.most_refused_ppm) * WINDOW / 1_000_000).unwrap_or(usize::MAX)
    }
}

/// Why the circuit has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tripped {
    Parked { parked: usize, most: usize, last: String },
    Refused { refused: usize, most: usize, last: String },
}

impl fmt::Display for Tripped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = match self {
            Tripped::Parked { parked, most, last } => {
                write!(f, "{parked} changes would be set aside, and at most {most} may be")?;
                last
            }
            Tripped::Refused { refused, most, last } => {
                write!(
                    f,
                    "the target refuses {refused} rows among the last {WINDOW} messages, and at most {most} may be"
                )?;
                last
            }
        };
        if last.is_empty() { Ok(()) } else { write!(f, "; the last one: {last}") }
    }
}

pub(crate) struct Circuit {
    limits: CircuitLimits,
    /// The last messages of rows that are refused.
    refused: BTreeSet<u64>,
}

impl Circuit {
    pub fn new(limits: CircuitLimits) -> Circuit {
        Circuit { limits, refused: BTreeSet::new() }
    }

    pub fn holds(&self, parked: usize) -> bool {
        parked <= self.limits.most_parked
    }

    /// Whether a batch that ends with `batch_last` may set rows aside. `refused` names the rows that the target refuses, by
    /// their last messages; one that was counted before is not counted again. `last` is what the target said last.
    pub fn admits(
        &mut self,
        parked: usize,
        refused: &[u64],
        batch_last: u64,
        last: Option<&str>,
    ) -> Result<(), Tripped> {
        let last = || last.unwrap_or_default().to_owned();
        if !self.holds(parked) {
            return Err(Tripped::Parked { parked, most: self.limits.most_parked, last: last() });
        }
        self.refused.retain(|seq| *seq + WINDOW > batch_last);
        let new: BTreeSet<u64> = refused.iter().filter(|seq| !self.refused.contains(seq)).copied().collect();
        let (count, most) = (self.refused.len() + new.len(), self.limits.most_refused());
        if count > most {
            return Err(Tripped::Refused { refused: count, most, last: last() });
        }
        self.refused.extend(new);
        Ok(())
    }

    /// A message is not set aside any more.
    pub fn forget(&mut self, seq: u64) {
        self.refused.remove(&seq);
    }

    /// Forgets what was refused.
    pub fn close(&mut self) {
        self.refused.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CircuitLimits = CircuitLimits { most_parked: 1_000, most_refused_ppm: 10_000 };

    fn refused(circuit: &mut Circuit, rows: &[u64], batch_last: u64) -> Option<usize> {
        match circuit.admits(rows.len(), rows, batch_last, None) {
            Err(Tripped::Refused { refused, .. }) => Some(refused),
            Err(other) => panic!("{other}"),
            Ok(()) => None,
        }
    }

    #[test]
    fn one_of_twenty_does_not_open_it() {
        let mut circuit = Circuit::new(LIMITS);
        assert_eq!(refused(&mut circuit, &[7], 20), None);
    }

    #[test]
    fn more_than_the_share_of_the_window_opens_it() {
        let mut circuit = Circuit::new(LIMITS);
        let rows: Vec<u64> = (1..=100).collect();
        assert_eq!(refused(&mut circuit, &rows, 100), None);
        assert_eq!(refused(&mut circuit, &rows, 100), None, "an attempt that was repeated counts once");
        assert_eq!(refused(&mut circuit, &[200], 200), Some(101));
        assert_eq!(refused(&mut circuit, &[10_200], 10_200), None, "what is long past does not count");
        circuit.close();
        assert_eq!(refused(&mut circuit, &rows, 10_200), None);
    }

    #[test]
    fn what_has_gone_through_since_does_not_count() {
        let mut circuit = Circuit::new(LIMITS);
        let rows: Vec<u64> = (1..=100).collect();
        assert_eq!(refused(&mut circuit, &rows, 100), None);
        circuit.forget(50);
        assert_eq!(refused(&mut circuit, &[200], 200), None);
        assert_eq!(refused(&mut circuit, &[201], 201), Some(101));
    }

    #[test]
    fn too_many_at_a_time_open_it() {
        let mut circuit = Circuit::new(LIMITS);
        assert!(circuit.admits(1_000, &[], 5, None).is_ok());
        let tripped = circuit.admits(1_001, &[], 5, Some("error 1062")).unwrap_err();
        assert_eq!(
            tripped.to_string(),
            "1001 changes would be set aside, and at most 1000 may be; the last one: error 1062"
        );
    }
}
