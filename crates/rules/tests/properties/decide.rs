//! `decide`: total, the same on both sides, the same when asked again, and an order.

use crossfade_model::{Clock, RowOp, Side};
use crossfade_rules::decide::LossReason;
use crossfade_rules::moves::UNDONE;
use crossfade_rules::{Event, LastConcurrent, Policy, Verdict, decide};
use proptest::prelude::*;

use crate::seeded;

fn sides() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Old), Just(Side::New)]
}

/// Few clocks, so that ties are as frequent as orders, and the extremes.
fn clocks() -> impl Strategy<Value = Option<Clock>> {
    prop_oneof![
        1 => Just(None),
        4 => (0..4_i64).prop_map(|clock| Some(Clock(clock))),
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()].prop_map(|clock| Some(Clock(clock))),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Newest), Just(Policy::Version), Just(Policy::PreferOld), Just(Policy::PreferNew)]
}

fn ops() -> impl Strategy<Value = RowOp> {
    prop_oneof![Just(RowOp::Insert), Just(RowOp::Update), Just(RowOp::Delete)]
}

fn verdict(side: Side, clock: Option<Clock>, other: Option<Clock>, policy: Policy, prefer: Side) -> Verdict {
    let event = Event { side, effective: clock, returned: false, authority: crossfade_rules::Authority::Shared };
    decide(
        &event,
        Some(&LastConcurrent {
            seq: 3,
            effective: other,
            op: RowOp::Update,
            returned: false,
            authority: crossfade_rules::Authority::Shared,
        }),
        policy,
        prefer,
    )
}

fn wins(side: Side, clock: Option<Clock>, other: Option<Clock>, policy: Policy, prefer: Side) -> bool {
    matches!(verdict(side, clock, other, policy, prefer), Verdict::Write(_))
}

proptest! {
    #![proptest_config(seeded(20_000))]

    #[test]
    fn p4_both_sides_name_the_same_winner(
        old in clocks(), new in clocks(), policy in policies(), prefer in sides(),
    ) {
        let old_wins = wins(Side::Old, old, new, policy, prefer);
        prop_assert_ne!(old_wins, wins(Side::New, new, old, policy, prefer));
    }

    /// How the other changed the row does not decide who wins; and nothing that was decided turns when it is decided again.
    #[test]
    fn only_clocks_and_sides_decide(
        side in sides(), clock in clocks(), other in clocks(), policy in policies(), prefer in sides(),
        op in ops(), seq: u64,
    ) {
        let event = Event { side, effective: clock, returned: false, authority: crossfade_rules::Authority::Shared };
        let concurrent = LastConcurrent { seq, effective: other, op, returned: false, authority: crossfade_rules::Authority::Shared };
        let decided = decide(&event, Some(&concurrent), policy, prefer);
        prop_assert_eq!(decided, decide(&event, Some(&concurrent), policy, prefer));
        prop_assert_eq!(matches!(decided, Verdict::Write(_)), wins(side, clock, other, policy, prefer));
        if let Verdict::Lose(loss) = decided {
            prop_assert_eq!(loss.winner, seq);
            let fits = match loss.reason {
                LossReason::LaterClock { event, winner, op: by } => event == clock && winner == other && by == op && other > clock,
                LossReason::EqualClocks { clock: equal, preferred } => {
                    equal == clock && equal == other && preferred == prefer && side != prefer
                }
                LossReason::PreferredSide { preferred } => preferred != side,
                LossReason::MoveUndone { op: by } => other == Some(UNDONE) && clock != other && by == op,
                _ => false,
            };
            prop_assert!(fits, "{:?}", loss.reason);
        }
    }

    /// A later change of the same row never loses where the one before it won. On this rests that the order in which
    /// changes arrive does not count.
    #[test]
    fn who_wins_goes_on_winning(
        side in sides(), clocks in (clocks(), clocks(), clocks()), policy in policies(), prefer in sides(),
    ) {
        let (first, second, other) = clocks;
        let (earlier, later) = (first.min(second), first.max(second));
        prop_assert!(!wins(side, earlier, other, policy, prefer) || wins(side, later, other, policy, prefer));
        prop_assert!(!wins(side, other, later, policy, prefer) || wins(side, other, earlier, policy, prefer));
    }

    #[test]
    fn nothing_concurrent_is_always_written(
        side in sides(), clock in clocks(), policy in policies(), prefer in sides(),
    ) {
        let event = Event { side, effective: clock, returned: false, authority: crossfade_rules::Authority::Shared };
        prop_assert!(matches!(decide(&event, None, policy, prefer), Verdict::Write(_)));
    }
}
