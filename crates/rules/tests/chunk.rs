//! A chunk that is copied beside live traffic: what is left of it stood at its high mark as it was read, and both sides of a row
//! come out equal whoever changes it meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossfade_model::{
    Clock, Column, ColumnKind, Direction, ForeignKey, ReferentialAction, Row, RowChange, RowOp, Side, TableLayout,
    TableName, TableShape, Value,
};
use crossfade_rules::chunk::{Copied, CopyOrder, TouchedRows, Window, judge_copy};
use crossfade_rules::{Event, LastConcurrent, Policy, TableMapping, TableRule, Verdict, decide};
use proptest::prelude::*;

fn column(name: &str) -> Column {
    Column::plain(name, ColumnKind::Integer { bytes: 8, unsigned: false })
}

fn mapping(table: &str, parents: &[&str], clock: Option<&str>) -> TableMapping {
    let link = |parent: &&str| ForeignKey {
        name: format!("{table}_{parent}"),
        columns: vec![2],
        parent: TableName::new("app", *parent),
        parent_columns: vec!["id".to_owned()],
        on_delete: ReferentialAction::Restrict,
        on_update: ReferentialAction::Restrict,
    };
    let shape = TableShape {
        name: TableName::new("app", table),
        columns: ["id", "version", "parent"].map(column).into(),
        primary_key: vec![0],
        unique_keys: vec![],
        foreign_keys: parents.iter().map(link).collect(),
        engine: "InnoDB".to_owned(),
    };
    let policy = if clock.is_some() { Policy::Version } else { Policy::PreferNew };
    let rule = TableRule::same(shape.name.clone(), clock, policy);
    TableMapping::build(Direction::Forward, &rule, &shape, &shape).expect("the table maps")
}

fn row(id: i64, version: i64) -> Row {
    vec![Value::Int(id), Value::Int(version), Value::Int(0)]
}

fn change(before: Option<Row>, after: Option<Row>) -> RowChange {
    let op = match (&before, &after) {
        (None, _) => RowOp::Insert,
        (_, None) => RowOp::Delete,
        _ => RowOp::Update,
    };
    let layout = TableLayout {
        name: TableName::new("app", "users"),
        columns: ["ID", "version", "parent"].map(Into::into).into(),
        kinds: vec![ColumnKind::Integer { bytes: 8, unsigned: false }; 3],
        row_key: vec![0],
    };
    RowChange { layout: Arc::new(layout), op, before, after, event_index: 0 }
}

/// Something that happens at the source. Rows have keys from 0 to 5.
#[derive(Debug, Clone, Copy)]
enum Step {
    Write(i64),
    Delete(i64),
    Move(i64, i64),
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..6_i64).prop_map(Step::Write),
        2 => (0..6_i64).prop_map(Step::Delete),
        1 => (0..6_i64, 0..6_i64).prop_map(|(from, to)| Step::Move(from, to)),
    ];
    prop::collection::vec(step, 0..most)
}

/// Carries a step out and gives the change that the binlog would have.
fn step(table: &mut BTreeMap<i64, Row>, step: Step, version: i64) -> Option<RowChange> {
    match step {
        Step::Write(id) => {
            let after = row(id, version);
            Some(change(table.insert(id, after.clone()), Some(after)))
        }
        Step::Delete(id) => table.remove(&id).map(|before| change(Some(before), None)),
        Step::Move(from, to) if from != to && !table.contains_key(&to) => {
            let before = table.remove(&from)?;
            let after = row(to, version);
            table.insert(to, after.clone());
            Some(change(Some(before), Some(after)))
        }
        Step::Move(..) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn p6_what_is_left_of_a_chunk_stood_at_its_high_mark_as_it_was_read(
        before in steps(12), until_read in steps(5), until_high in steps(5),
    ) {
        let mapping = mapping("users", &[], Some("version"));
        let mut finder = TouchedRows::new(vec![mapping.clone()].into());
        let (mut table, mut window, mut version) = (BTreeMap::new(), Window::default(), 0);
        for done in before {
            version += 1;
            step(&mut table, done, version);
        }
        let mut rows: Vec<Row> = Vec::new();
        for (place, done) in until_read.iter().map(Some).chain([None]).chain(until_high.iter().map(Some)).enumerate() {
            version += 1;
            match done {
                Some(done) => {
                    let touched = step(&mut table, *done, version).and_then(|change| finder.of(&change));
                    touched.into_iter().flat_map(|touched| touched.keys).for_each(|key| window.note(key));
                }
                None => rows = table.values().cloned().collect(),
            }
            prop_assert!(place <= until_read.len() || rows.len() <= 6);
        }
        let read = rows.clone();
        let left_out = window.leave_out(&mapping, &mut rows);
        prop_assert_eq!(left_out + rows.len(), read.len());
        for row in &rows {
            prop_assert!(table.values().any(|there| there == row), "{row:?} is not what the source has");
        }
        // Nothing is left out that nobody touched.
        if until_read.is_empty() && until_high.is_empty() {
            prop_assert_eq!(rows, read);
        }
    }
}

/// What can happen to one row of two sides, of which only the old one had it at first.
#[derive(Debug, Clone, Copy)]
enum Event1 {
    /// A user of a side writes, with a clock that may be wrong by this.
    Write(Side, i64),
    Delete(Side),
    /// The next change of a side takes effect on the other one.
    Deliver(Side),
    Low,
    Read,
    High,
    /// If everything before the high mark is delivered.
    Copy,
}

fn events() -> impl Strategy<Value = Vec<Event1>> {
    let side = || prop_oneof![Just(Side::Old), Just(Side::New)];
    let event = prop_oneof![
        3 => (side(), -2..3_i64).prop_map(|(side, skew)| Event1::Write(side, skew)),
        2 => side().prop_map(Event1::Delete),
        5 => side().prop_map(Event1::Deliver),
        1 => Just(Event1::Low),
        1 => Just(Event1::Read),
        1 => Just(Event1::High),
        1 => Just(Event1::Copy),
    ];
    prop::collection::vec(event, 0..24)
}

#[derive(Debug, Clone)]
struct Captured {
    after: Option<Row>,
    effective: Option<Clock>,
    op: RowOp,
    /// Of the other side's changes, how many its writer had before him.
    seen: usize,
}

/// A chunk of one row, between its marks.
#[derive(Debug, Default, Clone)]
struct Chunk {
    touched: bool,
    read: Option<Option<Row>>,
    /// The place of the high mark: old's changes before it, and new's changes that had taken effect there.
    place: Option<(usize, usize)>,
}

struct World {
    mapping: TableMapping,
    /// Old, new.
    rows: [Option<Row>; 2],
    captured: [Vec<Captured>; 2],
    delivered: [usize; 2],
    time: i64,
    open: Option<Chunk>,
    is_copied: bool,
}

fn place(side: Side) -> usize {
    usize::from(side == Side::New)
}

impl World {
    fn write(&mut self, side: Side, after: Option<Row>) {
        let at = place(side);
        let before = self.rows[at].clone();
        if before.is_none() && after.is_none() {
            return;
        }
        let version = |row: &Option<Row>| match row.as_ref().map(|row| &row[1]) {
            Some(Value::Int(version)) => Some(Clock(*version)),
            _ => None,
        };
        let own = match &after {
            Some(_) => version(&after),
            None => version(&before).map(|clock| Clock(clock.0 + 1)),
        };
        let earlier = self.captured[at].iter().filter_map(|captured| captured.effective).max();
        let op = match (&before, &after) {
            (None, _) => RowOp::Insert,
            (_, None) => RowOp::Delete,
            _ => RowOp::Update,
        };
        let effective = [own, version(&before), earlier].into_iter().max().flatten();
        self.captured[at].push(Captured { after: after.clone(), effective, op, seen: self.delivered[1 - at] });
        self.rows[at] = after;
        if side == Side::Old
            && let Some(chunk) = &mut self.open
        {
            chunk.touched = true;
        }
    }

    /// The last change of the other side that one who had seen so many of them did not know.
    fn concurrent(&self, other: usize, seen: usize) -> Option<LastConcurrent> {
        let (number, last) = self.captured[other].iter().enumerate().skip(seen).next_back()?;
        Some(LastConcurrent {
            seq: number as u64 + 1,
            effective: last.effective,
            op: last.op,
            returned: false,
            authority: crossfade_rules::Authority::Shared,
        })
    }

    fn deliver(&mut self, side: Side) {
        let (from, to) = (place(side), 1 - place(side));
        // The stream rests at the high mark's place until the chunk is written.
        if side == Side::Old && self.is_at_place() {
            return;
        }
        let Some(change) = self.captured[from].get(self.delivered[from]).cloned() else { return };
        self.delivered[from] += 1;
        let event =
            Event { side, effective: change.effective, returned: false, authority: crossfade_rules::Authority::Shared };
        let concurrent = self.concurrent(to, change.seen);
        if matches!(decide(&event, concurrent.as_ref(), self.mapping.policy, Side::New), Verdict::Write(_)) {
            let changes_old = to == 0;
            self.rows[to] = change.after;
            // A tagged change between the marks counts, too.
            if changes_old
                && let Some(chunk) = &mut self.open
                && chunk.place.is_none()
            {
                chunk.touched = true;
            }
        }
    }

    fn is_at_place(&self) -> bool {
        let place = self.open.as_ref().and_then(|chunk| chunk.place);
        place.is_some_and(|(place, _)| self.delivered[0] >= place)
    }

    fn copy(&mut self) {
        if !self.is_at_place() {
            return;
        }
        let Some(Chunk { touched, read: Some(read), place: Some((_, seen)) }) = self.open.take() else { return };
        self.is_copied = true;
        let Some(row) = read.filter(|_| !touched) else { return };
        if self.concurrent(1, seen).is_some() {
            return;
        }
        let there = self.rows[1].clone();
        let found = there.as_ref().map(|there| (there, *there == row));
        match judge_copy(&self.mapping, &row, found) {
            Copied::Fill | Copied::Replace => self.rows[1] = Some(row),
            Copied::Same | Copied::Keep => {}
        }
    }

    fn happens(&mut self, event: Event1) {
        self.time += 10;
        match event {
            Event1::Write(side, skew) => self.write(side, Some(row(1, self.time + skew * 15))),
            Event1::Delete(side) => self.write(side, None),
            Event1::Deliver(side) => self.deliver(side),
            Event1::Low if self.open.is_none() => self.open = Some(Chunk::default()),
            Event1::Read => {
                let row = self.rows[0].clone();
                if let Some(chunk) = self.open.as_mut().filter(|chunk| chunk.read.is_none()) {
                    chunk.read = Some(row);
                }
            }
            Event1::High => {
                let place = (self.captured[0].len(), self.delivered[1]);
                let is_read = |chunk: &&mut Chunk| chunk.read.is_some() && chunk.place.is_none();
                if let Some(chunk) = self.open.as_mut().filter(is_read) {
                    chunk.place = Some(place);
                }
            }
            Event1::Copy => self.copy(),
            Event1::Low => {}
        }
    }

    /// Ends the chunk that is open, or copies the row, and carries everything.
    fn drain(&mut self) {
        let ends = [Event1::Low, Event1::Read, Event1::High];
        ends.into_iter().for_each(|event| self.happens(event));
        loop {
            self.copy();
            let before = self.delivered;
            self.deliver(Side::Old);
            self.deliver(Side::New);
            if before == self.delivered && self.open.is_none() {
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn p4_a_row_that_is_copied_is_equal_on_both_sides_in_the_end(events in events(), clocked in any::<bool>()) {
        let mapping = mapping("users", &[], clocked.then_some("version"));
        let mut world = World {
            mapping,
            rows: [Some(row(1, 5)), None],
            captured: Default::default(),
            delivered: [0; 2],
            time: 0,
            open: None,
            is_copied: false,
        };
        for event in events {
            world.happens(event);
        }
        world.drain();
        prop_assert!(world.is_copied);
        prop_assert_eq!(&world.rows[0], &world.rows[1]);
    }
}

#[test]
fn p6_without_a_clock_only_absent_rows_are_filled() {
    let clockless = mapping("users", &[], None);
    let (older, newer) = (row(1, 1), row(1, 2));
    assert_eq!(judge_copy(&clockless, &newer, None), Copied::Fill);
    assert_eq!(judge_copy(&clockless, &newer, Some((&older, false))), Copied::Keep);
    let clocked = mapping("users", &[], Some("version"));
    assert_eq!(judge_copy(&clocked, &newer, Some((&older, false))), Copied::Replace);
    assert_eq!(judge_copy(&clocked, &older, Some((&newer, false))), Copied::Keep);
    assert_eq!(judge_copy(&clocked, &older, Some((&older, false))), Copied::Keep, "as new, and yet another row");
    assert_eq!(judge_copy(&clocked, &older, Some((&older, true))), Copied::Same);
}

#[test]
fn parents_come_first_and_circles_do_not_wait() {
    let tables = [
        mapping("items", &["orders"], None),
        mapping("orders", &["users"], None),
        mapping("users", &[], None),
        mapping("tree", &["tree", "users"], None),
        mapping("hen", &["egg"], None),
        mapping("egg", &["hen"], None),
    ];
    let order = CopyOrder::of(&tables);
    assert_eq!(order.parents, [vec![1], vec![2], vec![], vec![2], vec![], vec![]]);
    assert_eq!(order.in_circle, [false, false, false, true, true, true]);
}
