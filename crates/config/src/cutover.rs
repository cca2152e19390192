//! `[cutover]`: how users are kept from writing while they change sides, and what must hold before that.

use std::time::Duration;

use crate::reader::Section;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutoverSettings {
    pub fence: Fence,
    /// Users write nowhere for so long at most; then all is as before.
    pub timeout: Duration,
    /// Of the direction that is to be drained.
    pub max_lag: Duration,
    /// How long ago the last comparison of all rows may have ended.
    pub verified_within: Duration,
    /// Rows of each table that may be missing or different, as parts of a million.
    pub max_mismatch_ppm: u32,
    /// By flag alone nobody is kept from writing whom nobody knows.
    pub require_instances: bool,
    /// Sessions in which something is written that is not committed are ended so long after the fence; `None` for never.
    pub end_transactions_after: Option<Duration>,
}

/// What keeps users from writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Their applications, which follow the flag and say so.
    Flag,
    /// The side that they write to as well: `read_only`.
    ReadOnly,
}

impl Fence {
    pub const ALL: [Fence; 2] = [Fence::Flag, Fence::ReadOnly];

    pub fn as_str(self) -> &'static str {
        match self {
            Fence::Flag => "flag",
            Fence::ReadOnly => "read_only",
        }
    }
}

pub(crate) fn read(root: &mut Section) -> CutoverSettings {
    let mut section = root.section_or_empty("cutover", "[cutover]");
    let timeout = section.duration("timeout", Duration::from_secs(1), "10s");
    let ends = section.has("end_transactions_after");
    let after = section.duration("end_transactions_after", Duration::from_millis(100), "5s");
    if ends && after >= timeout {
        section.problem(
            section.line_of("end_transactions_after"),
            "`end_transactions_after` is not before the `timeout` of `[cutover]`, so it would end nothing",
            "name a shorter time, or raise `timeout`",
        );
    }
    let cutover = CutoverSettings {
        fence: section.one_of("fence", "a fence", &Fence::ALL.map(|fence| (fence.as_str(), fence))),
        timeout,
        max_lag: section.duration("max_lag", Duration::from_millis(10), "2s"),
        verified_within: section.duration("verified_within", Duration::from_secs(1), "1h"),
        max_mismatch_ppm: section.share("max_mismatch", "0%"),
        require_instances: section.boolean("require_instances", true),
        end_transactions_after: ends.then_some(after),
    };
    section.finish();
    cutover
}
