//! Effective clocks: along a row they never go back while that can matter, however little is remembered.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_model::{
    Clock, Column, ColumnKind, Direction, Row, RowChange, RowOp, TableLayout, TableName, TableShape, Value,
};
use crossfade_rules::moves::undo_clock;
use crossfade_rules::{EffectiveClocks, Policy, TableMapping, TableRule};
use proptest::prelude::*;

use crate::seeded;

const ROWS: i64 = 8;

#[derive(Debug, Clone)]
enum Step {
    /// Changes a row: the version that the user gives it, `None` for a delete, and the key that it moves to, if any; or it goes
    /// back since such a change has lost.
    Change { key: i64, version: Option<i64>, to: Option<i64>, goes_back: bool },
    /// Everything up to so many messages before the last is settled.
    Settle { behind: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (
        0..ROWS,
        prop::option::weighted(0.7, 0..20_i64),
        prop::option::weighted(0.2, 0..ROWS),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(key, version, to, goes_back)| Step::Change { key, version, to, goes_back });
    let settle = (0..30_u64).prop_map(|behind| Step::Settle { behind });
    prop::collection::vec(prop_oneof![8 => change, 1 => settle], 1..80)
}

fn shape() -> TableShape {
    let column = |name: &str| Column::plain(name, ColumnKind::Integer { bytes: 8, unsigned: false });
    TableShape {
        name: TableName::new("app", "users"),
        columns: vec![column("id"), column("version")],
        primary_key: vec![0],
        unique_keys: vec![],
        foreign_keys: vec![],
        engine: "InnoDB".to_owned(),
    }
}

/// A table that its users write to.
struct Table {
    layout: Arc<TableLayout>,
    rows: HashMap<i64, i64>,
}

impl Table {
    fn new(shape: &TableShape) -> Table {
        let layout = TableLayout {
            name: shape.name.clone(),
            columns: shape.columns.iter().map(|column| column.name.as_str().into()).collect(),
            kinds: shape.columns.iter().map(|column| column.kind.clone()).collect(),
            row_key: vec![0],
        };
        Table { layout: Arc::new(layout), rows: HashMap::new() }
    }

    /// The change that the binlog shows, and the keys that it touches; `None` where there is nothing to change.
    fn write(&mut self, key: i64, version: Option<i64>, to: Option<i64>) -> Option<(RowChange, [i64; 2])> {
        let row = |key: i64, version: i64| -> Row { vec![Value::Int(key), Value::Int(version)] };
        let before = self.rows.remove(&key);
        let to = to.filter(|to| before.is_some() && !self.rows.contains_key(to)).unwrap_or(key);
        if let Some(version) = version {
            self.rows.insert(to, version);
        }
        let op = match (before, version) {
            (None, None) => return None,
            (None, _) => RowOp::Insert,
            (_, None) => RowOp::Delete,
            _ => RowOp::Update,
        };
        let to = if op == RowOp::Delete { key } else { to };
        let (before, after) = (before.map(|version| row(key, version)), version.map(|version| row(to, version)));
        Some((RowChange { layout: self.layout.clone(), op, before, after, event_index: 0 }, [key, to]))
    }
}

proptest! {
    #![proptest_config(seeded(4_000))]

    #[test]
    fn p4_clocks_never_go_back_before_they_are_settled(
        steps in steps(),
        memory in 1..5_usize,
        (clock, policy) in prop_oneof![
            Just((Some("version"), Policy::Version)),
            Just((Some("version"), Policy::PreferNew)),
            Just((None, Policy::PreferOld)),
        ],
    ) {
        let shape = shape();
        let rule = TableRule::same(shape.name.clone(), clock, policy);
        let mapping = TableMapping::build(Direction::Forward, &rule, &shape, &shape).expect("the table maps");
        let mut clocks = EffectiveClocks::with_memory(std::slice::from_ref(&mapping), memory);
        let mut table = Table::new(&shape);
        let (mut seq, mut settled) = (0_u64, 0);
        let mut last: HashMap<i64, (u64, Option<Clock>)> = HashMap::new();
        for step in steps {
            match step {
                Step::Settle { behind } => {
                    settled = settled.max(seq.saturating_sub(behind));
                    clocks.settle(settled);
                }
                Step::Change { key, version, to, goes_back } => {
                    let Some((change, keys)) = table.write(key, version, to) else { continue };
                    seq += 1;
                    let at_least = goes_back.then(|| undo_clock(&mapping, None, 0));
                    let effective = clocks.judge_at_least(&change, seq, 0, at_least).effective;
                    prop_assert!(effective >= at_least);
                    let own = change.after.as_ref().or(change.before.as_ref()).map(|row| row[1].clone());
                    let Some(Value::Int(own)) = own else { panic!("a row has a version") };
                    prop_assert!(clock.is_none() || effective >= Some(Clock(own)));
                    for key in keys {
                        if let Some((earlier, before)) = last.insert(key, (seq, effective)) {
                            prop_assert!(earlier <= settled || effective >= before, "{earlier}, {seq} of row {key}");
                        }
                    }
                }
            }
        }
    }
}
