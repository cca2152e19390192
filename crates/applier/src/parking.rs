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

use crate::circuit::{Circuit, CircuitLimits, Tripped};
use crate::error::{is_missing_parent, is_referred_to};
use crate::refusal::Refusal;

/// So many held changes are retried in one transaction.
const MOST_TOGETHER: usize = 250;

/// What passes when other rows change is tried again soon, and then less and less often.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// What is in a row does not change by itself; but somebody may mend the table.
const FIRST_RETRY_OF_VALUES: Duration = Duration::from_secs(5);
const LONGEST_RETRY_OF_VALUES: Duration = Duration::from_secs(600);
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
    /// For the failure, and for people who look at it.
    pub text: String,
    /// As it may be logged.
    pub logged: String,
    /// May pass when other rows change: a parent arrives, a value becomes free.
    pub passes: bool,
    /// A parent is not there.
    pub misses_parent: bool,
    /// Other rows refer to a key that it would end.
    pub is_referred_to: bool,
    /// What stands for the rows that have its unique values: it is tried together with who changes them.
    pub rivals: Vec<u64>,
}

impl Cause {
    pub fn refused(source: mysql_async::Error) -> Cause {
        let code = match &source {
            mysql_async::Error::Server(server) => server.code,
            _ => 0,
        };
        let passes = class_of(&source) == Class::OtherRows;
        let (misses_parent, is_referred_to) = (is_missing_parent(&source), is_referred_to(&source));
        let refusal = Refusal::from(source);
        Cause::Refused(Refused {
            code,
            text: refusal.kept(),
            logged: refusal.to_string(),
            passes,
            misses_parent,
            is_referred_to,
            rivals: Vec::new(),
        })
    }

    /// Refused since these have its unique values.
    pub fn against(mut self, of_rivals: Vec<u64>) -> Cause {
        if let Cause::Refused(refused) = &mut self {
            refused.rivals = of_rivals;
        }
        self
    }

    /// Held changes are kept as outcomes, all others as failures.
    fn is_kept_as(&self, other: &Cause) -> bool {
        (*self == Cause::Held) == (*other == Cause::Held)
    }

    /// As people read it.
    fn told(&self) -> (String, String) {
        match self {
            Cause::Refused(refused) => (refused.code.to_string(), refused.text.clone()),
            Cause::Behind | Cause::Held => {
                ("behind".to_owned(), "waits behind a change of the same row or of one that it needs".to_owned())
            }
        }
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

impl Aside {
    /// The last message of a row that the target refuses.
    pub fn refused_at(&self) -> Option<u64> {
        let last = self.seqs.iter().max().copied();
        last.filter(|_| matches!(self.cause, Cause::Refused(_)))
    }
}

/// A message that is set aside, with all that its parts depend on: a move, for example, leaves one key and takes another.
#[derive(Debug, Clone)]
pub(crate) struct AsideMessage {
    pub table: TableName,
    pub op: RowOp,
    pub cause: Cause,
    pub dependences: Vec<Arc<Dependence>>,
    /// How often the target has refused it, this time included, or it was to be tried by itself since nothing else would try it.
    pub attempts: u32,
    /// `None`: it is tried with what it waits behind.
    pub due: Option<Instant>,
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
                attempts: 0,
                due: None,
            });
            message.cause = message.cause.clone().max(cause.clone());
            message.dependences.push(dependence.clone());
        }
    }
    messages
}

struct Entry {
    table: TableName,
    op: RowOp,
    dependences: Vec<Arc<Dependence>>,
    seen: Arc<Seen>,
    /// `None` right after a start: the store has the reason.
    cause: Option<Cause>,
    attempts: u32,
    /// `None`: it is tried with what it waits behind.
    due: Option<Instant>,
    /// The store does not know yet of the last attempt.
    untold: bool,
}

impl Entry {
    fn is_held(&self) -> bool {
        self.cause == Some(Cause::Held)
    }
}

/// All that is set aside in one direction.
pub(crate) struct Parking {
    entries: BTreeMap<u64, Entry>,
    dependences: Dependences,
    circuit: Circuit,
}

/// How many messages are parked, and how many held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub parked: usize,
    pub held: usize,
}

impl Parking {
    pub fn new(limits: CircuitLimits) -> Parking {
        Parking { entries: BTreeMap::new(), dependences: Dependences::default(), circuit: Circuit::new(limits) }
    }

    pub fn has_room_for(&self, more: usize) -> bool {
        self.circuit.holds(self.entries.len() + more)
    }

    /// There is no room for more, or what is held may soon leave some.
    pub fn is_short_of_room(&self) -> bool {
        !self.has_room_for(1) || self.counts().held > 0
    }

    /// Whether a batch that ends with `batch_last` may set these aside, beside what is here. Nothing is entered by this.
    pub fn admits(&mut self, asides: &AsideMessages, refused: &[u64], batch_last: u64) -> Result<(), Tripped> {
        let new = asides.keys().filter(|seq| !self.entries.contains_key(seq)).count();
        let last = asides.values().rev().find_map(|message| match &message.cause {
            Cause::Refused(refused) => Some(refused.logged.as_str()),
            _ => None,
        });
        self.circuit.admits(self.entries.len() + new, refused, batch_last, last)
    }

    /// A person lets the direction go on: what was refused before does not count against it any more, and all that is
    /// set aside is due.
    pub fn begin_anew(&mut self, now: Instant) {
        self.circuit.close();
        self.entries.values_mut().for_each(|entry| entry.due = Some(now));
    }

    /// Counts another attempt of each that was refused, and settles when it is tried next.
    pub fn reckon(&self, messages: &mut AsideMessages, now: Instant) {
        for (seq, message) in messages {
            let before = self.entries.get(seq).map_or(0, |entry| entry.attempts);
            message.attempts = before + u32::from(matches!(message.cause, Cause::Refused(_)));
            message.due = due(&message.cause, message.attempts, now);
        }
    }

    /// Every one of these is here for a reason of the same kind already.
    pub fn are_known(&self, messages: &AsideMessages) -> bool {
        messages.iter().all(|(seq, message)| {
            let before = self.entries.get(seq).and_then(|entry| entry.cause.as_ref());
            before.is_some_and(|before| before.is_kept_as(&message.cause))
        })
    }

    /// Those of them that are here for a reason that is kept elsewhere.
    pub fn kept_elsewhere(&self, messages: &AsideMessages) -> Vec<u64> {
        let elsewhere = |(seq, message): (&u64, &AsideMessage)| {
            let before = self.entries.get(seq)?.cause.as_ref()?;
            (!before.is_kept_as(&message.cause)).then_some(*seq)
        };
        messages.iter().filter_map(elsewhere).collect()
    }

    pub fn seqs(&self) -> BTreeSet<u64> {
        self.entries.keys().copied().collect()
    }

    pub fn counts(&self) -> Counts {
        let held = self.entries.values().filter(|entry| entry.is_held()).count();
        Counts { parked: self.entries.len() - held, held }
    }

    /// What later changes must wait behind.
    pub fn dependences(&self) -> &Dependences {
        &self.dependences
    }

    /// The same for another attempt with these, which are in order.
    pub fn dependences_before(&self, seqs: &BTreeSet<u64>) -> Dependences {
        let mut before = Dependences::default();
        let last = seqs.last().copied().unwrap_or_default();
        let others = self.entries.range(..last).filter(|(seq, _)| !seqs.contains(seq));
        others.flat_map(|(_, entry)| &entry.dependences).for_each(|dependence| before.add(dependence));
        before
    }

    /// What the writers of the changes set aside had before them.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.entries.values().map(|entry| &*entry.seen)
    }

    /// Enters messages that were [reckoned](Self::reckon) and that the store knows of, and takes out what has been applied. Both at
    /// once: between the two, what waits behind the latter would seem to have somebody.
    pub fn enter(&mut self, messages: AsideMessages, seen: &Arc<Seen>, applied: BTreeSet<u64>, now: Instant) {
        for (seq, AsideMessage { table, op, cause, dependences, attempts, due }) in messages {
            let seen = self.take(seq).map_or_else(|| seen.clone(), |before| before.seen);
            let entry = Entry { table, op, dependences, seen, cause: Some(cause), attempts, due, untold: false };
            self.put(seq, entry);
        }
        self.leave(applied, now);
    }

    /// Another attempt has changed nothing but reasons and times; the store is told [later](Self::untold).
    pub fn renew(&mut self, messages: AsideMessages, now: Instant) {
        for (seq, AsideMessage { cause, attempts, due, dependences, .. }) in messages {
            if let Some(mut entry) = self.take(seq) {
                entry.untold |=
                    cause != Cause::Held && (attempts > entry.attempts || entry.cause.as_ref() != Some(&cause));
                (entry.cause, entry.attempts, entry.due) = (Some(cause), attempts, due);
                // What would end with its row may be more than it was.
                entry.dependences = dependences;
                self.put(seq, entry);
            }
        }
        self.keep_all_awake(now);
    }

    /// What the store does not know yet.
    pub fn untold(&self, now: Instant) -> Vec<Failure> {
        let untold = self.entries.iter().filter(|(_, entry)| entry.untold);
        untold
            .filter_map(|(seq, entry)| {
                let Entry { table, op, cause, attempts, due, .. } = entry;
                Some(failure(*seq, table, *op, cause.as_ref()?, (*attempts, *due), now))
            })
            .collect()
    }

    /// The store has been told of these.
    pub fn told(&mut self, failures: &[Failure]) {
        for failure in failures {
            if let Some(entry) = self.entries.get_mut(&failure.seq) {
                entry.untold = entry.attempts != failure.attempts;
            }
        }
    }

    pub fn leave(&mut self, seqs: impl IntoIterator<Item = u64>, now: Instant) {
        for seq in seqs {
            self.take(seq);
            self.circuit.forget(seq);
        }
        self.keep_all_awake(now);
    }

    /// Whoever waits behind others is tried with them. Where those have gone without him, nothing would try him any more: the
    /// first of each such group gets a time of its own.
    fn keep_all_awake(&mut self, now: Instant) {
        if self.entries.values().all(|entry| entry.due.is_some()) {
            return;
        }
        let sleeps = |group: &BTreeSet<u64>| group.iter().all(|seq| self.entries[seq].due.is_none());
        let first: Vec<u64> = self.groups().filter(sleeps).filter_map(|mut group| group.pop_first()).collect();
        for seq in first {
            if let Some(entry) = self.entries.get_mut(&seq) {
                entry.attempts += 1;
                entry.due = Some(now + retry_pause(entry.attempts, FIRST_RETRY, LONGEST_RETRY));
                entry.untold = true;
            }
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
                if message.dependences.iter().any(|dependence| this.holds_back(dependence)) {
                    entry.due = Some(now);
                }
            }
        }
    }

    /// When the next attempt is due. Held changes wait until one `can_judge`, which is looked at every now and then.
    pub fn next_due(&self, now: Instant, can_judge: bool) -> Option<Instant> {
        let due = |entry: &Entry| match entry.is_held() && !can_judge {
            true => Some(now + HELD_RETRY),
            false => entry.due,
        };
        self.entries.values().filter_map(due).min()
    }

    /// The messages of which something is due, each group with everything that is tied to it, in order. What was never
    /// refused nor tried by itself goes together: one wait serves it all.
    pub fn due_groups(&self, now: Instant, can_judge: bool) -> Vec<BTreeSet<u64>> {
        let is_due = |seq: &u64| {
            let entry = &self.entries[seq];
            (can_judge || !entry.is_held()) && entry.due.is_some_and(|due| due <= now)
        };
        let due = self.groups().filter(|group| group.iter().any(is_due));
        let (tried, others): (Vec<_>, Vec<_>) =
            due.partition(|group| group.iter().any(|seq| self.entries[seq].attempts > 0));
        let mut groups: Vec<BTreeSet<u64>> = Vec::new();
        for group in others {
            match groups.last_mut() {
                Some(last) if last.len() + group.len() <= MOST_TOGETHER => last.extend(group),
                _ => groups.push(group),
            }
        }
        groups.extend(tried);
        groups
    }

    /// These messages, as far as they are here, each with everything that is tied to it, in order.
    pub fn groups_of(&self, seqs: &BTreeSet<u64>) -> Vec<BTreeSet<u64>> {
        self.groups().filter(|group| !group.is_disjoint(seqs)).collect()
    }

    fn groups(&self) -> impl Iterator<Item = BTreeSet<u64>> {
        let mut groups = Groups::default();
        for (seq, entry) in &self.entries {
            entry.dependences.iter().for_each(|dependence| groups.add(*seq, dependence.tokens()));
            if let Some(Cause::Refused(refused)) = &entry.cause {
                groups.add(*seq, refused.rivals.iter().copied());
            }
        }
        let mut all: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for seq in self.entries.keys() {
            all.entry(groups.find(*seq)).or_default().insert(*seq);
        }
        all.into_values()
    }

    /// Reads what the target says is set aside, as after a start; `attempts` is what the store says.
    pub fn fill(
        &mut self,
        messages: &[Message],
        changes: &[MappedChange],
        attempts: &BTreeMap<u64, u32>,
        planner: &Planner,
        now: Instant,
    ) {
        self.entries.clear();
        self.dependences = Dependences::default();
        for (message, change) in messages.iter().zip(changes) {
            let dependence = planner.dependence(change.table, change.before.as_ref(), change.after.as_ref());
            let entry = Entry {
                table: message.change.layout.name.clone(),
                op: message.change.op,
                dependences: vec![Arc::new(dependence)],
                seen: message.seen.clone(),
                // The store has a failure of whatever is not merely held.
                cause: (!attempts.contains_key(&message.seq)).then_some(Cause::Held),
                attempts: attempts.get(&message.seq).copied().unwrap_or(0),
                due: Some(now),
                untold: false,
            };
            self.put(message.seq, entry);
        }
    }
}

fn due(cause: &Cause, attempts: u32, now: Instant) -> Option<Instant> {
    match cause {
        Cause::Held => Some(now + HELD_RETRY),
        Cause::Refused(refused) if refused.passes => Some(now + retry_pause(attempts, FIRST_RETRY, LONGEST_RETRY)),
        Cause::Refused(_) => Some(now + retry_pause(attempts, FIRST_RETRY_OF_VALUES, LONGEST_RETRY_OF_VALUES)),
        Cause::Behind => None,
    }
}

/// Doubles from attempt to attempt. Up to a fifth is added by chance, so that many do not come due at once for ever.
fn retry_pause(attempts: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(longest);
    doubled.mul_f64(1.0 + 0.2 * rand::random::<f64>())
}

/// Keeps the reasons, before the target is told.
pub(crate) async fn record(
    store: &Store,
    stream: &StreamId,
    messages: &AsideMessages,
    now: Instant,
) -> Result<(), StoreError> {
    let (mut failures, mut held) = (Vec::new(), Vec::new());
    for (seq, AsideMessage { table, op, cause, attempts, due, .. }) in messages {
        match cause {
            Cause::Held => held.push(held_outcome(*seq, table.clone())),
            cause => failures.push(failure(*seq, table, *op, cause, (*attempts, *due), now)),
        }
    }
    store.record_failures(stream, &failures).await?;
    store.record_outcomes(stream, &held).await?;
    // Each has one reason: the last.
    store.clear_held(stream, &Vec::from_iter(failures.iter().map(|failure| failure.seq))).await?;
    store.clear_failures(stream, &Vec::from_iter(held.iter().map(|held| held.seq))).await
}

fn failure(
    seq: u64,
    table: &TableName,
    op: RowOp,
    cause: &Cause,
    (attempts, due): (u32, Option<Instant>),
    now: Instant,
) -> Failure {
    let (error_code, error_text) = cause.told();
    let retry_in = due.map(|due| due.saturating_duration_since(now));
    Failure { seq, table: table.clone(), op, error_code, error_text, attempts, retry_in }
}

fn held_outcome(seq: u64, table: TableName) -> Outcome {
    Outcome::undisputed(
        seq,
        table,
        Status::Held,
        "the opposite direction has not yet told what users did on the target".to_owned(),
    )
}

/// Which changes are tied to each other, whatever the direction of the tie.
#[derive(Default)]
struct Groups {
    by_token: FxHashMap<u64, u64>,
    root: FxHashMap<u64, u64>,
}

impl Groups {
    fn add(&mut self, seq: u64, tokens: impl Iterator<Item = u64>) {
        self.root.entry(seq).or_insert(seq);
        for token in tokens {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(seq: u64) -> AsideMessages {
        let (table, dependence) = (TableName::new("app", "users"), Dependence::default());
        by_message(vec![Aside { seqs: vec![seq], table, op: RowOp::Update, dependence, cause: Cause::Behind }])
    }

    fn empty() -> Parking {
        Parking::new(CircuitLimits { most_parked: 10, most_refused_ppm: 10_000 })
    }

    #[test]
    fn what_waits_behind_nobody_is_tried_by_itself() {
        let (mut parking, begin) = (empty(), Instant::now());
        parking.enter(behind(7), &Arc::default(), BTreeSet::new(), begin);
        let first = parking.next_due(begin, true).expect("it is tried again");
        assert!(first > begin && first <= begin + 2 * FIRST_RETRY);
        assert_eq!(parking.due_groups(first, true), [BTreeSet::from([7])]);
        assert_eq!(parking.untold(begin)[0].attempts, 1);

        let mut once_more = behind(7);
        parking.reckon(&mut once_more, first);
        parking.renew(once_more, first);
        let second = parking.next_due(first, true).expect("and again");
        assert!(second >= first + 2 * FIRST_RETRY, "less and less often");

        parking.enter(AsideMessages::new(), &Arc::default(), BTreeSet::from([7]), second);
        assert_eq!(parking.next_due(second, true), None);
    }
}
