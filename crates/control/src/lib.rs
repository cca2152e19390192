//! Phases, the read-write flag, how users change sides, and how a migration ends.
//!
//! # What it promises
//!
//! - A phase follows only the one before it or behind it, and each change is a compare-and-set of the flag's version.
//! - Users change sides in steps, each kept in the store before it is begun. Killed between any two of them, the same command
//!   undoes what it finds, or, where the flag has changed, finishes it.
//! - The flag never says that users write to the other side unless every instance that follows it had stopped, transactions that
//!   were under way had ended, and everything that was committed by then had crossed.
//! - What is not done in time is undone, and all is as before: the fence has an end of its own, by the store's clock.
//! - An end keeps nobody from writing, and loses nothing of what was committed before every application wrote one side alone.
//! - Every gate that is closed says what would open it.
//!
//! # How it fails
//!
//! With a [`ControlError`]. Dropping the future leaves what the same command, another one, or the sync processes bring to its end.
//!
//! *Absent:* wiring, and knowledge of how a process is: what gates are judged by is looked at by the caller.

mod account;
mod acknowledge;
mod canary;
mod count;
mod drain;
mod end;
pub mod entity;
mod error;
pub mod gate;
mod hold;
mod memory;
mod mirror;
mod progress;
mod quiet;
mod recover;
mod refuse;
pub mod removal;
mod side;
mod step;
mod switch;
mod transition;
mod waits;

pub use count::CountedTable;
pub use end::{Compared, End, EndReport, EndSight, until_none_runs};
pub use error::{Cause, ControlError};
pub use gate::{Gate, GateState, gates};
pub use hold::IsDead;
pub use memory::{Memory, StepTook, name, of_group};
pub use mirror::{mirror, mirror_or_adopt};
pub use quiet::prepared;
pub use recover::release_abandoned;
pub use refuse::fence_seen;
pub use step::{Step, steps};
pub use switch::{Report, Sight, Switch};
pub use transition::Change;
