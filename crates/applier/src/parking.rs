//! Changes that are set aside: refused by the target, or not to be judged for long. Everything that depends on one of
//! them waits with it; all else goes on.
//!
//! The truth about what is set aside is the target's own checkpoint row: a message is entered there by the transaction
//! that passes it, and taken out by the one that applies it after all. The store holds the reasons, for people; it is
//! written before the target, so nothing is set aside without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade_catalog::class_of;
use crossfade_message::{Failure, Outcome, Status, Store, StoreError};
use crossfade_model::{Message, RowOp, Seen, StreamId, TableName};
use crossfade_rules::plan::{Dependence, Dependences};
use crossfade_rules::{Class, MappedChange, Planner};
use rustc_hash::FxHashMap;

use crate::refusal::Refusal;

/// More changes than this are never set aside: by then something is wrong with more than rows.
pub(crate) const MOST_PARKED: usize = 1_000;

/// So many held changes are retried in one transaction.
const MOST_TOGETHER: usize = 250;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How often a held change is looked at again.
const HELD_RETRY: Duration = Duration::from_secs(1);

/// Why a change is set aside, the weightier reason last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// It depends on one that is set aside.
    Behind,
    /// The opposite direction has not told for long what users did on the target.
    Held,
    Refused(Refused),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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
        let passes = class_of(&source) == Class::OtherRows;
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

/// A message that is set aside, with all that its parts depend on: a move, for example, leaves one key and takes another.
#[derive(Debug, Clone)]
pub(crate) struct AsideMessage {
    pub table: TableName,
    pub op: RowOp,
    pub cause: Cause,
    pub dependences: Vec<Arc<Dependence>>,
}

pub(crate) type AsideMessages = BTreeMap<u64, AsideMessage>;

/// The messages that changes which are set aside are made of.
pub(crate) fn by_message(asides: Vec<Aside>) -> AsideMessages {
    let mut messages = AsideMessages::new();
    for Aside { seqs, table, op, dependence, cause } in asides {
        let dependence = Arc::new(dependence);
        for seq in seqs {
            let message = messages.entry(seq).or_insert_with(|| AsideMessage {
                table: table.clone(),
                op,
                cause: cause.clone(),
                dependences: Vec::new(),
            });
            message.cause = message.cause.clone().max(cause.clone());
            message.dependences.push(dependence.clone());
        }
    }
    messages
}

struct Entry {
    dependences: Vec<Arc<Dependence>>,
    seen: Arc<Seen>,
    held: bool,
    attempts: u32,
    /// `None`: it is tried with what it waits behind.
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

    /// Enters messages; those that were here already have failed once more.
    pub fn enter(&mut self, messages: AsideMessages, seen: &Arc<Seen>, now: Instant) {
        for (seq, AsideMessage { cause, dependences, .. }) in messages {
            let before = self.take(seq);
            let (attempts, seen) =
                before.map_or_else(|| (0, seen.clone()), |before| (before.attempts, before.seen.clone()));
            let attempts = attempts + u32::from(matches!(cause, Cause::Refused(_)));
            let entry =
                Entry { dependences, seen, held: cause == Cause::Held, attempts, due: due(&cause, attempts, now) };
            self.put(seq, entry);
        }
    }

    pub fn leave(&mut self, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            self.take(seq);
        }
    }

    fn put(&mut self, seq: u64, entry: Entry) {
        entry.dependences.iter().for_each(|dependence| self.dependences.add(dependence));
        self.entries.insert(seq, entry);
    }

    fn take(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.entries.remove(&seq)?;
        entry.dependences.iter().for_each(|dependence| self.dependences.remove(dependence));
        Some(entry)
    }

    /// A change that waits behind others may complete what those lack, so they are worth another attempt at once.
    pub fn nudge(&mut self, messages: &AsideMessages, now: Instant) {
        for message in messages.values().filter(|message| message.cause == Cause::Behind) {
            for entry in self.entries.values_mut() {
                let mut this = Dependences::default();
                entry.dependences.iter().for_each(|dependence| this.add(dependence));
                if message.dependences.iter().any(|dependence| this.hold_back(dependence)) {
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

    /// The messages of which something is due, each group with everything that is tied to it, in order. What the target has
    /// not refused goes together: one wait serves it all.
    pub fn due_groups(&self, now: Instant, can_judge: bool) -> Vec<BTreeSet<u64>> {
        let is_due = |seq: &u64| {
            let entry = &self.entries[seq];
            (can_judge || !entry.held) && entry.due.is_some_and(|due| due <= now)
        };
        let due = self.groups().filter(|group| group.iter().any(is_due));
        let (refused, held): (Vec<_>, Vec<_>) =
            due.partition(|group| group.iter().any(|seq| self.entries[seq].attempts > 0));
        let mut groups: Vec<BTreeSet<u64>> = Vec::new();
        for group in held {
            match groups.last_mut() {
                Some(last) if last.len() + group.len() <= MOST_TOGETHER => last.extend(group),
                _ => groups.push(group),
            }
        }
        groups.extend(refused);
        groups
    }

    /// These messages, as far as they are here, each with everything that is tied to it, in order.
    pub fn groups_of(&self, seqs: &BTreeSet<u64>) -> Vec<BTreeSet<u64>> {
        self.groups().filter(|group| !group.is_disjoint(seqs)).collect()
    }

    fn groups(&self) -> impl Iterator<Item = BTreeSet<u64>> {
        let mut groups = Groups::default();
        for (seq, entry) in &self.entries {
            entry.dependences.iter().for_each(|dependence| groups.add(*seq, dependence));
        }
        let mut all: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for seq in self.entries.keys() {
            all.entry(groups.find(*seq)).or_default().insert(*seq);
        }
        all.into_values()
    }

    /// Reads what the target says is set aside, as after a start.
    pub fn fill(&mut self, messages: &[Message], changes: &[MappedChange], planner: &Planner, now: Instant) {
        self.entries.clear();
        self.dependences = Dependences::default();
        for (message, change) in messages.iter().zip(changes) {
            let dependence = planner.dependence(change.table, change.before.as_ref(), change.after.as_ref());
            let dependences = vec![Arc::new(dependence)];
            let entry = Entry { dependences, seen: message.seen.clone(), held: false, attempts: 0, due: Some(now) };
            self.put(message.seq, entry);
        }
    }
}

fn due(cause: &Cause, attempts: u32, now: Instant) -> Option<Instant> {
    match cause {
        Cause::Held => Some(now + HELD_RETRY),
        Cause::Refused(refused) if refused.passes => Some(now + retry_pause(attempts)),
        // Somebody may mend the table.
        Cause::Refused(_) => Some(now + LONGEST_RETRY),
        Cause::Behind => None,
    }
}

/// Doubles from attempt to attempt. Up to a fifth is added by chance, so that many do not come due at once for ever.
fn retry_pause(attempts: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_RETRY);
    doubled.mul_f64(1.0 + 0.2 * rand::random::<f64>())
}

/// Keeps the reasons, before the target is told.
pub(crate) async fn record(store: &Store, stream: &StreamId, messages: &AsideMessages) -> Result<(), StoreError> {
    let (mut failures, mut held) = (Vec::new(), Vec::new());
    for (seq, AsideMessage { table, op, cause, .. }) in messages {
        let (error_code, error_text) = match cause {
            Cause::Held => {
                held.push(held_outcome(*seq, table.clone()));
                continue;
            }
            Cause::Behind => {
                ("behind".to_owned(), "waits behind a change of the same row or of one that it needs".to_owned())
            }
            Cause::Refused(refused) => (refused.code.to_string(), refused.text.clone()),
        };
        failures.push(Failure {
            seq: *seq,
            table: table.clone(),
            op: *op,
            error_code,
            error_text,
            next_retry_at: None,
        });
    }
    store.record_failures(stream, &failures).await?;
    store.record_outcomes(stream, &held).await?;
    // Each has one reason: the last.
    store.clear_held(stream, &Vec::from_iter(failures.iter().map(|failure| failure.seq))).await?;
    store.clear_failures(stream, &Vec::from_iter(held.iter().map(|held| held.seq))).await
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
        self.root.entry(seq).or_insert(seq);
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
