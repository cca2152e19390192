//! What becomes of a late change: one that was made where the other side had [authority](crate::authority) over its row.
//!
//! It is written nowhere but in columns that may still change on its side. As the row is then where it counts, it goes back. The
//! proof that both sides end equal rests on the last late change of a row: whoever made it had either seen all that the
//! other side had done by then, so what he had is known, and [what differs](Answer::Rest) goes back; or he had not, and
//! [all of the row](Answer::Whole) goes back, behind everything that is still on its way to him.

use std::collections::BTreeMap;

use crossfade_model::{Row, Value};

use crate::clock::clock_of;
use crate::mapping::TableMapping;

/// What of a late update crosses. Columns are places in the mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crossing {
    /// Columns that may change where it was made, and that only it has changed.
    pub crossed: Vec<usize>,
    /// What is neither allowed nor the same on both sides anyway.
    pub lost: Vec<usize>,
    /// What is written: values of these columns, and of those that change with every update.
    pub values: BTreeMap<usize, Value>,
}

/// What goes back to the side of a late update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It has the row already.
    Nothing,
    /// The row, as a change of what the late update has left.
    Rest,
    /// The row, in the place of whatever is there.
    Whole,
}

impl Answer {
    /// `has_seen_all`: nothing that users had done where the row counts is concurrent with the late update. `is_same`: the row is
    /// there as the late update has left it.
    pub fn to(has_seen_all: bool, is_same: bool) -> Answer {
        match (has_seen_all, is_same) {
            (true, true) => Answer::Nothing,
            (true, false) => Answer::Rest,
            (false, _) => Answer::Whole,
        }
    }
}

/// What crosses of an update from `before` to `after` to the row that is `there`. `is_same` compares a value of that row with one
/// of an image.
pub fn crossing(
    mapping: &TableMapping,
    allowed: &[usize],
    (before, after): (&Row, &Row),
    there: &Row,
    is_same: impl Fn(&Value, &Value) -> bool,
) -> Crossing {
    let mut crossing = Crossing::default();
    let changed: Vec<usize> = (0..after.len()).filter(|column| before[*column] != after[*column]).collect();
    for column in changed.iter().copied().filter(|column| !mapping.is_incidental(*column)) {
        let is_there = is_same(&there[column], &after[column]);
        if allowed.contains(&column) && (is_there || is_same(&there[column], &before[column])) {
            crossing.crossed.push(column);
            if !is_there {
                crossing.values.insert(column, after[column].clone());
            }
        } else if !is_there {
            crossing.lost.push(column);
        }
    }
    if crossing.crossed.is_empty() && !crossing.lost.is_empty() {
        return crossing;
    }
    for column in changed.into_iter().filter(|column| mapping.is_incidental(*column)) {
        let clock = mapping.clock.as_ref().filter(|clock| clock.index == column);
        let is_later = clock.is_some_and(|clock| clock_of(clock, &after[column]) > clock_of(clock, &there[column]));
        if is_later || is_same(&there[column], &before[column]) {
            crossing.values.insert(column, after[column].clone());
        }
    }
    crossing
}

/// The row that an update writes which wins over late ones: of these columns, which may change at the target, those that it leaves as
/// they were are as they were `found` there. `written` is the row that it would write else.
pub fn kept((before, after): (&Row, &Row), written: &Row, columns: &[usize], found: &Row) -> Row {
    let mut row = written.clone();
    for column in columns.iter().filter(|column| before[**column] == after[**column]) {
        row[*column] = found[*column].clone();
    }
    row
}
