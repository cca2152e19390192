//! The table that is merged: one column for each rule, and one more that follows the newer change.

use std::collections::BTreeMap;

use crossfade_model::{Column, ColumnKind, Direction, MergeRule, Row, Side, TableName, TableShape, Value};
use crossfade_rules::{Policy, TableMapping, TableRule};

pub const KEYS: usize = 2;

pub const ID: usize = 0;
pub const A: usize = 1;
pub const B: usize = 2;
pub const MOST: usize = 3;
pub const LEAST: usize = 4;
pub const SUM: usize = 5;
pub const CLOCK: usize = 6;
const NAMES: [&str; 7] = ["id", "a", "b", "most", "least", "sum", "clock"];
pub const COLUMNS: usize = NAMES.len();

pub fn rules(has_bounds: bool) -> [MergeRule; COLUMNS] {
    let mut rules = [MergeRule::Newer; COLUMNS];
    rules[SUM] = MergeRule::SumDelta;
    if has_bounds {
        (rules[MOST], rules[LEAST]) = (MergeRule::Max, MergeRule::Min);
    }
    rules
}

fn integer() -> ColumnKind {
    ColumnKind::Integer { bytes: 8, unsigned: false }
}

fn shape() -> TableShape {
    let column = |name: &str| Column::plain(name, integer());
    TableShape {
        name: TableName::new("app", "t"),
        columns: NAMES.map(column).into(),
        primary_key: vec![ID],
        unique_keys: vec![],
        foreign_keys: vec![],
        engine: "InnoDB".to_owned(),
    }
}

/// The mapping away from a side. The clock is a number that users may set as they like.
pub fn mapping(side: Side, policy: Policy, has_bounds: bool) -> TableMapping {
    let direction = if side == Side::Old { Direction::Forward } else { Direction::Reverse };
    let rules = rules(has_bounds);
    let named = (0..COLUMNS).filter(|column| rules[*column] != MergeRule::Newer);
    let merge: BTreeMap<String, MergeRule> = named.map(|column| (NAMES[column].to_owned(), rules[column])).collect();
    let rule = TableRule::same(TableName::new("app", "t"), Some(NAMES[CLOCK]), policy);
    let mapping = TableMapping::build(direction, &TableRule { merge: Some(merge), ..rule }, &shape(), &shape());
    let mapping = mapping.expect("the table maps");
    assert_eq!(mapping.merge.as_deref(), Some(&rules[..]));
    mapping
}

/// What both sides have at first: the first key's row.
pub fn first_row() -> Row {
    [0, 10, 20, 30, 40, 50, 0].map(Value::Int).into()
}

pub fn number(row: &Row, column: usize) -> i64 {
    match row[column] {
        Value::Int(number) => number,
        ref other => panic!("a number in column {column}, not {other:?}"),
    }
}

pub fn key_of(row: &Row) -> usize {
    number(row, ID) as usize
}
