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
}

impl Change {
    pub const ALL: [Change; 4] = [Change::Open, Change::Close, Change::Cutover, Change::Rollback];

    pub fn as_str(self) -> &'static str {
        match self {
            Change::Open => "open",
            Change::Close => "close",
            Change::Cutover => "cutover",
            Change::Rollback => "rollback",
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
        }
    }

    pub fn from(self) -> Phase {
        match self {
            Change::Open => Phase::OldOnly,
            Change::Close | Change::Cutover => Phase::WriteBoth,
            Change::Rollback => Phase::ReadNew,
        }
    }

    pub fn to(self) -> Phase {
        match self {
            Change::Close => Phase::OldOnly,
            Change::Open | Change::Rollback => Phase::WriteBoth,
            Change::Cutover => Phase::ReadNew,
        }
    }

    /// The direction that must have brought over everything before users change sides; `None` where they stay where they are.
    pub fn drains(self) -> Option<Direction> {
        match self {
            Change::Open | Change::Close => None,
            Change::Cutover => Some(Direction::Forward),
            Change::Rollback => Some(Direction::Reverse),
        }
    }

    /// The side that users are kept from writing to meanwhile.
    pub fn fences(self) -> Option<Side> {
        self.drains().map(Direction::source)
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
        Change::ALL.into_iter().filter(|change| change.from() == phase).map(|change| (change, change.to())).collect()
    }

    #[test]
    fn every_phase_is_left_in_both_directions_and_none_is_jumped_over() {
        assert_eq!(ways_from(Phase::OldOnly), [(Change::Open, Phase::WriteBoth)]);
        assert_eq!(ways_from(Phase::WriteBoth), [(Change::Close, Phase::OldOnly), (Change::Cutover, Phase::ReadNew)]);
        assert_eq!(ways_from(Phase::ReadNew), [(Change::Rollback, Phase::WriteBoth)]);
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
        assert_eq!(Change::parse("finish"), None);
    }
}
