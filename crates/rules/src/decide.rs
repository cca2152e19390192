//! Who wins: causality first, clocks second.
//!
//! The caller finds out what is concurrent: the target's user changes of the row that the event has not seen. What is
//! decided from that is the same on both sides, because both compare the same two effective clocks and break a tie to
//! the same side.

use std::fmt;

use crossfade_model::{Clock, RowOp, Side};

use crate::mapping::Policy;

/// The change that wants to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Where its user wrote it.
    pub side: Side,
    pub effective: Option<Clock>,
    /// The source itself holds something newer than the event's contents by now: a later change of the same row is
    /// captured. Only the status of a loser depends on it.
    pub overtaken: bool,
}

/// The last of the target's user changes of the row that the event has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastConcurrent {
    /// Its number in the opposite stream.
    pub seq: u64,
    pub effective: Option<Clock>,
    pub op: RowOp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Write(WriteReason),
    Lose(Loss),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteReason {
    /// All that the target's users did to the row is the event's past.
    NothingConcurrent,
    /// Something concurrent lost to the event.
    Won { loser: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    pub status: LossStatus,
    /// The message of the opposite stream that won.
    pub winner: u64,
    pub reason: LossReason,
}

/// How a loser stands in the message table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossStatus {
    ConflictLost,
    /// Its contents had been overtaken on its own side anyway.
    Stale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// The winner's clock is later.
    LaterClock { event: Option<Clock>, winner: Option<Clock>, op: RowOp },
    /// Equal clocks; the winner's side is the preferred one.
    EqualClocks { clock: Option<Clock>, preferred: Side },
    /// The table's policy prefers the winner's side.
    PreferredSide { preferred: Side },
}

impl LossStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            LossStatus::ConflictLost => "conflict_lost",
            LossStatus::Stale => "stale",
        }
    }
}

/// Decides whether an event is written on the target.
///
/// With nothing concurrent the event is written, whatever the clocks say. Else the later effective clock wins, and equal
/// clocks (or none at all) go to the side in `prefer`; under a policy that names a side, that side wins.
pub fn decide(event: &Event, concurrent: Option<&LastConcurrent>, policy: Policy, prefer: Side) -> Verdict {
    let Some(other) = concurrent else { return Verdict::Write(WriteReason::NothingConcurrent) };
    let lost = match policy {
        Policy::PreferOld => lost_to_side(event.side, Side::Old),
        Policy::PreferNew => lost_to_side(event.side, Side::New),
        Policy::Newest | Policy::Version => lost_to_clock(event, other, prefer),
    };
    match lost {
        None => Verdict::Write(WriteReason::Won { loser: other.seq }),
        Some(reason) => {
            let status = if event.overtaken { LossStatus::Stale } else { LossStatus::ConflictLost };
            Verdict::Lose(Loss { status, winner: other.seq, reason })
        }
    }
}

fn lost_to_side(side: Side, preferred: Side) -> Option<LossReason> {
    (side != preferred).then_some(LossReason::PreferredSide { preferred })
}

fn lost_to_clock(event: &Event, other: &LastConcurrent, prefer: Side) -> Option<LossReason> {
    // `None` is older than every clock.
    match event.effective.cmp(&other.effective) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Less => {
            Some(LossReason::LaterClock { event: event.effective, winner: other.effective, op: other.op })
        }
        std::cmp::Ordering::Equal => {
            (event.side != prefer).then_some(LossReason::EqualClocks { clock: event.effective, preferred: prefer })
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |clock: &Option<Clock>| clock.map_or_else(|| "none".to_owned(), |clock| clock.to_string());
        match self {
            LossReason::LaterClock { event, winner, op } => {
                write!(f, "a concurrent {op} has the later clock: {} against {}", shown(winner), shown(event))
            }
            LossReason::EqualClocks { clock, preferred } => {
                write!(f, "a concurrent change has the same clock ({}), and ties go to {preferred}", shown(clock))
            }
            LossReason::PreferredSide { preferred } => {
                write!(f, "a concurrent change was made on {preferred}, which this table prefers")
            }
        }
    }
}
