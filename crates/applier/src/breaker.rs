//! The breaker of rows that go round: one version that crosses from side to side again and again, without a user who
//! writes another one.
//!
//! Nothing of the kind happens while the tag arrives. The breaker is the last of three, for what nobody thought of: each
//! process finds by itself that messages of a row it applies carry the same version over and over, and then looks at
//! what both streams have captured of that row. Its memory has a fixed size; in a crowd of rows it may forget one, and
//! finds it a little later.

use std::hash::Hasher;
use std::time::{Duration, Instant};

use crossfade_message::{ListedMessage, Store, StoreError};
use crossfade_model::{Direction, Message, Row, StreamId, TableName, Value};
use crossfade_rules::clock::clock_of;
use crossfade_rules::key::{Fineness, change_has_key, folded_hash, render};
use crossfade_rules::{Plan, Step, TableMapping};
use rustc_hash::FxHasher;
use tokio::sync::{mpsc, oneshot};

/// Rows that are remembered; 40 bytes each.
const REMEMBERED_ROWS: usize = 1 << 16;

/// When a row goes round, and who is told.
#[derive(Debug, Clone)]
pub struct BreakerOptions {
    /// A version may cross back and forth this often after it was first carried.
    pub max_crossings: u32,
    /// Within this time.
    pub window: Duration,
    pub alarms: mpsc::Sender<Alarm>,
}

/// A row goes round. Nothing more is applied until `handled` is sent, or dropped.
#[derive(Debug)]
pub struct Alarm {
    pub crossing: Crossing,
    pub handled: oneshot::Sender<()>,
}

/// A version of a row that crossed too often.
#[derive(Debug, Clone)]
pub struct Crossing {
    /// By its name at the source.
    pub table: TableName,
    /// JSON, as the message table shows it.
    pub row_key: String,
    /// How often it crossed again after it was first carried.
    pub crossings: u32,
    pub window: Duration,
    /// What was captured of the row on both sides within the window, in one order.
    pub life: Vec<ListedMessage>,
}

/// What a process remembers of the rows that it applies.
pub(crate) struct Breaker {
    memory: Memory,
    most: u32,
    window: Duration,
    alarms: mpsc::Sender<Alarm>,
}

/// A row that was applied with one version several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Suspect {
    table: usize,
    key: u64,
    /// The first message with that version.
    first_seq: u64,
}

/// What the breaker reads of the streams.
pub(crate) struct Streams<'a> {
    pub store: &'a Store,
    pub own: &'a StreamId,
    pub mappings: &'a [TableMapping],
    pub opposite_mappings: &'a [TableMapping],
}

impl Breaker {
    pub fn new(options: BreakerOptions) -> Breaker {
        let BreakerOptions { max_crossings, window, alarms } = options;
        Breaker { memory: Memory::new(max_crossings, window), most: max_crossings, window, alarms }
    }

    /// A person has started the direction: what was before counts no more.
    pub fn clear(&mut self) {
        self.memory = Memory::new(self.most, self.window);
    }

    /// Notes a batch that is to be applied. `true` when one of its rows goes round: the alarm was raised and handled, and
    /// the batch is not to be applied.
    pub async fn trips(&mut self, plan: &Plan, streams: &Streams<'_>) -> Result<bool, StoreError> {
        let suspects = self.suspects(plan, streams.mappings);
        if suspects.is_empty() {
            return Ok(false);
        }
        let keys = suspects.iter().map(|suspect| suspect.key);
        let elsewhere = streams.store.captured_elsewhere(streams.own, keys, self.window).await?;
        for suspect in suspects {
            // What one side's users write again and again does not cross, and its life is much to read.
            if !elsewhere.contains(&suspect.key) {
                self.memory.ask_again(suspect.key, 0);
                continue;
            }
            let Some(crossing) = self.look_at(suspect, streams).await? else { continue };
            let (handled, until_handled) = oneshot::channel();
            // Without anybody to tell, the process is ending.
            if self.alarms.send(Alarm { crossing, handled }).await.is_ok() {
                let _ = until_handled.await;
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn suspects(&mut self, plan: &Plan, mappings: &[TableMapping]) -> Vec<Suspect> {
        let now = Instant::now();
        let mut suspects = Vec::new();
        let mut arrives = |table: usize, seq: u64, row: Option<&Row>| {
            let (mapping, Some(row)) = (&mappings[table], row) else { return };
            if mapping.keyless {
                return;
            }
            let key: Vec<&Value> = mapping.row_key.iter().filter_map(|index| row.get(*index)).collect();
            let key = folded_hash(&mapping.identity, &key);
            let suspicious = self.memory.note(key, version_hash(mapping, row), seq, now);
            suspects.extend(suspicious.map(|first_seq| Suspect { table, key, first_seq }));
        };
        for step in plan.lanes.iter().flat_map(|lane| &lane.steps) {
            match step {
                Step::Net { table, rows, .. } => {
                    rows.iter().for_each(|row| arrives(*table, row.seqs.last(), row.after.as_ref()));
                }
                Step::InOrder(changes) => {
                    changes.iter().for_each(|change| arrives(change.table, change.seq, change.after.as_ref()));
                }
            }
        }
        suspects
    }

    /// Counts the crossings in what both streams have captured of the row.
    async fn look_at(&mut self, suspect: Suspect, streams: &Streams<'_>) -> Result<Option<Crossing>, StoreError> {
        let identity = &streams.mappings[suspect.table].identity;
        let of_row = |message: &Message| {
            let mappings = streams.mappings.iter().chain(streams.opposite_mappings);
            mappings.filter(|m| m.identity == *identity).any(|m| change_has_key(m, &message.change, suspect.key))
        };
        let life = streams.store.recent_history(&[suspect.key], self.window, of_row).await?;
        let own = |stream: &StreamId| stream == streams.own;
        let legs =
            life.iter().skip_while(|event| !own(&event.stream) || event.message.seq < suspect.first_seq).map(|event| {
                let mappings = if own(&event.stream) { streams.mappings } else { streams.opposite_mappings };
                let mapping = mappings.iter().find(|m| m.source == event.message.change.layout.name);
                (event.stream.direction(), mapping.map_or(Version::Unknown, |m| version(m, &event.message)))
            });
        let crossings = crossings(legs);
        if crossings <= self.most {
            self.memory.ask_again(suspect.key, crossings);
            return Ok(None);
        }
        let of_change = life.iter().rev().find(|event| own(&event.stream)).map(|event| &event.message.change);
        Ok(Some(Crossing {
            table: streams.mappings[suspect.table].source.clone(),
            row_key: of_change.and_then(crossfade_message::row_key_json).unwrap_or_default(),
            crossings,
            window: self.window,
            life: life.into_iter().map(|event| event.listed).collect(),
        }))
    }
}

/// What tells versions of a row apart, as far as messages of one stream are compared. `row` is in the mapping's order.
fn version_hash(mapping: &TableMapping, row: &Row) -> u64 {
    let clock = mapping.clock.as_ref().filter(|_| mapping.strict_clock);
    if let Some(clock) = clock.and_then(|clock| clock_of(clock, row.get(clock.index)?)) {
        return clock.0.cast_unsigned();
    }
    let mut bytes = Vec::with_capacity(256);
    row.iter().for_each(|value| render(Fineness::Exact, value, &mut bytes));
    let mut hasher = FxHasher::default();
    hasher.write(&bytes);
    hasher.finish()
}

/// A version of a row, the same in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Version {
    /// A clock that every write moves says all.
    Clock(i64),
    /// All that is carried, the clock included.
    Image(Vec<u8>),
    Deleted,
    Unknown,
}

fn version(mapping: &TableMapping, message: &Message) -> Version {
    let change = &message.change;
    let Some(after) = &change.after else { return Version::Deleted };
    let value = |name: &str| after.get(change.layout.column(name)?);
    let strict = mapping.clock.as_ref().filter(|_| mapping.strict_clock);
    if let Some(clock) = strict.and_then(|clock| clock_of(clock, value(&clock.source)?)) {
        return Version::Clock(clock.0);
    }
    let mut columns: Vec<(&str, Option<&Value>)> = mapping
        .columns
        .iter()
        .map(|column| {
            let of_old = if mapping.direction == Direction::Forward { &column.source } else { &column.target };
            (of_old.as_str(), value(&column.source))
        })
        .collect();
    columns.sort_by_key(|(name, _)| *name);
    let mut image = Vec::new();
    columns.iter().for_each(|(_, value)| render(Fineness::Exact, value.unwrap_or(&Value::Null), &mut image));
    Version::Image(image)
}

/// What one direction carried of a row without the other in between.
struct Leg {
    direction: Direction,
    last: Version,
    /// It has another version than the leg before, in between or in the end: somebody wrote.
    written: bool,
    /// How often the version of the leg before had crossed.
    before: u32,
}

/// How often the last version of a row has crossed again after it was first carried.
///
/// A row that is deleted and inserted again as it was has crossed once; a delete that stays is another version.
fn crossings(life: impl IntoIterator<Item = (Direction, Version)>) -> u32 {
    let mut arrived: Option<(Version, u32)> = None;
    let mut leg: Option<Leg> = None;
    for (direction, version) in life {
        let ended = leg.take_if(|leg| leg.direction != direction);
        if let Some(ended) = ended {
            let count = count(&ended, arrived.as_ref());
            arrived = Some((ended.last, count));
        }
        let before = arrived.as_ref().map_or(0, |(_, count)| *count);
        let known = arrived.as_ref().map(|(version, _)| version);
        let leg = leg.get_or_insert(Leg { direction, last: version.clone(), written: false, before });
        leg.written |= version != Version::Deleted && known.is_none_or(|known| *known != version);
        leg.last = version;
    }
    leg.map_or(0, |leg| count(&leg, arrived.as_ref()))
}

fn count(leg: &Leg, arrived: Option<&(Version, u32)>) -> u32 {
    let same = arrived.is_some_and(|(version, _)| *version == leg.last) && leg.last != Version::Unknown;
    if same && !leg.written { leg.before + 1 } else { 0 }
}

/// Rows by the hash of their key, each with the version that it was applied with last.
struct Memory {
    slots: Box<[Slot]>,
    began: Instant,
    window_ms: u32,
    most: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    version: u64,
    first_seq: u64,
    /// When the first message with this version was applied; a clock that begins anew every 49 days: one look too many then, or a row
    /// that is forgotten for a window.
    since_ms: u32,
    /// Messages with this version so far; 0 for an empty slot.
    times: u32,
    /// The row is worth a look when there were so many.
    look_at: u32,
}

impl Memory {
    fn new(most: u32, window: Duration) -> Memory {
        let window_ms = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        Memory { slots: vec![Slot::default(); REMEMBERED_ROWS].into(), began: Instant::now(), window_ms, most }
    }

    /// Notes that a row is applied. The first message of its version, where there were suspiciously many since.
    ///
    /// A delete in between is not told: whether the row was the same afterwards shows when it is looked at.
    fn note(&mut self, key: u64, version: u64, seq: u64, now: Instant) -> Option<u64> {
        let now_ms = u32::try_from(now.duration_since(self.began).as_millis() % (1 << 32)).unwrap_or_default();
        // Of two sides' crossings, every second one is this stream's.
        let look_at = self.most.div_ceil(2).max(2);
        let window_ms = self.window_ms;
        let slot = self.slot(key);
        let is_fresh = slot.times > 0 && now_ms.wrapping_sub(slot.since_ms) <= window_ms;
        if is_fresh && slot.key == key && slot.version == version {
            slot.times += 1;
            return (slot.times >= slot.look_at).then_some(slot.first_seq);
        }
        // What has come twice is kept from being pushed out by the crowd.
        if !(is_fresh && slot.key != key && slot.times >= 2) {
            *slot = Slot { key, version, first_seq: seq, since_ms: now_ms, times: 1, look_at };
        }
        None
    }

    /// The row was looked at, and had not crossed often enough yet.
    fn ask_again(&mut self, key: u64, crossings: u32) {
        let missing = (self.most + 1).saturating_sub(crossings).div_ceil(2).max(1);
        let slot = self.slot(key);
        if slot.key == key {
            // A row that does not go round at all is asked for less and less often.
            slot.look_at = if crossings == 0 { slot.times * 2 } else { slot.times + missing };
        }
    }

    fn slot(&mut self, key: u64) -> &mut Slot {
        let index = usize::try_from(key % self.slots.len() as u64).unwrap_or(0);
        &mut self.slots[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Forward, Reverse};

    fn clock(clock: i64) -> Version {
        Version::Clock(clock)
    }

    fn round(legs: &[Direction], version: &Version) -> Vec<(Direction, Version)> {
        legs.iter().map(|direction| (*direction, version.clone())).collect()
    }

    #[test]
    fn one_version_from_side_to_side_is_counted() {
        assert_eq!(crossings([]), 0);
        assert_eq!(crossings(round(&[Forward], &clock(1))), 0, "the first is the user's");
        assert_eq!(crossings(round(&[Forward, Reverse], &clock(1))), 1);
        assert_eq!(crossings(round(&[Forward, Reverse, Forward, Reverse], &clock(1))), 3);
        let image = Version::Image(vec![1, 2]);
        assert_eq!(crossings(round(&[Reverse, Forward, Reverse], &image)), 2);
        assert_eq!(crossings(round(&[Forward, Reverse, Forward], &Version::Unknown)), 0);
    }

    #[test]
    fn what_stays_on_one_side_does_not_cross() {
        assert_eq!(crossings(round(&[Forward; 20], &clock(1))), 0);
        assert_eq!(crossings(round(&[Forward, Forward, Reverse, Reverse, Reverse], &clock(1))), 1);
    }

    #[test]
    fn another_version_begins_anew() {
        let mut life = round(&[Forward, Reverse, Forward, Reverse], &clock(1));
        life.extend([(Forward, clock(2))]);
        assert_eq!(crossings(life.clone()), 0);
        life.extend([(Reverse, clock(2)), (Forward, clock(2))]);
        assert_eq!(crossings(life.clone()), 2);
        // A user wrote, and wrote back what was there.
        life.extend([(Reverse, clock(3)), (Reverse, clock(2))]);
        assert_eq!(crossings(life), 0);
        let users: Vec<_> = (0..20).map(|n| (if n % 2 == 0 { Forward } else { Reverse }, clock(n))).collect();
        assert_eq!(crossings(users), 0);
    }

    #[test]
    fn deleted_and_inserted_again_as_it_was_is_one_crossing() {
        let mut life = vec![(Forward, clock(1))];
        for direction in [Reverse, Forward, Reverse] {
            life.extend([(direction, Version::Deleted), (direction, clock(1))]);
        }
        assert_eq!(crossings(life), 3);
        // One side deletes for ever what the other inserts for ever: each does write.
        let fight: Vec<_> =
            (0..20).map(|n| if n % 2 == 0 { (Forward, clock(1)) } else { (Reverse, Version::Deleted) }).collect();
        assert_eq!(crossings(fight), 0);
    }

    fn noted(memory: &mut Memory, key: u64, version: u64, seqs: std::ops::Range<u64>) -> Vec<Option<u64>> {
        let now = memory.began;
        seqs.map(|seq| memory.note(key, version, seq, now)).collect()
    }

    #[test]
    fn a_version_that_comes_again_and_again_is_suspicious() {
        let mut memory = Memory::new(6, Duration::from_secs(60));
        assert_eq!(noted(&mut memory, 5, 1, 10..13), [None, None, Some(10)]);
        memory.ask_again(5, 5);
        assert_eq!(noted(&mut memory, 5, 1, 13..15), [Some(10), Some(10)]);
        memory.ask_again(5, 0);
        assert_eq!(noted(&mut memory, 5, 1, 15..20), [None, None, None, None, Some(10)]);
        assert_eq!(noted(&mut memory, 5, 2, 20..23), [None, None, Some(20)], "another version begins anew");
    }

    #[test]
    fn what_comes_slowly_is_not_suspicious() {
        let mut memory = Memory::new(6, Duration::from_secs(60));
        let began = memory.began;
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!((0..20).all(|n| memory.note(5, 1, n, at(31 * n)).is_none()));
    }

    #[test]
    fn after_months_it_still_tells_soon_from_late() {
        let mut memory = Memory::new(6, Duration::from_secs(60));
        let later = memory.began + Duration::from_secs(60 * 24 * 3_600);
        assert!((0..20).all(|n| memory.note(5, 1, n, later + Duration::from_secs(31 * n)).is_none()));
        let soon = (20..23).map(|n| memory.note(6, 1, n, later)).collect::<Vec<_>>();
        assert_eq!(soon, [None, None, Some(20)]);
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_came_twice() {
        let mut memory = Memory::new(6, Duration::from_secs(60));
        let rows = REMEMBERED_ROWS as u64;
        noted(&mut memory, 5, 1, 1..3);
        noted(&mut memory, 6, 1, 3..4);
        for key in 10..10 + 3 * rows {
            memory.note(key, key, key, memory.began);
        }
        assert_eq!(memory.slots.len(), REMEMBERED_ROWS);
        assert_eq!(noted(&mut memory, 5, 1, 9..10), [Some(1)]);
        assert_eq!(noted(&mut memory, 6, 1, 9..11), [None, None], "a single one makes room");
        assert!(std::mem::size_of::<Slot>() <= 40);
    }
}
