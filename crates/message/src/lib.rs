//! The store of one pair: message blocks, stream positions, leases, outcomes and failures, marks and the journal.
//!
//! Promises: messages and the position after them are one commit, which only happens if nobody else has moved the stream; the
//! numbers of a stream's messages have no holes; what is read back is exactly what was captured; plain SQL reads the same
//! through the view `message`.
//!
//! It fails with [`StoreError`]. Errors of the database leave nothing half done; only whether a commit has happened can be
//! unknown, and then shows when the state is read again. Nothing here writes by itself: an idle pair writes lease renewals,
//! and what is told of a canary a minute.

mod authority;
mod backfill;
mod backfill_pace;
mod backlog;
pub mod block;
mod canary;
mod capture;
mod connections;
mod deferred;
mod entity;
mod error;
mod failure;
mod flag;
mod health;
mod history;
mod journal;
mod lease;
mod listing;
mod migration;
mod outcome;
mod parked;
mod partition;
mod purge;
mod read;
mod replay;
mod request;
mod returned;
mod size;
mod standby;
mod store;
mod stream;
mod summary;
mod switch_run;
mod throttle;
mod verification;

pub use authority::CapturedAuthority;
pub use backfill::{BackfillWish, ChunkDone, CopyCounts, CopyKey, CopyOwner, CopyState, NotedRow, TableCopy};
pub use backlog::BacklogBlock;
pub use block::{Block, image_json, row_key_json};
pub use canary::{Canary, LostTag};
pub use capture::{Captured, Passed, PassedHeartbeat};
pub use deferred::{DeferredIndex, DeferredState};
pub use entity::{
    BatchStep, Entity, EntityAnswer, EntityBatch, EntityEvent, EntityHeld, EntityRun, OpenBatch, Stepped,
};
pub use error::{CaptureError, StoreError};
pub use failure::Failure;
pub use flag::{Flag, FlagInstance};
pub use health::Health;
pub use history::LifeEvent;
pub use journal::{JournalEntry, Mark};
pub use lease::{Epoch, LeaseStatus, RULES_UNKNOWN};
pub use listing::{ListedMessage, MessageFilter};
pub use migration::{COLUMN_EXISTS, MIGRATION_LOCK, node_statements, node_tables};
pub use outcome::{Outcome, Status};
pub use parked::{FailureFilter, ListedFailure};
pub use purge::{KeptDay, Purged};
pub use request::{Edit, NewRequest, Request, RequestEnd, RequestKind, ShownEdit};
pub use size::StoreSize;
pub use standby::Standby;
pub use store::{Probe, SCHEMA, Store};
pub use stream::{ConflictCounts, StreamCounters, StreamReport, StreamState, StreamStatus, TagProof, WaitCounts, Wish};
pub use summary::{ChangeCount, ChangeCounts, DiscardedMessage, OutcomeCount};
pub use switch_run::{Held, SwitchRun, SwitchState};
pub use throttle::Throttled;
pub use verification::{Comparisons, ListedDifference, NewDifference, OpenVerification, Verification, VerifyWish};
