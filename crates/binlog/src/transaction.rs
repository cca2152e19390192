//! A transaction while it is being read.

use std::sync::Arc;

use crossfade_model::{Given, Origin, RowChange};

use crate::checkpoint::Checkpoint;
use crate::group::Group;
use crate::xa::FilePlace;
use crate::{EchoKey, HeartbeatSeen};

/// What has been read of the transaction that is not at its end yet.
#[derive(Debug)]
pub(crate) struct OpenTransaction {
    pub group: Group,
    /// BEGIN has passed, so that a statement does not end the transaction.
    pub begun: bool,
    /// An XA transaction that will be prepared; its rows wait.
    pub xa: bool,
    pub source_position: Arc<str>,
    /// Where its first event begins.
    pub place: FilePlace,
    /// A table map has passed.
    pub mapped: bool,
    /// `None` until the first rows event, or a first table map that cannot mark the transaction.
    pub origin: Option<Origin>,
    /// Row changes of synced tables so far.
    pub counted: u64,
    /// How many of these were read before and are left out.
    pub skip: u64,
    /// What is not delivered yet.
    pub changes: Vec<RowChange>,
    pub changes_bytes: usize,
    /// Rows of an XA transaction that were too many to keep; they must be read again.
    pub rows_left_out: bool,
    pub row_events: u32,
    pub echoes: u64,
    pub echo_keys: Vec<EchoKey>,
    pub heartbeats: Vec<HeartbeatSeen>,
    pub returned: Vec<u64>,
    pub authority: Vec<Given>,
    pub checkpoints: Vec<Checkpoint>,
    pub only_crossfade: bool,
    pub bytes: u64,
    savepoints: Vec<Savepoint>,
}

#[derive(Debug)]
struct Savepoint {
    name: String,
    counted: u64,
}

/// Rows that were delivered are rolled back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLate;

impl OpenTransaction {
    pub fn new(group: Group, place: FilePlace, skip: u64) -> OpenTransaction {
        let text = group.number.text();
        let source_position =
            if text.is_empty() { format!("{}:{}", place.file, place.offset).into() } else { text.into() };
        OpenTransaction {
            begun: group.begun,
            xa: group.xa,
            group,
            source_position,
            place,
            mapped: false,
            origin: None,
            counted: 0,
            skip,
            changes: Vec::new(),
            changes_bytes: 0,
            rows_left_out: false,
            row_events: 0,
            echoes: 0,
            echo_keys: Vec::new(),
            heartbeats: Vec::new(),
            returned: Vec::new(),
            authority: Vec::new(),
            checkpoints: Vec::new(),
            only_crossfade: true,
            bytes: 0,
            savepoints: Vec::new(),
        }
    }

    /// Counts a change and keeps it, unless it was read before.
    pub fn push(&mut self, change: RowChange) {
        self.counted += 1;
        if self.counted > self.skip && !self.rows_left_out {
            self.changes_bytes += change.memory_bytes();
            self.changes.push(change);
        }
    }

    /// Gives up keeping rows; they are counted only.
    pub fn leave_rows_out(&mut self) {
        self.rows_left_out = true;
        self.changes = Vec::new();
        self.changes_bytes = 0;
    }

    /// Row changes before those that are kept.
    pub fn rows_before(&self) -> u64 {
        self.counted - self.changes.len() as u64
    }

    pub fn savepoint(&mut self, name: String) {
        // A savepoint of the same name is replaced (MySQL manual, "SAVEPOINT").
        self.savepoints.retain(|savepoint| !savepoint.name.eq_ignore_ascii_case(&name));
        self.savepoints.push(Savepoint { name, counted: self.counted });
    }

    /// Forgets the rows since a savepoint. Servers log such rows where a transaction also changed what cannot be rolled back.
    pub fn roll_back_to(&mut self, name: &str) -> Result<(), TooLate> {
        let at = self.savepoints.iter().position(|savepoint| savepoint.name.eq_ignore_ascii_case(name));
        // A savepoint from before the first change is not logged by every server: everything goes.
        let counted = at.map_or(0, |at| self.savepoints[at].counted);
        self.savepoints.truncate(at.map_or(0, |at| at + 1));
        let kept = if self.rows_left_out { 0 } else { counted.checked_sub(self.rows_before()).ok_or(TooLate)? };
        self.changes.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        self.changes_bytes = self.changes.iter().map(RowChange::memory_bytes).sum();
        self.counted = counted;
        Ok(())
    }

    /// Takes over what an XA transaction had read when it was prepared.
    pub fn adopt(&mut self, prepared: OpenTransaction) {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(prepared.changes.len());
        self.origin = prepared.origin;
        self.counted = prepared.counted;
        self.changes = prepared.changes;
        self.changes.drain(..skipped);
        self.changes_bytes = prepared.changes_bytes;
        self.echoes = prepared.echoes;
        self.echo_keys = prepared.echo_keys;
        self.heartbeats = prepared.heartbeats;
        self.returned = prepared.returned;
        self.authority = prepared.authority;
        self.checkpoints = prepared.checkpoints;
        self.only_crossfade = prepared.only_crossfade;
    }
}
