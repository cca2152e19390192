//! Rows that move between the nodes of one side, by several streams that lag independently: the target ends with the row of
//! the node that has it.

use crossfade_model::{Direction, RowOp, StreamId};
use crossfade_rules::{Admission, LastChange, admit};
use proptest::prelude::*;

use crate::seeded;

const NODES: usize = 4;

/// What one node's users did to the row; updates and inserts give it new contents.
#[derive(Debug, Clone, Copy)]
struct Message {
    op: RowOp,
    contents: usize,
}

/// A row's life: any order of inserts, updates, deletes and moves, in which at most two nodes have the row at a time and one
/// has it in the end. `choices` say what is done, and where.
fn life(choices: &[(u8, u8)]) -> ([Vec<Message>; NODES], Option<(usize, usize)>) {
    let mut logs: [Vec<Message>; NODES] = Default::default();
    let mut rows: Vec<(usize, usize)> = Vec::new();
    let mut write = |rows: &mut Vec<(usize, usize)>, node: usize, op: RowOp, contents: usize| {
        logs[node].push(Message { op, contents });
        rows.retain(|(other, _)| *other != node);
        if op != RowOp::Delete {
            rows.push((node, contents));
        }
    };
    for (contents, (what, place)) in (1..).zip(choices) {
        let node = usize::from(*place) % NODES;
        let has_row = rows.iter().any(|(other, _)| *other == node);
        match (has_row, rows.len()) {
            (false, 0 | 1) => write(&mut rows, node, RowOp::Insert, contents),
            (true, _) if what % 2 == 0 => write(&mut rows, node, RowOp::Update, contents),
            (true, _) => write(&mut rows, node, RowOp::Delete, contents),
            (false, _) => {
                let (loser, _) = rows[usize::from(*what) % rows.len()];
                write(&mut rows, loser, RowOp::Delete, contents);
            }
        }
    }
    if rows.len() > 1 {
        let (loser, _) = rows[0];
        write(&mut rows, loser, RowOp::Delete, 0);
    }
    (logs, rows.pop())
}

/// The target, and what it has set aside of each stream.
struct Target<'s> {
    streams: &'s [StreamId],
    row: Option<(usize, usize)>,
    waiting: [Vec<Message>; NODES],
}

impl Target<'_> {
    fn arrive(&mut self, node: usize, message: Message) -> Result<(), TestCaseError> {
        self.waiting[node].push(message);
        // Nothing of a row goes ahead of what waits of it.
        if self.waiting[node].len() == 1 { self.attempt(node) } else { Ok(()) }
    }

    /// What waits of a stream is tried as one change.
    fn attempt(&mut self, node: usize) -> Result<(), TestCaseError> {
        let Some(last) = self.waiting[node].last().copied() else { return Ok(()) };
        let op = if last.op == RowOp::Delete { RowOp::Delete } else { RowOp::Insert };
        let holder = self.row.map(|(holder, _)| LastChange::Node(&self.streams[holder]));
        match admit(&self.streams[node], op, holder) {
            Admission::Waits => return Ok(()),
            Admission::Passed => {}
            Admission::Written => {
                prop_assert!(self.row.is_none_or(|(holder, _)| holder == node), "another node's row is written");
                self.row = (op != RowOp::Delete).then_some((node, last.contents));
            }
        }
        self.waiting[node].clear();
        Ok(())
    }
}

proptest! {
    #![proptest_config(seeded(20_000))]

    #[test]
    fn p4_a_row_that_moves_ends_where_it_is(
        choices in prop::collection::vec((any::<u8>(), any::<u8>()), 1..20),
        order in prop::collection::vec(any::<prop::sample::Index>(), 80),
    ) {
        let streams: Vec<StreamId> =
            (0..NODES).map(|node| StreamId::new(Direction::Reverse, &format!("new-{node}"))).collect();
        let (logs, expected) = life(&choices);
        let mut target = Target { streams: &streams, row: None, waiting: Default::default() };
        let mut arrived = [0; NODES];
        for next in order {
            let node = next.index(NODES);
            match logs[node].get(arrived[node]) {
                Some(message) => {
                    arrived[node] += 1;
                    target.arrive(node, *message)?;
                }
                None => target.attempt(node)?,
            }
        }
        for (node, arrived) in arrived.into_iter().enumerate() {
            for message in &logs[node][arrived..] {
                target.arrive(node, *message)?;
            }
        }
        for _ in 0..NODES {
            (0..NODES).try_for_each(|node| target.attempt(node))?;
        }
        prop_assert!(target.waiting.iter().all(Vec::is_empty), "something waits for ever: {:?}", target.waiting);
        prop_assert_eq!(target.row, expected);
    }
}
