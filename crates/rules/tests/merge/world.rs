//! Two sides, two keys: users write, readers capture, batches for one or two lanes commit, rows are set aside and tried again,
//! processes die between lanes. Columns are merged by the product's own code.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use crossfade_model::{Clock, LaneProgress, MergeRule, Origin, Row, RowOp, Seen, Side, StreamProgress, Value};
use crossfade_rules::clock::{clock_of, effective, own};
use crossfade_rules::concurrent::{BatchId, Known, Unknown, was_seen};
use crossfade_rules::key::{exact_hash, folded_hash};
use crossfade_rules::merge::{
    ColumnSet, Concurrent, Effect, Found, Images, KeyHashes, Merged, Merging, Missing, Part, Window,
};
use crossfade_rules::{
    ConcurrentIndex, LanePlan, MappedChange, OppositeChange, Plan, Planner, Policy, Step, TableMapping,
};

use crate::table::{self, COLUMNS, KEYS, first_row, key_of};

pub const SIDES: [Side; 2] = [Side::Old, Side::New];
/// The streams away from the sides.
const STREAMS: [&str; 2] = ["forward/old", "reverse/new"];

/// What is broken, to show that the checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Concurrent updates are taken to write every column.
    ColumnsIgnored,
    /// Only what a batch does to a row in the end is merged.
    FoldedBlindly,
    /// A row that comes back has what its delete took away, and nothing that came since.
    HiddenForgotten,
    /// Changes are merged without waiting for the opposite reader.
    HoldRemoved,
    /// A message is merged a second time after a crash.
    MergedTwice,
    /// Rows are judged by sight although one of two values may still prevail.
    SightOfBounds,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub before: Option<Row>,
    pub after: Option<Row>,
    pub effective: Option<Clock>,
    pub seen: Arc<Seen>,
    /// What it really had before it.
    pub saw: BTreeSet<u64>,
}

/// What users do.
#[derive(Debug, Clone)]
pub struct Write {
    pub before: Option<Row>,
    pub after: Option<Row>,
}

/// How often what was met.
#[derive(Debug, Default)]
pub struct Tally {
    pub merged: Cell<u64>,
    pub columns_lost: Cell<u64>,
    pub lost_whole: Cell<u64>,
    pub revived: Cell<u64>,
    /// A row came back with changes that had come since its delete.
    pub revived_with_more: Cell<u64>,
    pub inserts_merged: Cell<u64>,
    pub folded: Cell<u64>,
    pub parked: Cell<u64>,
    pub half_batches: Cell<u64>,
    pub sighted: Cell<u64>,
}

pub fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// What does not change.
pub struct Rules {
    pub policy: Policy,
    pub prefer: Side,
    pub flaw: Option<Flaw>,
    /// Of each column.
    pub columns: [MergeRule; COLUMNS],
    /// No two versions have one clock, so rows are judged by sight.
    sight: bool,
    pub tally: Tally,
    mappings: [TableMapping; 2],
    planners: [Planner; 2],
}

impl Rules {
    pub fn new(policy: Policy, prefer: Side, flaw: Option<Flaw>) -> Rules {
        Rules::of(policy, prefer, flaw, flaw == Some(Flaw::SightOfBounds))
    }

    /// With columns that rows can be judged by sight with.
    pub fn by_sight(policy: Policy, prefer: Side) -> Rules {
        Rules::of(policy, prefer, None, true)
    }

    fn of(policy: Policy, prefer: Side, flaw: Option<Flaw>, sight: bool) -> Rules {
        let has_bounds = !sight || flaw.is_some();
        let mappings =
            SIDES.map(|side| TableMapping { strict_clock: sight, ..table::mapping(side, policy, has_bounds) });
        let columns = table::rules(has_bounds);
        let planners = [0, 1].map(|side: usize| Planner::new(&mappings[side..=side]));
        Rules { policy, prefer, flaw, columns, sight, tally: Tally::default(), mappings, planners }
    }

    pub fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn plan(&self, side: usize, log: &[Message], seqs: impl Iterator<Item = u64>, lanes: u16) -> Plan {
        let changes = seqs.zip(0..).map(|(seq, transaction)| {
            let Message { before, after, effective, seen, .. } = log[seq as usize - 1].clone();
            MappedChange {
                seq,
                table: 0,
                op: op(&before, &after),
                before,
                after,
                effective,
                seen,
                transaction,
                origin: Origin::User,
            }
        });
        self.planners[side].plan(changes.collect(), lanes).expect("the batch is sound")
    }

    fn hashes(&self, side: usize, key: usize) -> KeyHashes {
        let (identity, value) = (&self.mappings[side].identity, Value::Int(key as i64));
        KeyHashes { folded: folded_hash(identity, &[&value]), exact: exact_hash(identity, &[&value]) }
    }
}

#[derive(Debug, Clone)]
pub struct World {
    pub rows: [[Option<Row>; KEYS]; 2],
    pub logs: [Vec<Message>; 2],
    pub captured: [u64; 2],
    /// Per side the checkpoints of the stream that comes from there.
    pub progress: [StreamProgress; 2],
    /// Per side its messages that have taken effect on the other side.
    pub effect: [BTreeSet<u64>; 2],
    /// What has happened, where somebody wants to know.
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn new() -> World {
        World {
            rows: [[Some(first_row()), None], [Some(first_row()), None]],
            logs: Default::default(),
            captured: [0; 2],
            progress: Default::default(),
            effect: Default::default(),
            trace: None,
        }
    }

    pub fn is_quiet(&self) -> bool {
        (0..2).all(|side| {
            let progress = &self.progress[side];
            progress.in_effect_through() == self.logs[side].len() as u64
        })
    }

    pub fn write(&mut self, rules: &Rules, side: usize, write: Write, committed_at_micros: i64) {
        let seq = self.logs[side].len() as u64 + 1;
        let effective = self.effective(rules, side, &write, committed_at_micros);
        let Write { before, after } = write;
        let streams = [(STREAMS[1 - side].to_owned(), self.progress[1 - side].clone())];
        let seen = Arc::new(Seen { streams: streams.into() });
        self.note(|| format!("{seq} on {}: {before:?} -> {after:?} at {effective:?}", SIDES[side]));
        for key in [&before, &after].into_iter().flatten().map(key_of) {
            self.rows[side][key] = after.clone().filter(|row| key_of(row) == key);
        }
        let saw = self.effect[1 - side].clone();
        self.logs[side].push(Message { before, after, effective, seen, saw });
    }

    /// As capture fixes it: never less than that of an earlier change of the row.
    fn effective(&self, rules: &Rules, side: usize, write: &Write, committed_at_micros: i64) -> Option<Clock> {
        let column = rules.mappings[side].clock.as_ref()?;
        let Write { before, after } = write;
        let own = own(column, table::CLOCK, op(before, after), before.as_ref(), after.as_ref(), committed_at_micros);
        let keys = [before, after].into_iter().flatten().map(key_of);
        let earlier = keys.flat_map(|key| self.parts_of(side, key).map(|part| part.effective).max());
        let before = before.as_ref().and_then(|row| clock_of(column, &row[table::CLOCK]));
        effective(own, earlier.chain([before]))
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// The batch of which one lane has committed, and the other lane.
    pub fn half(&self, side: usize) -> Option<(LaneProgress, u16)> {
        let (batch, done) = self.progress[side].partial_batch()?;
        Some((batch, 1 - done[0]))
    }

    /// A lane of the batch that ends with `last` commits on the other side. Changes of the key `refused` are set aside, and
    /// all that hangs on them.
    pub fn commit(&mut self, rules: &Rules, side: usize, last: u64, lanes: u16, lane: u16, refused: Option<usize>) {
        let first = self.half(side).map_or(self.progress[side].applied_through() + 1, |(batch, _)| batch.batch_first);
        let plan = rules.plan(side, &self.logs[side], first..=last, lanes);
        let parked = self.apply(rules, side, &plan.lanes[usize::from(lane)], refused);
        let progress = &mut self.progress[side];
        progress.parked.extend(parked);
        progress.lanes.insert(lane, LaneProgress { seq: last, batch_first: first, batch_last: last, lanes });
        if progress.partial_batch().is_some() {
            count(&rules.tally.half_batches);
        }
    }

    /// What is set aside is tried again.
    pub fn retry(&mut self, rules: &Rules, side: usize) {
        let parked = std::mem::take(&mut self.progress[side].parked);
        let plan = rules.plan(side, &self.logs[side], parked.into_iter(), 1);
        self.apply(rules, side, &plan.lanes[0], None);
    }

    fn apply(&mut self, rules: &Rules, side: usize, lane: &LanePlan, refused: Option<usize>) -> BTreeSet<u64> {
        let units: Vec<(BTreeSet<u64>, usize, Vec<Part>)> = units(lane);
        let mut parked = self.progress[side].parked.clone();
        let mut keys: BTreeSet<usize> = refused.into_iter().collect();
        keys.extend(parked.iter().flat_map(|seq| self.keys(side, *seq)));
        loop {
            let before = parked.len();
            for (seqs, key, _) in &units {
                if keys.contains(key) || !parked.is_disjoint(seqs) {
                    parked.extend(seqs);
                    keys.extend(seqs.iter().flat_map(|seq| self.keys(side, *seq)));
                }
            }
            if parked.len() == before {
                break;
            }
        }
        let times = if rules.has(Flaw::MergedTwice) { 2 } else { 1 };
        for (seqs, key, parts) in &units {
            if !parked.is_disjoint(seqs) {
                count(&rules.tally.parked);
                self.note(|| format!("   {} sets aside {seqs:?}", SIDES[side]));
                continue;
            }
            for _ in 0..times {
                self.merge(rules, side, *key, parts);
            }
            self.effect[side].extend(seqs);
        }
        parked
    }

    fn keys(&self, side: usize, seq: u64) -> Vec<usize> {
        let message = &self.logs[side][seq as usize - 1];
        [&message.before, &message.after].into_iter().flatten().map(key_of).collect()
    }

    /// The row is what the first change's writer had before him: nothing can be concurrent.
    fn is_sighted(&self, rules: &Rules, side: usize, key: usize, parts: &[Part]) -> bool {
        let target = self.rows[1 - side][key].as_ref();
        let shows = |row: &Row| rules.has(Flaw::SightOfBounds) || rules.mappings[side].shows_untouched(row);
        rules.sight && target.is_some_and(|row| parts[0].before.as_ref() == Some(row) && shows(row))
    }

    fn merge(&mut self, rules: &Rules, side: usize, key: usize, parts: &[Part]) {
        if self.is_sighted(rules, side, key, parts) {
            count(&rules.tally.sighted);
            self.rows[1 - side][key] = parts[parts.len() - 1].after.clone();
            return;
        }
        if parts.len() > 1 {
            count(&rules.tally.folded);
        }
        let folded = [net(parts)];
        let parts = if rules.has(Flaw::FoldedBlindly) { &folded } else { parts };
        let (window, mapping) = (self.window(rules, side, key, parts), &rules.mappings[side]);
        let merging = Merging::new(mapping, rules.prefer, &window.opposite).expect("columns are merged");
        let target = self.rows[1 - side][key].clone();
        let mut found = Found::default();
        let (row, ends) = loop {
            match merging.merge(target.as_ref(), &window.of(parts), &found) {
                Ok(merged) => break merged,
                Err(missing) => self.find(rules, side, key, missing, &mut found),
            }
        };
        for (end, (part, unseen)) in ends.iter().zip(window.of(parts)).filter(|(_, (_, unseen))| *unseen > 0) {
            let tally = &rules.tally;
            count(&tally.merged);
            let counted = [
                (!end.lost.is_empty(), &tally.columns_lost),
                (!end.survives, &tally.lost_whole),
                (part.before.is_none() && end.survives && unseen > 0, &tally.inserts_merged),
            ];
            counted.iter().filter(|(is_met, _)| *is_met).for_each(|(_, counter)| count(counter));
        }
        let row = match row {
            Merged::Absent => None,
            Merged::Whole(row) => Some(row),
            Merged::Changed(values) => {
                let mut row = target.expect("a row that is changed is there");
                values.into_iter().for_each(|(column, value)| row[column] = value);
                Some(row)
            }
        };
        let seqs: Vec<u64> = parts.iter().map(|part| part.seq).collect();
        self.note(|| format!("   {seqs:?} from {} make {row:?} of {key}", SIDES[side]));
        self.rows[1 - side][key] = row;
    }

    fn window(&self, rules: &Rules, side: usize, key: usize, parts: &[Part]) -> Window {
        let mut index = ConcurrentIndex::default();
        let hold = if rules.has(Flaw::HoldRemoved) { self.captured[1 - side] } else { u64::MAX };
        for part in self.parts_of(1 - side, key).filter(|part| part.seq <= hold) {
            let effect = match effect(&part) {
                Effect::Update(_) if rules.has(Flaw::ColumnsIgnored) => Effect::Update(ColumnSet::all(COLUMNS)),
                effect => effect,
            };
            let KeyHashes { folded, exact } = rules.hashes(side, key);
            let change = OppositeChange {
                seq: part.seq,
                exact,
                effective: part.effective,
                op: effect.op(),
                returned: false,
                effect: Some(Box::new(effect)),
                text_key: None,
            };
            index.add(folded, change);
        }
        self.answered(rules, 1 - side, |known| {
            Window::look_up(&index, rules.hashes(side, key), STREAMS[1 - side], parts, known)
        })
    }

    /// What a side's users did to a key.
    fn parts_of(&self, side: usize, key: usize) -> impl Iterator<Item = Part> + '_ {
        (1..).zip(&self.logs[side]).filter_map(move |(seq, message)| {
            let at_key = |row: &Option<Row>| row.clone().filter(|row| key_of(row) == key);
            let (before, after) = (at_key(&message.before), at_key(&message.after));
            let (effective, seen) = (message.effective, message.seen.clone());
            (before.is_some() || after.is_some()).then_some(Part {
                seq,
                before,
                after,
                effective,
                seen,
                returned: false,
            })
        })
    }

    fn find(&self, rules: &Rules, side: usize, key: usize, missing: Missing, found: &mut Found) {
        match missing {
            Missing::Images(seqs) => {
                for part in self.parts_of(1 - side, key).filter(|part| seqs.contains(&part.seq)) {
                    found.images.insert(part.seq, Images { before: part.before, after: part.after });
                }
            }
            Missing::Revived { delete, part } => {
                let row = self.revived(rules, side, key, delete, part);
                found.revived.insert((delete, part), row);
            }
        }
    }

    fn revived(&self, rules: &Rules, side: usize, key: usize, delete: u64, until: u64) -> Row {
        count(&rules.tally.revived);
        let gone = self.parts_of(1 - side, key).find(|part| part.seq == delete).expect("the delete");
        let mut since = Vec::new();
        for part in self.parts_of(side, key).filter(|part| part.seq < until && !rules.has(Flaw::HiddenForgotten)) {
            let progress = gone.seen.streams.get(STREAMS[side]);
            if !self.answered(rules, side, |known| was_seen(progress, part.seq, known)) {
                since.push(part);
            }
        }
        if !since.is_empty() {
            count(&rules.tally.revived_with_more);
        }
        let opposite = self.parts_of(1 - side, key).filter(|part| part.seq <= delete);
        let opposite: Vec<Concurrent> = opposite.map(|part| Concurrent::from(&part)).collect();
        let window =
            self.answered(rules, 1 - side, |known| Window::over(opposite.clone(), STREAMS[1 - side], &since, known));
        let merging = Merging::new(&rules.mappings[side], rules.prefer, &window.opposite).expect("columns are merged");
        let mut found = Found::default();
        loop {
            match merging.revive(gone.before.clone().expect("a delete's image"), &window.of(&since), &found) {
                Ok(row) => break row,
                Err(missing) => self.find(rules, side, key, missing, &mut found),
            }
        }
    }

    /// Asks until all plans of `side`'s batches that are asked for are known.
    fn answered<T>(&self, rules: &Rules, side: usize, ask: impl Fn(&Answers) -> Result<T, Unknown>) -> T {
        let mut answers = Answers(Vec::new());
        loop {
            match ask(&answers) {
                Ok(answer) => break answer,
                Err(Unknown::Plan(batch)) => {
                    let plan = rules.plan(side, &self.logs[side], batch.first..=batch.last, batch.lanes);
                    answers.0.push((batch, plan));
                }
                Err(unknown) => panic!("keys are numbers: {unknown:?}"),
            }
        }
    }
}

struct Answers(Vec<(BatchId, Plan)>);

impl Known for Answers {
    fn plan(&self, batch: BatchId) -> Option<&Plan> {
        self.0.iter().find(|(known, _)| *known == batch).map(|(_, plan)| plan)
    }

    fn same_row(&self, _: u64, _: u64) -> Option<bool> {
        None
    }
}

fn op(before: &Option<Row>, after: &Option<Row>) -> RowOp {
    match (before, after) {
        (None, _) => RowOp::Insert,
        (_, None) => RowOp::Delete,
        _ => RowOp::Update,
    }
}

fn effect(part: &Part) -> Effect {
    Concurrent::from(part).effect
}

/// A lane's work, key by key: the messages that it is made of, the key, and what they do to it.
fn units(lane: &LanePlan) -> Vec<(BTreeSet<u64>, usize, Vec<Part>)> {
    let mut units = Vec::new();
    let key = |parts: &[Part]| parts[0].before.as_ref().or(parts[0].after.as_ref()).map_or(0, key_of);
    let mut add = |parts: Vec<Part>| units.push((parts.iter().map(|part| part.seq).collect(), key(&parts), parts));
    for step in &lane.steps {
        match step {
            Step::Net { rows, .. } => {
                for row in rows {
                    row.moved_from.iter().for_each(|departure| add(departure.parts.clone()));
                    add(row.parts());
                }
            }
            Step::InOrder(changes) => {
                for change in changes {
                    let moves = matches!((&change.before, &change.after), (Some(a), Some(b)) if key_of(a) != key_of(b));
                    if moves {
                        add(vec![change.departure()]);
                    }
                    add(vec![change.arrival(moves)]);
                }
            }
        }
    }
    units
}

fn net(parts: &[Part]) -> Part {
    let (first, last) = (&parts[0], &parts[parts.len() - 1]);
    Part { before: first.before.clone(), ..last.clone() }
}
