//! Changes of a row's key win or lose as a whole.
//!
//! To deciding, such a change is two: a delete of one key and an insert of another, each with rivals of its own. Where one of
//! them has lost, the row must not be written under the other key: it would be there twice, or not at all. So neither half is
//! written, and what the source has already done is undone: of both keys the target has its own rows, and these go back to
//! the source as changes that have seen the move, as if a user of the target had put the row back. To both sides that is what
//! any other change is. It moves no row itself, so nothing goes round.
//!
//! Users of the source may have gone on with the moved row before they could know. What they did to it is lost with the move,
//! up to where they deleted it: in the same batch by [`lost_moves`], and later since what goes back has [a clock](undo_clock)
//! that such changes do not reach. Under a policy that compares no clocks it has [one of its own](UNDONE), which goes before the
//! side that is preferred.

use std::hash::Hash;

use crossfade_model::Clock;
use rustc_hash::FxHashMap;

use crate::decide::{Loss, Verdict, WriteReason};
use crate::mapping::{ClockKind, Policy, TableMapping};

/// A change as far as its keys go, each with who wins there. Where the key stays, both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedChange<K> {
    pub before: Option<K>,
    pub after: Option<K>,
    /// Of the key before.
    pub departure: Verdict,
    /// Of the key after, or of the deleted row's.
    pub arrival: Verdict,
    /// It has lost for another reason.
    pub ruled: Option<Loss>,
}

impl<K: Copy + Eq + Hash> KeyedChange<K> {
    fn moves(&self) -> bool {
        self.before.is_some() && self.after.is_some() && self.before != self.after
    }

    /// Brings a row to its key, from elsewhere or as a new one.
    fn brings(&self) -> bool {
        self.after.is_some() && self.before != self.after
    }

    /// `follows` says what the next change of the key before does there.
    fn own_loss(&self, follows: Option<Next>) -> Option<Loss> {
        match (self.departure, self.arrival) {
            _ if !self.moves() => None,
            (_, Verdict::Lose(loss)) => Some(loss),
            // Its winner has lost to that row.
            (Verdict::Lose(_), _) if follows == Some(Next::BringsAnother) => None,
            (Verdict::Lose(loss), _) => Some(loss),
            (Verdict::Write(_), Verdict::Write(_)) => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    BringsAnother,
    Other,
}

/// A row that stands at the source where a lost change has brought it.
struct Astray {
    loss: Loss,
    /// The target has a row of its own there, which is on its way to the source.
    is_taken: bool,
}

/// Which of these changes are lost as a whole, or since the row that they are about is not where a lost change has left it.
/// They are in the order of their source, and are all that the batch does to their keys.
pub fn lost_moves<K: Copy + Eq + Hash>(changes: &[KeyedChange<K>]) -> Vec<Option<Loss>> {
    let follows = next_at_keys(changes);
    let mut astray: FxHashMap<K, Astray> = FxHashMap::default();
    // Keys under which the target still has a row that has left it at the source: no other row takes its place.
    let mut kept: FxHashMap<K, Loss> = FxHashMap::default();
    let mut lost = Vec::with_capacity(changes.len());
    for (change, follows) in changes.iter().zip(follows) {
        // Who knew the target's row has changed that one.
        let knew = change.departure == Verdict::Write(WriteReason::NothingConcurrent);
        let carried = change.before.and_then(|key| astray.remove(&key)).filter(|row| !row.is_taken || !knew);
        let is_carried = carried.is_some();
        let displaced = change.after.filter(|_| change.brings()).and_then(|key| kept.get(&key).copied());
        let loss = carried.map(|row| row.loss).or(change.ruled).or(displaced).or_else(|| change.own_loss(follows));
        if let (Some(loss), Some(key)) = (loss, change.before)
            && change.moves()
            && !is_carried
        {
            kept.insert(key, loss);
        }
        if let (Some(loss), Some(key)) = (loss, change.after) {
            let is_taken = matches!(change.arrival, Verdict::Lose(_));
            astray.insert(key, Astray { loss, is_taken });
        }
        lost.push(loss);
    }
    lost
}

/// Of each change what comes next at the key before it.
fn next_at_keys<K: Copy + Eq + Hash>(changes: &[KeyedChange<K>]) -> Vec<Option<Next>> {
    let mut next: FxHashMap<K, Next> = FxHashMap::default();
    let mut found: Vec<Option<Next>> = changes
        .iter()
        .rev()
        .map(|change| {
            let follows = change.before.and_then(|key| next.insert(key, Next::Other));
            if let Some(key) = change.after.filter(|_| change.brings()) {
                let stands = matches!(change.arrival, Verdict::Write(_));
                next.insert(key, if stands { Next::BringsAnother } else { Next::Other });
            }
            follows
        })
        .collect();
    found.reverse();
    found
}

/// How long users of the source may go on with a moved row after its move was undone, and before they know.
const LONGEST_IGNORANCE_MICROS: i64 = 3_600_000_000;
const LONGEST_IGNORANCE_VERSIONS: i64 = 1 << 20;

/// Under a policy that prefers a side: the effective clock of what goes back, and of what follows it on its side until every
/// change that may still be judged against that has seen it.
pub const UNDONE: Clock = Clock(i64::MAX);

/// Whether a change that has this effective clock goes before those of the side that the policy prefers.
pub fn goes_before_policy(policy: Policy, effective: Option<Clock>) -> bool {
    !policy.compares_clocks() && effective == Some(UNDONE)
}

/// The clock as people are told it: what goes before a policy has none.
pub fn told_clock(policy: Policy, effective: Option<Clock>) -> Option<Clock> {
    effective.filter(|_| !goes_before_policy(policy, effective))
}

/// The least effective clock of what goes back, so that it wins over what users did meanwhile to the moved row, and to the key
/// that it left. `lost` is the clock of the lost change.
pub fn undo_clock(mapping: &TableMapping, lost: Option<Clock>, now_micros: i64) -> Clock {
    match &mapping.clock {
        Some(clock) if mapping.policy.compares_clocks() => undo_clock_of(clock.kind, lost, now_micros),
        _ => UNDONE,
    }
}

fn undo_clock_of(kind: ClockKind, lost: Option<Clock>, now_micros: i64) -> Clock {
    match kind {
        ClockKind::Version => Clock(lost.map_or(0, |clock| clock.0).saturating_add(LONGEST_IGNORANCE_VERSIONS)),
        ClockKind::Time { .. } => {
            Clock(lost.map_or(now_micros, |clock| clock.0.max(now_micros)).saturating_add(LONGEST_IGNORANCE_MICROS))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::LossReason;

    const WON: Verdict = Verdict::Write(WriteReason::NothingConcurrent);

    fn loss(winner: u64) -> Loss {
        Loss { winner, reason: LossReason::ChildGiven }
    }

    /// A change from one key to another with the message that beats it at each; 0 stands for no key and nobody.
    fn change(before: u8, after: u8, beaten: [u64; 2]) -> KeyedChange<u8> {
        let verdict = |winner| if winner == 0 { WON } else { Verdict::Lose(loss(winner)) };
        let key = |key| (key != 0).then_some(key);
        let [departure, arrival] = beaten.map(verdict);
        KeyedChange { before: key(before), after: key(after), departure, arrival, ruled: None }
    }

    fn winners(changes: &[KeyedChange<u8>]) -> Vec<u64> {
        lost_moves(changes).into_iter().map(|loss| loss.map_or(0, |loss| loss.winner)).collect()
    }

    #[test]
    fn one_lost_half_is_the_whole() {
        assert_eq!(winners(&[change(1, 2, [0, 0])]), [0]);
        assert_eq!(winners(&[change(1, 2, [7, 0])]), [7]);
        assert_eq!(winners(&[change(1, 2, [0, 8])]), [8]);
        assert_eq!(winners(&[change(1, 1, [7, 7]), change(0, 3, [0, 7])]), [0, 0], "these are decided by themselves");
    }

    #[test]
    fn what_was_done_to_the_moved_row_is_lost_with_it() {
        let goes_on = [change(2, 2, [0, 0]), change(2, 3, [0, 0]), change(3, 0, [0, 0]), change(0, 3, [0, 0])];
        let changes = [&[change(1, 2, [7, 0])], &goes_on[..]].concat();
        assert_eq!(winners(&changes), [7, 7, 7, 7, 0], "up to its end");
        let ruled = KeyedChange { ruled: Some(loss(9)), ..change(1, 2, [0, 0]) };
        assert_eq!(winners(&[ruled, change(2, 2, [0, 0])]), [9, 9]);
    }

    #[test]
    fn a_departure_that_another_row_makes_up_for_is_not_lost() {
        assert_eq!(winners(&[change(1, 2, [7, 0]), change(3, 1, [0, 0])]), [0, 0]);
        assert_eq!(winners(&[change(1, 2, [7, 0]), change(0, 1, [0, 0])]), [0, 0]);
        assert_eq!(winners(&[change(1, 2, [7, 0]), change(0, 1, [7, 7])]), [7, 7], "it has lost as well");
        assert_eq!(winners(&[change(1, 2, [0, 7]), change(0, 1, [0, 0])]), [7, 7], "the first row is still there");
        assert_eq!(winners(&[change(1, 2, [7, 0]), change(1, 1, [0, 0])]), [7, 0], "that is the winner's row");
        let late = [change(1, 2, [7, 0]), change(1, 1, [0, 0]), change(3, 1, [0, 0])];
        assert_eq!(winners(&late), [7, 0, 7], "so it is if another row comes later");
        // Two rows change places.
        let swap = |first, second| [change(1, 9, [first, 0]), change(2, 1, [0, second]), change(9, 2, [0, 0])];
        assert_eq!(winners(&swap(7, 7)), [7, 7, 7]);
        assert_eq!(winners(&swap(7, 0)), [0, 0, 0]);
        let ruled = KeyedChange { ruled: Some(loss(9)), ..change(1, 9, [0, 0]) };
        assert_eq!(winners(&[ruled, change(2, 1, [0, 0]), change(9, 2, [0, 0]), change(1, 3, [0, 0])]), [9; 4]);
    }

    #[test]
    fn who_knew_the_row_that_was_there_has_changed_that_one() {
        let unknown = Verdict::Write(WriteReason::Won { loser: 7 });
        let later = KeyedChange { departure: unknown, arrival: unknown, ..change(2, 2, [0, 0]) };
        assert_eq!(winners(&[change(1, 2, [0, 7]), later]), [7, 7]);
        assert_eq!(winners(&[change(1, 2, [0, 7]), change(2, 2, [0, 0])]), [7, 0]);
    }

    #[test]
    fn people_are_told_clocks_that_are_clocks() {
        for clock in [None, Some(Clock(5)), Some(UNDONE)] {
            assert_eq!(told_clock(Policy::Version, clock), clock);
            assert_eq!(told_clock(Policy::PreferNew, clock), clock.filter(|clock| *clock != UNDONE));
        }
    }

    #[test]
    fn what_goes_back_is_later_than_what_was_lost() {
        for kind in [ClockKind::Version, ClockKind::Time { fraction_digits: 6 }] {
            for lost in [None, Some(Clock(5)), Some(Clock(i64::MAX))] {
                assert!(Some(undo_clock_of(kind, lost, 4)) >= lost.max(Some(Clock(4))));
            }
        }
        let long_after = 10 * LONGEST_IGNORANCE_MICROS;
        for lost in [None, Some(Clock(5))] {
            let clock = undo_clock_of(ClockKind::Time { fraction_digits: 6 }, lost, long_after);
            assert!(clock > Clock(long_after), "users have gone on since");
        }
    }
}
