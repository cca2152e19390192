//! How fast a plan is made. `cargo run --release -p crossfade-rules --example plan_speed`

use std::sync::Arc;
use std::time::Instant;

use crossfade_model::{Column, ColumnKind, Direction, Origin, RowOp, Seen, TableName, TableShape, UniqueKey, Value};
use crossfade_rules::{MappedChange, Planner, Policy, TableMapping, TableRule};

const CHANGES: u64 = 1_000_000;

fn main() {
    let batch_sizes = [2_000, 50_000, CHANGES];
    for unique in [false, true] {
        let planner = Planner::new(&[mapping(unique)]);
        for size in batch_sizes {
            let batches: Vec<Vec<MappedChange>> =
                (0..CHANGES / size).map(|batch| (0..size).map(|row| update(batch * size + row)).collect()).collect();
            let start = Instant::now();
            let steps: usize = batches
                .into_iter()
                .map(|batch| planner.plan(batch, 4).map_or(0, |plan| plan.lanes.iter().map(|l| l.steps.len()).sum()))
                .sum();
            let per_second = CHANGES as f64 / start.elapsed().as_secs_f64();
            println!("unique e-mail {unique}, batches of {size}: {per_second:.0} changes/s, {steps} steps");
        }
    }
}

fn update(id: u64) -> MappedChange {
    let row = |n: i64| vec![Value::UInt(id), Value::Text(format!("user{id}@example.org")), Value::Int(n)];
    MappedChange {
        seq: id + 1,
        table: 0,
        op: RowOp::Update,
        before: Some(row(1)),
        after: Some(row(2)),
        effective: None,
        seen: Arc::new(Seen::default()),
        transaction: 0,
        origin: Origin::User,
    }
}

fn mapping(unique: bool) -> TableMapping {
    let integer = || ColumnKind::Integer { bytes: 8, unsigned: true };
    let text = ColumnKind::Text { charset: "utf8mb4".to_owned() };
    let email = UniqueKey { name: "email".to_owned(), columns: vec![1], nullable: false, partial: false };
    let shape = TableShape {
        name: TableName::new("app", "users"),
        columns: vec![Column::plain("id", integer()), Column::plain("email", text), Column::plain("n", integer())],
        primary_key: vec![0],
        unique_keys: if unique { vec![email] } else { vec![] },
        foreign_keys: vec![],
        engine: "InnoDB".to_owned(),
    };
    let rule = TableRule::same(shape.name.clone(), None, Policy::PreferNew);
    TableMapping::build(Direction::Forward, &rule, &shape, &shape).unwrap_or_else(|problems| panic!("{problems:?}"))
}
