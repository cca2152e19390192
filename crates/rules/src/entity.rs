//! How an entity moves from one side to the other: its states, and what leads from one to the next.

use std::time::Duration;

use crossfade_model::Side;

/// Where an entity stands. All of them are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityState {
    /// Its key is known. Set by `entity add`.
    Identified,
    /// Its row was seen on the old side. Set by `entity add`, and by `entity move` for those it adds itself.
    Eligible,
    /// A person has asked for its move, or its return. Set by `entity move` and `entity return`, and again when an attempt
    /// was undone.
    Requested,
    /// Its rows are being made equal on the side that it goes to. Set by the tool that works at it.
    Copying,
    /// Its rows were equal on both sides while users wrote; the fence comes next, and answers about it are good for a short
    /// time only. Set by that tool.
    Verified,
    /// The new side has authority over its rows. Set at the end of a move, under the fence.
    Moved,
    /// The old side has authority over its rows again. Set at the end of a return, under the fence.
    Returned,
    /// Every attempt was undone, and it is where it was. Set with the reason of the last one.
    Failed,
}

/// What leads from one state to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntityStep {
    /// Its row was seen.
    See,
    /// A person asks for its move to the side that it is not on.
    Ask,
    /// A tool takes it up.
    Begin,
    /// Its rows are equal.
    Prove,
    /// Under the fence, with its rows equal: the side has authority.
    Decide(Side),
    /// An attempt is undone; another one may follow.
    Undo,
    /// An attempt is undone, and no other one follows.
    GiveUp,
    /// Nobody works at it any more: it rests where it is. `None`: with all that have no side of their own.
    Withdraw(Option<Side>),
}

impl EntityState {
    pub const ALL: [EntityState; 8] = [
        EntityState::Identified,
        EntityState::Eligible,
        EntityState::Requested,
        EntityState::Copying,
        EntityState::Verified,
        EntityState::Moved,
        EntityState::Returned,
        EntityState::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EntityState::Identified => "identified",
            EntityState::Eligible => "eligible",
            EntityState::Requested => "requested",
            EntityState::Copying => "copying",
            EntityState::Verified => "verified",
            EntityState::Moved => "moved",
            EntityState::Returned => "returned",
            EntityState::Failed => "failed",
        }
    }

    pub fn parse(text: &str) -> Option<EntityState> {
        EntityState::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// What follows; `None` where the step does not lead on from here.
    pub fn after(self, step: EntityStep) -> Option<EntityState> {
        use EntityState::{Copying, Eligible, Failed, Identified, Moved, Requested, Returned, Verified};
        match (self, step) {
            (Identified, EntityStep::See) => Some(Eligible),
            (Eligible | Moved | Returned | Failed, EntityStep::Ask) => Some(Requested),
            (Requested, EntityStep::Begin) => Some(Copying),
            (Copying, EntityStep::Prove) => Some(Verified),
            (Verified, EntityStep::Decide(Side::New)) => Some(Moved),
            (Verified, EntityStep::Decide(Side::Old)) => Some(Returned),
            (Copying | Verified, EntityStep::Undo) => Some(Requested),
            (Copying | Verified, EntityStep::GiveUp) => Some(Failed),
            (Requested, EntityStep::Withdraw(Some(Side::New))) => Some(Moved),
            (Requested, EntityStep::Withdraw(Some(Side::Old))) => Some(Returned),
            (Requested, EntityStep::Withdraw(None)) => Some(Eligible),
            _ => None,
        }
    }

    /// The states that a step leads on from.
    pub fn before(step: EntityStep) -> Vec<EntityState> {
        EntityState::ALL.into_iter().filter(|state| state.after(step).is_some()).collect()
    }

    /// A tool has it in hand.
    pub fn is_at_work(self) -> bool {
        matches!(self, EntityState::Copying | EntityState::Verified)
    }
}

impl std::fmt::Display for EntityState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In front of a fence, answers run out this many times sooner, so that the fence need not wait for long ones.
const SHORTER: u32 = 10;

/// With less, applications would ask before every statement.
const SHORTEST: Duration = Duration::from_millis(20);

/// For how long an answer about an entity in this state may be used, where the usual time is `lease`.
///
/// Whoever fences waits for `lease` between `verified` and the fence, and for the time of `verified` after it: then nobody holds
/// an answer any more.
pub fn answer_valid_for(state: EntityState, lease: Duration) -> Duration {
    match state {
        EntityState::Verified => (lease / SHORTER).max(SHORTEST).min(lease),
        _ => lease,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [EntityStep; 11] = [
        EntityStep::See,
        EntityStep::Ask,
        EntityStep::Begin,
        EntityStep::Prove,
        EntityStep::Decide(Side::Old),
        EntityStep::Decide(Side::New),
        EntityStep::Undo,
        EntityStep::GiveUp,
        EntityStep::Withdraw(None),
        EntityStep::Withdraw(Some(Side::Old)),
        EntityStep::Withdraw(Some(Side::New)),
    ];

    #[test]
    fn a_move_and_a_return_pass_all_states_in_order() {
        let there = [EntityStep::See, EntityStep::Ask, EntityStep::Begin, EntityStep::Prove];
        let back = [EntityStep::Ask, EntityStep::Begin, EntityStep::Prove, EntityStep::Decide(Side::Old)];
        let mut state = EntityState::Identified;
        let mut seen = vec![state];
        for step in there.into_iter().chain([EntityStep::Decide(Side::New)]).chain(back) {
            state = state.after(step).unwrap_or_else(|| panic!("{step:?} from {state}"));
            seen.push(state);
        }
        let names: Vec<&str> = seen.iter().map(|state| state.as_str()).collect();
        assert_eq!(
            names.join(" "),
            "identified eligible requested copying verified moved requested copying verified returned"
        );
    }

    #[test]
    fn authority_changes_only_from_verified() {
        for state in EntityState::ALL {
            for side in [Side::Old, Side::New] {
                let decided = state.after(EntityStep::Decide(side));
                assert_eq!(decided.is_some(), state == EntityState::Verified, "{state}");
            }
        }
        assert_eq!(EntityState::before(EntityStep::Undo), [EntityState::Copying, EntityState::Verified]);
    }

    #[test]
    fn no_state_is_without_a_way_out_and_each_can_be_reached() {
        for state in EntityState::ALL {
            assert!(STEPS.iter().any(|step| state.after(*step).is_some()), "{state} is the end");
            let is_reached = EntityState::ALL
                .iter()
                .any(|from| STEPS.iter().any(|step| *from != state && from.after(*step) == Some(state)));
            assert!(is_reached || state == EntityState::Identified, "{state} is never reached");
            assert_eq!(EntityState::parse(state.as_str()), Some(state));
        }
    }

    #[test]
    fn in_front_of_a_fence_answers_are_good_for_a_short_time() {
        let lease = Duration::from_secs(2);
        for state in EntityState::ALL {
            let valid_for = answer_valid_for(state, lease);
            let wanted = if state == EntityState::Verified { Duration::from_millis(200) } else { lease };
            assert_eq!(valid_for, wanted, "{state}");
        }
        let short = Duration::from_millis(100);
        assert_eq!(answer_valid_for(EntityState::Verified, short), Duration::from_millis(20));
    }
}
