//! The index of concurrent changes finds what a search through all messages finds.

use crossfade_model::{Clock, LaneProgress, RowOp, StreamProgress, Value};
use crossfade_rules::concurrent::{BatchId, Judging, Known, Unknown};
use crossfade_rules::{ConcurrentIndex, OppositeChange, Plan};
use proptest::prelude::*;

use crate::seeded;

/// Rows 0 to 5. Two neighbours fold alike; the server takes 0 and 1 for one row.
const ROWS: u64 = 6;

#[derive(Debug, Clone)]
enum Step {
    /// A message that touches so many rows: none, one, or two.
    Message(Vec<u64>),
    /// Whoever judges from now on has seen at least this.
    Keep {
        through: u64,
        parked: Vec<u64>,
    },
    Judge {
        row: u64,
        further: u64,
        parked: Vec<u64>,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seqs = || prop::collection::vec(1..30_u64, 0..4);
    let step = prop_oneof![
        4 => prop::collection::vec(0..ROWS, 0..3).prop_map(Step::Message),
        1 => (0..30_u64, seqs()).prop_map(|(through, parked)| Step::Keep { through, parked }),
        4 => (0..ROWS, 0..30_u64, seqs()).prop_map(|(row, further, parked)| Step::Judge { row, further, parked }),
    ];
    prop::collection::vec(step, 1..60)
}

fn progress(through: u64, parked: &[u64]) -> StreamProgress {
    let lane = LaneProgress { seq: through, batch_first: 1, batch_last: through, lanes: 1 };
    let parked = parked.iter().copied().filter(|seq| *seq <= through).collect();
    StreamProgress { lanes: [(0, lane)].into(), parked }
}

fn is_one_row(a: u64, b: u64) -> bool {
    a == b || a < 2 && b < 2
}

/// What the server says of two keys, once it was asked.
#[derive(Default)]
struct Server(Vec<(u64, u64)>);

impl Known for Server {
    fn plan(&self, _: BatchId) -> Option<&Plan> {
        None
    }

    fn same_row(&self, exact: u64, other: u64) -> Option<bool> {
        self.0.contains(&(exact, other)).then(|| is_one_row(exact, other))
    }
}

fn change(seq: u64, row: u64) -> OppositeChange {
    let key: Box<[Value]> = Box::new([Value::UInt(row)]);
    let (text_key, effective) = ((row < 4).then_some(key), Some(Clock(seq as i64)));
    OppositeChange { seq, exact: row, effective, op: RowOp::Update, returned: false, effect: None, text_key }
}

proptest! {
    #![proptest_config(seeded(4_000))]

    #[test]
    fn p4_p8_the_index_finds_what_a_search_finds(steps in steps(), room in 0..3_usize) {
        // Room for all, for a few, and for none.
        let mut index = ConcurrentIndex::with_bound([usize::MAX, 2_000, 0][room]);
        let mut all: Vec<(u64, u64)> = Vec::new();
        let (mut seq, mut floor) = (0, 0);
        for step in steps {
            match step {
                Step::Message(rows) => {
                    // What was seen without being read is not read any more.
                    seq = index.through() + 1;
                    index.pass(seq);
                    for row in rows {
                        index.add(row / 2, change(seq, row));
                        all.push((seq, row));
                    }
                }
                Step::Keep { through, parked } => {
                    let seen = progress(through.max(floor), &parked.into_iter().filter(|seq| *seq > floor).collect::<Vec<_>>());
                    let least = progress(through.max(floor) + 5, &[]);
                    floor = index.keep_unseen_by([Some(&least), Some(&seen)]);
                    prop_assert_eq!(floor, seen.in_effect_through());
                    prop_assert!(index.through() >= floor && index.through() >= seq);
                }
                Step::Judge { row, further, parked } => {
                    let parked: Vec<u64> = parked.into_iter().filter(|seq| *seq > floor).collect();
                    let seen = progress(floor + further, &parked);
                    let unseen = |at: u64| at > floor + further || parked.contains(&at);
                    let expected = all.iter().rev().find(|(at, other)| unseen(*at) && is_one_row(row, *other));
                    let judging = Judging { folded: row / 2, exact: row, seen: Some(&seen) };
                    let mut server = Server::default();
                    let found = loop {
                        match index.last_unseen(judging, &server) {
                            Ok(found) => break found,
                            Err(Unknown::SameRow { exact, .. }) => server.0.push((row, exact)),
                            Err(Unknown::MovedOut { folded, first, last }) => {
                                let of_key = |(at, row): &&(u64, u64)| row / 2 == folded && (first..=last).contains(at);
                                index.recall(folded, all.iter().filter(of_key).map(|(at, row)| change(*at, *row)).collect());
                            }
                            Err(unknown) => panic!("{unknown:?}"),
                        }
                    };
                    prop_assert_eq!(found.map(|found| found.seq), expected.map(|(at, _)| *at));
                    prop_assert_eq!(found.and_then(|found| found.effective), expected.map(|(at, _)| Clock(*at as i64)));
                }
            }
        }
    }
}
