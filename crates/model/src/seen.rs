//! What a message knew of the opposite direction when it was written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far the opposite direction had been applied on the source when a change was written: per opposite stream, the
/// last checkpoint row of each lane found in the source's binlog before the change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen {
    /// Keyed by the opposite stream's name, for example `reverse/new`.
    pub streams: BTreeMap<String, StreamProgress>,
}

/// One opposite stream's checkpoint rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamProgress {
    /// Lane number to the lane's last checkpoint.
    pub lanes: BTreeMap<u16, LaneProgress>,
}

/// The part of a checkpoint row that tells what had been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaneProgress {
    /// Everything of this lane up to and including this message is applied.
    pub seq: u64,
    /// The batch that the lane committed last: its first and last message, inclusive.
    pub batch_first: u64,
    pub batch_last: u64,
    /// How many lanes that batch was planned for.
    pub lanes: u16,
}

impl StreamProgress {
    /// Every message up to and including this one is applied, whatever its lane. 0 when nothing is.
    ///
    /// A batch starts only when all lanes of the one before have committed, so messages before the youngest batch are
    /// applied, and those of the youngest batch are when each of its lanes has committed it.
    pub fn applied_through(&self) -> u64 {
        let Some(youngest) = self.lanes.values().max_by_key(|lane| lane.batch_last) else { return 0 };
        if self.lanes_done(youngest).count() == usize::from(youngest.lanes) {
            youngest.batch_last
        } else {
            youngest.batch_first.saturating_sub(1)
        }
    }

    /// The batch of which only some lanes have committed, with those lanes; `None` when no batch is half done.
    pub fn partial_batch(&self) -> Option<(LaneProgress, Vec<u16>)> {
        let youngest = *self.lanes.values().max_by_key(|lane| lane.batch_last)?;
        let done: Vec<u16> = self.lanes_done(&youngest).collect();
        (done.len() < usize::from(youngest.lanes)).then_some((youngest, done))
    }

    fn lanes_done<'a>(&'a self, batch: &'a LaneProgress) -> impl Iterator<Item = u16> + 'a {
        self.lanes
            .iter()
            .filter(move |(_, lane)| lane.batch_last == batch.batch_last && lane.seq == batch.batch_last)
            .map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(rows: &[(u16, u64, u64, u64, u16)]) -> StreamProgress {
        let lanes = rows
            .iter()
            .map(|&(lane, seq, batch_first, batch_last, lanes)| {
                (lane, LaneProgress { seq, batch_first, batch_last, lanes })
            })
            .collect();
        StreamProgress { lanes }
    }

    #[test]
    fn a_batch_counts_when_all_its_lanes_have_committed() {
        assert_eq!(progress(&[]).applied_through(), 0);
        assert_eq!(progress(&[(0, 9, 5, 9, 2), (1, 9, 5, 9, 2)]).applied_through(), 9);
        assert_eq!(progress(&[(0, 9, 5, 9, 2), (1, 4, 1, 4, 2)]).applied_through(), 4);
        assert_eq!(progress(&[(0, 9, 5, 9, 2), (1, 4, 1, 4, 2)]).partial_batch().unwrap().1, vec![0]);
        assert_eq!(progress(&[(0, 9, 5, 9, 1), (1, 4, 1, 4, 2)]).applied_through(), 9);
    }
}
