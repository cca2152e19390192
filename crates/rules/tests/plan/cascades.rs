//! What servers change by themselves is in no message, and changes what a batch may do in which order.

use crate::schema::{CHILDREN, KEY, KEYLESS, NICKNAMES, OPAQUE, PARENT, PARENTS, TAG, TREE, mappings, mappings_with};
use crate::shapes::{batch, in_one_transaction, steps};
use crossfade_model::ReferentialAction::{Cascade, Restrict, SetNull};
use crossfade_rules::{Plan, TableMapping, plan};

fn planned(changes: &[(usize, &str, &str)], tables: &[TableMapping], lanes: u16) -> Plan {
    plan(batch(changes), tables, lanes).expect("the batch fits")
}

fn in_one_lane(changes: &[(usize, &str, &str)], tables: &[TableMapping]) -> Vec<String> {
    steps(&planned(changes, tables, 1), 0)
}

fn lanes_of(changes: &[(usize, &str, &str)], tables: &[TableMapping]) -> Vec<Option<u16>> {
    let made = planned(changes, tables, 2);
    (1..=changes.len() as u64).map(|seq| made.lane_of(seq)).collect()
}

/// Children go or lose their parent with it, and nothing follows a new key.
fn only_deletes_cascade() -> Vec<TableMapping> {
    mappings_with(SetNull, Restrict)
}

/// Children follow a new key, and keep their parent from going.
fn only_updates_cascade() -> Vec<TableMapping> {
    mappings_with(Restrict, Cascade)
}

#[test]
fn a_value_that_children_followed_twice_is_changed_twice() {
    let twice = [(PARENTS, "p - a", "p - b"), (PARENTS, "p - b", "p - c")];
    assert_eq!(in_one_lane(&twice, &mappings(Cascade)), ["InOrder: 1 2"]);
    assert_eq!(in_one_lane(&twice, &mappings(Restrict)), ["Update 0: 1+2"]);
    assert_eq!(in_one_lane(&twice[..1], &mappings(Cascade)), ["Update 0: 1"]);
}

#[test]
fn a_parent_that_came_and_went_took_its_children_along() {
    let parent = [(PARENTS, "", "p"), (PARENTS, "p", "")];
    for tables in [mappings(Cascade), only_deletes_cascade(), only_updates_cascade()] {
        assert_eq!(in_one_lane(&parent, &tables), ["InOrder: 1 2"]);
    }
    assert_eq!(in_one_lane(&parent, &mappings(Restrict)), ["Delete 0: 1+2"]);
    assert_eq!(in_one_lane(&[(OPAQUE, "", "o"), (OPAQUE, "o", "")], &mappings(Cascade)), ["InOrder: 1 2"]);
    assert_eq!(in_one_lane(&[(NICKNAMES, "", "k"), (NICKNAMES, "k", "")], &mappings(Cascade)), ["Delete 5: 1+2"]);
}

/// Grandchildren refer to children that may have gone, whichever of the two actions took them.
#[test]
fn what_refers_to_rows_that_may_have_changed_comes_before() {
    let gone = [(OPAQUE, "", "o k"), (PARENTS, "p", "")];
    assert_eq!(in_one_lane(&gone, &only_deletes_cascade()), ["InOrder: 1 2"]);
    let followed = [(OPAQUE, "", "o k"), (PARENTS, "p", "q")];
    assert_eq!(in_one_lane(&followed, &only_updates_cascade()), ["InOrder: 1 2"]);
    for tables in [only_deletes_cascade(), only_updates_cascade()] {
        let free = lanes_of(&[(NICKNAMES, "", "n"), (OPAQUE, "o", "")], &tables);
        assert_ne!(free[0], free[1]);
    }
}

/// Only a write that takes a value can need one that a cascade has freed.
#[test]
fn who_takes_a_value_waits_for_the_cascade_that_may_free_it() {
    let tables = only_deletes_cascade();
    let after = |before, after| lanes_of(&[(PARENTS, "p", ""), (CHILDREN, before, after)], &tables);
    for taking in [after("", "k q"), after("k q", "j q"), after("k q t", "k q u"), after("k q t", "j q u")] {
        assert_eq!(taking[0], taking[1]);
    }
    for free in [after("k q", "k r"), after("k q", ""), after("k q t", "k r t")] {
        assert_ne!(free[0], free[1]);
    }
}

/// InnoDB lets children refer to columns that are no unique key.
#[test]
fn children_may_refer_to_what_is_no_key() {
    let mut tables = mappings(Restrict);
    tables[CHILDREN].parents[0].parent_columns = vec!["parent".to_owned()];
    let new = [(CHILDREN, "", "k x"), (PARENTS, "", "p x"), (TREE, "", "t")];
    let made = planned(&new, &tables, 1);
    assert_eq!(steps(&made, 0), ["Insert 0: 2", "Insert 2: 3", "Insert 1: 1"]);
    let lanes = lanes_of(&[(CHILDREN, "", "k x"), (PARENTS, "", "x y")], &tables);
    assert_ne!(lanes[0], lanes[1], "it does not refer to the parent's key");
}

/// As MySQL from 9.6 writes it: each row as often as it is changed.
#[test]
fn a_parent_comes_before_children_that_refer_to_it_twice() {
    let mut tables = only_updates_cascade();
    let mut second = tables[CHILDREN].parents[0].clone();
    second.columns = vec![TAG];
    tables[CHILDREN].parents.push(second);
    let changes = [(CHILDREN, "k p p", "k q p"), (CHILDREN, "k q p", "k q q"), (PARENTS, "p", "q")];
    assert_eq!(in_one_transaction(&changes, &tables), ["InOrder: 3 1 2"]);
    // Who still refers to the old key when the parent changes is nobody whom it has taken along.
    let changes = [(CHILDREN, "k p p", "k q p"), (CHILDREN, "l q p", "l q q"), (PARENTS, "p", "q")];
    assert_eq!(in_one_transaction(&changes, &tables), ["InOrder: 1 3 2"]);
}

#[test]
fn a_child_that_loses_its_reference_does_not_hide_those_that_follow() {
    let mut tables = only_updates_cascade();
    tables[KEYLESS].parents[0].on_update = SetNull;
    let changes = [(CHILDREN, "k p", "k q"), (KEYLESS, "k p", "k"), (PARENTS, "p", "q")];
    assert_eq!(in_one_transaction(&changes, &tables), ["InOrder: 3 1 2"]);
    let on_purpose = [(CHILDREN, "k p", "k q"), (KEYLESS, "k p", "k r"), (PARENTS, "p", "q")];
    assert_eq!(in_one_transaction(&on_purpose, &tables), ["InOrder: 1 2 3"]);
}

/// Parents of several tenants, by whom children refer to two of them.
#[test]
fn references_to_one_parent_may_share_a_column() {
    let mut tables = only_updates_cascade();
    let names = |columns: [usize; 2]| columns.map(|column| ["id", "parent", "tag"][column].to_owned()).to_vec();
    for columns in [[PARENT, KEY], [PARENT, TAG]] {
        let mut link = tables[NICKNAMES].parents[0].clone();
        (link.columns, link.parent_columns) = (columns.to_vec(), names([PARENT, KEY]));
        tables[CHILDREN].parents.push(link);
    }
    tables[CHILDREN].parents.remove(0);
    let moves = (PARENTS, "p t", "p u");
    assert_eq!(in_one_transaction(&[(CHILDREN, "p t", "p u"), moves], &tables), ["InOrder: 2 1"]);
    assert_eq!(in_one_transaction(&[(CHILDREN, "p t r", "p u r"), moves], &tables), ["InOrder: 2 1"]);
    assert_eq!(in_one_transaction(&[(CHILDREN, "p t r", "p u s"), moves], &tables), ["InOrder: 1 2"]);
}
