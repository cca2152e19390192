//! The shape of `status --json` and of `/v1/status`.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use crossfade_message::{ConflictCounts, Health, TagProof, WaitCounts};
use serde::Serialize;

/// Where a pair stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub pair: String,
    /// `old_only`, `write_both`, `read_new` or `new_only`.
    pub phase: String,
    pub flag: FlagLine,
    /// Of groups of tables that change sides by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupLine>,
    /// How the migration has ended; `None` as long as it goes on.
    pub end: Option<EndLine>,
    pub streams: Vec<StreamLine>,
    pub store: StoreLine,
    pub verify: VerifyLine,
}

/// The end of the migration.
#[derive(Debug, Clone, Serialize)]
pub struct EndLine {
    /// `finished` or `aborted`.
    pub word: &'static str,
    pub at: Option<DateTime<Utc>>,
}

/// What applications are told.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FlagLine {
    /// 0 `old_only`, 1 `write_both`, 2 `read_new`, 3 `new_only`.
    pub value: u8,
    pub version: u64,
    /// Users write nowhere for a moment.
    pub fenced: bool,
    /// Instances of applications that follow it.
    pub instances: usize,
    /// A change of sides that is not over: its name, and the step that was begun last.
    pub change: Option<String>,
}

/// What applications are told of a group of tables.
#[derive(Debug, Clone, Serialize)]
pub struct GroupLine {
    pub group: String,
    pub phase: String,
    #[serde(flatten)]
    pub flag: FlagLine,
}

/// Comparing both sides again and again, in the background of the forward process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyLine {
    /// Whether it is wished.
    pub on: bool,
    /// The round that is under way.
    pub running: Option<RoundLine>,
    /// The last one that has ended.
    pub last: Option<RoundLine>,
}

#[derive(Debug, Clone, Serialize)]
pub struct RoundLine {
    /// For `verify show --id`.
    pub verification: u64,
    pub begun_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub tables: u64,
    pub tables_done: u64,
    /// Rows, differences and what is unconfirmed are those of the tables that are done.
    pub rows: u64,
    pub differences: u64,
    pub unconfirmed: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct StreamLine {
    pub stream: String,
    pub state: String,
    pub reason: Option<String>,
    pub since: Option<String>,
    pub holder: Option<String>,
    /// Processes that take over when the holder is gone.
    pub standby: Vec<StandbyLine>,
    pub position: String,
    /// Unknown while no process looks.
    pub lag_seconds: Option<f64>,
    /// Until the source may purge what is not read yet; unknown where that is only the file that it writes now.
    pub unread_kept_seconds: Option<u64>,
    /// Captured and not yet applied.
    pub lag_messages: u64,
    pub rows_per_second: u64,
    pub last_seq: u64,
    pub settled_seq: u64,
    pub captured: u64,
    pub applied: u64,
    pub echoes: u64,
    pub conflicts_won: u64,
    /// Overtaken ones included.
    pub conflicts_lost: u64,
    pub judged_by_sight: u64,
    pub judged_by_look_up: u64,
    pub judged_by_waiting: u64,
    /// For what users of the other side did.
    pub waits: WaitCounts,
    /// By the table's name at the source.
    pub conflicts: BTreeMap<String, ConflictCounts>,
    /// Whether what it writes is known to be recognised by the other direction.
    pub tag: TagProof,
    pub slowest_ms: u64,
    pub open_failures: u64,
    pub held: u64,
    pub caught_up: bool,
    /// An error has ended its process, and no other runs.
    #[serde(skip)]
    pub failed: bool,
}

impl StreamLine {
    pub fn health(&self) -> Health {
        Health::of(&self.state, self.reason.clone())
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct StandbyLine {
    pub holder: String,
    pub since: String,
    #[serde(skip)]
    pub waits: Duration,
}

#[derive(Debug, Clone, Serialize)]
pub struct StoreLine {
    pub bytes: u64,
    pub messages: u64,
    pub growth_per_day: u64,
}
