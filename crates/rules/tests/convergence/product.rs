//! The product's own functions, called with the model's small messages.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crossfade_model::{
    Clock, Column, ColumnKind, Direction, Message as Captured, Origin, Row, RowChange, RowOp, Seen, Side,
    StreamProgress, TableLayout, TableName, TableShape, Value,
};
use crossfade_rules::concurrent::{BatchId, Judging, Known, Unknown};
use crossfade_rules::key::{exact_hash, folded_hash};
use crossfade_rules::moves::undo_clock;
use crossfade_rules::{
    ChangeKind, ConcurrentIndex, Dependence, EffectiveClocks, Event, MappedChange, NetChange, OppositeChange, Plan,
    Planner, Step, TableMapping, TableRule, Verdict, decide,
};
use rustc_hash::FxHashMap;

use crate::message::{Image, KEYS, Message, Progress, SeqSet};
use crate::setting::{Clocks, Flaw, Setting};

const SIDES: [Side; 2] = [Side::Old, Side::New];
const STREAMS: [&str; 2] = ["forward/old", "reverse/new"];

/// Where clocks begin, and the length of a tick.
const EPOCH_MICROS: i64 = 1_000_000_000_000;
const TICK_MICROS: i64 = 250_000;

/// One key of one net change, as it is judged.
#[derive(Debug)]
pub struct Ending {
    pub key: u8,
    pub last: u8,
    pub effective: Option<Clock>,
    pub seen: Option<StreamProgress>,
}

/// What a lane writes or does not write as one.
#[derive(Debug)]
pub struct Unit {
    pub seqs: SeqSet,
    pub arrival: Ending,
    pub departure: Option<Ending>,
    pub before: Option<Image>,
    pub after: Option<Image>,
    /// An update or delete of a row that the source has not made itself.
    pub sightable: bool,
    /// One of several changes of its keys, in their order.
    pub in_order: bool,
    pub dependence: Dependence,
}

#[derive(Debug)]
pub struct Planned {
    plan: Plan,
    pub lanes: Vec<Vec<Unit>>,
}

/// Both directions' mappings and planners. Index 0 is what is written on the old side.
pub struct Product {
    setting: Setting,
    /// Keeps what different products remember apart.
    number: u32,
    mappings: [TableMapping; 2],
    planners: [Planner; 2],
    layout: Arc<TableLayout>,
    key_hashes: [(u64, u64); KEYS],
}

type PlanKey = (u32, usize, u16, Vec<(u8, Message)>);
type ClockKey = (u32, u8, Vec<(u8, Message)>, Message, i64);

thread_local! {
    static PLANS: RefCell<FxHashMap<PlanKey, Arc<Planned>>> = RefCell::default();
    static EFFECTIVE: RefCell<FxHashMap<ClockKey, Option<Clock>>> = RefCell::default();
}

impl Product {
    pub fn new(setting: Setting) -> Product {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let shape = shape(setting.clocks);
        let clock = (setting.clocks != Clocks::Absent).then_some("clock");
        let rule = TableRule::same(shape.name.clone(), clock, setting.policy);
        let mappings = [Direction::Forward, Direction::Reverse]
            .map(|direction| TableMapping::build(direction, &rule, &shape, &shape).expect("the table maps"));
        let key_hashes = std::array::from_fn(|key| {
            let value = Value::Int(key as i64);
            (folded_hash(&shape.name, &[&value]), exact_hash(&shape.name, &[&value]))
        });
        let layout = TableLayout {
            name: shape.name.clone(),
            columns: shape.columns.iter().map(|column| column.name.as_str().into()).collect(),
            kinds: shape.columns.iter().map(|column| column.kind.clone()).collect(),
            row_key: vec![0],
        };
        Product {
            setting,
            number: NUMBER.fetch_add(1, Relaxed),
            planners: mappings.each_ref().map(|mapping| Planner::new(std::slice::from_ref(mapping))),
            mappings,
            layout: Arc::new(layout),
            key_hashes,
        }
    }

    /// A row that is found to be like this one has not been touched.
    pub fn shows_untouched(&self, key: u8, image: Image) -> bool {
        let shows = self.mappings[0].shows_untouched(&self.row(key, image));
        shows || self.setting.has(Flaw::SightOfVersions) || self.setting.has(Flaw::SightOfNull)
    }

    pub fn dependence(&self, side: usize, message: &Message) -> Dependence {
        let (before, after) = self.rows(message);
        self.planners[side].dependence(0, before.as_ref(), after.as_ref())
    }

    /// The effective clock that capture gives to `change`, which follows `log` on its side. Messages up to `settled` cannot
    /// matter any more.
    pub fn effective(
        &self,
        side: usize,
        log: &[Message],
        change: &Message,
        committed_ticks: u8,
        settled: u8,
    ) -> Option<Clock> {
        let committed_at_micros = EPOCH_MICROS + i64::from(committed_ticks) * TICK_MICROS;
        if self.setting.has(Flaw::OwnClocks) {
            let column = self.mappings[side].clock.as_ref()?;
            let change = self.row_change(change);
            let index = change.layout.column(&column.source)?;
            let (before, after) = (change.before.as_ref(), change.after.as_ref());
            return crossfade_rules::clock::own(column, index, change.op, before, after, committed_at_micros);
        }
        let earlier = (1..).zip(log).filter(|(_, message)| !message.is_forgotten());
        let earlier = earlier.map(|(seq, message)| (seq, message.remembered(true)));
        let key = (self.number, settled, earlier.collect::<Vec<(u8, Message)>>(), *change, committed_at_micros);
        if let Some(known) = EFFECTIVE.with_borrow(|known| known.get(&key).copied()) {
            return known;
        }
        let mappings = std::slice::from_ref(&self.mappings[side]);
        let mut clocks = match self.setting.forgetful {
            true => EffectiveClocks::with_memory(mappings, 1),
            false => EffectiveClocks::with_memory(mappings, 200_000),
        };
        clocks.settle(if self.setting.has(Flaw::ClocksForgotten) { u64::MAX } else { u64::from(settled) });
        let earlier: Vec<Captured> =
            key.2.iter().map(|(seq, message)| self.captured(u64::from(*seq), message)).collect();
        clocks.remember(&earlier);
        let effective =
            clocks.judge_at_least(&self.row_change(change), log.len() as u64 + 1, committed_at_micros, None).effective;
        EFFECTIVE.with_borrow_mut(|known| known.insert(key, effective));
        effective
    }

    /// The least clock of what goes back to `side`'s opposite under the key that a lost move has reached.
    pub fn undo_clock(&self, side: usize, lost: &Ending, now_ticks: u8) -> Clock {
        let now_micros = EPOCH_MICROS + i64::from(now_ticks) * TICK_MICROS;
        undo_clock(&self.mappings[side], lost.effective, now_micros)
    }

    fn captured(&self, seq: u64, message: &Message) -> Captured {
        Captured {
            seq,
            change: self.row_change(message),
            origin: Origin::User,
            seen: Arc::default(),
            committed_at_micros: 0,
            source_position: "".into(),
            effective: message.effective,
        }
    }

    fn row_change(&self, message: &Message) -> RowChange {
        let (before, after) = self.rows(message);
        RowChange { layout: self.layout.clone(), op: message.op, before, after, event_index: 0 }
    }

    fn rows(&self, message: &Message) -> (Option<Row>, Option<Row>) {
        let row = |key: u8, image: Option<Image>| image.map(|image| self.row(key, image));
        (row(message.from, message.before), row(message.to, message.after))
    }

    fn row(&self, key: u8, image: Image) -> Row {
        let clock = match self.setting.clocks {
            Clocks::Version => Value::Int(i64::from(image.clock)),
            Clocks::Null | Clocks::Absent => Value::Null,
            _ => Value::Timestamp(EPOCH_MICROS + i64::from(image.clock) * TICK_MICROS),
        };
        let content = i64::from(image.content) | i64::from(image.row) << u8::BITS;
        vec![Value::Int(i64::from(key)), Value::Int(content), clock]
    }

    /// The plan of some messages of a side.
    pub fn plan(&self, side: usize, messages: Vec<(u8, Message)>, lanes: u16) -> Arc<Planned> {
        let key = (self.number, side, lanes, messages);
        if let Some(known) = PLANS.with_borrow(|plans| plans.get(&key).cloned()) {
            return known;
        }
        let changes = key.3.iter().map(|(seq, message)| self.mapped(side, *seq, message)).collect();
        let plan = self.planners[side].plan(changes, lanes).expect("the batch fits");
        let units = |step: &Step| match step {
            Step::Net { kind, rows, .. } => rows.iter().map(|net| self.unit_of_net(side, *kind, net)).collect(),
            Step::InOrder(changes) => {
                changes.iter().map(|change| self.unit_of_change(side, change)).collect::<Vec<Unit>>()
            }
        };
        let lanes = plan.lanes.iter().map(|lane| lane.steps.iter().flat_map(units).collect()).collect();
        let planned = Arc::new(Planned { plan, lanes });
        PLANS.with_borrow_mut(|plans| plans.insert(key, planned.clone()));
        planned
    }

    fn mapped(&self, side: usize, seq: u8, message: &Message) -> MappedChange {
        let (before, after) = self.rows(message);
        let streams = BTreeMap::from([(STREAMS[1 - side].to_owned(), message.seen.stream_progress())]);
        MappedChange {
            seq: u64::from(seq),
            table: 0,
            op: message.op,
            before,
            after,
            effective: message.effective,
            seen: Arc::new(Seen { streams }),
            transaction: u32::from(seq),
            origin: Origin::User,
        }
    }

    fn unit_of_net(&self, side: usize, kind: ChangeKind, net: &NetChange) -> Unit {
        let (before, after) = (net.before.as_ref(), net.after.as_ref());
        let last_image = after.or(before).expect("a net change has an image");
        let departure = net.moved_from.as_ref().map(|departure| Ending {
            key: key_of(before.expect("a moved row was somewhere")),
            last: departure.seqs.last() as u8,
            effective: departure.effective,
            seen: departure.seen.streams.get(STREAMS[1 - side]).cloned(),
        });
        Unit {
            seqs: net.seqs.iter().map(|seq| seq as u8).collect(),
            arrival: Ending {
                key: key_of(last_image),
                last: net.seqs.last() as u8,
                effective: net.effective,
                seen: net.seen.streams.get(STREAMS[1 - side]).cloned(),
            },
            departure,
            before: before.map(|row| self.image(row)),
            after: after.map(|row| self.image(row)),
            sightable: matches!(kind, ChangeKind::Update | ChangeKind::Delete) && !net.transient,
            in_order: false,
            dependence: self.planners[side].dependence(0, before, after),
        }
    }

    fn unit_of_change(&self, side: usize, change: &MappedChange) -> Unit {
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let last_image = after.or(before).expect("a change has an image");
        let ending = |row: &Row| Ending {
            key: key_of(row),
            last: change.seq as u8,
            effective: change.effective,
            seen: change.seen.streams.get(STREAMS[1 - side]).cloned(),
        };
        Unit {
            seqs: SeqSet::one(change.seq as u8),
            arrival: ending(last_image),
            departure: before.filter(|before| key_of(before) != key_of(last_image)).map(ending),
            before: before.map(|row| self.image(row)),
            after: after.map(|row| self.image(row)),
            sightable: false,
            in_order: true,
            dependence: self.planners[side].dependence(0, before, after),
        }
    }

    fn image(&self, row: &Row) -> Image {
        let clock = match &row[2] {
            Value::Int(version) => *version,
            Value::Timestamp(micros) => (micros - EPOCH_MICROS) / TICK_MICROS,
            _ => 0,
        };
        let Value::Int(content) = row[1] else { panic!("the model has no {:?}", row[1]) };
        Image { content: content as u8, clock: clock as u8, row: (content >> u8::BITS) as u8 }
    }

    /// What a direction from `1 - side` knows of what users did on `side`: messages after `floor` up to the last of
    /// `captured`.
    pub fn index(&self, captured: &[Message], floor: u8) -> ConcurrentIndex {
        let mut index = ConcurrentIndex::default();
        let forgotten = Progress { through: floor, ..Progress::default() };
        index.keep_unseen_by([Some(&forgotten.stream_progress())]);
        for (seq, message) in (1..).zip(captured).filter(|(seq, _)| *seq > floor) {
            if message.op == RowOp::Delete && self.setting.has(Flaw::TombstonesDropped) {
                index.pass(u64::from(seq));
                continue;
            }
            let keys = [message.before.map(|_| message.from), message.after.map(|_| message.to)];
            for key in keys.into_iter().flatten() {
                let (folded, exact) = self.key_hashes[usize::from(key)];
                let Message { effective, op, .. } = *message;
                index.add(
                    folded,
                    OppositeChange {
                        seq: u64::from(seq),
                        exact,
                        effective,
                        op,
                        returned: false,
                        effect: None,
                        text_key: None,
                    },
                );
            }
        }
        index
    }

    /// Judges a change from `side` by the index over what users did on the other side, whose messages are `opposite`.
    pub fn judge(&self, side: usize, ending: &Ending, index: &ConcurrentIndex, opposite: &[Message]) -> Verdict {
        let (folded, exact) = self.key_hashes[usize::from(ending.key)];
        let unparked;
        let seen = match (self.setting.flaw, &ending.seen) {
            (Some(Flaw::SeenIgnored), _) => None,
            (Some(Flaw::ParkedTakenForSeen), Some(seen)) => {
                unparked = StreamProgress { parked: Default::default(), ..seen.clone() };
                Some(&unparked)
            }
            (_, seen) => seen.as_ref(),
        };
        let mut answers = Answers { product: self, side: 1 - side, log: opposite, found: None };
        let concurrent = loop {
            match index.last_unseen(Judging { folded, exact, seen }, &answers) {
                Ok(concurrent) => break concurrent,
                Err(unknown) => answers.find(&unknown),
            }
        };
        let event = Event {
            side: SIDES[side],
            effective: ending.effective,
            returned: false,
            authority: crossfade_rules::Authority::Shared,
        };
        decide(&event, concurrent.as_ref(), self.setting.policy, self.setting.prefer)
    }

    /// Whether the checkpoint rows in `seen` say that message `seq` of a side had been applied.
    pub fn was_seen(&self, side: usize, log: &[Message], seen: &Progress, seq: u8) -> bool {
        let mut index = ConcurrentIndex::default();
        let change = OppositeChange {
            seq: u64::from(seq),
            exact: 0,
            effective: None,
            op: RowOp::Insert,
            returned: false,
            effect: None,
            text_key: None,
        };
        index.add(0, change);
        let mut answers = Answers { product: self, side, log, found: None };
        let seen = seen.stream_progress();
        loop {
            match index.last_unseen(Judging { folded: 0, exact: 0, seen: Some(&seen) }, &answers) {
                Ok(unseen) => return unseen.is_none(),
                Err(unknown) => answers.find(&unknown),
            }
        }
    }
}

/// Plans of the opposite direction's batches, made again from its messages.
struct Answers<'a> {
    product: &'a Product,
    side: usize,
    log: &'a [Message],
    found: Option<(BatchId, Arc<Planned>)>,
}

impl Answers<'_> {
    fn find(&mut self, unknown: &Unknown) {
        let Unknown::Plan(batch) = *unknown else { panic!("keys are numbers: {unknown:?}") };
        let messages = (batch.first..=batch.last).map(|seq| (seq as u8, self.log[seq as usize - 1])).collect();
        self.found = Some((batch, self.product.plan(self.side, messages, batch.lanes)));
    }
}

impl Known for Answers<'_> {
    fn plan(&self, batch: BatchId) -> Option<&Plan> {
        self.found.as_ref().filter(|(found, _)| *found == batch).map(|(_, planned)| &planned.plan)
    }

    fn same_row(&self, _: u64, _: u64) -> Option<bool> {
        None
    }
}

fn key_of(row: &Row) -> u8 {
    small(&row[0])
}

fn small(value: &Value) -> u8 {
    match value {
        Value::Int(number) => *number as u8,
        other => panic!("the model has no {other:?}"),
    }
}

fn shape(clocks: Clocks) -> TableShape {
    let column = |name: &str, kind, nullable, on_update_now| Column {
        name: name.to_owned(),
        kind,
        nullable,
        generated: false,
        invisible: false,
        auto_increment: false,
        has_default: false,
        on_update_now,
        declared: String::new(),
        charset: None,
        collation: None,
    };
    let integer = || ColumnKind::Integer { bytes: 8, unsigned: false };
    let (kind, on_update_now) = match clocks {
        Clocks::Micros | Clocks::Null => (ColumnKind::Timestamp { fraction_digits: 6 }, true),
        Clocks::Seconds | Clocks::Backwards | Clocks::Untouched => {
            (ColumnKind::Timestamp { fraction_digits: 0 }, false)
        }
        Clocks::Version | Clocks::Absent => (integer(), false),
    };
    TableShape {
        name: TableName::new("app", "users"),
        columns: vec![
            column("id", integer(), false, false),
            column("content", integer(), false, false),
            column("clock", kind, true, on_update_now),
        ],
        primary_key: vec![0],
        unique_keys: vec![],
        foreign_keys: vec![],
        engine: "InnoDB".to_owned(),
    }
}
