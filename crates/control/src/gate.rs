//! What must hold before the phase changes, and what would make it hold. Pure: what is judged was looked at before.

pub mod group;
mod verdicts;

use std::time::Duration;

use crossfade_config::CutoverSettings;
use crossfade_message::Flag;
use crossfade_model::Direction;
use serde::Serialize;

use crate::Change;

/// One precondition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gate {
    pub name: &'static str,
    pub state: GateState,
    /// What was seen.
    pub why: String,
    /// What would open it; only where it is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// It may open by itself within moments.
    #[serde(skip)]
    pub passes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    Open,
    Closed,
    /// It could not be seen, which keeps it closed.
    Unknown,
}

impl GateState {
    pub fn as_str(self) -> &'static str {
        match self {
            GateState::Open => "open",
            GateState::Closed => "CLOSED",
            GateState::Unknown => "UNKNOWN",
        }
    }
}

impl Gate {
    pub fn open(name: &'static str, why: impl Into<String>) -> Gate {
        Gate { name, state: GateState::Open, why: why.into(), remedy: None, passes: false }
    }

    pub fn closed(name: &'static str, why: impl Into<String>, remedy: impl Into<String>) -> Gate {
        let remedy = Some(remedy.into());
        Gate { name, state: GateState::Closed, why: why.into(), remedy, passes: false }
    }

    fn unknown(name: &'static str, why: impl Into<String>, remedy: impl Into<String>) -> Gate {
        Gate { state: GateState::Unknown, ..Gate::closed(name, why, remedy) }
    }

    fn passing(self) -> Gate {
        Gate { passes: true, ..self }
    }

    pub fn is_open(&self) -> bool {
        self.state == GateState::Open
    }
}

/// What was looked at. What could not be seen is an `Err` with the reason.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The group of tables whose users change sides; none for all that are in no group, which may be no table at all.
    pub group: Option<String>,
    pub has_tables: bool,
    pub flag: Flag,
    /// A change that takes several steps and is not over, of somebody else: what it is called.
    pub other_run: Option<String>,
    pub forward: DirectionSeen,
    pub reverse: DirectionSeen,
    pub verification: Result<Option<VerificationSeen>, String>,
    /// Tables whose copying is not over, or has rows that the target refuses; with what is the matter.
    pub uncopied: Result<Vec<String>, String>,
    pub instances: usize,
    pub fence: FenceSeen,
    /// XA transactions that are prepared and not decided, on the side that users leave.
    pub prepared: Result<u64, String>,
    /// What `check` calls an error.
    pub check_errors: Result<Vec<String>, String>,
}

/// How a direction is.
#[derive(Debug, Clone)]
pub struct DirectionSeen {
    pub direction: Direction,
    /// A process has its lease.
    pub is_served: bool,
    pub state: String,
    /// Nothing is the matter with it.
    pub is_green: bool,
    pub reason: Option<String>,
    /// It is wished to apply.
    pub applies: bool,
    pub lag: Option<Duration>,
    pub refused: u64,
    pub held: u64,
    /// Why it is not proved now that what it writes is recognised; `None` where it is.
    pub unproved: Option<String>,
}

/// The last comparison of all rows of all tables.
#[derive(Debug, Clone)]
pub struct VerificationSeen {
    /// Since it began: what was compared first may have changed ever since.
    pub age: Duration,
    /// Of the table that has most, as parts of a million.
    pub worst_ppm: f64,
    pub mismatches: u64,
    pub unconfirmed: u64,
    /// Tables of which nothing was compared.
    pub skipped: Vec<String>,
    /// Tables that are synced now, and that it did not know.
    pub unknown: Vec<String>,
    /// Tables that were copied since it began.
    pub copied: Vec<String>,
}

/// What was found of one table.
#[derive(Debug, Clone)]
pub struct ComparedTable {
    pub table: String,
    pub mismatch_ppm: f64,
    pub mismatches: u64,
    pub unconfirmed: u64,
    pub is_skipped: bool,
}

impl VerificationSeen {
    /// Of a comparison that began so long ago; `synced`: the tables that are synced now.
    pub fn new(age: Duration, tables: impl Iterator<Item = ComparedTable>, synced: &[String]) -> VerificationSeen {
        let mut seen = VerificationSeen {
            age,
            worst_ppm: 0.0,
            mismatches: 0,
            unconfirmed: 0,
            skipped: Vec::new(),
            unknown: synced.to_vec(),
            copied: Vec::new(),
        };
        for table in tables {
            seen.unknown.retain(|name| *name != table.table);
            seen.worst_ppm = seen.worst_ppm.max(table.mismatch_ppm);
            seen.mismatches += table.mismatches;
            seen.unconfirmed += table.unconfirmed;
            seen.skipped.extend(table.is_skipped.then_some(table.table));
        }
        seen
    }
}

/// Whether the side that users leave can be fenced, beside the flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FenceSeen {
    /// Nothing else is asked for.
    FlagAlone,
    /// It takes writes now, and the account may have it refuse them; what will be refused.
    Possible(String),
    /// Why not, and what would help.
    Impossible {
        why: String,
        remedy: String,
    },
    Unknown(String),
}

/// The gates of a change, in the order in which one would open them.
pub fn gates(change: Change, seen: &Seen, settings: &CutoverSettings) -> Vec<Gate> {
    let mut gates = vec![
        verdicts::phase(change, &seen.flag, seen.group.as_deref()),
        verdicts::other_run(seen.other_run.as_deref()),
    ];
    if change == Change::Close {
        return gates;
    }
    if change == Change::Abort {
        // Where pilots may ever have written on new, what they wrote must have come to old; else nobody needs to run.
        if seen.flag.version > 0 {
            gates.push(verdicts::process(&seen.reverse, false));
            gates.push(verdicts::failures(&seen.reverse));
        }
        return gates;
    }
    // Forward may have been stopped after a cutover; going back starts it, and so does the end.
    let may_rest = matches!(change, Change::Rollback | Change::Finish);
    gates.push(verdicts::process(&seen.forward, may_rest));
    gates.push(verdicts::process(&seen.reverse, false));
    gates.push(verdicts::canary(&seen.forward, may_rest && !seen.forward.applies));
    gates.push(verdicts::canary(&seen.reverse, false));
    let drained = if may_rest { &seen.reverse } else { &seen.forward };
    gates.push(verdicts::lag(drained, settings.max_lag));
    gates.push(verdicts::failures(&seen.forward));
    gates.push(verdicts::failures(&seen.reverse));
    if change != Change::Rollback {
        gates.push(verdicts::backfill(&seen.uncopied));
    }
    if change.is_compared() {
        gates.push(verdicts::verification(&seen.verification, settings));
    }
    if change.drains().is_some() {
        if seen.has_tables {
            gates.push(verdicts::instances(seen.instances, settings));
        }
        gates.extend(verdicts::fence(&seen.fence));
    }
    if let Some(side) = change.leaves() {
        gates.push(verdicts::prepared(&seen.prepared, side));
    }
    gates.push(verdicts::check(&seen.check_errors));
    gates
}

/// What a comparison that was made just now says.
pub fn compared(seen: VerificationSeen, settings: &CutoverSettings) -> Gate {
    verdicts::verification(&Ok(Some(seen)), settings)
}
