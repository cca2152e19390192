//! For how long users could not write their rows.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// Of every entity that was moved: from its fence to the version that lifted it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses {
    /// How many had a pause of so many milliseconds.
    counts: BTreeMap<u64, u64>,
}

impl Pauses {
    pub(crate) fn note(&mut self, pause_ms: u64, entities: u64) {
        *self.counts.entry(pause_ms).or_default() += entities;
    }

    /// `None` of none.
    pub fn median_ms(&self) -> Option<u64> {
        let all: u64 = self.counts.values().sum();
        let mut passed = 0;
        self.counts.iter().find_map(|(pause_ms, count)| {
            passed += count;
            (passed * 2 >= all).then_some(*pause_ms)
        })
    }

    pub fn worst_ms(&self) -> Option<u64> {
        self.counts.last_key_value().map(|(pause_ms, _)| *pause_ms)
    }
}

impl Serialize for Pauses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_struct("Pauses", 2)?;
        shown.serialize_field("median_ms", &self.median_ms())?;
        shown.serialize_field("worst_ms", &self.worst_ms())?;
        shown.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entity_counts() {
        let mut pauses = Pauses::default();
        assert_eq!((pauses.median_ms(), pauses.worst_ms()), (None, None));
        pauses.note(900, 1);
        assert_eq!((pauses.median_ms(), pauses.worst_ms()), (Some(900), Some(900)));
        pauses.note(300, 100);
        pauses.note(400, 100);
        assert_eq!((pauses.median_ms(), pauses.worst_ms()), (Some(400), Some(900)));
        pauses.note(300, 2);
        assert_eq!(pauses.median_ms(), Some(300));
    }
}
