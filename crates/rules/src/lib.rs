//! The rules of crossfade: which table maps to which, which keys are one, who wins, and in what order changes apply.
//!
//! Everything here is pure. Nothing does I/O, reads a clock or draws a random number, so the same input gives the same
//! answer in every process and after every crash: a batch that was interrupted is planned again identically, and two
//! directions that look at the same pair of changes pick the same winner. Nothing here panics on bad input; what cannot
//! be mapped or planned is an error that says why.

pub mod authority;
pub mod chunk;
pub mod clock;
pub mod concurrent;
pub mod decide;
mod digest;
pub mod effective;
pub mod entity;
mod error;
mod fold;
pub mod holder;
pub mod key;
mod key_filter;
pub mod late;
pub mod mapping;
pub mod merge;
pub mod moves;
pub mod plan;
pub mod seen;
pub mod trouble;

pub use authority::{Authority, AuthorityChange, EntityRule, EntityTables, Reach};
pub use concurrent::{ConcurrentIndex, OppositeChange};
pub use decide::{Event, LastConcurrent, Loss, Verdict, decide};
pub use effective::EffectiveClocks;
pub use entity::{EntityState, EntityStep, answer_valid_for};
pub use error::RulesError;
pub use holder::{Admission, LastChange, admit};
pub use mapping::{ClockColumn, MappedColumn, MappingProblem, ParentLink, Policy, Projection, TableMapping, TableRule};
pub use plan::{
    ChangeKind, Departure, Dependence, Dependences, LanePlan, MappedChange, NetChange, Plan, Planner, Seqs, Step, plan,
};
pub use seen::{SeenJudgement, judge_seen};
pub use trouble::{Class, Remedy, Trouble};
