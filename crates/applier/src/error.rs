//! What can go wrong when messages are applied, and who has to act.

use crossfade_catalog::class_of;
use crossfade_model::{StreamId, TableName};
use crossfade_rules::trouble::{Class, Remedy, Trouble, answered};

use crate::circuit::Tripped;
use crate::refusal::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("the target refused a statement")]
    Target(#[source] Refusal),
    #[error("another load test runs on the target")]
    ProbeRuns,
    #[error("a lane of the load test ended without a word")]
    ProbeEnded,
    #[error(transparent)]
    Store(#[from] crossfade_message::StoreError),
    #[error(transparent)]
    Connect(#[from] crossfade_catalog::CatalogError),
    #[error("another process has taken over: checkpoint rows are of epoch {found}, this process has epoch {mine}")]
    Fenced { mine: u64, found: u64 },
    #[error("the checkpoint row of {stream} lane {lane} is missing on the target")]
    CheckpointMissing { stream: StreamId, lane: u16 },
    #[error(
        "the checkpoint row of {stream} lane {lane} is at {found}, though this batch was planned from {planned_from}"
    )]
    CheckpointUnexpected { stream: StreamId, lane: u16, found: u64, planned_from: u64 },
    #[error("a checkpoint row on the target cannot be read")]
    CheckpointUnreadable,
    #[error("the target's checkpoint of {stream} is at {checkpoint}, beyond the stream's last message {last_seq}")]
    CheckpointBeyondStream { stream: StreamId, checkpoint: u64, last_seq: u64 },
    #[error(
        "the target's checkpoint of {stream} is at {checkpoint}, though messages up to {settled} were applied before"
    )]
    CheckpointBehindSettled { stream: StreamId, checkpoint: u64, settled: u64 },
    #[error(
        "the target's checkpoint of {stream} was written under lease {found}, and the store is only at lease {mine}"
    )]
    StoreBehindTarget { stream: StreamId, mine: u64, found: u64 },
    #[error(
        "messages {first} to {last} of {stream} are half applied, and since then the tables' keys have changed, or the program has"
    )]
    PlanChanged { stream: StreamId, first: u64, last: u64 },
    #[error("message {seq} of {stream} is missing in the message table")]
    MessageMissing { stream: StreamId, seq: u64 },
    #[error("message {seq} changes {table}, which the configuration does not name any more")]
    TableUnknown { seq: u64, table: TableName },
    #[error("message {seq} of {table} cannot be mapped: {problem}")]
    Unmappable { seq: u64, table: TableName, problem: String },
    #[error("the target refused a change of {table} (among messages {first} to {last})")]
    Row {
        table: TableName,
        first: u64,
        last: u64,
        #[source]
        source: Refusal,
    },
    #[error("the target refused a row of {table} that is copied")]
    ChunkRow {
        table: TableName,
        #[source]
        source: Refusal,
    },
    #[error("too much of {stream} cannot be applied: {tripped}")]
    CircuitOpen { stream: StreamId, tripped: Tripped },
    #[error(
        "{held} changes of {stream} wait until the opposite direction has captured what users did, and no more may be set aside"
    )]
    NoRoom { stream: StreamId, held: usize },
    #[error("a batch cannot be planned")]
    Plan(#[source] crossfade_rules::RulesError),
    #[error("the wait for the opposite reader has ended")]
    HoldEnded,
    #[error("planning a batch ended without a plan")]
    PlanningEnded,
    #[error("a lane ended without a word")]
    LaneEnded,
    #[error("the target has dropped the connection without our being told")]
    SessionGone,
}

impl ApplyError {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            ApplyError::Target(source) => match class_of(source.driver_error()).remedy() {
                // No row is known to be at fault.
                Remedy::Park => Remedy::Stop,
                remedy => remedy,
            },
            ApplyError::Row { source, .. } | ApplyError::ChunkRow { source, .. } => row_remedy(source.driver_error()),
            ApplyError::Store(source) if source.is_transient() => Remedy::RetryLater,
            ApplyError::Connect(source) => source.remedy(),
            ApplyError::SessionGone => Remedy::OutcomeUnknown,
            _ => Remedy::Stop,
        }
    }

    /// The next step for the operator; `None` where the message says it all.
    pub fn hint(&self) -> Option<&'static str> {
        let text = match self {
            ApplyError::Store(error) => return error.hint(),
            ApplyError::Connect(error) => return error.hint(),
            ApplyError::ProbeRuns => "wait until it has ended",
            ApplyError::ProbeEnded => "run it again: it clears away what it has left",
            ApplyError::Fenced { .. } => "nothing to do: start this process again and it stands by",
            ApplyError::CheckpointBeyondStream { .. } | ApplyError::StoreBehindTarget { .. } => {
                "the store is older than the target (was it restored from a backup?): restore the newer store, or load both \
                 sides alike and begin as a new pair"
            }
            ApplyError::CheckpointBehindSettled { .. } => {
                "the target has lost transactions (a restore or a fail-over) while this process ran: start it again, and it finds \
                 out what is to be applied once more"
            }
            ApplyError::PlanChanged { .. } => {
                "start the program that ran before, with the columns and keys that the tables of both sides had then; when `crossfade \
                 status` shows that these messages are applied, change the program or the tables"
            }
            ApplyError::CheckpointMissing { .. } => {
                "somebody removed it from the target's schema `crossfade`: start the process again, and it is made anew; then \
                 compare both sides"
            }
            ApplyError::CheckpointUnexpected { .. } | ApplyError::CheckpointUnreadable => {
                "somebody else writes to the target's schema `crossfade`: find out who, then start the process again"
            }
            ApplyError::TableUnknown { .. } => {
                "name the table in the configuration again; or leave it out in so many words, by a `[[table]]` with its name and \
                 `skip = true`: what was captured of it is then discarded"
            }
            ApplyError::MessageMissing { .. } => {
                "the message table was purged or restored: load both sides alike and begin as a new pair"
            }
            ApplyError::Row { source, .. } | ApplyError::ChunkRow { source, .. } => {
                return Some(target_hint(class_of(source.driver_error())));
            }
            ApplyError::CircuitOpen { .. } => {
                "`crossfade messages list --status failed` shows what the target refuses; mend the cause (where parents are missing \
                 since their table was never copied: `crossfade backfill start`), or raise `max_parked` or `max_parked_share` in \
                 `[apply]` and start the process again; then let the direction go on by `crossfade start forward` or `reverse`: \
                 it tries all of them first. Nothing is lost meanwhile"
            }
            ApplyError::NoRoom { .. } => {
                "see by `crossfade status` whether the opposite direction's process runs; what waits goes on by itself when that has \
                 caught up"
            }
            ApplyError::Unmappable { .. } => "run `crossfade check`; it names the columns and the remedy",
            ApplyError::Plan(error) => error.hint(),
            ApplyError::Target(source) => return Some(target_hint(class_of(source.driver_error()))),
            ApplyError::HoldEnded | ApplyError::PlanningEnded | ApplyError::LaneEnded | ApplyError::SessionGone => {
                return None;
            }
        };
        Some(text)
    }
}

impl ApplyError {
    /// Nothing of what is known is wrong: a server is away, or target or store as they are now can take nothing. When that is over,
    /// applying goes on from the checkpoints. All else means that this process must not go on.
    pub fn may_be_over_later(&self) -> bool {
        let is_of_the_target = matches!(
            self,
            ApplyError::Target(_) | ApplyError::Row { .. } | ApplyError::Connect(_) | ApplyError::CircuitOpen { .. }
        );
        let is_of_the_store = matches!(self, ApplyError::Store(error) if error.may_be_over_later());
        is_of_the_target || is_of_the_store || self.passes_by_itself()
    }

    /// Nobody needs to do anything about it, but what is under way has to be begun again.
    pub(crate) fn passes_by_itself(&self) -> bool {
        matches!(self, ApplyError::NoRoom { .. }) || self.remedy().passes()
    }
}

fn target_hint(class: Class) -> &'static str {
    match class {
        Class::Login => "let the account come in again; what waits is then applied by itself",
        Class::Denied => {
            "`crossfade check` prints the GRANT that is missing; once it is given, what waits is applied by itself"
        }
        Class::Missing => {
            "bring back on the target what is missing, as the mapping knows it; what waits is then applied by itself"
        }
        Class::Full => "make room on the target; what waits is then applied by itself",
        _ => "mend what the server says; what waits is then applied by itself",
    }
}

/// An error with its causes, each told once, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What to do about a statement of rows that failed.
pub(crate) fn row_remedy(error: &mysql_async::Error) -> Remedy {
    class_of(error).remedy()
}

impl From<mysql_async::Error> for ApplyError {
    fn from(error: mysql_async::Error) -> ApplyError {
        ApplyError::Target(error.into())
    }
}

/// The code of "duplicate entry for key".
pub(crate) fn is_duplicate_key(error: &mysql_async::Error) -> bool {
    is_one_of(error, &[1062, 1586])
}

/// A child's parent is not there.
pub(crate) fn is_missing_parent(error: &mysql_async::Error) -> bool {
    is_one_of(error, &[1216, 1452])
}

/// Other rows refer to a key that it would end.
pub(crate) fn is_referred_to(error: &mysql_async::Error) -> bool {
    is_one_of(error, &[1217, 1451])
}

/// The server itself says so, not a trigger that borrows its number.
fn is_one_of(error: &mysql_async::Error, codes: &[u16]) -> bool {
    let mysql_async::Error::Server(server) = error else { return false };
    matches!(answered(server.code, &server.state), Trouble::Server(code) if codes.contains(&code))
}
