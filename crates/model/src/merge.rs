//! Conflicts inside a row: what becomes of a column that both sides changed.

/// How two concurrent changes of one column become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MergeRule {
    /// The later change's value.
    #[default]
    Newer,
    Max,
    Min,
    /// Both changes, added up: for counters and balances.
    SumDelta,
}

impl MergeRule {
    pub const ALL: [MergeRule; 4] = [MergeRule::Newer, MergeRule::Max, MergeRule::Min, MergeRule::SumDelta];

    pub fn as_str(self) -> &'static str {
        match self {
            MergeRule::Newer => "newer",
            MergeRule::Max => "max",
            MergeRule::Min => "min",
            MergeRule::SumDelta => "sum-delta",
        }
    }
}
