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
