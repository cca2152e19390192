//! P7: who must wait behind a change that is set aside, and who need not.

use crate::schema::{CHILDREN, KEYLESS, NICKNAMES, PARENTS, TREE, mappings};
use crate::shapes::row;
use crossfade_model::ReferentialAction;
use crossfade_rules::{Dependence, Dependences, Planner};

fn planner() -> Planner {
    Planner::new(&mappings(ReferentialAction::Restrict))
}

fn of(table: usize, before: &str, after: &str) -> Dependence {
    planner().dependence(table, row(before).as_ref(), row(after).as_ref())
}

fn waits(aside: &Dependence, later: &Dependence) -> bool {
    let mut dependences = Dependences::default();
    dependences.add(aside);
    assert!(!dependences.is_empty());
    dependences.holds_back(later)
}

#[test]
fn changes_of_one_row_wait_and_those_of_others_go_on() {
    let update = of(PARENTS, "p", "p");
    assert!(waits(&update, &of(PARENTS, "p", "")));
    assert!(waits(&update, &of(PARENTS, "P", "P")), "the server may take both keys for one");
    assert!(!waits(&update, &of(PARENTS, "q", "q")));
    assert!(!waits(&update, &of(TREE, "p", "p")), "a row of another table");
    let moved = of(PARENTS, "p", "q");
    assert!(waits(&moved, &of(PARENTS, "p", "p")) && waits(&moved, &of(PARENTS, "", "q")));
}

#[test]
fn who_needs_a_unique_value_waits_for_who_has_it_or_gives_it_up() {
    let taken = of(PARENTS, "", "p - mail");
    assert!(waits(&taken, &of(PARENTS, "", "q - mail")));
    assert!(!waits(&taken, &of(PARENTS, "", "q - post")));
    assert!(waits(&of(PARENTS, "p - mail", "p - post"), &of(PARENTS, "q", "q - mail")));
    assert!(!waits(&of(PARENTS, "", "p"), &of(PARENTS, "", "q")), "NULLs are not equal");
}

#[test]
fn a_child_waits_for_its_parent_and_only_while_that_is_not_there() {
    let parent = of(PARENTS, "", "p");
    assert!(waits(&parent, &of(CHILDREN, "", "k p")));
    assert!(waits(&parent, &of(CHILDREN, "k q", "k p")), "it comes to the parent");
    assert!(!waits(&parent, &of(CHILDREN, "k p", "k q")), "it leaves the parent");
    assert!(!waits(&parent, &of(CHILDREN, "", "k q")));
    assert!(!waits(&of(PARENTS, "p", "p"), &of(CHILDREN, "", "k p")), "the parent is there whatever becomes of this");
    assert!(waits(&of(PARENTS, "o", "p"), &of(CHILDREN, "", "k p")), "it has to get its key first");
    assert!(waits(&of(PARENTS, "p - n", "p - m"), &of(NICKNAMES, "", "k m")), "children may refer to any unique key");
    assert!(!waits(&of(CHILDREN, "", "p"), &of(CHILDREN, "", "k p")), "a row of another table is no parent");
}

#[test]
fn a_parent_stays_until_its_child_has_left() {
    let child = of(CHILDREN, "k p", "");
    assert!(waits(&child, &of(PARENTS, "p", "")));
    assert!(waits(&child, &of(PARENTS, "p", "q")), "it gives its key up");
    assert!(!waits(&child, &of(PARENTS, "p", "p")));
    assert!(!waits(&child, &of(PARENTS, "q", "")));
    assert!(waits(&of(CHILDREN, "", "k p"), &of(PARENTS, "p", "")), "it may have come in the meantime");
}

#[test]
fn what_takes_others_along_stands_for_them() {
    let alone = of(PARENTS, "o", "");
    let with_others = alone.clone().and(&of(PARENTS, "p", "")).and(&of(CHILDREN, "l o", "k q"));
    assert!(waits(&of(CHILDREN, "", "k p"), &with_others) && !waits(&of(CHILDREN, "", "k p"), &alone));
    assert!(waits(&of(CHILDREN, "l r", "l r"), &with_others), "it is of the same row");
    assert!(waits(&of(PARENTS, "", "q"), &with_others), "a parent that is needed is not there");
    assert!(waits(&with_others, &of(PARENTS, "p", "p")), "who is taken along waits with it");
    assert!(waits(&of(PARENTS, "", "q").and(&alone), &of(CHILDREN, "", "m q")), "what it brings is needed");
    assert!(with_others.tokens().count() > alone.tokens().count());
}

#[test]
fn any_two_changes_of_a_table_without_a_key_may_be_of_one_row() {
    assert!(waits(&of(KEYLESS, "", "a"), &of(KEYLESS, "b", "")));
    assert!(!waits(&of(KEYLESS, "", "a"), &of(TREE, "", "a")));
}

#[test]
fn what_is_taken_out_holds_nobody_back() {
    let (first, second) = (of(CHILDREN, "", "k p t"), of(CHILDREN, "k p t", "k p u"));
    let (same_row, parent) = (of(CHILDREN, "k p", ""), of(PARENTS, "p", ""));
    let brought = of(PARENTS, "", "r");
    let mut dependences = Dependences::default();
    assert!(dependences.is_empty());
    [&first, &second, &brought].into_iter().for_each(|aside| dependences.add(aside));
    dependences.remove(&second);
    assert!(dependences.holds_back(&same_row) && dependences.holds_back(&parent), "the first is still there");
    assert!(!dependences.holds_back(&of(CHILDREN, "", "z q u")));
    dependences.remove(&first);
    assert!(!dependences.holds_back(&same_row) && !dependences.holds_back(&parent));
    assert!(dependences.holds_back(&of(CHILDREN, "", "k r")) && !dependences.is_empty());
    dependences.remove(&brought);
    dependences.remove(&brought);
    assert!(dependences.is_empty() && !dependences.holds_back(&of(CHILDREN, "", "k r")));
}

#[test]
fn a_change_names_what_ties_it() {
    let (parent, child) = (of(PARENTS, "p", ""), of(CHILDREN, "k p", ""));
    assert_eq!(parent.given_up(), child.parents());
    assert!(!child.parents().is_empty() && parent.parents().is_empty() && of(PARENTS, "p", "p").given_up().is_empty());
    let tokens: Vec<u64> = child.tokens().collect();
    assert!(tokens.len() == 2 && tokens == [child.keys(), child.parents()].concat(), "its own key and its parent's");
    assert_eq!(of(99, "p", "").tokens().count(), 0, "no such table");
}

#[test]
fn who_refers_to_a_parent_wants_what_that_parent_offers() {
    let planner = planner();
    let keys: Vec<_> = planner.foreign_keys(CHILDREN).collect();
    let key = keys.iter().find(|key| key.parent == PARENTS).expect("children have parents");
    let wanted = |child: &str| key.wanted(&row(child).expect("a row"));
    let parent = row("p").expect("a row");
    let values: Vec<_> = key.referred.iter().map(|column| parent[*column].clone()).collect();
    assert!(wanted("k p").is_some());
    assert_eq!(
        (wanted("k p"), wanted("m P")),
        (key.offered(&values), key.offered(&values)),
        "whoever asks, however spelled"
    );
    assert_ne!(wanted("k q"), key.offered(&values));
    assert_eq!(wanted("k"), None, "it refers to none");
    assert_eq!(planner.foreign_keys(99).count(), 0, "no such table");
}
