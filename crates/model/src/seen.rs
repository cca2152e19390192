//! What a message knew of the opposite direction when it was written.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Checkpoint rows from this number on, but for the last, are no lanes of messages: they tag and fence what is written beside
/// the stream, such as chunks of a backfill, and say nothing of messages.
pub const FIRST_SIDE_LANE: u16 = 60_000;

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
    /// Messages that the lanes have passed and that have not taken effect: they are set aside (parked or held) until a
    /// retry, which takes them out again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parked: BTreeSet<u64>,
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

    /// Every message up to and including this one is applied and has taken effect: none of them is parked. 0 when
    /// nothing is. Never goes back, since a message is parked in the transaction that passes it.
    pub fn in_effect_through(&self) -> u64 {
        let before_parked = self.parked.first().map_or(u64::MAX, |parked| parked.saturating_sub(1));
        self.applied_through().min(before_parked)
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
        StreamProgress { lanes, ..StreamProgress::default() }
    }

    #[test]
    fn a_batch_counts_when_all_its_lanes_have_committed() {
        assert_eq!(progress(&[]).applied_through(), 0);
        assert_eq!(progress(&[(0, 9, 5, 9, 2), (1, 9, 5, 9, 2)]).applied_through(), 9);
        assert_eq!(progress(&[(0, 9, 5, 9, 2), (1, 4, 1, 4, 2)]).applied_through(), 4);
        assert_eq!(progress(&[(0, 9, 5, 9, 2), (1, 4, 1, 4, 2)]).partial_batch().unwrap().1, vec![0]);
        assert_eq!(progress(&[(0, 9, 5, 9, 1), (1, 4, 1, 4, 2)]).applied_through(), 9);
    }

    #[test]
    fn what_is_parked_has_no_effect_yet() {
        let mut progress = progress(&[(0, 9, 5, 9, 2), (1, 9, 5, 9, 2)]);
        assert_eq!(progress.in_effect_through(), 9);
        progress.parked = BTreeSet::from([3, 7]);
        assert_eq!((progress.applied_through(), progress.in_effect_through()), (9, 2));
        progress.parked = BTreeSet::from([9]);
        assert_eq!(progress.in_effect_through(), 8);
        // One lane may have parked a message of a batch that another lane has not finished.
        progress.lanes.retain(|lane, _| *lane == 0);
        assert_eq!((progress.applied_through(), progress.in_effect_through()), (4, 4));
    }

    #[test]
    fn nothing_parked_is_not_written_and_absent_is_nothing_parked() {
        let mut progress = progress(&[(0, 9, 5, 9, 1)]);
        let plain = r#"{"lanes":{"0":{"seq":9,"batch_first":5,"batch_last":9,"lanes":1}}}"#;
        assert_eq!(serde_json::to_string(&progress).unwrap(), plain);
        assert_eq!(serde_json::from_str::<StreamProgress>(plain).unwrap(), progress);
        progress.parked = BTreeSet::from([5, 9]);
        let written = serde_json::to_string(&progress).unwrap();
        assert_eq!(written, plain.replacen("}}}", r#"}},"parked":[5,9]}"#, 1));
        assert_eq!(serde_json::from_str::<StreamProgress>(&written).unwrap(), progress);
    }
}
