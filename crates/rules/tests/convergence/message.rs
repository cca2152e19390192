//! Messages, rows and checkpoints, small enough to keep many millions of states apart.

use crossfade_model::{Clock, LaneProgress, RowOp, StreamProgress};

pub const KEYS: usize = 2;

/// The key of what is forgotten.
const NOWHERE: u8 = u8::MAX;

/// A row, but for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Image {
    /// Which change wrote it: all contents differ, so that no difference hides.
    pub content: u8,
    pub clock: u8,
    /// Which insert brought the row, where rows may change keys: nobody makes two of one.
    pub row: u8,
}

/// Message numbers, from 1, as bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SeqSet(u16);

impl SeqSet {
    pub fn one(seq: u8) -> SeqSet {
        SeqSet(1 << seq)
    }

    pub fn contains(self, seq: u8) -> bool {
        self.0 & 1 << seq != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn union(self, other: SeqSet) -> SeqSet {
        SeqSet(self.0 | other.0)
    }

    pub fn without(self, other: SeqSet) -> SeqSet {
        SeqSet(self.0 & !other.0)
    }

    pub fn meets(self, other: SeqSet) -> bool {
        self.0 & other.0 != 0
    }

    pub fn first(self) -> Option<u8> {
        self.iter().next()
    }

    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..16).filter(move |seq| self.contains(*seq))
    }
}

impl FromIterator<u8> for SeqSet {
    fn from_iter<I: IntoIterator<Item = u8>>(seqs: I) -> SeqSet {
        seqs.into_iter().fold(SeqSet::default(), |set, seq| set.union(SeqSet::one(seq)))
    }
}

impl std::fmt::Debug for SeqSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A batch for two lanes of which one has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HalfBatch {
    pub last: u8,
    pub done: u16,
}

/// A stream's checkpoint rows. Of batches that are whole only the end is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    pub through: u8,
    /// Begins after `through`.
    pub half: Option<HalfBatch>,
    pub parked: SeqSet,
}

impl Progress {
    /// The rows as the product has them.
    pub fn stream_progress(&self) -> StreamProgress {
        let through = u64::from(self.through);
        let whole = LaneProgress { seq: through, batch_first: through.max(1), batch_last: through, lanes: 1 };
        let lanes = match self.half {
            None => [(0, whole)].into(),
            Some(half) => {
                let last = u64::from(half.last);
                let done = LaneProgress { seq: last, batch_first: through + 1, batch_last: last, lanes: 2 };
                [(half.done, done), (1 - half.done, whole)].into()
            }
        };
        StreamProgress { lanes, parked: self.parked.iter().map(u64::from).collect() }
    }

    pub fn in_effect_through(&self) -> u8 {
        self.parked.first().map_or(self.through, |parked| self.through.min(parked - 1))
    }
}

/// A user change.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    pub op: RowOp,
    /// The row's key before and after.
    pub from: u8,
    pub to: u8,
    pub before: Option<Image>,
    pub after: Option<Image>,
    pub effective: Option<Clock>,
    /// What the binlog says that the writer had before him.
    pub seen: Progress,
    /// What he really had: the opposite messages that had taken effect where he wrote.
    pub saw: SeqSet,
    /// No user made it: it goes back to the side whose change of a key has lost.
    pub goes_back: bool,
    /// Written by the other direction, and not recognised as such.
    pub echo: bool,
}

impl Message {
    pub fn touches(&self, key: u8) -> bool {
        self.from == key || self.to == key
    }

    /// What capture remembers of a message, where it is the last of its row; nothing else.
    pub fn remembered(&self, is_last: bool) -> Message {
        let nothing = Image { content: 0, clock: 0, row: 0 };
        let row = Message { seen: Progress::default(), saw: SeqSet::default(), ..*self };
        if is_last {
            return Message { before: self.before.map(|_| nothing), after: self.after.map(|_| nothing), ..row };
        }
        let (op, key) = (RowOp::Update, NOWHERE);
        Message { op, from: key, to: key, before: None, after: None, effective: None, ..row }
    }

    pub fn is_forgotten(&self) -> bool {
        self.from == NOWHERE
    }

    pub fn shares_key(&self, other: &Message) -> bool {
        other.touches(self.from) || other.touches(self.to)
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let image = |image: &Option<Image>| match image {
            Some(Image { content, clock, .. }) => format!("{content}@{clock}"),
            None => "-".to_owned(),
        };
        let Message { op, from, to, before, after, effective, seen, goes_back, .. } = self;
        if *goes_back {
            f.write_str("back: ")?;
        }
        write!(f, "{op} {from}:{} -> {to}:{} effective {:?}", image(before), image(after), effective.map(|c| c.0))?;
        write!(f, " seen {}", seen.through)?;
        if let Some(half) = seen.half {
            write!(f, " and lane {} through {}", half.done, half.last)?;
        }
        if !seen.parked.is_empty() { write!(f, " without {:?}", seen.parked) } else { Ok(()) }
    }
}
