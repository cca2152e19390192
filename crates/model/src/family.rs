//! Conflicts between a parent and its children.

use serde::{Deserialize, Serialize};

/// What becomes of a parent that one side deletes while the other side gives it a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FamilyPolicy {
    /// The delete loses: the parent returns to the side that deleted it, with what cascaded from it.
    #[default]
    ParentReturns,
    /// The delete wins, and takes the children with it.
    ChildGoes,
}

impl FamilyPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            FamilyPolicy::ParentReturns => "parent-returns",
            FamilyPolicy::ChildGoes => "child-goes",
        }
    }
}
