//! P4 for authority: one row, two sides, random schedules, and authority that goes there and back, on each side at a time of its
//! own and without anybody being drained. Users of both sides write whatever they like. When all is captured and applied, both sides
//! hold the same row, and nothing of a late change is left but what may still change.
//!
//! The runs use the crate's own `decide`, `side_at`, `crossing`, `kept` and `Answer`, as the applier does.

use std::collections::BTreeMap;

use crossfade_model::{Clock, ColumnKind, Direction, ReferentialAction, Row, RowOp, Side, TableName, Value};
use crossfade_rules::authority::{KeyPlace, side_at};
use crossfade_rules::decide::WriteReason;
use crossfade_rules::late::{Answer, crossing, kept};
use crossfade_rules::mapping::ClockKind;
use crossfade_rules::{
    Authority, AuthorityChange, ClockColumn, EntityRule, EntityTables, Event, LastConcurrent, MappedColumn, ParentLink,
    Policy, Reach, TableMapping, Verdict, decide,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SEEDS: u64 = 20_000;
const NAME: usize = 1;
const PASSWORD: usize = 2;
const CLOCK: usize = 3;

#[derive(Debug, Clone)]
struct Message {
    before: Option<Row>,
    after: Option<Row>,
    is_users: bool,
    /// Opposite messages that had been applied where it was written.
    seen: usize,
    effective: Option<Clock>,
}

struct Run {
    random: StdRng,
    mapping: TableMapping,
    prefer: Side,
    now: i64,
    rows: [Option<Row>; 2],
    log: [Vec<Message>; 2],
    /// Messages of each side that have been applied on the other.
    applied: [usize; 2],
    authority: [Vec<AuthorityChange>; 2],
    version: u64,
}

fn side(place: usize) -> Side {
    if place == 0 { Side::Old } else { Side::New }
}

fn mapping(policy: Policy) -> TableMapping {
    let table = TableName::new("a", "t");
    let kind = ColumnKind::Integer { bytes: 8, unsigned: true };
    let column = |name: &str| MappedColumn {
        source: name.into(),
        target: name.into(),
        source_kind: kind.clone(),
        target_kind: kind.clone(),
        not_null: true,
        on_update_now: false,
    };
    let clock = ClockColumn { source: "v".into(), target: "v".into(), index: CLOCK, kind: ClockKind::Version };
    TableMapping {
        direction: Direction::Forward,
        source: table.clone(),
        target: table.clone(),
        identity: table,
        policy,
        columns: ["id", "name", "password", "v"].map(column).into(),
        clock: Some(clock),
        strict_clock: false,
        row_key: vec![0],
        unique_keys: Vec::new(),
        in_order: false,
        parents: Vec::new(),
        merge: None,
        keyless: false,
        warnings: Vec::new(),
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = StdRng::seed_from_u64(seed);
        let policies = [Policy::Version, Policy::PreferOld, Policy::PreferNew];
        let policy = policies[random.random_range(0..3)];
        let prefer = side(random.random_range(0..2));
        // Who has had it before is of no matter.
        let given = random.random_bool(0.5).then_some(AuthorityChange { from_seq: 0, side: Side::New, version: 0 });
        let authority: Vec<AuthorityChange> = given.into_iter().collect();
        let row = random.random_bool(0.8).then(|| [1, 0, 0, 0].map(Value::UInt).to_vec());
        Run {
            random,
            mapping: mapping(policy),
            prefer,
            now: 0,
            rows: [row.clone(), row],
            log: [Vec::new(), Vec::new()],
            applied: [0, 0],
            authority: [authority.clone(), authority],
            version: 0,
        }
    }

    fn write(&mut self, place: usize) {
        self.now += 1;
        // The sides' clocks are apart.
        let now = self.now + if place == 1 { 3 } else { 0 };
        let value = Value::UInt(self.random.random_range(1..1000));
        let before = self.rows[place].clone();
        let what = self.random.random_range(0..10);
        let after = match (&before, what) {
            (None, _) => Some(vec![Value::UInt(1), value.clone(), value, Value::UInt(now as u64)]),
            (Some(_), 0) => None,
            (Some(row), _) => {
                let mut row = row.clone();
                if what < 7 {
                    row[PASSWORD] = value.clone();
                }
                if what > 4 {
                    row[NAME] = value;
                }
                row[CLOCK] = Value::UInt(now as u64);
                Some(row)
            }
        };
        self.rows[place] = after.clone();
        let seen = self.applied[1 - place];
        self.capture(place, before, after, true, seen, Some(Clock(now)));
    }

    fn capture(
        &mut self,
        place: usize,
        before: Option<Row>,
        after: Option<Row>,
        is_users: bool,
        seen: usize,
        own: Option<Clock>,
    ) {
        let earlier = self.log[place].iter().chain(&self.log[1 - place][..seen]).map(|message| message.effective);
        let effective = earlier.chain([own]).max().flatten();
        self.log[place].push(Message { before, after, is_users, seen, effective });
    }

    fn give(&mut self, place: usize, to: usize, version: u64) {
        let known = self.authority[place].last().map_or(0, |last| last.version);
        if version > known {
            let from_seq = self.log[place].len() as u64;
            self.authority[place].push(AuthorityChange { from_seq, side: side(to), version });
        }
    }

    fn of(&self, place: usize, seq: usize) -> Authority {
        match side_at(&self.authority[place], &[], seq as u64) == side(place) {
            true => Authority::Held,
            false if self.log[place][seq].is_users => Authority::Lacking,
            // What crossfade itself has sent back is not late.
            false => Authority::Shared,
        }
    }

    /// Applies the next message of a side on the other, when all that was written there is captured.
    fn apply(&mut self, from: usize) {
        let to = 1 - from;
        let seq = self.applied[from];
        let message = self.log[from][seq].clone();
        let authority = self.of(from, seq);
        let last = (message.seen..self.log[to].len()).last();
        let concurrent = last.map(|seq| LastConcurrent {
            seq: seq as u64 + 1,
            effective: self.log[to][seq].effective,
            op: if self.log[to][seq].after.is_none() { RowOp::Delete } else { RowOp::Update },
            returned: false,
            authority: self.of(to, seq),
        });
        self.applied[from] += 1;
        if authority == Authority::Lacking {
            return self.answer(from, &message, concurrent.is_none());
        }
        let event = Event { side: side(from), effective: message.effective, returned: false, authority };
        let verdict = decide(&event, concurrent.as_ref(), self.mapping.policy, self.prefer);
        if let Verdict::Lose(_) = verdict {
            return;
        }
        let keeps = to == 0 && matches!(verdict, Verdict::Write(WriteReason::Outranked { .. }));
        self.rows[to] = match (&message.before, &message.after, &self.rows[to]) {
            (Some(before), Some(after), Some(found)) if keeps => Some(kept((before, after), after, &[PASSWORD], found)),
            (_, after, _) => after.clone(),
        };
    }

    fn answer(&mut self, from: usize, message: &Message, has_seen_all: bool) {
        let to = 1 - from;
        let seen = self.applied[from];
        let there = self.rows[to].clone();
        match (&message.before, &message.after, there) {
            (Some(before), Some(after), Some(there)) => {
                let allowed: &[usize] = if from == 0 { &[PASSWORD] } else { &[] };
                let crossing = crossing(&self.mapping, allowed, (before, after), &there, |a, b| a == b);
                let mut here = there;
                crossing.values.into_iter().for_each(|(column, value)| here[column] = value);
                self.rows[to] = Some(here.clone());
                match Answer::to(has_seen_all, here == *after) {
                    Answer::Nothing => {}
                    Answer::Rest => self.capture(to, Some(after.clone()), Some(here), false, seen, None),
                    Answer::Whole => self.capture(to, None, Some(here), false, seen, None),
                }
            }
            (_, Some(after), None) => self.capture(to, Some(after.clone()), None, false, seen, message.effective),
            (_, _, Some(there)) => self.capture(to, None, Some(there), false, seen, message.effective),
            (_, None, None) => {}
        }
    }

    fn drain(&mut self) {
        let mut steps = 0;
        while let Some(from) = self.next_to_apply() {
            self.apply(from);
            steps += 1;
            assert!(steps < 1_000, "messages go round");
        }
    }

    fn next_to_apply(&mut self) -> Option<usize> {
        let waits = [0, 1].map(|place| self.applied[place] < self.log[place].len());
        match waits {
            [true, true] => Some(self.random.random_range(0..2)),
            [true, false] => Some(0),
            [false, true] => Some(1),
            [false, false] => None,
        }
    }

    /// Users write, changes cross, and authority goes where it likes, to one side after the other.
    fn live(&mut self) {
        let mut pending: Vec<(usize, usize, u64)> = Vec::new();
        for _ in 0..self.random.random_range(1..14) {
            match self.random.random_range(0..8) {
                0 => {
                    self.version += 1;
                    let to = self.random.random_range(0..2);
                    pending.extend([(0, to, self.version), (1, to, self.version)]);
                }
                1 | 2 if !pending.is_empty() => {
                    let at = self.random.random_range(0..pending.len());
                    let (place, to, version) = pending.swap_remove(at);
                    self.give(place, to, version);
                }
                3..=5 => {
                    let place = self.random.random_range(0..2);
                    self.write(place);
                }
                _ => {
                    if let Some(from) = self.next_to_apply() {
                        self.apply(from);
                    }
                }
            }
        }
        pending.sort_by_key(|(_, _, version)| *version);
        for (place, to, version) in pending {
            self.give(place, to, version);
        }
    }
}

#[test]
fn p4_both_sides_end_equal_whoever_writes_and_whoever_has_authority() {
    let mut late = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        run.live();
        run.drain();
        assert_eq!(run.rows[0], run.rows[1], "seed {seed}: {:#?} {:?}", run.log, run.authority);
        for place in 0..2 {
            let is_late = |seq: &usize| run.of(place, *seq) == Authority::Lacking;
            *late.entry(place).or_insert(0) += (0..run.log[place].len()).filter(is_late).count();
        }
    }
    assert!(late.values().all(|count| *count > 3_000), "hardly anything was late: {late:?}");
}

/// Who moves as he should, drained, loses nothing: what old wrote in time and what new writes afterwards is all there.
#[test]
fn p1_a_drained_move_loses_nothing_but_what_is_late() {
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        run.authority = [Vec::new(), Vec::new()];
        for _ in 0..run.random.random_range(0..4) {
            run.write(0);
        }
        run.drain();
        run.give(0, 1, 1);
        run.give(1, 1, 1);
        let mut last_of_new = run.rows[1].clone();
        for _ in 0..run.random.random_range(1..8) {
            match run.random.random_range(0..3) {
                // On old, after the move.
                0 => run.write(0),
                1 => {
                    run.write(1);
                    last_of_new = run.rows[1].clone();
                }
                _ => {
                    if let Some(from) = run.next_to_apply() {
                        run.apply(from);
                    }
                }
            }
        }
        run.drain();
        assert_eq!(run.rows[0], run.rows[1], "seed {seed}: {:#?}", run.log);
        let name = |row: &Option<Row>| row.as_ref().map(|row| row[NAME].clone());
        assert_eq!(
            name(&run.rows[1]),
            name(&last_of_new),
            "seed {seed}: a late change has changed new: {:#?}",
            run.log
        );
    }
}

/// Columns `id`, `name`, `password`, `v`; in the reverse direction the source calls them otherwise.
fn table(name: &str, direction: Direction) -> TableMapping {
    let mut mapping = mapping(Policy::Version);
    let table = TableName::new("a", name);
    (mapping.source, mapping.target, mapping.identity) = (table.clone(), table.clone(), table);
    mapping.direction = direction;
    for column in &mut mapping.columns {
        let new_name = format!("new_{}", column.source);
        if direction == Direction::Forward { column.target = new_name } else { column.source = new_name }
    }
    mapping
}

fn rule(name: &str, reach: Reach, allow_on_old: &[&str]) -> EntityRule {
    let allow_on_old = allow_on_old.iter().map(|column| (*column).to_owned()).collect();
    EntityRule { table: TableName::new("a", name), reach, allow_on_old }
}

fn through(parent: &str, via: &str) -> Reach {
    Reach::Through { parent: TableName::new("a", parent), via: via.to_owned() }
}

#[test]
fn entities_are_found_by_the_old_sides_names_in_both_directions() {
    let rules = [
        rule("orders", Reach::Key("NAME".to_owned()), &[]),
        rule("users", Reach::Key("id".to_owned()), &["Password"]),
        rule("items", through("orders", "name"), &[]),
    ];
    for direction in [Direction::Forward, Direction::Reverse] {
        let mut mappings = ["items", "notes", "orders", "users"].map(|name| table(name, direction));
        // By a foreign key to another column than the row key.
        let parent_columns = vec![mappings[2].columns[PASSWORD].target.clone()];
        let link = ParentLink {
            name: "to_order".to_owned(),
            columns: vec![NAME],
            parent: mappings[2].target.clone(),
            parent_columns,
            on_delete: ReferentialAction::Cascade,
            on_update: ReferentialAction::Restrict,
        };
        mappings[0].parents = vec![link];
        let tables = EntityTables::build(&rules, &mappings).unwrap();
        let place = |table| tables.table(table).map(|table| table.place);
        assert_eq!(place(0), Some(KeyPlace::Through { parent: 2, via: NAME, referred: PASSWORD }));
        assert_eq!((place(1), place(2), place(3)), (None, Some(KeyPlace::Key(NAME)), Some(KeyPlace::Key(0))));
        assert!(!tables.is_empty() && EntityTables::build(&[], &mappings).unwrap().is_empty());
        let users = tables.table(3).unwrap();
        let expected: (&[usize], &[usize]) =
            if direction == Direction::Forward { (&[PASSWORD], &[]) } else { (&[], &[PASSWORD]) };
        assert_eq!((users.allowed.as_slice(), users.kept.as_slice()), expected);
        let row = [7, 8, 9, 10].map(Value::UInt).to_vec();
        assert_eq!(users.key(&row).map(|key| key.to_string()).as_deref(), Some("7"));
        assert_eq!(tables.table(0).unwrap().key(&row), None, "of an item its order must be looked for");
        // Without the foreign key it is the parent's row key; so it is with one of another column, or to another table.
        let by_row_key = Some(KeyPlace::Through { parent: 2, via: NAME, referred: 0 });
        let mut others = mappings.clone();
        others[0].parents[0].columns = vec![PASSWORD];
        let mut elsewhere = mappings.clone();
        elsewhere[0].parents[0].parent = mappings[3].target.clone();
        mappings[0].parents.clear();
        for mappings in [mappings, others, elsewhere] {
            let tables = EntityTables::build(&rules, &mappings).unwrap();
            assert_eq!(tables.table(0).map(|table| table.place), by_row_key);
        }
    }
}

#[test]
fn what_stands_in_the_way_of_finding_an_entity_is_told_all_at_once() {
    let mut mappings = ["orders", "users", "wide"].map(|name| table(name, Direction::Forward));
    mappings[1].columns[0].source_kind = ColumnKind::Double;
    mappings[1].columns[NAME].target_kind = ColumnKind::Text { charset: "utf8mb4".to_owned() };
    mappings[2].row_key = vec![0, 1];
    let rules = [
        rule("gone", Reach::Key("id".to_owned()), &[]),
        rule("users", Reach::Key("id".to_owned()), &["nothing"]),
        rule("orders", through("wide", "name"), &[]),
        rule("wide", Reach::Key("missing".to_owned()), &[]),
    ];
    let problems = EntityTables::build(&rules, &mappings).unwrap_err();
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for part in [
        "a.gone of `[entity]` is not synced",
        "`nothing` of a.users",
        "`id` of a.users cannot hold",
        "`name` of a.orders refers to in a.wide",
        "`missing` of a.wide",
    ] {
        assert!(texts.iter().any(|text| text.contains(part)), "{part}: {texts:#?}");
    }
    assert_eq!(texts.len(), 5, "{texts:#?}");
    let remedies: Vec<String> = problems.iter().map(crossfade_rules::authority::EntityProblem::remedy).collect();
    for part in ["`[[table]]`", "both sides have", "whole numbers", "give a.wide a primary key"] {
        assert!(remedies.iter().any(|remedy| remedy.contains(part)), "{part}: {remedies:#?}");
    }
    // The two sides would print it differently.
    let rules = [rule("users", Reach::Key("name".to_owned()), &[])];
    let problems = EntityTables::build(&rules, &mappings).unwrap_err();
    assert!(problems[0].to_string().contains("differently") && !problems[0].remedy().is_empty(), "{problems:?}");
    // Bytes are filled up to their length.
    for (lengths, fits) in [([8, 8], true), ([8, 9], false)] {
        let [source, target] = lengths.map(|fixed_len| ColumnKind::Bytes { fixed_len });
        let column = &mut mappings[1].columns[NAME];
        (column.source_kind, column.target_kind) = (source, target);
        assert_eq!(EntityTables::build(&rules, &mappings).is_ok(), fits, "{lengths:?}");
    }
}

#[test]
fn authority_reads_as_people_say_it() {
    let all = [Authority::Shared, Authority::Held, Authority::Lacking].map(|authority| authority.to_string());
    assert_eq!(all, ["shared", "held", "lacking"]);
}

/// `id`, `name`, `password`, `v`.
fn values(row: [u64; 4]) -> Row {
    row.map(Value::UInt).to_vec()
}

/// What crosses of a late update where only the password may change: columns that cross, columns that are lost, and what is written.
fn crosses(before: [u64; 4], after: [u64; 4], there: [u64; 4]) -> (Vec<usize>, Vec<usize>, Vec<(usize, u64)>) {
    let images = (&values(before), &values(after));
    let crossing = crossing(&mapping(Policy::Version), &[PASSWORD], images, &values(there), |one, other| one == other);
    let number = |value: &Value| if let Value::UInt(number) = value { *number } else { panic!("{value:?}") };
    let written = crossing.values.iter().map(|(column, value)| (*column, number(value))).collect();
    (crossing.crossed, crossing.lost, written)
}

#[test]
fn of_a_late_update_crosses_what_may_change_and_nobody_else_has_changed() {
    let (none, password, name) = (Vec::new(), vec![PASSWORD], vec![NAME]);
    let set = |clock: Option<u64>| -> Vec<(usize, u64)> {
        [(PASSWORD, 21)].into_iter().chain(clock.map(|clock| (CLOCK, clock))).collect()
    };
    let (before, after) = ([1, 10, 20, 5], [1, 10, 21, 6]);
    // The clock goes along where it is later than the one that is there, or nobody has touched that.
    assert_eq!(crosses(before, after, [1, 99, 20, 9]), (password.clone(), none.clone(), set(None)));
    assert_eq!(crosses(before, after, [1, 99, 20, 6]), (password.clone(), none.clone(), set(None)));
    assert_eq!(crosses(before, after, [1, 99, 20, 4]), (password.clone(), none.clone(), set(Some(6))));
    assert_eq!(crosses([1, 10, 20, 8], after, [1, 99, 20, 8]), (password.clone(), none.clone(), set(Some(6))));
    // Somebody else has changed the password; or to the same.
    assert_eq!(crosses(before, after, [1, 10, 22, 4]), (none.clone(), password.clone(), Vec::new()));
    assert_eq!(crosses(before, after, [1, 10, 21, 4]), (password.clone(), none.clone(), vec![(CLOCK, 6)]));
    // The name may not change here; that it is the same there is no loss.
    let named = [1, 11, 20, 6];
    assert_eq!(crosses(before, named, [1, 10, 20, 4]), (none.clone(), name.clone(), Vec::new()));
    assert_eq!(crosses(before, named, [1, 11, 20, 4]), (none.clone(), none.clone(), vec![(CLOCK, 6)]));
    assert_eq!(crosses(before, [1, 11, 21, 6], [1, 10, 20, 4]), (password, name, set(Some(6))));
    assert_eq!(crosses(before, [1, 10, 20, 6], [1, 10, 20, 4]), (none.clone(), none, vec![(CLOCK, 6)]));
}

#[test]
fn an_update_that_wins_leaves_alone_what_it_has_not_changed_and_others_may() {
    let (before, after, found) = (values([1, 10, 20, 5]), values([1, 11, 20, 6]), values([1, 12, 33, 7]));
    assert_eq!(kept((&before, &after), &after, &[PASSWORD], &found), values([1, 11, 33, 6]));
    assert_eq!(kept((&before, &after), &after, &[NAME], &found), after);
}
