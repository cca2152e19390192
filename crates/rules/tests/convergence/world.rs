//! Two sides, their users' changes, and how far each direction is.
//!
//! A state holds what matters from now on and nothing else: of messages that everybody has seen only the clock of each
//! row's last one, of batches that are whole only their end. So ways that lead to the same future meet.

use crate::message::{Image, KEYS, Message, Progress, SeqSet};
use crate::setting::Setting;

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A change was written over one that its writer's successors knew.
    OlderOverNewer,
    /// A message took effect a second time.
    Twice,
    /// What a direction wrote was captured as a user's change.
    Echo,
    /// The checkpoint rows say something else than what the writer had before him.
    SeenIsWrong,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub rows: [[Option<Image>; KEYS]; 2],
    /// Where messages still under way might be older than a row: the last message of that stream that made the row.
    pub writers: [[Option<u8>; KEYS]; 2],
    /// Per side the changes of its users, in commit order. Message `n` is at `n - 1`.
    pub logs: [Vec<Message>; 2],
    /// How many of them are in the message table.
    pub captured: [u8; 2],
    /// Per side the checkpoint rows of the stream that comes from there. They stand on the other side.
    pub progress: [Progress; 2],
    /// Per side its messages that have taken effect on the other side: written, or judged to have lost.
    pub effect: [SeqSet; 2],
    /// Per side the opposite messages that the direction from there has forgotten. Lost when it dies.
    pub floor: [u8; 2],
    pub crashes_left: u8,
    pub bad_rows_left: u8,
    /// Both sides have brought a row to one key, and one of them has gone on with it or has brought it from elsewhere: only
    /// that both sides end equal is promised then.
    pub is_contested: bool,
    pub fault: Option<Fault>,
}

impl World {
    /// One row that both sides have, and one that neither has.
    pub fn new(setting: &Setting) -> World {
        let row = Image { content: 0, clock: setting.first_clock(), row: 0 };
        World {
            rows: [[Some(row), None]; 2],
            writers: Default::default(),
            logs: Default::default(),
            captured: [0; 2],
            progress: Default::default(),
            effect: Default::default(),
            floor: [0; 2],
            crashes_left: setting.crashes,
            bad_rows_left: setting.bad_rows,
            is_contested: false,
            fault: None,
        }
    }

    pub fn last(&self, side: usize) -> u8 {
        self.logs[side].len() as u8
    }

    /// How often users have changed something.
    pub fn changes(&self, side: usize) -> usize {
        self.logs[side].iter().filter(|message| !message.goes_back).count()
    }

    /// No row stands under two keys.
    pub fn has_rows_once(&self, side: usize) -> bool {
        let [first, second] = self.rows[side];
        first.zip(second).is_none_or(|(first, second)| first.row != second.row)
    }

    pub fn message(&self, side: usize, seq: u8) -> &Message {
        &self.logs[side][usize::from(seq) - 1]
    }

    pub fn captured_log(&self, side: usize) -> &[Message] {
        &self.logs[side][..usize::from(self.captured[side])]
    }

    pub fn all_captured(&self, side: usize) -> bool {
        self.captured[side] == self.last(side)
    }

    /// Messages of a side that have not taken effect on the other side.
    pub fn under_way(&self, side: usize) -> impl Iterator<Item = u8> + '_ {
        (1..=self.last(side)).filter(move |seq| !self.effect[side].contains(*seq))
    }

    /// Nothing is under way.
    pub fn is_quiet(&self) -> bool {
        (0..2).all(|side| {
            let Progress { through, half, parked } = self.progress[side];
            self.all_captured(side) && through == self.last(side) && half.is_none() && parked.is_empty()
        })
    }

    /// Every message has ended, and once.
    pub fn is_settled(&self) -> bool {
        self.is_quiet() && (0..2).all(|side| self.under_way(side).next().is_none())
    }

    pub fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Messages of a side that nobody will ask for any more: the other side has them, and so have all changes of the
    /// other side that are still to be judged.
    pub fn dead_through(&self, side: usize) -> u8 {
        let seen = self.under_way(1 - side).map(|seq| self.message(1 - side, seq).seen.in_effect_through());
        seen.fold(self.progress[side].in_effect_through(), u8::min)
    }

    /// Drops what cannot matter any more.
    pub fn forget(&mut self) {
        for side in 0..2 {
            let dead = self.dead_through(side);
            self.floor[1 - side] = self.floor[1 - side].max(dead);
            for index in 0..usize::from(dead) {
                let log = &self.logs[side];
                let is_last = |key: u8| !log[index + 1..].iter().any(|later| later.touches(key));
                let message = log[index];
                self.logs[side][index] = message.remembered(is_last(message.from) || is_last(message.to));
            }
        }
        for side in 0..2 {
            for key in 0..KEYS {
                let Some(writer) = self.writers[side][key] else { continue };
                let older = |seq: u8| seq < writer && self.message(1 - side, seq).touches(key as u8);
                if !self.under_way(1 - side).any(older) {
                    self.writers[side][key] = None;
                }
            }
        }
    }
}
