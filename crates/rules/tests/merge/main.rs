//! P4 where columns are merged: both sides end equal, and equal to what the definition says of the two logs, whatever came
//! together in which order. Every interleaving of a few changes, and many random ones of more.

mod oracle;
mod table;
mod world;

use std::cell::Cell;
use std::sync::Arc;

use crossfade_model::{Row, Side, Value};
use crossfade_rules::Policy;
use crossfade_rules::merge::{Concurrent, Effect, Found, Merged, Merging, Part};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use table::{A, B, CLOCK, COLUMNS, ID, KEYS, LEAST, MOST, SUM};
use world::{Flaw, Rules, World, Write};

const SEEDS: u64 = 1_500;

/// What a user may do to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    SetA,
    SetB,
    /// And back to what it was at first, which counts as a change all the same.
    SetAAsAtFirst,
    Bounds,
    SetMostAsAtFirst,
    Add,
    AddAndSetB,
    Delete,
    Insert,
    Move,
}

/// `number` makes values that differ from each other.
fn write(deed: Deed, rows: &[Option<Row>; KEYS], key: usize, number: i64, clock: i64) -> Option<Write> {
    let before = rows[key].clone();
    let mut after = match (deed, &before) {
        (Deed::Insert, None) => {
            [key as i64, number, number + 1, number % 50, number % 70, number + 4, clock].map(Value::Int).to_vec()
        }
        (Deed::Delete, Some(_)) => return Some(Write { before, after: None }),
        (Deed::Insert, Some(_)) | (_, None) => return None,
        (_, Some(row)) => row.clone(),
    };
    after[CLOCK] = Value::Int(clock);
    let sum = table::number(&after, SUM);
    match deed {
        Deed::SetA => after[A] = Value::Int(number),
        Deed::SetB => after[B] = Value::Int(number),
        Deed::SetAAsAtFirst => after[A] = table::first_row()[A].clone(),
        Deed::SetMostAsAtFirst => after[MOST] = table::first_row()[MOST].clone(),
        Deed::Bounds => {
            after[MOST] = Value::Int(number * 7 % 60);
            after[LEAST] = Value::Int(number * 11 % 60);
        }
        Deed::Add => after[SUM] = Value::Int(sum + number),
        Deed::AddAndSetB => {
            after[SUM] = Value::Int(sum - number);
            after[B] = Value::Int(number);
        }
        Deed::Move if rows[1 - key].is_none() => after[ID] = Value::Int(1 - key as i64),
        Deed::Move => return None,
        Deed::Delete | Deed::Insert => {}
    }
    (before.as_ref() != Some(&after)).then_some(Write { before, after: Some(after) })
}

/// Whether both sides have what the definition says.
fn check(rules: &Rules, world: &World) -> Result<(), String> {
    for key in 0..KEYS {
        let expected = oracle::row_of(key, [&world.logs[0], &world.logs[1]], rules);
        for (side, rows) in world::SIDES.iter().zip(&world.rows) {
            if rows[key] != expected {
                let story = match &world.trace {
                    Some(trace) => trace.join("\n"),
                    None => format!("{:#?}", world.logs),
                };
                return Err(format!("{key} on {side}: {:?} where {expected:?} belongs\n{story}", rows[key]));
            }
        }
    }
    Ok(())
}

/// How clocks run in a random run. Only those of `Coarse` are ever the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clocks {
    Running,
    /// The new side's are far behind.
    Skewed,
    /// Often equal, sometimes set back.
    Coarse,
}

struct Run {
    random: StdRng,
    clocks: Clocks,
    deeds: Vec<Deed>,
    left: [usize; 2],
    now: i64,
}

impl Run {
    fn user(&mut self, rules: &Rules, world: &mut World, side: usize) {
        self.now += 1;
        let clock = match self.clocks {
            Clocks::Running => 2 * self.now + side as i64,
            Clocks::Skewed => 2 * self.now - if side == 1 { 11 } else { 0 },
            Clocks::Coarse => (self.now / 4 - self.random.random_range(0..2)).max(0),
        };
        for _ in 0..20 {
            let deed = self.deeds[self.random.random_range(0..self.deeds.len())];
            let key = self.random.random_range(0..KEYS);
            let number = 100 + self.now * 3 + side as i64;
            if let Some(write) = write(deed, &world.rows[side], key, number, clock) {
                world.write(rules, side, write, clock);
                self.left[side] -= 1;
                return;
            }
        }
        self.left[side] -= 1;
    }

    fn step(&mut self, rules: &Rules, world: &mut World) -> bool {
        let mut steps = Vec::new();
        for side in 0..2 {
            let progress = &world.progress[side];
            let whole = world.half(side).is_none();
            let ready = [
                self.left[side] > 0,
                world.captured[side] < world.logs[side].len() as u64,
                whole && progress.applied_through() < world.captured[side],
                whole && !progress.parked.is_empty(),
                !whole,
            ];
            steps.extend((0..ready.len()).filter(|step| ready[*step]).map(|step| (step, side)));
        }
        if steps.is_empty() {
            return false;
        }
        let (step, side) = steps[self.random.random_range(0..steps.len())];
        match step {
            0 => self.user(rules, world, side),
            1 => world.captured[side] += 1,
            2 => {
                let first = world.progress[side].applied_through() + 1;
                let last = self.random.random_range(first..=world.captured[side]);
                let lanes = if last > first && self.random.random_bool(0.4) { 2 } else { 1 };
                let lane = self.random.random_range(0..lanes);
                let refused = self.random.random_bool(0.15).then(|| self.random.random_range(0..KEYS));
                world.commit(rules, side, last, lanes, lane, refused);
            }
            3 => world.retry(rules, side),
            _ => {
                let (batch, lane) = world.half(side).expect("half a batch");
                world.commit(rules, side, batch.batch_last, batch.lanes, lane, None);
            }
        }
        true
    }
}

const UPDATES: [Deed; 6] = [Deed::SetA, Deed::SetB, Deed::SetAAsAtFirst, Deed::Bounds, Deed::Add, Deed::AddAndSetB];
/// A row that is inserted again has a clock of its own.
const SIGHTED: [Deed; 8] = [
    Deed::SetA,
    Deed::SetB,
    Deed::SetAAsAtFirst,
    Deed::Bounds,
    Deed::Add,
    Deed::AddAndSetB,
    Deed::Delete,
    Deed::Insert,
];
const ALL: [Deed; 9] = [
    Deed::SetA,
    Deed::SetB,
    Deed::SetAAsAtFirst,
    Deed::Bounds,
    Deed::Add,
    Deed::AddAndSetB,
    Deed::Delete,
    Deed::Insert,
    Deed::Move,
];

/// A random run to its end.
fn run(rules: &Rules, clocks: Clocks, deeds: &[Deed], seed: u64, is_told: bool) -> World {
    let random = StdRng::seed_from_u64(seed);
    let mut run = Run { random, clocks, deeds: deeds.to_vec(), left: [4; 2], now: 20 };
    let mut world = World::new();
    world.trace = is_told.then(Vec::new);
    while run.step(rules, &mut world) {}
    assert!(world.is_quiet(), "seed {seed} does not settle");
    world
}

/// Random runs; how many went wrong, and the story of one.
fn random_runs(rules: &Rules, clocks: Clocks, deeds: &[Deed]) -> (usize, String) {
    let wrong: Vec<u64> =
        (0..SEEDS).filter(|seed| check(rules, &run(rules, clocks, deeds, *seed, false)).is_err()).collect();
    let stories = wrong.iter().take(20).filter_map(|seed| {
        let story = check(rules, &run(rules, clocks, deeds, *seed, true)).err()?;
        Some(format!("seed {seed}: {story}"))
    });
    (wrong.len(), stories.min_by_key(String::len).unwrap_or_default())
}

const POLICIES: [Policy; 3] = [Policy::Version, Policy::PreferOld, Policy::PreferNew];

#[test]
fn p4_merged_columns_end_as_the_definition_says() {
    for policy in POLICIES {
        for (prefer, clocks) in [
            (Side::Old, Clocks::Running),
            (Side::New, Clocks::Coarse),
            (Side::Old, Clocks::Coarse),
            (Side::New, Clocks::Skewed),
        ] {
            let rules = Rules::new(policy, prefer, None);
            let (wrong, story) = random_runs(&rules, clocks, &ALL);
            assert_eq!(wrong, 0, "{policy:?} {prefer} {clocks:?}: {story}");
            let world::Tally {
                merged,
                columns_lost,
                lost_whole,
                revived,
                revived_with_more,
                inserts_merged,
                folded,
                parked,
                half_batches,
                sighted: _,
            } = &rules.tally;
            println!("{policy:?} {prefer} {clocks:?}: {:?}", rules.tally);
            let met = [merged, columns_lost, lost_whole, revived, inserts_merged, folded, parked, half_batches];
            assert!(met.iter().all(|counter| counter.get() > 10), "too little was met: {:?}", rules.tally);
            // Where a side is preferred, none of its updates loses to a delete before one that wins.
            assert_eq!(revived_with_more.get() > 10, policy == Policy::Version, "{:?}", rules.tally);
        }
    }
}

/// A row that is found as the change's writer had it needs no merging, where clocks tell all versions apart.
#[test]
fn p4_rows_that_are_judged_by_sight_end_as_the_definition_says() {
    for clocks in [Clocks::Running, Clocks::Skewed] {
        for prefer in world::SIDES {
            let rules = Rules::by_sight(Policy::Version, prefer);
            let (wrong, story) = random_runs(&rules, clocks, &SIGHTED);
            assert_eq!(wrong, 0, "{prefer} {clocks:?}: {story}");
            println!("{prefer} {clocks:?}: {:?}", rules.tally);
            assert!(rules.tally.sighted.get() > 1_000 && rules.tally.merged.get() > 1_000, "{:?}", rules.tally);
        }
    }
}

/// While rows are only updated, a sum is what it was at first and all that anybody has added.
#[test]
fn p2_sums_have_every_addition_once() {
    let rules = Rules::new(Policy::Version, Side::New, None);
    for seed in 0..SEEDS {
        let world = run(&rules, Clocks::Coarse, &UPDATES, seed, false);
        let sum = |row: &Option<Row>| table::number(row.as_ref().expect("the row"), SUM);
        let added = world.logs.iter().flatten().map(|message| sum(&message.after) - sum(&message.before));
        let expected = table::number(&table::first_row(), SUM) + added.sum::<i64>();
        assert_eq!([sum(&world.rows[0][0]), sum(&world.rows[1][0])], [expected; 2], "seed {seed}");
    }
}

/// Every way in which these deeds of users, of one key, can come together with batches of every length.
fn every_interleaving(rules: &Rules, deeds: &[Deed], operations: [usize; 2], ends: &Cell<u64>) -> Result<(), String> {
    fn go(rules: &Rules, world: &World, deeds: &[Deed], left: [usize; 2], ends: &Cell<u64>) -> Result<(), String> {
        let mut is_end = true;
        for side in 0..2 {
            for deed in deeds.iter().filter(|_| left[side] > 0) {
                let number = 100 + 10 * (left[side] as i64) + side as i64;
                let clock = 30 - 3 * (left[0] + left[1]) as i64 - if side == 1 { 4 } else { 0 };
                let Some(write) = write(*deed, &world.rows[side], 0, number, clock) else { continue };
                is_end = false;
                let mut next = world.clone();
                next.write(rules, side, write, clock);
                next.captured[side] += 1;
                let mut left = left;
                left[side] -= 1;
                go(rules, &next, deeds, left, ends)?;
            }
            let applied = world.progress[side].applied_through();
            for last in applied + 1..=world.captured[side] {
                is_end = false;
                let mut next = world.clone();
                next.commit(rules, side, last, 1, 0, None);
                go(rules, &next, deeds, left, ends)?;
            }
        }
        if is_end {
            world::count(ends);
            check(rules, world)?;
        }
        Ok(())
    }
    go(rules, &World::new(), deeds, operations, ends)
}

#[test]
fn p4_every_interleaving_of_a_few_changes() {
    let deeds = [Deed::SetA, Deed::AddAndSetB, Deed::Bounds, Deed::Delete, Deed::Insert];
    let is_soak = std::env::var_os("CROSSFADE_SOAK").is_some();
    let all = [[2, 2], [3, 1], [1, 3]];
    // No two clocks are the same, so it does not matter who is preferred where they decide.
    for (policy, prefer, most) in [(Policy::Version, Side::New, all.len()), (Policy::PreferNew, Side::Old, 0)] {
        for operations in all.into_iter().take(if is_soak { all.len() } else { most }) {
            let (rules, ends) = (Rules::new(policy, prefer, None), Cell::new(0));
            let found = every_interleaving(&rules, &deeds, operations, &ends);
            println!("{policy:?} {prefer} {operations:?}: {} ways to the end, {:?}", ends.get(), rules.tally);
            assert!(ends.get() > 10_000 && rules.tally.revived.get() > 100);
            found.unwrap_or_else(|story| panic!("{policy:?} {prefer} {operations:?}: {story}"));
        }
    }
}

#[test]
fn the_checks_notice_what_is_broken() {
    for (flaw, deeds, clocks) in [
        (Flaw::ColumnsIgnored, &UPDATES[..], Clocks::Coarse),
        (Flaw::FoldedBlindly, &UPDATES[..], Clocks::Coarse),
        (Flaw::HoldRemoved, &UPDATES[..], Clocks::Coarse),
        (Flaw::MergedTwice, &UPDATES[..], Clocks::Coarse),
        (Flaw::HiddenForgotten, &ALL[..], Clocks::Coarse),
        (Flaw::SightOfBounds, &[Deed::Bounds, Deed::SetMostAsAtFirst][..], Clocks::Running),
    ] {
        let rules = Rules::new(Policy::Version, Side::New, Some(flaw));
        let (wrong, story) = random_runs(&rules, clocks, deeds);
        println!("{flaw:?}: {wrong} of {SEEDS} runs end wrong, for example {story}");
        assert!(wrong > 5, "{flaw:?} is not noticed");
    }
}

/// One side's row that is only given back meets what the other side wrote, or gives back, unseen.
#[test]
fn p6_what_is_given_back_takes_the_place_of_nothing() {
    let row = |number: i64| -> Row { (0..COLUMNS as i64).map(|column| Value::Int(number * column)).collect() };
    // What the target has when both have come together: the arriving row, or its own.
    let merged = |from: Side, arriving_returned: bool, other_returned: bool| {
        let mapping = table::mapping(from, Policy::PreferNew, false);
        let (seq, effective, seen) = (1, None, Arc::default());
        let part = Part { seq, before: None, after: Some(row(2)), effective, seen, returned: arriving_returned };
        let opposite = [Concurrent { seq, effective, effect: Effect::Insert, returned: other_returned }];
        let merging = Merging::new(&mapping, Side::New, &opposite).expect("the table is merged");
        let (own, found) = (row(3), Found::default());
        let (merged, _) = merging.merge(Some(&own), &[(&part, 1)], &found).expect("nothing is missing");
        let Merged::Changed(values) = merged else { panic!("{merged:?}") };
        let now: Row = (0..COLUMNS).map(|column| values.get(&column).unwrap_or(&own[column]).clone()).collect();
        now == row(2)
    };
    for side in [Side::Old, Side::New] {
        assert!(merged(side, false, true) && !merged(side, true, false));
        assert_eq!([merged(side, true, true), merged(side, false, false)], [side == Side::New; 2]);
    }
}
