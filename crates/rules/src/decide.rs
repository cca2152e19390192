//! Who wins: causality first, clocks second.
//!
//! The caller finds out what is concurrent: the target's user changes of the row that the event has not seen. What is
//! decided from that is the same on both sides, because both compare the same two effective clocks and break a tie to
//! the same side.

use std::fmt;

use crossfade_model::{Clock, RowOp, Side};

use crate::authority::Authority;
use crate::mapping::Policy;
use crate::moves::goes_before_policy;

/// The change that wants to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Where its user wrote it.
    pub side: Side,
    pub effective: Option<Clock>,
    /// It only gives a row back to the side that has ended it, as it was there before.
    pub returned: bool,
    /// Of its side over the row, where it was made.
    pub authority: Authority,
}

/// The last of the target's user changes of the row that the event has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastConcurrent {
    /// Its number in the opposite stream.
    pub seq: u64,
    pub effective: Option<Clock>,
    pub op: RowOp,
    /// As [`Event::returned`].
    pub returned: bool,
    /// As [`Event::authority`].
    pub authority: Authority,
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
    /// Something concurrent lost to the event, since it was made where its side had no authority.
    Outranked { loser: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// The message of the opposite stream that won; 0 where it has lost to none, but for want of authority.
    pub winner: u64,
    pub reason: LossReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// The winner's clock is later.
    LaterClock {
        event: Option<Clock>,
        winner: Option<Clock>,
        op: RowOp,
    },
    /// Equal clocks; the winner's side is the preferred one.
    EqualClocks {
        clock: Option<Clock>,
        preferred: Side,
    },
    /// The table's policy prefers the winner's side.
    PreferredSide {
        preferred: Side,
    },
    /// The event ends a parent to which the winner, a concurrent change, has given a child.
    ChildGiven,
    /// The event refers to a parent that the winner, a concurrent change, has ended.
    ParentEnded,
    /// The event only gives a row back, and the winner was written by somebody who knew what it gives back.
    OnlyReturned,
    /// The event goes on with a row of which the winner has undone a change of the key.
    MoveUndone {
        op: RowOp,
    },
    /// Of a column that both changed, the winner's value is the greater one.
    GreaterValue,
    SmallerValue,
    /// It was made where the other side had authority over the row.
    Authority {
        side: Side,
    },
}

impl LossReason {
    /// The winner, which has won by itself and not for its side, has ended the row.
    pub fn is_an_end(self) -> bool {
        matches!(self, LossReason::LaterClock { op: RowOp::Delete, .. } | LossReason::MoveUndone { op: RowOp::Delete })
    }
}

/// Decides whether an event is written on the target.
///
/// With nothing concurrent the event is written, whatever the clocks say. Else the later effective clock wins, and equal
/// clocks (or none at all) go to the side in `prefer`; under a policy that names a side, that side wins, but not over a change
/// of a key that was [undone](crate::moves) on the other one. What only gives a row back is older than whatever was written where
/// it had ended, and loses under every policy.
///
/// Before all that goes authority. What was made where the other side had it over the row is never written, whether anything is
/// concurrent or not, and what was made where its own side had it wins over that. Between two that both had it where they were
/// made, all is as without it.
pub fn decide(event: &Event, concurrent: Option<&LastConcurrent>, policy: Policy, prefer: Side) -> Verdict {
    if event.authority == Authority::Lacking {
        let reason = LossReason::Authority { side: event.side.opposite() };
        return Verdict::Lose(Loss { winner: concurrent.map_or(0, |other| other.seq), reason });
    }
    let Some(other) = concurrent else { return Verdict::Write(WriteReason::NothingConcurrent) };
    if event.authority.goes_before(other.authority) {
        return Verdict::Write(WriteReason::Outranked { loser: other.seq });
    }
    let lost = match policy {
        _ if event.returned && !other.returned => Some(LossReason::OnlyReturned),
        _ if other.returned && !event.returned => None,
        Policy::PreferOld | Policy::PreferNew => {
            let goes_before = |effective| goes_before_policy(policy, effective);
            match (goes_before(event.effective), goes_before(other.effective)) {
                (true, false) => None,
                (false, true) => Some(LossReason::MoveUndone { op: other.op }),
                _ if policy == Policy::PreferOld => lost_to_side(event.side, Side::Old),
                _ => lost_to_side(event.side, Side::New),
            }
        }
        Policy::Newest | Policy::Version => lost_to_clock(event, other, prefer),
    };
    match lost {
        None => Verdict::Write(WriteReason::Won { loser: other.seq }),
        Some(reason) => Verdict::Lose(Loss { winner: other.seq, reason }),
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

/// How the reason of a change begins that was made where the other side had authority.
pub const AUTHORITY: &str = "authority: ";

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
            LossReason::ChildGiven => f.write_str("a concurrent change has given the deleted row a child"),
            LossReason::ParentEnded => f.write_str("a concurrent change has deleted the parent that it refers to"),
            LossReason::OnlyReturned => f.write_str("it only gives back what was there before a concurrent change"),
            LossReason::MoveUndone { .. } => {
                f.write_str("it goes on with a row whose change of key had lost and was undone on the other side")
            }
            LossReason::GreaterValue => f.write_str("a concurrent change has the greater value"),
            LossReason::SmallerValue => f.write_str("a concurrent change has the smaller value"),
            LossReason::Authority { side } => write!(f, "{AUTHORITY}users write it on {side}"),
            LossReason::PreferredSide { preferred } => {
                write!(f, "a concurrent change was made on {preferred}, which this table prefers")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moves::UNDONE;

    const POLICIES: [Policy; 4] = [Policy::Newest, Policy::Version, Policy::PreferOld, Policy::PreferNew];
    const SIDES: [Side; 2] = [Side::Old, Side::New];
    const CLOCKS: [Option<Clock>; 4] = [None, Some(Clock(i64::MIN)), Some(Clock(0)), Some(Clock(1))];

    fn event(side: Side, effective: Option<Clock>) -> Event {
        Event { side, effective, returned: false, authority: Authority::Shared }
    }

    fn other(effective: Option<Clock>) -> LastConcurrent {
        LastConcurrent { seq: 8, effective, op: RowOp::Delete, returned: false, authority: Authority::Shared }
    }

    fn wins(side: Side, own: Option<Clock>, against: Option<Clock>, policy: Policy, prefer: Side) -> bool {
        matches!(decide(&event(side, own), Some(&other(against)), policy, prefer), Verdict::Write(_))
    }

    #[test]
    fn only_a_delete_that_has_won_by_itself_ends_a_row() {
        let (clock, side) = (Some(Clock(1)), Side::Old);
        for op in [RowOp::Insert, RowOp::Update, RowOp::Delete] {
            let by_itself = [LossReason::LaterClock { event: None, winner: clock, op }, LossReason::MoveUndone { op }];
            for reason in by_itself {
                assert_eq!(reason.is_an_end(), op == RowOp::Delete, "{reason:?}");
            }
        }
        let others = [
            LossReason::EqualClocks { clock, preferred: side },
            LossReason::PreferredSide { preferred: side },
            LossReason::ChildGiven,
            LossReason::ParentEnded,
            LossReason::OnlyReturned,
            LossReason::GreaterValue,
            LossReason::SmallerValue,
            LossReason::Authority { side },
        ];
        assert!(!others.iter().any(|reason| reason.is_an_end()));
    }

    #[test]
    fn p4_of_two_concurrent_changes_exactly_one_wins_on_both_sides() {
        for policy in POLICIES {
            for prefer in SIDES {
                for old in CLOCKS {
                    for new in CLOCKS {
                        let old_wins = wins(Side::Old, old, new, policy, prefer);
                        let new_wins = wins(Side::New, new, old, policy, prefer);
                        assert_ne!(old_wins, new_wins, "{policy:?} {prefer} {old:?} {new:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn p6_what_only_gives_a_row_back_loses_to_whatever_was_written_there() {
        for (policy, prefer) in POLICIES.into_iter().flat_map(|policy| SIDES.map(|prefer| (policy, prefer))) {
            for (old, new) in CLOCKS.into_iter().flat_map(|old| CLOCKS.map(|new| (old, new))) {
                for (old_returned, new_returned) in [(true, false), (false, true), (true, true)] {
                    let wins = |side, (own, returned), (against, other_returned)| {
                        let event = Event { returned, ..event(side, own) };
                        let other = LastConcurrent { returned: other_returned, ..other(against) };
                        matches!(decide(&event, Some(&other), policy, prefer), Verdict::Write(_))
                    };
                    let (from_old, from_new) = ((old, old_returned), (new, new_returned));
                    let old_wins = wins(Side::Old, from_old, from_new);
                    assert_ne!(old_wins, wins(Side::New, from_new, from_old), "{policy:?} {prefer} {old:?} {new:?}");
                    assert!(old_returned == new_returned || old_wins == new_returned);
                }
            }
        }
    }

    /// Whatever the clocks, the policy and what returns say, of two changes of which one side had authority that one wins, on
    /// both sides alike.
    #[test]
    fn p4_who_had_authority_wins_on_both_sides_whatever_else_would_decide() {
        use Authority::{Held, Lacking};
        for (policy, prefer) in POLICIES.into_iter().flat_map(|policy| SIDES.map(|prefer| (policy, prefer))) {
            for (own, against) in CLOCKS.into_iter().flat_map(|own| CLOCKS.map(|against| (own, against))) {
                for (side, returned) in
                    SIDES.into_iter().flat_map(|side| [false, true].map(|returned| (side, returned)))
                {
                    let holder = Event { returned, authority: Held, ..event(side, own) };
                    let late = LastConcurrent { authority: Lacking, ..other(against) };
                    assert_eq!(
                        decide(&holder, Some(&late), policy, prefer),
                        Verdict::Write(WriteReason::Outranked { loser: 8 })
                    );
                    let late = Event { authority: Lacking, ..event(side.opposite(), against) };
                    let holder = LastConcurrent { authority: Held, returned, ..other(own) };
                    let reason = LossReason::Authority { side };
                    assert_eq!(decide(&late, Some(&holder), policy, prefer), Verdict::Lose(Loss { winner: 8, reason }));
                }
            }
        }
    }

    #[test]
    fn what_was_made_without_authority_is_lost_to_nobody_as_well() {
        for side in SIDES {
            let late = Event { authority: Authority::Lacking, ..event(side, Some(Clock(9))) };
            let loss = Loss { winner: 0, reason: LossReason::Authority { side: side.opposite() } };
            assert_eq!(decide(&late, None, Policy::Newest, side), Verdict::Lose(loss));
            assert_eq!(loss.reason.to_string(), format!("authority: users write it on {}", side.opposite()));
        }
    }

    #[test]
    fn between_two_that_both_had_authority_all_is_as_without_it() {
        use Authority::{Held, Shared};
        for (policy, prefer) in POLICIES.into_iter().flat_map(|policy| SIDES.map(|prefer| (policy, prefer))) {
            for (own, against) in CLOCKS.into_iter().flat_map(|own| CLOCKS.map(|against| (own, against))) {
                let decided = |authority| {
                    let event = Event { authority, ..event(Side::Old, own) };
                    decide(&event, Some(&LastConcurrent { authority, ..other(against) }), policy, prefer)
                };
                assert_eq!(decided(Held), decided(Shared));
            }
        }
    }

    #[test]
    fn what_is_past_never_stops_a_change() {
        for policy in POLICIES {
            for (side, clock) in SIDES.into_iter().zip(CLOCKS) {
                let verdict = decide(&event(side, clock), None, policy, side.opposite());
                assert_eq!(verdict, Verdict::Write(WriteReason::NothingConcurrent));
            }
        }
    }

    #[test]
    fn the_later_clock_wins_and_equal_clocks_go_to_the_preferred_side() {
        let (early, late) = (Some(Clock(1)), Some(Clock(2)));
        for prefer in SIDES {
            for side in SIDES {
                assert!(wins(side, late, early, Policy::Newest, prefer));
                assert!(!wins(side, early, late, Policy::Version, prefer));
                assert!(wins(side, early, None, Policy::Newest, prefer));
                assert_eq!(wins(side, early, early, Policy::Newest, prefer), side == prefer);
                assert_eq!(wins(side, None, None, Policy::Version, prefer), side == prefer);
            }
        }
    }

    #[test]
    fn a_preferred_side_wins_whatever_the_clocks_say() {
        let (early, late) = (Some(Clock(1)), Some(Clock(2)));
        assert!(wins(Side::Old, early, late, Policy::PreferOld, Side::New));
        assert!(!wins(Side::New, late, early, Policy::PreferOld, Side::New));
        assert!(wins(Side::New, early, late, Policy::PreferNew, Side::Old));
        assert!(!wins(Side::Old, late, early, Policy::PreferNew, Side::Old));
    }

    #[test]
    fn what_was_undone_goes_before_the_preferred_side() {
        let undone = Some(UNDONE);
        for (policy, preferred) in [(Policy::PreferOld, Side::Old), (Policy::PreferNew, Side::New)] {
            for (prefer, other) in SIDES.into_iter().flat_map(|prefer| CLOCKS.map(|other| (prefer, other))) {
                assert!(wins(preferred.opposite(), undone, other, policy, prefer));
                assert!(!wins(preferred, other, undone, policy, prefer));
                assert!(wins(preferred, undone, undone, policy, prefer), "of two the policy decides");
                assert!(!wins(preferred.opposite(), undone, undone, policy, prefer));
            }
        }
    }

    #[test]
    fn a_loser_says_to_whom_and_why() {
        let lose = |event: Event, effective, policy| match decide(&event, Some(&other(effective)), policy, Side::New) {
            Verdict::Lose(loss) => loss,
            Verdict::Write(reason) => panic!("written: {reason:?}"),
        };
        let loss = lose(event(Side::Old, None), Some(Clock(7)), Policy::Newest);
        assert_eq!(loss.winner, 8);
        assert_eq!(loss.reason.to_string(), "a concurrent delete has the later clock: 7 against none");
        let loss = lose(event(Side::Old, Some(Clock(7))), Some(Clock(7)), Policy::Newest);
        assert_eq!(loss.reason.to_string(), "a concurrent change has the same clock (7), and ties go to new");
        let loss = lose(event(Side::Old, Some(Clock(7))), None, Policy::PreferNew);
        assert_eq!(loss.reason.to_string(), "a concurrent change was made on new, which this table prefers");
        let returned = Event { returned: true, ..event(Side::New, Some(Clock(9))) };
        let loss = lose(returned, Some(Clock(7)), Policy::PreferNew);
        assert_eq!(loss.reason.to_string(), "it only gives back what was there before a concurrent change");
        let won = decide(&event(Side::New, None), Some(&other(None)), Policy::Newest, Side::New);
        assert_eq!(won, Verdict::Write(WriteReason::Won { loser: 8 }));
    }
}
