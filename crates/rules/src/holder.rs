//! Rows that move from one node of a side to another.
//!
//! Of a side with several nodes each row stands on one, but for the moment in which it moves: it is inserted on a node and
//! deleted on another, by one user or by two, in either order. What happened to it comes over two streams then, and nothing
//! orders one against the other. So the insert may come before the delete of the row that it replaces, and this delete must
//! not take the new row away; and what a row was elsewhere for a while may come when it has long been back.
//!
//! The row of the target is somebody's: of the node whose change made it, or of the node to which users of the target gave
//! it. A change that [`decide`](crate::decide()) wants to be written is, if it comes from there. One that comes from another node
//! waits until the holder's own delete has come, which it has written or will write. A delete from elsewhere ends nothing
//! here. What has lost against users of the target asks for nothing and waits for nobody.
//!
//! What `seen` proves is in that already: where the writer of a change has seen the row as users of the target made it, it
//! is theirs to say whose it is; where he has not, both are concurrent, and clocks have decided.
//!
//! The rule is written down and tested for sides with several nodes. So far a side is one node, and only tests ask it.

use crossfade_model::{RowOp, StreamId};

/// What the target's row is of. Streams stand for the nodes that they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastChange<'s> {
    /// It came over this stream.
    Node(&'s StreamId),
    /// Users of the target made it.
    Users {
        /// Of the node on which the row is to stand.
        node: &'s StreamId,
        /// The writer of the change that arrives had it before him.
        seen: bool,
    },
}

/// What becomes of a change of a row of which several nodes may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may be written.
    Written,
    /// It is set aside until the node that holds the row has let go of it.
    Waits,
    /// It ends a row that is not the one that is there: nothing is to be done.
    Passed,
}

/// Asks whether a change that comes over `from`, and that nothing concurrent has beaten, may touch the target's row, whose last
/// change is `row`; `None` where the target has no such row.
///
/// A change of the key is a delete of one row and an insert of another.
pub fn admit(from: &StreamId, op: RowOp, row: Option<LastChange<'_>>) -> Admission {
    let holder = match row {
        None | Some(LastChange::Users { seen: false, .. }) => return Admission::Written,
        Some(LastChange::Node(node) | LastChange::Users { node, seen: true }) => node,
    };
    match op {
        _ if holder == from => Admission::Written,
        RowOp::Delete => Admission::Passed,
        RowOp::Insert | RowOp::Update => Admission::Waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfade_model::Direction;

    const OPS: [RowOp; 3] = [RowOp::Insert, RowOp::Update, RowOp::Delete];

    fn node(name: &str) -> StreamId {
        StreamId::new(Direction::Reverse, name)
    }

    #[test]
    fn a_node_changes_its_own_rows_and_those_that_nobody_has() {
        let (here, elsewhere) = (node("new-0"), node("new-1"));
        for op in OPS {
            for row in [None, Some(LastChange::Node(&here)), Some(LastChange::Users { node: &here, seen: true })] {
                assert_eq!(admit(&here, op, row), Admission::Written);
            }
            let concurrent = LastChange::Users { node: &elsewhere, seen: false };
            assert_eq!(admit(&here, op, Some(concurrent)), Admission::Written, "clocks have decided");
        }
    }

    #[test]
    fn a_delete_from_elsewhere_removes_nothing_and_all_else_waits() {
        let (here, elsewhere) = (node("new-0"), node("new-1"));
        for row in [LastChange::Node(&elsewhere), LastChange::Users { node: &elsewhere, seen: true }] {
            assert_eq!(admit(&here, RowOp::Delete, Some(row)), Admission::Passed);
            assert_eq!(admit(&here, RowOp::Insert, Some(row)), Admission::Waits);
            assert_eq!(admit(&here, RowOp::Update, Some(row)), Admission::Waits);
        }
    }
}
