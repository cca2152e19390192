//! Which phase may follow which.

use crossfade_model::{Direction, Phase, Side};
use serde::{Deserialize, Serialize};

/// What changes the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// `flag set write_both`.
    Open,
    /// `flag set old_only`.
    Close,
    Cutover,
    Rollback,
    /// The end of the migration: only new is left.
    Finish,
    /// Leaving before anybody has changed sides: only old is left.
    Abort,
}

impl Change {
    pub const ALL: [Change; 6] =
        [Change::Open, Change::Close, Change::Cutover, Change::Rollback, Change::Finish, Change::Abort];

    pub fn as_str(self) -> &'static str {
        match self {
            Change::Open => "open",
            Change::Close => "close",
            Change::Cutover => "cutover",
            Change::Rollback => "rollback",
            Change::Finish => "finish",
            Change::Abort => "abort",
        }
    }

    pub fn parse(text: &str) -> Option<Change> {
        Change::ALL.into_iter().find(|change| change.as_str() == text)
    }

    /// As it is typed.
    pub fn command(self) -> &'static str {
        match self {
            Change::Open => "flag set write_both",
            Change::Close => "flag set old_only",
            Change::Cutover => "cutover",
            Change::Rollback => "rollback",
            Change::Finish => "finish",
            Change::Abort => "abort",
        }
    }

    /// Of `abort` the later one of the two that it may leave.
    pub fn from(self) -> Phase {
        match self {
            Change::Open => Phase::OldOnly,
            Change::Close | Change::Cutover | Change::Abort => Phase::WriteBoth,
            Change::Rollback | Change::Finish => Phase::ReadNew,
        }
    }

    pub fn to(self) -> Phase {
        match self {
            Change::Close | Change::Abort => Phase::OldOnly,
            Change::Open | Change::Rollback => Phase::WriteBoth,
            Change::Cutover => Phase::ReadNew,
            Change::Finish => Phase::NewOnly,
        }
    }

    /// Whether it may begin in a phase.
    pub fn leads_from(self, phase: Phase) -> bool {
        phase == self.from() || (self == Change::Abort && phase == Phase::OldOnly)
    }

    /// Whether both sides must have been found equal before it.
    pub fn is_compared(self) -> bool {
        matches!(self, Change::Open | Change::Cutover)
    }

    /// After it nothing crosses any more, and nothing leads back.
    pub fn is_end(self) -> bool {
        matches!(self, Change::Finish | Change::Abort)
    }

    /// The direction that must have brought over everything before users change sides; `None` where they stay where they are.
    pub fn drains(self) -> Option<Direction> {
        match self {
            Change::Open | Change::Close | Change::Finish | Change::Abort => None,
            Change::Cutover => Some(Direction::Forward),
            Change::Rollback => Some(Direction::Reverse),
        }
    }

    /// The side that users are kept from writing to meanwhile.
    pub fn fences(self) -> Option<Side> {
        self.drains().map(Direction::source)
    }

    /// The side of which every transaction must be decided first, since nobody writes there afterwards.
    pub fn leaves(self) -> Option<Side> {
        if self == Change::Finish { Some(Side::Old) } else { self.fences() }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways_from(phase: Phase) -> Vec<(Change, Phase)> {
        Change::ALL.into_iter().filter(|change| change.leads_from(phase)).map(|change| (change, change.to())).collect()
    }

    #[test]
    fn every_phase_is_left_in_both_directions_and_none_is_jumped_over() {
        let abort = (Change::Abort, Phase::OldOnly);
        assert_eq!(ways_from(Phase::OldOnly), [(Change::Open, Phase::WriteBoth), abort]);
        assert_eq!(
            ways_from(Phase::WriteBoth),
            [(Change::Close, Phase::OldOnly), (Change::Cutover, Phase::ReadNew), abort]
        );
        assert_eq!(ways_from(Phase::ReadNew), [(Change::Rollback, Phase::WriteBoth), (Change::Finish, Phase::NewOnly)]);
        assert_eq!(ways_from(Phase::NewOnly), [], "nothing leads back from the end");
    }

    #[test]
    fn what_moves_users_drains_the_side_that_they_leave() {
        for change in Change::ALL {
            let moves = change.from().writes_to() != change.to().writes_to();
            assert_eq!(change.fences(), moves.then_some(change.from().writes_to()), "{change}");
        }
    }

    #[test]
    fn changes_are_kept_by_their_names() {
        for change in Change::ALL {
            assert_eq!(Change::parse(change.as_str()), Some(change));
        }
        assert_eq!(Change::parse("begin"), None);
    }
}
