//! What later steps, or undoing, must know of those before them. The store keeps it as JSON, before each step.

use chrono::{DateTime, Utc};
use crossfade_config::AccountName;
use crossfade_message::{SwitchRun, Wish};
use crossfade_model::{Direction, Phase, Position, Side};
use serde::{Deserialize, Serialize};

use crate::{Change, ControlError, Step};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The group of tables whose users change sides; none for all that are in no group.
    pub group: Option<String>,
    /// The flag's version before the fence; the fence is the next one.
    pub fenced_from: Option<u64>,
    /// It was writable, and is to be again.
    pub refuses: Option<Side>,
    /// It refuses these alone; all writes where there are none.
    pub accounts: Vec<String>,
    /// Of the side that users leave, behind everything that they wrote there.
    pub position: Option<String>,
    /// Tables that count on from a higher value.
    pub counted: Vec<String>,
    pub instances: Vec<String>,
    /// From the fence to the flip; unknown where the tool died just after it.
    pub pause_ms: Option<u64>,
    /// Why it was undone.
    pub reason: Option<String>,
    pub steps: Vec<StepTook>,
    /// What was wished of directions before it was changed.
    pub wishes: WishesBefore,
    /// Of an end: the phase that it was begun in.
    pub begun_in: Option<Phase>,
    /// Of an end: the flag's version before it was changed.
    pub flipped_from: Option<u64>,
    /// Of an end: the canaries from before it was begun.
    pub sung: Option<[u64; 2]>,
    /// Of an end: the last comparison, and when it ended.
    pub verification: Option<(u64, DateTime<Utc>)>,
    /// Of an end: up to where each side has crossed.
    pub old_position: Option<Position>,
    pub new_position: Option<Position>,
    /// Files.
    pub report: Vec<String>,
}

/// `None` where nothing was changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WishesBefore {
    pub forward: Option<Wish>,
    pub reverse: Option<Wish>,
}

impl WishesBefore {
    pub(crate) fn of(&self, direction: Direction) -> Option<Wish> {
        match direction {
            Direction::Forward => self.forward,
            Direction::Reverse => self.reverse,
        }
    }

    pub(crate) fn of_mut(&mut self, direction: Direction) -> &mut Option<Wish> {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Reverse => &mut self.reverse,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTook {
    pub step: Step,
    pub ms: u64,
}

impl Memory {
    pub fn of(run: &SwitchRun) -> Result<Memory, ControlError> {
        let run_name = || format!("{} {}", run.kind, run.id);
        let unreadable = |reason: String| ControlError::Unreadable { run: run_name(), reason };
        serde_json::from_str(&run.memory).map_err(|error| unreadable(error.to_string()))
    }

    pub(crate) fn to_json(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    pub(crate) fn refused_accounts(&self) -> Vec<AccountName> {
        self.accounts.iter().filter_map(|account| AccountName::parse(account)).collect()
    }

    /// The flag's version while users write nowhere.
    pub fn fence(&self) -> Option<u64> {
        self.fenced_from.map(|from| from + 1)
    }
}

/// What a run is called.
pub fn name(run: &SwitchRun) -> String {
    // What cannot be read is told where it is needed.
    let group = Memory::of(run).ok().and_then(|memory| memory.group);
    format!("{} {}{}", run.kind, run.id, of_group(group.as_deref()))
}

/// What stands behind those who change sides, or behind what they do.
pub fn of_group(group: Option<&str>) -> String {
    group.map_or(String::new(), |group| format!(" of {group}"))
}

pub(crate) fn change_of(run: &SwitchRun) -> Result<Change, ControlError> {
    let unknown = || format!("`{}` is no change that this program knows", run.kind);
    Change::parse(&run.kind).ok_or_else(|| ControlError::Unreadable { run: name(run), reason: unknown() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_what_is_missing_is_nothing() {
        let memory = Memory {
            fenced_from: Some(4),
            refuses: Some(Side::Old),
            steps: vec![StepTook { step: Step::Drain, ms: 12 }],
            ..Memory::default()
        };
        assert_eq!(serde_json::from_str::<Memory>(&memory.to_json()).unwrap(), memory);
        assert_eq!(memory.fence(), Some(5));
        assert_eq!(serde_json::from_str::<Memory>("{}").unwrap(), Memory::default());
    }
}
