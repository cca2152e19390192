//! P4: effective clocks never go back along a row, whatever is forgotten.

use std::sync::Arc;

use crossfade_model::{
    Clock, Column, ColumnKind, Direction, Message, Origin, Row, RowChange, RowOp, TableLayout, TableName, TableShape,
    Value,
};
use crossfade_rules::moves::{UNDONE, undo_clock};
use crossfade_rules::{EffectiveClocks, Policy, TableMapping, TableRule};

fn mapping(table: &str, clock: Option<&str>) -> TableMapping {
    let shape = TableShape {
        name: TableName::new("app", table),
        columns: vec![
            Column::plain("name", ColumnKind::Text { charset: "utf8mb4".to_owned() }),
            Column::plain("version", ColumnKind::Integer { bytes: 8, unsigned: false }),
        ],
        primary_key: vec![0],
        unique_keys: vec![],
        foreign_keys: vec![],
        engine: "InnoDB".to_owned(),
    };
    let policy = if clock.is_some() { Policy::Version } else { Policy::PreferOld };
    let rule = TableRule::same(shape.name.clone(), clock, policy);
    TableMapping::build(Direction::Forward, &rule, &shape, &shape).expect("the table maps")
}

fn mappings() -> [TableMapping; 3] {
    [mapping("users", Some("version")), mapping("orders", Some("version")), mapping("clockless", None)]
}

fn layout(table: &str) -> Arc<TableLayout> {
    let columns = vec!["NAME".into(), "version".into()];
    let kinds = vec![ColumnKind::Text { charset: "utf8mb4".to_owned() }, ColumnKind::Json];
    Arc::new(TableLayout { name: TableName::new("app", table), columns, kinds, row_key: vec![0] })
}

type Image<'a> = Option<(&'a str, i64)>;

fn change(table: &str, before: Image<'_>, after: Image<'_>) -> RowChange {
    let row = |(name, version): (&str, i64)| -> Row { vec![Value::Text(name.to_owned()), Value::Int(version)] };
    let op = match (before, after) {
        (None, _) => RowOp::Insert,
        (_, None) => RowOp::Delete,
        _ => RowOp::Update,
    };
    RowChange { layout: layout(table), op, before: before.map(row), after: after.map(row), event_index: 0 }
}

/// One stream's capture.
struct Capture {
    clocks: EffectiveClocks,
    seq: u64,
}

impl Capture {
    fn new(rows: usize) -> Capture {
        Capture { clocks: EffectiveClocks::with_memory(&mappings(), rows), seq: 0 }
    }

    fn judge(&mut self, table: &str, before: Image<'_>, after: Image<'_>) -> Option<i64> {
        self.seq += 1;
        let judged = self.clocks.judge_at_least(&change(table, before, after), self.seq, 0, None);
        judged.effective.map(|clock| clock.0)
    }

    fn users(&mut self, before: Image<'_>, after: Image<'_>) -> Option<i64> {
        self.judge("users", before, after)
    }
}

#[test]
fn a_row_that_comes_back_is_not_older_than_its_end() {
    let mut capture = Capture::new(100);
    assert_eq!(capture.users(Some(("a", 7)), None), Some(8));
    assert_eq!(capture.users(None, Some(("a", 0))), Some(8));
    assert_eq!(capture.users(Some(("a", 0)), Some(("a", 1))), Some(8));
    assert_eq!(capture.users(None, Some(("b", 0))), Some(0), "another row");
    assert_eq!(capture.judge("orders", None, Some(("a", 0))), Some(0), "another table");
}

#[test]
fn the_before_image_counts() {
    let mut capture = Capture::new(100);
    assert_eq!(capture.users(Some(("a", 7)), Some(("a", 3))), Some(7));
}

/// The delete and the insert are of one row to a server whose collation says so.
#[test]
fn keys_that_a_server_may_call_equal_share_their_clock() {
    let mut capture = Capture::new(100);
    assert_eq!(capture.users(Some(("Ada", 7)), None), Some(8));
    assert_eq!(capture.users(None, Some(("ada ", 0))), Some(8));
}

#[test]
fn a_moved_row_takes_its_clock_along_and_leaves_it_behind() {
    let mut capture = Capture::new(100);
    assert_eq!(capture.users(Some(("x", 20)), None), Some(21));
    assert_eq!(capture.users(Some(("a", 7)), Some(("x", 3))), Some(21), "what was there before it counts");
    assert_eq!(capture.users(None, Some(("a", 0))), Some(21));
    assert_eq!(capture.users(Some(("x", 3)), Some(("x", 4))), Some(21));
}

#[test]
fn what_has_no_clock_or_is_not_synced_has_none() {
    let mut capture = Capture::new(100);
    assert_eq!(capture.judge("clockless", None, Some(("a", 3))), None);
    assert_eq!(capture.judge("unknown", None, Some(("a", 3))), None);
    let judged = capture.clocks.judge_at_least(&change("clockless", Some(("a", 3)), Some(("b", 3))), 9, 0, None);
    assert!(judged.key_hashes[0] != judged.key_hashes[1] && judged.key_hashes[0] != 0, "its rows are found by key");
    let judged = capture.clocks.judge_at_least(&change("unknown", None, Some(("b", 3))), 10, 0, None);
    assert_eq!(judged.key_hashes, [0; 2]);
}

/// Under a policy that compares no clocks.
#[test]
fn what_follows_a_row_that_went_back_goes_before_the_policy_until_that_is_settled() {
    let mut capture = Capture::new(100);
    let goes_back = capture.clocks.judge_at_least(&change("clockless", None, Some(("a", 1))), 1, 0, Some(UNDONE));
    assert_eq!(goes_back.effective, Some(UNDONE));
    capture.seq = 1;
    let undone = Some(UNDONE.0);
    assert!(capture.clocks.is_to_be_settled());
    assert_eq!(capture.judge("clockless", Some(("a", 1)), Some(("a", 2))), undone);
    assert_eq!(capture.judge("clockless", Some(("b", 1)), Some(("b", 2))), None, "another row");
    assert_eq!(capture.judge("clockless", Some(("a", 2)), Some(("c", 2))), undone, "it may be concurrent with both");
    capture.clocks.settle(3);
    assert!(capture.clocks.is_to_be_settled(), "not all that went before the policy is settled");
    assert_eq!(capture.judge("clockless", Some(("c", 2)), None), undone);
    capture.clocks.settle(5);
    assert!(!capture.clocks.is_to_be_settled());
    assert_eq!(capture.judge("clockless", None, Some(("c", 3))), None);
    assert_eq!(capture.judge("clockless", None, Some(("a", 3))), None);
}

#[test]
fn a_row_whose_going_back_is_settled_follows_the_policy_while_another_does_not() {
    let mut capture = Capture::new(100);
    assert_eq!((goes_back(&mut capture, "a"), goes_back(&mut capture, "b")), (Some(UNDONE.0), Some(UNDONE.0)));
    capture.clocks.settle(1);
    assert_eq!(capture.judge("clockless", Some(("a", 1)), Some(("a", 2))), None);
    assert_eq!(capture.judge("clockless", Some(("b", 1)), Some(("b", 2))), Some(UNDONE.0));
}

/// Where clocks are compared, what goes back has one; else it goes before the policy.
#[test]
fn what_goes_back_has_a_clock_where_clocks_are_compared() {
    let [timed, .., clockless] = mappings();
    let preferring = TableMapping { policy: Policy::PreferNew, ..timed.clone() };
    let lost = Some(Clock(7));
    assert!(undo_clock(&timed, lost, 0) > Clock(7) && undo_clock(&timed, lost, 0) != UNDONE);
    assert_eq!((undo_clock(&preferring, lost, 0), undo_clock(&clockless, None, 0)), (UNDONE, UNDONE));
}

/// What came back under a policy that compares no clocks.
fn goes_back(capture: &mut Capture, name: &str) -> Option<i64> {
    capture.seq += 1;
    let change = change("clockless", None, Some((name, 1)));
    capture.clocks.judge_at_least(&change, capture.seq, 0, Some(UNDONE)).effective.map(|clock| clock.0)
}

#[test]
fn what_went_back_is_not_forgotten_for_other_rows() {
    let undone = Some(UNDONE.0);
    let mut capture = Capture::new(2);
    assert_eq!(goes_back(&mut capture, "a"), undone);
    for name in ["b", "c", "d", "e", "f", "g"] {
        capture.users(None, Some((name, 1)));
        capture.judge("clockless", None, Some((name, 1)));
    }
    assert_eq!(capture.judge("clockless", None, Some(("new", 1))), None, "for this row the policy stands");
    assert_eq!(capture.judge("clockless", Some(("a", 1)), None), undone);
    assert_eq!(capture.users(None, Some(("h", 0))), Some(1), "clocks are forgotten as ever");
}

/// Of more rows than are remembered, each may be one of those that were forgotten.
#[test]
fn of_too_many_that_went_back_all_of_their_table_go_before_the_policy() {
    let undone = Some(UNDONE.0);
    for (settled, expected) in [(0, undone), (1, undone), (2, None)] {
        let mut capture = Capture::new(2);
        for name in ["a", "b", "c", "d"] {
            assert_eq!(goes_back(&mut capture, name), undone);
        }
        capture.clocks.settle(settled);
        assert_eq!(capture.judge("clockless", None, Some(("new", 1))), expected, "{settled} settled");
    }
}

#[test]
fn what_went_back_and_is_settled_makes_nothing_forgotten() {
    let mut capture = Capture::new(3);
    goes_back(&mut capture, "a");
    goes_back(&mut capture, "b");
    capture.clocks.settle(2);
    for name in ["c", "d"] {
        goes_back(&mut capture, name);
    }
    for name in ["e", "f"] {
        assert_eq!(goes_back(&mut capture, name), Some(UNDONE.0));
    }
    assert_eq!(capture.judge("clockless", None, Some(("new", 1))), None);
}

#[test]
fn a_process_goes_on_where_the_one_before_it_ended() {
    let message = |seq, before, after, effective| Message {
        seq,
        change: change("users", before, after),
        origin: Origin::User,
        seen: Arc::default(),
        committed_at_micros: 0,
        source_position: "".into(),
        effective: Some(Clock(effective)),
    };
    let mut capture = Capture::new(100);
    capture.clocks.remember(&[message(1, Some(("a", 7)), None, 50), message(2, None, Some(("b", 1)), 60)]);
    capture.seq = 2;
    assert_eq!(capture.users(None, Some(("a", 0))), Some(50));
    assert_eq!(capture.users(Some(("b", 1)), Some(("b", 2))), Some(60));
}

#[test]
fn what_was_forgotten_too_early_stands_for_every_row_of_its_table() {
    let mut capture = Capture::new(2);
    assert_eq!(capture.users(Some(("a", 7)), None), Some(8));
    for name in ["b", "c", "d"] {
        capture.users(None, Some((name, 1)));
    }
    assert_eq!(capture.users(Some(("d", 1)), Some(("d", 2))), Some(2), "a row that is remembered");
    assert_eq!(capture.users(None, Some(("new", 0))), Some(8), "it might be the row that was forgotten");
    assert_eq!(capture.judge("orders", None, Some(("a", 0))), Some(0), "another table");
    capture.clocks.settle(1);
    assert_eq!(capture.users(None, Some(("newer", 0))), Some(8), "more than the first message was forgotten");
    capture.clocks.settle(capture.seq);
    assert_eq!(capture.users(None, Some(("newest", 0))), Some(0));
}

#[test]
fn what_is_settled_may_be_forgotten() {
    let mut capture = Capture::new(2);
    assert_eq!(capture.users(Some(("a", 7)), None), Some(8));
    assert!(capture.clocks.is_to_be_settled());
    capture.clocks.settle(1);
    assert!(!capture.clocks.is_to_be_settled(), "once is enough");
    for name in ["b", "c", "d", "e"] {
        capture.users(None, Some((name, 1)));
    }
    assert_eq!(capture.users(None, Some(("a", 0))).filter(|clock| *clock >= 8), None);
    capture.users(None, Some(("f", 1)));
    assert!(capture.clocks.is_to_be_settled(), "and again when there is more");
}

#[test]
fn what_was_lost_counts_until_its_last_message_is_settled() {
    for (settled, expected) in [(0, 8), (1, 8), (2, 0)] {
        let mut capture = Capture::new(2);
        capture.users(Some(("a", 7)), None);
        for name in ["b", "c", "d"] {
            capture.users(None, Some((name, 0)));
        }
        capture.clocks.settle(settled);
        assert_eq!(
            capture.users(None, Some(("a", 0))),
            Some(expected),
            "the first two were forgotten, {settled} settled"
        );
    }
}

#[test]
fn it_is_time_to_settle_when_half_of_the_memory_is_used() {
    let mut capture = Capture::new(9);
    for name in ["a", "b", "c"] {
        capture.users(None, Some((name, 0)));
        assert!(!capture.clocks.is_to_be_settled());
    }
    capture.users(None, Some(("d", 0)));
    assert!(capture.clocks.is_to_be_settled());
}

#[test]
fn rows_changed_again_and_again_are_not_forgotten() {
    let mut capture = Capture::new(3);
    assert_eq!(capture.users(Some(("a", 7)), None), Some(8));
    for round in 0..20 {
        assert_eq!(capture.users(None, Some(("a", 0))), Some(8));
        capture.users(None, Some((if round % 2 == 0 { "b" } else { "c" }, 100)));
        assert_eq!(capture.users(Some(("a", 0)), None), Some(8));
    }
}
