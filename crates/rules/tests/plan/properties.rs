//! P5: whatever the batch and the lane count, a plan gives the rows that the source's own order gives.

use std::sync::Arc;

use crate::database::{Actions, Collation, Database};
use crate::schema::{KEY, KEYLESS, PARENT, TABLES, TAG, mappings_with, name, parent_of};
use crate::shapes::op;
use crossfade_model::{Clock, LaneProgress, Origin, ReferentialAction, Row, Seen, StreamProgress, Value};
use crossfade_rules::key::folded_hash;
use crossfade_rules::{MappedChange, Plan, Planner, Step, plan};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// What a user tries. Many tries are refused by the source; those leave no change.
#[derive(Debug, Clone)]
struct Try {
    table: usize,
    op: u8,
    /// Picks the row to change.
    row: usize,
    key: u8,
    parent: u8,
    tag: u8,
    n: i64,
}

fn tries(max: usize) -> impl Strategy<Value = Vec<Try>> {
    let one = (0..TABLES, 0..8_u8, 0..100_usize, 0..6_u8, 0..8_u8, 0..9_u8, 0..3_i64)
        .prop_map(|(table, op, row, key, parent, tag, n)| Try { table, op, row, key, parent, tag, n });
    prop::collection::vec(one, 0..max)
}

/// Few texts, some of which differ in case only.
fn text(number: u8) -> Value {
    match ["a", "A", "b", "B", "c", "ab"].get(usize::from(number)) {
        Some(text) => Value::Text((*text).to_owned()),
        None => Value::Null,
    }
}

impl Try {
    fn row(&self) -> Row {
        let parent = if parent_of(self.table).is_some() { text(self.parent) } else { Value::Null };
        vec![text(self.key), parent, text(self.tag), Value::Int(self.n)]
    }

    /// Tries it, and returns the change if the database took it.
    fn run(&self, database: &mut Database) -> Option<(Option<Row>, Option<Row>)> {
        let rows = &database.tables[self.table];
        if rows.is_empty() || self.op < 2 {
            let row = self.row();
            return database.insert(self.table, row.clone()).ok().map(|()| (None, Some(row)));
        }
        let index = self.row % rows.len();
        let before = rows[index].clone();
        if self.op < 4 {
            return database.delete(self.table, index).ok().map(|()| (Some(before), None));
        }
        let mut after = self.row();
        // Half of the updates leave the key alone, and some the other columns too.
        if self.op < 7 {
            after[KEY] = before[KEY].clone();
        }
        if self.op == 6 {
            after[PARENT] = before[PARENT].clone();
        }
        if after == before {
            return None;
        }
        database.update(self.table, index, after.clone()).ok().map(|()| (Some(before), Some(after)))
    }
}

/// A target as the batch finds it, the batch, and the source at its end.
struct Case {
    target: Database,
    batch: Vec<MappedChange>,
    source: Database,
}

fn case(before: &[Try], batch: &[Try], collation: Collation, actions: Actions) -> Case {
    let mut source = Database::new(collation, actions);
    before.iter().for_each(|attempt| {
        attempt.run(&mut source);
    });
    source.logged.clear();
    let target = source.clone();
    let mut changes: Vec<MappedChange> = Vec::new();
    for attempt in batch {
        let done = attempt.run(&mut source);
        assert!(done.is_some() || source.logged.is_empty(), "what is refused has changed nothing");
        // A server writes first what it has done to children.
        let logged = std::mem::take(&mut source.logged).into_iter().map(|(table, a, b)| (table, Some(a), Some(b)));
        let of_user = done.map(|(before, after)| (attempt.table, before, after));
        // About four changes each, so that some tie in one transaction and some over its end.
        let transaction = (changes.len() / 4) as u32;
        for (table, before, after) in logged.chain(of_user) {
            let op = op(before.as_ref(), after.as_ref());
            let seq = 7 + changes.len() as u64;
            let (effective, seen) = (Some(Clock(seq as i64)), seen_at(seq));
            changes.push(MappedChange {
                seq,
                table,
                op,
                before,
                after,
                effective,
                seen,
                transaction,
                origin: Origin::User,
            });
        }
    }
    Case { target, batch: changes, source }
}

/// What the writer of message `seq` had before him.
fn seen_at(seq: u64) -> Arc<Seen> {
    let lane = LaneProgress { seq, batch_first: 1, batch_last: seq, lanes: 1 };
    let progress = StreamProgress { lanes: [(0, lane)].into(), ..StreamProgress::default() };
    Arc::new(Seen { streams: [("reverse/new".to_owned(), progress)].into() })
}

/// A net change is judged as its last message would be, and a row that leaves its key as the last message of that key.
fn check_what_is_judged(plan: &Plan, batch: &[MappedChange]) -> Result<(), TestCaseError> {
    let transaction_of = |seq| batch.iter().find(|change| change.seq == seq).map(|change| change.transaction);
    let rows = plan.lanes.iter().flat_map(|lane| &lane.steps).filter_map(|step| match step {
        Step::Net { rows, .. } => Some(rows),
        Step::InOrder(_) => None,
    });
    for net in rows.flatten() {
        let last = net.seqs.last();
        prop_assert_eq!((net.effective, &net.seen), (Some(Clock(last as i64)), &seen_at(last)));
        prop_assert_eq!(Some(net.transaction), transaction_of(last));
        prop_assert!(net.seqs.first() <= last && net.seqs.iter().is_sorted());
        if let Some(departure) = &net.moved_from {
            let last = departure.seqs.last();
            prop_assert_eq!((departure.effective, &departure.seen), (Some(Clock(last as i64)), &seen_at(last)));
            prop_assert!(departure.seqs.iter().is_sorted());
        }
    }
    Ok(())
}

/// Runs the lanes' steps interleaved, and rows inside steps in another order.
fn execute(plan: &Plan, target: &mut Database, order: &[u8]) -> Result<(), String> {
    let mut next = vec![0; plan.lanes.len()];
    let mut turns = order.iter().copied().chain(std::iter::repeat(0));
    loop {
        let waiting: Vec<usize> = (0..next.len()).filter(|lane| next[*lane] < plan.lanes[*lane].steps.len()).collect();
        let turn = usize::from(turns.next().unwrap_or(0));
        let Some(lane) = waiting.get(turn % waiting.len().max(1)).copied() else { return Ok(()) };
        let step = &plan.lanes[lane].steps[next[lane]];
        next[lane] += 1;
        target.execute(step, |rows| {
            let mut order: Vec<usize> = (0..rows).collect();
            order.rotate_left(turn % rows.max(1));
            order
        })?;
    }
}

fn seqs_of(step: &Step) -> Vec<u64> {
    match step {
        Step::InOrder(changes) => changes.iter().map(|change| change.seq).collect(),
        Step::Net { rows, .. } => rows.iter().flat_map(|row| row.seqs.iter()).collect(),
    }
}

/// No two lanes have a row or unique value in common, in any image.
fn check_lanes_are_apart(plan: &Plan, batch: &[MappedChange]) -> Result<(), TestCaseError> {
    let mut lane_of = std::collections::HashMap::new();
    for change in batch {
        let lane = plan.lane_of(change.seq);
        let own_columns: &[usize] = if change.table == KEYLESS { &[] } else { &[KEY, TAG] };
        for row in [&change.before, &change.after].into_iter().flatten() {
            for column in own_columns.iter().filter(|column| !row[**column].is_null()) {
                let value = folded_hash(&name(change.table), &[&row[*column]]);
                let known = *lane_of.entry((change.table, *column, value)).or_insert(lane);
                prop_assert_eq!(known, lane, "{}", story(batch, plan));
            }
        }
    }
    Ok(())
}

fn check(case: Case, lanes: u16, order: &[u8], actions: Actions) -> Result<(), TestCaseError> {
    let Case { mut target, batch, source } = case;
    let tables = mappings_with(actions.on_delete, actions.on_update);
    let made = plan(batch.clone(), &tables, lanes).expect("the batch fits");
    prop_assert_eq!(&made, &Planner::new(&tables).plan(batch.clone(), lanes).expect("the batch fits"));
    prop_assert_eq!(made.lanes.len(), usize::from(lanes.max(1)));
    for (lane, lane_plan) in made.lanes.iter().enumerate() {
        for seq in lane_plan.steps.iter().flat_map(seqs_of) {
            prop_assert_eq!(made.lane_of(seq), Some(lane as u16));
        }
        let of_lane = batch.iter().filter(|change| made.lane_of(change.seq) == Some(lane as u16)).count();
        prop_assert_eq!(lane_plan.messages, of_lane as u64);
    }
    let mut planned: Vec<u64> = made.lanes.iter().flat_map(|lane| lane.steps.iter().flat_map(seqs_of)).collect();
    planned.sort_unstable();
    planned.dedup();
    prop_assert_eq!(planned, batch.iter().map(|change| change.seq).collect::<Vec<_>>());
    check_lanes_are_apart(&made, &batch)?;
    check_what_is_judged(&made, &batch)?;
    if let Err(error) = execute(&made, &mut target, order) {
        return Err(TestCaseError::fail(format!("{error}\n{}", story(&batch, &made))));
    }
    prop_assert_eq!(target.contents(), source.contents(), "{}", story(&batch, &made));
    Ok(())
}

/// A batch and its plan, for people.
fn story(batch: &[MappedChange], plan: &Plan) -> String {
    let mut story = String::new();
    for change in batch {
        story += &format!("{}: table {} {:?} -> {:?}\n", change.seq, change.table, change.before, change.after);
    }
    for (lane, lane_plan) in plan.lanes.iter().enumerate() {
        for step in &lane_plan.steps {
            let kind = match step {
                Step::Net { table, kind, .. } => format!("{kind:?} of table {table}"),
                Step::InOrder(_) => "in order".to_owned(),
            };
            story += &format!("lane {lane}: {kind}: {:?}\n", seqs_of(step));
        }
    }
    story
}

/// Both actions alike, in no binlog.
fn unlogged(action: ReferentialAction) -> Actions {
    Actions { on_delete: action, on_update: action, updates_are_logged: false }
}

fn actions() -> impl Strategy<Value = Actions> {
    prop_oneof![Just(ReferentialAction::Cascade), Just(ReferentialAction::SetNull)].prop_map(unlogged)
}

/// What new keys do to children is in the binlog.
fn logged_updates() -> impl Strategy<Value = Actions> {
    let on_update = prop_oneof![Just(ReferentialAction::Cascade), Just(ReferentialAction::SetNull)];
    on_update.prop_map(|on_update| Actions {
        on_delete: ReferentialAction::Restrict,
        on_update,
        updates_are_logged: true,
    })
}

fn collations() -> impl Strategy<Value = Collation> {
    prop_oneof![Just(Collation::IgnoresCase), Just(Collation::Binary)]
}

/// `PROPTEST_RNG_SEED` repeats a run, `PROPTEST_CASES` makes it longer.
fn seeded() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand::random(),
    };
    println!("the seed is PROPTEST_RNG_SEED={seed}");
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(8000);
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), ..config }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn p5_a_plan_does_what_the_source_did(
        before in tries(25), batch in tries(30), lanes in 0..5_u16, order: Vec<u8>, collation in collations(),
    ) {
        let actions = unlogged(ReferentialAction::Restrict);
        check(case(&before, &batch, collation, actions), lanes, &order, actions)?;
    }

    #[test]
    fn p5_a_plan_does_what_the_source_did_where_servers_change_children(
        before in tries(25), batch in tries(30), lanes in 0..5_u16, order: Vec<u8>,
        collation in collations(), actions in actions(),
    ) {
        check(case(&before, &batch, collation, actions), lanes, &order, actions)?;
    }

    #[test]
    fn p5_a_plan_does_what_the_source_did_where_servers_tell_of_children(
        before in tries(25), batch in tries(30), lanes in 0..5_u16, order: Vec<u8>,
        collation in collations(), actions in logged_updates(),
    ) {
        check(case(&before, &batch, collation, actions), lanes, &order, actions)?;
    }
}
