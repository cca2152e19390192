//! The old side, the two nodes of the new side, and how far the streams between them are. One row.

use crossfade_model::{Clock, LaneProgress, RowOp, StreamProgress};

pub const OLD: usize = 0;
/// The nodes of the new side, by their number here.
pub const NODES: [usize; 2] = [1, 2];

/// The row, as it stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Image {
    /// Which change wrote it.
    pub content: u8,
    pub clock: u8,
    /// The node that the row belongs to.
    pub home: usize,
}

/// A stream's checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    pub through: u8,
    /// From this message on those of the row are set aside; 0 where none is.
    pub aside_from: u8,
}

impl Progress {
    pub fn is_aside(&self) -> bool {
        self.aside_from > 0
    }

    /// The messages that have passed and wait.
    pub fn aside(&self) -> impl Iterator<Item = u8> {
        let from = if self.is_aside() { self.aside_from } else { self.through + 1 };
        from..=self.through
    }

    pub fn has_taken_effect(&self, seq: u8) -> bool {
        seq <= self.through && (!self.is_aside() || seq < self.aside_from)
    }

    /// As the product has it.
    pub fn stream_progress(&self) -> StreamProgress {
        let through = u64::from(self.through);
        let lane = LaneProgress { seq: through, batch_first: through.max(1), batch_last: through, lanes: 1 };
        StreamProgress { lanes: [(0, lane)].into(), parked: self.aside().map(u64::from).collect() }
    }
}

/// A user's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    pub before: Option<Image>,
    pub after: Option<Image>,
    pub effective: Option<Clock>,
    /// Of an old user's change what came from both nodes; of a node's, in the first place, what came from the old side.
    pub seen: [Progress; 2],
}

impl Message {
    pub fn op(&self) -> RowOp {
        match (self.before, self.after) {
            (None, _) => RowOp::Insert,
            (_, None) => RowOp::Delete,
            _ => RowOp::Update,
        }
    }

    pub fn homes(&self) -> impl Iterator<Item = usize> {
        [self.before, self.after].into_iter().flatten().map(|image| image.home)
    }

    pub fn home(&self) -> usize {
        self.homes().last().unwrap_or(NODES[0])
    }
}

/// Whose the old side's row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Author {
    Node(usize),
    /// The old side's users, by this message; 0 for the row that was there at first.
    User(u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// Of the old side and both nodes.
    pub rows: [Option<Image>; 3],
    pub author: Author,
    pub logs: [Vec<Message>; 3],
    pub captured: [u8; 3],
    /// How far the old side's stream is on each node. They stand there.
    pub forward: [Progress; 2],
    /// How far each node's stream is. They stand on the old side.
    pub reverse: [Progress; 2],
}

impl World {
    pub fn new(first: Image) -> World {
        let mut rows = [None; 3];
        (rows[OLD], rows[first.home]) = (Some(first), Some(first));
        World {
            rows,
            author: Author::User(0),
            logs: Default::default(),
            captured: [0; 3],
            forward: Default::default(),
            reverse: Default::default(),
        }
    }

    pub fn last(&self, place: usize) -> u8 {
        self.logs[place].len() as u8
    }

    pub fn message(&self, place: usize, seq: u8) -> &Message {
        &self.logs[place][usize::from(seq) - 1]
    }

    pub fn all_captured(&self, place: usize) -> bool {
        self.captured[place] == self.last(place)
    }

    /// The nodes that have the row.
    pub fn holders(&self) -> impl Iterator<Item = usize> + '_ {
        NODES.into_iter().filter(|node| self.rows[*node].is_some())
    }

    pub fn changes_of_nodes(&self) -> u8 {
        NODES.iter().map(|node| self.last(*node)).sum()
    }

    /// The messages of a node that have not taken effect on the old side.
    pub fn reverse_under_way(&self, node: usize) -> bool {
        let progress = self.reverse[node - 1];
        progress.is_aside() || progress.through < self.last(node)
    }

    /// The old side's messages that some node has not passed.
    pub fn forward_under_way(&self) -> impl Iterator<Item = &Message> {
        let passed = self.forward.iter().map(|progress| progress.through).min().unwrap_or(0);
        self.logs[OLD].iter().skip(usize::from(passed))
    }

    pub fn is_quiet(&self) -> bool {
        (0..3).all(|place| self.all_captured(place))
            && self.forward_under_way().next().is_none()
            && NODES.iter().all(|node| !self.reverse_under_way(*node))
    }

    /// The old side has the row of the one node that has it.
    pub fn is_equal(&self) -> bool {
        let mut rows = self.holders().map(|node| self.rows[node]);
        let row = rows.next().flatten();
        rows.next().is_none() && self.rows[OLD] == row
    }

    /// The row is changed on the old side while it stands, or stood a moment ago, on two nodes. Who tells the nodes apart then
    /// is whoever sends the old side's changes to them.
    pub fn is_crossed(&self) -> bool {
        let forward: Vec<usize> = self.forward_under_way().flat_map(Message::homes).collect();
        let reverse = || NODES.into_iter().filter(|node| self.reverse_under_way(*node));
        let Some(home) = forward.first() else { return false };
        let is_rehomed = forward.iter().any(|other| other != home);
        reverse().any(|node| is_rehomed || node != *home) || !is_rehomed && self.holders().any(|node| node != *home)
    }
}
