//! The steps in which users change sides. Each is kept in the store before it is begun.

use crossfade_config::Fence;
use serde::{Deserialize, Serialize};

use crate::Change;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Every precondition.
    Gates,
    /// A direction that was stopped, and is needed from now on, runs again.
    Start,
    /// Each process proves once more that the other one recognises what it writes.
    Canary,
    /// The flag says that users write nowhere.
    Fence,
    /// Every instance of the applications has said that it does so, or its time is over.
    Acknowledge,
    /// The side refuses writes, too.
    Refuse,
    /// Transactions that were under way have ended.
    Quiet,
    /// What users wrote until then has crossed.
    Drain,
    /// The other side counts on from where this one has stopped.
    Count,
    /// The positions of both sides, for going back by hand.
    Mark,
    /// The flag says that users write to the other side.
    Flip,
    /// The nodes of both sides say so, too.
    Mirror,
    /// The side takes writes again.
    Release,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Gates => "gates",
            Step::Start => "start",
            Step::Canary => "canary",
            Step::Fence => "fence",
            Step::Acknowledge => "acknowledge",
            Step::Refuse => "refuse",
            Step::Quiet => "quiet",
            Step::Drain => "drain",
            Step::Count => "count",
            Step::Mark => "mark",
            Step::Flip => "flip",
            Step::Mirror => "mirror",
            Step::Release => "release",
        }
    }

    /// For people, in the order of their work.
    pub fn meaning(self) -> &'static str {
        match self {
            Step::Gates => "look at every gate",
            Step::Start => "start the direction that was stopped",
            Step::Canary => "prove once more, both ways, that what is written is recognised",
            Step::Fence => "tell all applications to write nowhere: the pause begins",
            Step::Acknowledge => "wait until every instance has acknowledged that, or its time is over",
            Step::Refuse => "have the side refuse writes",
            Step::Quiet => "wait for transactions that were under way",
            Step::Drain => "read the side's position, and bring over everything before it",
            Step::Count => "let the other side count on where this one has stopped",
            Step::Mark => "take a mark of both sides",
            Step::Flip => "change the flag: the pause ends",
            Step::Mirror => "write the flag on the nodes of both sides",
            Step::Release => "let the side take writes again",
        }
    }

    /// Where tests end the process: the step is kept in the store, and not begun.
    pub fn failpoint(self) -> &'static str {
        match self {
            Step::Gates => "switch-gates",
            Step::Start => "switch-start",
            Step::Canary => "switch-canary",
            Step::Fence => "switch-fence",
            Step::Acknowledge => "switch-acknowledge",
            Step::Refuse => "switch-refuse",
            Step::Quiet => "switch-quiet",
            Step::Drain => "switch-drain",
            Step::Count => "switch-count",
            Step::Mark => "switch-mark",
            Step::Flip => "switch-flip",
            Step::Mirror => "switch-mirror",
            Step::Release => "switch-release",
        }
    }
}

/// The steps of a change that moves users, in order.
pub fn steps(change: Change, fence: Fence) -> Vec<Step> {
    let all = [
        Step::Gates,
        Step::Start,
        Step::Canary,
        Step::Fence,
        Step::Acknowledge,
        Step::Refuse,
        Step::Quiet,
        Step::Drain,
        Step::Count,
        Step::Mark,
        Step::Flip,
        Step::Mirror,
        Step::Release,
    ];
    let is_taken = |step: &Step| match step {
        // After a cutover, forward may have been stopped for a trial; what is needed before one runs already.
        Step::Start => change == Change::Rollback,
        Step::Refuse | Step::Release => fence != Fence::Flag,
        _ => true,
    };
    all.into_iter().filter(is_taken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(steps: &[Step], step: Step) -> usize {
        steps.iter().position(|other| *other == step).unwrap()
    }

    #[test]
    fn nothing_is_read_before_users_have_stopped_and_nothing_flips_before_all_has_crossed() {
        for change in [Change::Cutover, Change::Rollback] {
            for fence in Fence::ALL {
                let steps = steps(change, fence);
                let order =
                    [Step::Gates, Step::Canary, Step::Fence, Step::Acknowledge, Step::Quiet, Step::Drain, Step::Flip];
                let places: Vec<usize> = order.iter().map(|step| place(&steps, *step)).collect();
                assert!(places.is_sorted(), "{steps:?}");
                assert_eq!(steps.contains(&Step::Refuse), steps.contains(&Step::Release));
                if steps.contains(&Step::Refuse) {
                    assert!(place(&steps, Step::Refuse) < place(&steps, Step::Quiet));
                    assert_eq!(steps.last(), Some(&Step::Release));
                }
            }
        }
    }

    #[test]
    fn every_step_has_a_name_and_a_failpoint_of_its_own() {
        let steps = steps(Change::Rollback, Fence::ReadOnly);
        for (at, step) in steps.iter().enumerate() {
            assert_eq!(step.failpoint(), format!("switch-{}", step.as_str()));
            assert!(steps[at + 1..].iter().all(|other| other.as_str() != step.as_str()));
        }
    }
}
