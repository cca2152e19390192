//! Applies one direction's messages to its target, each exactly once.
//!
//! # What it promises
//!
//! - Every transaction on the target begins with the lane's checkpoint row: the origin tag that the opposite reader
//!   sees, the record of what was applied, and the fence against a process whose lease is gone.
//! - Changes of one row, and of rows tied by a unique or foreign key, apply in source commit order.
//! - A change is written only if no user change of the row on the target, unseen by the change's writer, wins against
//!   it. What cannot be judged waits.
//! - Values are bound as parameters, never written into SQL text.
//!
//! # How it fails
//!
//! With an [`ApplyError`], sorted by [`ApplyError::remedy`]. What passes by itself is tried again here. Where the target
//! cannot take changes until somebody mends it, applying rests and is tried again every now and then; all else ends the
//! applier. Nothing is ever half done, since the checkpoint and the data are one transaction.

mod along;
mod applier;
mod authority;
mod bind;
mod breaker;
mod canary;
mod checkpoint;
mod chunk;
mod circuit;
mod counters;
mod detour;
mod discard;
mod edited;
mod entity;
mod error;
mod evidence;
mod family;
mod feed;
mod flag;
mod followers;
mod hold;
mod housekeeping;
mod in_order;
mod judged;
mod lane;
mod late;
mod left_out;
mod lookup;
mod mapped;
mod merged;
mod merging;
mod outlook;
mod pace;
mod parking;
mod planning;
mod probe;
mod progress;
mod question;
mod read;
mod refusal;
mod repair;
mod requests;
mod rest;
mod session;
mod table;
mod target;
mod tombstone;
mod uncopied;
mod undone;
mod values;
mod writing;

use std::sync::Arc;

use crossfade_model::StreamId;

pub use applier::{Applier, ApplierOptions, Wishes};
pub use authority::give_authority;
pub use breaker::{Alarm, BreakerOptions, Crossing};
pub use canary::{canary_writer, sing};
pub use checkpoint::Standing;
pub use chunk::{ChunkEnd, ChunkToWrite, ChunkWriter, ChunkWritten};
pub use circuit::{CircuitLimits, Tripped};
pub use counters::{Counted, Counters};
pub use entity::Entities;
pub use error::{ApplyError, with_causes};
pub use feed::{BatchBounds, Feed, Stop};
pub use flag::mirror_flag;
pub use hold::{beat, beat_seen, beats};
pub use outlook::{Foreseen, KeyColumn, Outlook, read_row, read_row_where};
pub use probe::{ProbeLoad, probe_load};
pub use progress::{ProgressView, Waiting};
pub use refusal::Refusal;
pub use repair::{NotWritten, Repairer, RowRepair};
pub use uncopied::Uncopied;
pub use values::{cell, placeholder, push_params, read_session};

/// Called at named points of the work; tests end the process there.
pub type Probe = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The stream that reads the target: a direction's messages are concurrent with that stream's.
pub fn opposite_stream(stream: &StreamId) -> StreamId {
    let direction = stream.direction().opposite();
    StreamId::new(direction, direction.source().as_str())
}
