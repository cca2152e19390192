//! Changes that are set aside: refused by the target, or not to be judged for long. Everything that depends on one of
//! them waits with it; all else goes on.
//!
//! The truth about what is set aside is the target's own checkpoint row: a message is entered there by the transaction
//! that passes it, and taken out by the one that applies it after all. The store holds the reasons, for people; it is
//! written before the target, so nothing is set aside without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade_message::{Failure, Outcome, Status, Store, StoreError};
use crossfade_model::{Message, RowOp, Seen, StreamId, TableName};
use crossfade_rules::plan::{Dependence, Dependences};
use crossfade_rules::{MappedChange, Planner};
use rustc_hash::FxHashMap;

use crate::refusal::Refusal;

/// More changes than this are never set aside: by then something is wrong with more than rows.
pub(crate) const MOST_PARKED: usize = 1_000;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How often a held change is looked at again.
const HELD_RETRY: Duration = Duration::from_secs(1);

/// Why a change is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The opposite direction has not told for long what users did on the target.
    Held,
    /// It depends on one that is set aside.
    Behind,
    Refused(Refused),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub code: u16,
    pub text: String,
    /// May pass when other rows change: a parent arrives, a value becomes free.
    pub passes: bool,
}

impl Cause {
    pub fn refused(source: mysql_async::Error) -> Cause {
        let code = match &source {
            mysql_async::Error::Server(server) => server.code,
            _ => 0,
        };
        let passes = crate::error::depends_on_other_rows(code);
        Cause::Refused(Refused { code, text: Refusal::from(source).to_string(), passes })
    }
}

/// One row's change that is set aside now.
#[derive(Debug, Clone)]
pub(crate) struct Aside {
    /// The messages that it is made of.
    pub seqs: Vec<u64>,
    pub table: TableName,
    pub op: RowOp,
    pub dependence: Dependence,
    pub cause: Cause,
}

struct Entry {
    dependence: Arc<Dependence>,
    seen: Arc<Seen>,
    held: bool,
    attempts: u32,
    /// `None`: nothing but a change of something it depends on makes another attempt worth it.
    due: Option<Instant>,
}

/// All that is set aside in one direction.
#[derive(Default)]
pub(crate) struct Parking {
    entries: BTreeMap<u64, Entry>,
    dependences: Dependences,
}

/// How many messages are parked, and how many held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub parked: usize,
    pub held: usize,
}

impl Parking {
    pub fn has_room_for(&self, more: usize) -> bool {
        self.entries.len() + more <= MOST_PARKED
    }

    pub fn seqs(&self) -> BTreeSet<u64> {
        self.entries.keys().copied().collect()
    }

    pub fn counts(&self) -> Counts {
        let held = self.entries.values().filter(|entry| entry.held).count();
        Counts { parked: self.entries.len() - held, held }
    }

    /// What later changes must wait behind.
    pub fn dependences(&self) -> &Dependences {
        &self.dependences
    }

    /// What the writers of the changes set aside had before them.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.entries.values().map(|entry| &*entry.seen)
    }

    /// Enters changes; those that were here already have failed once more.
    pub fn enter(&mut self, asides: &[Aside], seen: &Arc<Seen>, now: Instant) {
        for aside in asides {
            let dependence = Arc::new(aside.dependence.clone());
            for seq in &aside.seqs {
                let before = self.entries.remove(seq);
                if let Some(before) = &before {
                    self.dependences.remove(&before.dependence);
                }
                let (attempts, seen) =
                    before.map_or((0, seen.clone()), |before| (before.attempts, before.seen.clone()));
                let attempts = attempts + u32::from(matches!(aside.cause, Cause::Refused(_)));
                self.dependences.add(&dependence);
                let due = due(&aside.cause, attempts, now);
                let held = aside.cause == Cause::Held;
                self.entries.insert(*seq, Entry { dependence: dependence.clone(), seen, held, attempts, due });
            }
        }
    }

    pub fn leave(&mut self, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            if let Some(entry) = self.entries.remove(&seq) {
                self.dependences.remove(&entry.dependence);
            }
        }
    }

    /// A change that waits behind others may complete what those lack, so they are worth another attempt at once.
    pub fn nudge(&mut self, behind: &[Aside], now: Instant) {
        for aside in behind.iter().filter(|aside| aside.cause == Cause::Behind) {
            for entry in self.entries.values_mut() {
                let mut this = Dependences::default();
                this.add(&entry.dependence);
                if this.hold_back(&aside.dependence) {
                    entry.due = Some(now);
                }
            }
        }
    }

    /// When the next attempt is due. Held changes wait until one `can_judge`, which is looked at every now and then.
    pub fn next_due(&self, now: Instant, can_judge: bool) -> Option<Instant> {
        let due = |entry: &Entry| match entry.held && !can_judge {
            true => Some(now + HELD_RETRY),
            false => entry.due,
        };
        self.entries.values().filter_map(due).min()
    }

    /// The messages of which something is due, each group with everything that is tied to it, in order.
    pub fn due_groups(&self, now: Instant, can_judge: bool) -> Vec<BTreeSet<u64>> {
        let mut groups = Groups::default();
        for (seq, entry) in &self.entries {
            groups.add(*seq, &entry.dependence);
        }
        let mut all: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for seq in self.entries.keys() {
            all.entry(groups.find(*seq)).or_default().insert(*seq);
        }
        let is_due = |seq: &u64| {
            let entry = &self.entries[seq];
            (can_judge || !entry.held) && entry.due.is_some_and(|due| due <= now)
        };
        all.into_values().filter(|group| group.iter().any(is_due)).collect()
    }

    /// Reads what the target says is set aside, as after a start.
    pub fn fill(&mut self, messages: &[Message], changes: &[MappedChange], planner: &Planner, now: Instant) {
        self.entries.clear();
        self.dependences = Dependences::default();
        for (message, change) in messages.iter().zip(changes) {
            let dependence = Arc::new(planner.dependence(change.table, change.before.as_ref(), change.after.as_ref()));
            self.dependences.add(&dependence);
            let entry = Entry { dependence, seen: message.seen.clone(), held: false, attempts: 0, due: Some(now) };
            self.entries.insert(message.seq, entry);
        }
    }
}

fn due(cause: &Cause, attempts: u32, now: Instant) -> Option<Instant> {
    match cause {
        Cause::Held => Some(now + HELD_RETRY),
        Cause::Refused(refused) if refused.passes => Some(now + retry_pause(attempts)),
        Cause::Refused(_) | Cause::Behind => None,
    }
}

/// Doubles from attempt to attempt. Up to a fifth is added by chance, so that many do not come due at once for ever.
fn retry_pause(attempts: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_RETRY);
    doubled.mul_f64(1.0 + 0.2 * rand::random::<f64>())
}

/// Keeps the reasons, before the target is told.
pub(crate) async fn record(store: &Store, stream: &StreamId, asides: &[Aside]) -> Result<(), StoreError> {
    let (mut failures, mut held) = (Vec::new(), Vec::new());
    for aside in asides {
        let of_seq = |seq: &u64| (*seq, aside.table.clone());
        let failure = |code: String, text: String| {
            aside.seqs.iter().map(of_seq).map(move |(seq, table)| Failure {
                seq,
                table,
                op: aside.op,
                error_code: code.clone(),
                error_text: text.clone(),
                next_retry_at: None,
            })
        };
        match &aside.cause {
            Cause::Held => held.extend(aside.seqs.iter().map(of_seq).map(|(seq, table)| held_outcome(seq, table))),
            Cause::Behind => failures.extend(failure(
                "behind".to_owned(),
                "waits behind a change of the same row or of one that it needs".to_owned(),
            )),
            Cause::Refused(refused) => failures.extend(failure(refused.code.to_string(), refused.text.clone())),
        }
    }
    store.record_failures(stream, &failures).await?;
    store.record_outcomes(stream, &held).await
}

fn held_outcome(seq: u64, table: TableName) -> Outcome {
    Outcome {
        seq,
        table,
        status: Status::Held,
        reason: "the opposite direction has not yet told what users did on the target".to_owned(),
        winner: None,
        source_clock: None,
        target_clock: None,
    }
}

/// Which changes are tied to each other, whatever the direction of the tie.
#[derive(Default)]
struct Groups {
    by_token: FxHashMap<u64, u64>,
    root: FxHashMap<u64, u64>,
}

impl Groups {
    fn add(&mut self, seq: u64, dependence: &Dependence) {
        self.root.insert(seq, seq);
        for token in dependence.tokens() {
            let known = *self.by_token.entry(token).or_insert(seq);
            let (a, b) = (self.find(known), self.find(seq));
            self.root.insert(a.max(b), a.min(b));
        }
    }

    fn find(&self, mut seq: u64) -> u64 {
        while let Some(root) = self.root.get(&seq).copied()
            && root != seq
        {
            seq = root;
        }
        seq
    }
}
