//! What a message's writer had before him.

use crossfade_model::StreamProgress;

/// Whether a change had been applied on the other side when a message was written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenJudgement {
    Yes,
    No,
    /// The change belongs to a batch of which only some lanes had committed. Who plans that batch again for `lanes`
    /// lanes learns the change's lane; it was seen if that lane is in `done`.
    InPartialBatch {
        batch_first: u64,
        batch_last: u64,
        lanes: u16,
        /// In ascending order.
        done: Vec<u16>,
    },
}

/// Judges message `seq` of the stream whose progress is given. No progress means that nothing was seen.
pub fn judge_seen(progress: Option<&StreamProgress>, seq: u64) -> SeenJudgement {
    let Some(progress) = progress else { return SeenJudgement::No };
    if progress.parked.contains(&seq) {
        return SeenJudgement::No;
    }
    if seq <= progress.applied_through() {
        return SeenJudgement::Yes;
    }
    match progress.partial_batch() {
        Some((batch, done)) if (batch.batch_first..=batch.batch_last).contains(&seq) => {
            if done.is_empty() {
                return SeenJudgement::No;
            }
            SeenJudgement::InPartialBatch {
                batch_first: batch.batch_first,
                batch_last: batch.batch_last,
                lanes: batch.lanes,
                done,
            }
        }
        _ => SeenJudgement::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfade_model::LaneProgress;

    fn progress(rows: &[(u16, u64, u64, u64, u16)]) -> StreamProgress {
        let lane = |&(lane, seq, batch_first, batch_last, lanes): &(u16, u64, u64, u64, u16)| {
            (lane, LaneProgress { seq, batch_first, batch_last, lanes })
        };
        StreamProgress { lanes: rows.iter().map(lane).collect(), ..StreamProgress::default() }
    }

    #[test]
    fn nothing_is_seen_without_a_checkpoint() {
        assert_eq!(judge_seen(None, 1), SeenJudgement::No);
        assert_eq!(judge_seen(Some(&StreamProgress::default()), 1), SeenJudgement::No);
    }

    #[test]
    fn a_whole_batch_is_seen_to_its_last_message() {
        let progress = progress(&[(0, 9, 5, 9, 2), (1, 9, 5, 9, 2)]);
        assert_eq!(judge_seen(Some(&progress), 9), SeenJudgement::Yes);
        assert_eq!(judge_seen(Some(&progress), 10), SeenJudgement::No);
    }

    #[test]
    fn of_a_half_done_batch_the_lane_decides() {
        let progress = progress(&[(0, 9, 5, 9, 3), (1, 4, 1, 4, 3), (2, 9, 5, 9, 3)]);
        assert_eq!(judge_seen(Some(&progress), 4), SeenJudgement::Yes);
        assert_eq!(judge_seen(Some(&progress), 10), SeenJudgement::No);
        let partly = SeenJudgement::InPartialBatch { batch_first: 5, batch_last: 9, lanes: 3, done: vec![0, 2] };
        assert_eq!(judge_seen(Some(&progress), 5), partly);
        assert_eq!(judge_seen(Some(&progress), 9), partly);
    }

    #[test]
    fn a_batch_that_no_lane_has_finished_is_not_seen() {
        let progress = progress(&[(0, 7, 5, 9, 1)]);
        assert_eq!(judge_seen(Some(&progress), 4), SeenJudgement::Yes);
        assert_eq!(judge_seen(Some(&progress), 5), SeenJudgement::No);
    }

    #[test]
    fn what_was_parked_was_not_seen_whatever_came_after_it() {
        let mut progress = progress(&[(0, 9, 5, 9, 3), (1, 4, 1, 4, 3)]);
        progress.parked = [2, 6].into();
        let judged: Vec<SeenJudgement> = [1, 2, 3, 6].map(|seq| judge_seen(Some(&progress), seq)).into();
        assert_eq!(judged, [SeenJudgement::Yes, SeenJudgement::No, SeenJudgement::Yes, SeenJudgement::No]);
        assert!(matches!(judge_seen(Some(&progress), 7), SeenJudgement::InPartialBatch { .. }));
    }
}
