//! What the rows must be in the end, from the two logs alone: the definition at the head of `crossfade_rules::merge`, word
//! by word, without any of its code.

use std::collections::BTreeSet;

use crossfade_model::{Clock, MergeRule, Row, RowOp, Value};
use crossfade_rules::{Event, LastConcurrent, Verdict, decide};

use crate::table::{COLUMNS, first_row, key_of, number};
use crate::world::{Message, Rules, SIDES};

/// One message at one key.
struct Entry<'a> {
    side: usize,
    /// In the side's log, from 1.
    seq: u64,
    op: RowOp,
    before: Option<&'a Row>,
    after: Option<&'a Row>,
    effective: Option<Clock>,
    /// Opposite messages that had taken effect where it was written.
    saw: &'a BTreeSet<u64>,
}

impl Entry<'_> {
    fn writes(&self, column: usize) -> bool {
        match self.op {
            RowOp::Insert => true,
            RowOp::Update => self.before.map(|row| &row[column]) != self.after.map(|row| &row[column]),
            RowOp::Delete => false,
        }
    }
}

pub fn row_of(key: usize, logs: [&[Message]; 2], rules: &Rules) -> Option<Row> {
    let logs = [entries(key, 0, logs[0]), entries(key, 1, logs[1])];
    let last = |which: &dyn Fn(&Entry) -> bool| {
        let [old, new] = [0, 1].map(|side: usize| logs[side].iter().rev().find(|entry| which(entry)));
        later(old, new, rules)
    };
    let exists = match last(&|_| true) {
        None => key == 0,
        Some(Latest::One(entry) | Latest::Won(entry, _)) => entry.op != RowOp::Delete,
    };
    if !exists {
        return None;
    }
    let value = |column: usize| match rules.columns[column] {
        MergeRule::SumDelta => sum(column, last(&|entry| entry.op == RowOp::Insert), &logs),
        rule => match last(&|entry| entry.writes(column)) {
            None => first_row()[column].clone(),
            Some(Latest::One(entry)) => written(entry, column),
            Some(Latest::Won(winner, loser)) => {
                let both = [written(winner, column), written(loser, column)];
                let [a, b] = [winner, loser].map(|entry| number(entry.after.expect("a writer"), column));
                match rule {
                    MergeRule::Max if b > a => both[1].clone(),
                    MergeRule::Min if b < a => both[1].clone(),
                    _ => both[0].clone(),
                }
            }
        },
    };
    Some((0..COLUMNS).map(value).collect())
}

fn written(entry: &Entry, column: usize) -> Value {
    entry.after.expect("a writer")[column].clone()
}

fn entries(key: usize, side: usize, log: &[Message]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for (message, seq) in log.iter().zip(1..) {
        let at_key = |row: &&Row| key_of(row) == key;
        let (before, after) = (message.before.as_ref().filter(at_key), message.after.as_ref().filter(at_key));
        let op = match (before, after) {
            (None, None) => continue,
            (None, Some(_)) => RowOp::Insert,
            (Some(_), None) => RowOp::Delete,
            (Some(_), Some(_)) => RowOp::Update,
        };
        entries.push(Entry { side, seq, op, before, after, effective: message.effective, saw: &message.saw });
    }
    entries
}

/// Of two changes the one that counts.
enum Latest<'e, 'a> {
    /// There is no other, or it has seen the other.
    One(&'e Entry<'a>),
    /// And the one that it has won against.
    Won(&'e Entry<'a>, &'e Entry<'a>),
}

fn later<'e, 'a>(old: Option<&'e Entry<'a>>, new: Option<&'e Entry<'a>>, rules: &Rules) -> Option<Latest<'e, 'a>> {
    let (old, new) = match (old, new) {
        (None, None) => return None,
        (Some(one), None) | (None, Some(one)) => return Some(Latest::One(one)),
        (Some(old), Some(new)) => (old, new),
    };
    if old.saw.contains(&new.seq) {
        return Some(Latest::One(old));
    }
    if new.saw.contains(&old.seq) {
        return Some(Latest::One(new));
    }
    let event = Event {
        side: SIDES[0],
        effective: old.effective,
        returned: false,
        authority: crossfade_rules::Authority::Shared,
    };
    let other = LastConcurrent {
        seq: new.seq,
        effective: new.effective,
        op: new.op,
        returned: false,
        authority: crossfade_rules::Authority::Shared,
    };
    Some(match decide(&event, Some(&other), rules.policy, rules.prefer) {
        Verdict::Write(_) => Latest::Won(old, new),
        Verdict::Lose(_) => Latest::Won(new, old),
    })
}

fn sum(column: usize, base: Option<Latest>, logs: &[Vec<Entry>; 2]) -> Value {
    let base = base.map(|(Latest::One(entry) | Latest::Won(entry, _))| entry);
    let begin =
        base.map_or_else(|| number(&first_row(), column), |base| number(base.after.expect("an insert"), column));
    let is_past =
        |entry: &Entry| {
            base.is_some_and(|base| {
                if entry.side == base.side { entry.seq <= base.seq } else { base.saw.contains(&entry.seq) }
            })
        };
    let added = logs.iter().flatten().filter(|entry| entry.op == RowOp::Update && !is_past(entry)).map(|entry| {
        number(entry.after.expect("an update"), column) - number(entry.before.expect("an update"), column)
    });
    Value::Int(begin + added.sum::<i64>())
}
