//! The steps in which users change sides, and a migration ends. Each is kept in the store before it is begun.

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
    /// All rows of both sides are compared, for the last time.
    Compare,
    /// What old has crosses; then forward is declared off.
    EndForward,
    /// What new has crosses; then reverse is declared off.
    EndReverse,
    /// What the migration came to is written down.
    Report,
    /// No process of the pair runs any more.
    Leave,
    /// What crossfade has kept on the side goes.
    Remove,
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
            Step::Compare => "compare",
            Step::EndForward => "end_forward",
            Step::EndReverse => "end_reverse",
            Step::Report => "report",
            Step::Leave => "leave",
            Step::Remove => "remove",
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
            Step::Flip => "change the flag: a pause ends here",
            Step::Mirror => "write the flag on the nodes of both sides",
            Step::Release => "let the side take writes again",
            Step::Compare => "compare all rows of both sides for the last time",
            Step::EndForward => "bring over what users have written on old, and declare forward off",
            Step::EndReverse => "bring over what users have written on new, and declare reverse off",
            Step::Report => "write the report",
            Step::Leave => "wait until no process of the pair runs any more",
            Step::Remove => "remove from old what crossfade has kept there",
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
            Step::Compare => "switch-compare",
            Step::EndForward => "switch-end_forward",
            Step::EndReverse => "switch-end_reverse",
            Step::Report => "switch-report",
            Step::Leave => "switch-leave",
            Step::Remove => "switch-remove",
        }
    }
}

/// The steps of a change, in order. Those of an end do not fence anything.
pub fn steps(change: Change, fence: Fence) -> Vec<Step> {
    match change {
        Change::Finish => vec![
            Step::Gates,
            Step::Start,
            Step::Canary,
            Step::Compare,
            Step::Flip,
            Step::Acknowledge,
            Step::EndForward,
            Step::EndReverse,
            Step::Mark,
            Step::Report,
        ],
        Change::Abort => vec![
            Step::Gates,
            Step::Flip,
            Step::Acknowledge,
            Step::EndReverse,
            Step::EndForward,
            Step::Leave,
            Step::Remove,
        ],
        Change::Open | Change::Close | Change::Cutover | Change::Rollback => moving_steps(change, fence),
    }
}

fn moving_steps(change: Change, fence: Fence) -> Vec<Step> {
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
        for change in [Change::Rollback, Change::Finish, Change::Abort] {
            let steps = steps(change, Fence::ReadOnly);
            for (at, step) in steps.iter().enumerate() {
                assert_eq!(step.failpoint(), format!("switch-{}", step.as_str()));
                assert!(steps[at + 1..].iter().all(|other| other.as_str() != step.as_str()));
            }
        }
    }

    #[test]
    fn an_end_stops_nothing_before_applications_write_one_side_alone() {
        for change in [Change::Finish, Change::Abort] {
            let steps = steps(change, Fence::ReadOnly);
            let place = |step| place(&steps, step);
            assert!(!steps.contains(&Step::Fence) && !steps.contains(&Step::Refuse), "{steps:?}");
            assert!(place(Step::Flip) < place(Step::Acknowledge));
            assert!(place(Step::Acknowledge) < place(Step::EndForward).min(place(Step::EndReverse)));
        }
        let finish = steps(Change::Finish, Fence::Flag);
        assert!(place(&finish, Step::Compare) < place(&finish, Step::Flip));
        assert_eq!(finish.last(), Some(&Step::Report));
        // Nothing is removed while a process may write there.
        let abort = steps(Change::Abort, Fence::Flag);
        assert!(place(&abort, Step::Leave) > place(&abort, Step::EndForward));
        assert_eq!(abort.last(), Some(&Step::Remove));
    }
}
