//! What maps, what does not, and what is said about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossfade_model::{
    Clock, Column, ColumnKind, Direction, FamilyPolicy, ForeignKey, MergeRule, ReferentialAction, Side, TableLayout,
    TableName, TableShape, UniqueKey, Value,
};
use crossfade_rules::mapping::{ClockKind, Severity, plan_hash, rules_hash};
use crossfade_rules::{MappingProblem, Policy, RulesError, TableMapping, TableRule};

fn column(name: &str, declared: &str, kind: ColumnKind) -> Column {
    Column { declared: declared.to_owned(), ..Column::plain(name, kind) }
}

fn integer(name: &str, bytes: u8) -> Column {
    column(name, "int", ColumnKind::Integer { bytes, unsigned: false })
}

fn text(name: &str, declared: &str, charset: &str) -> Column {
    column(name, declared, ColumnKind::Text { charset: charset.to_owned() })
}

fn stamp(name: &str, fraction_digits: u8) -> Column {
    let mut stamp = column(name, "timestamp", ColumnKind::Timestamp { fraction_digits });
    stamp.on_update_now = true;
    stamp
}

fn table(columns: Vec<Column>) -> TableShape {
    TableShape {
        name: TableName::new("app", "users"),
        columns,
        primary_key: vec![0],
        unique_keys: vec![],
        foreign_keys: vec![],
        engine: "InnoDB".to_owned(),
    }
}

fn users() -> TableShape {
    table(vec![integer("id", 4), text("email", "varchar(190)", "utf8mb4"), stamp("updated_at", 6)])
}

fn rule() -> TableRule {
    TableRule::same(TableName::new("app", "users"), Some("updated_at"), Policy::Newest)
}

fn build(rule: &TableRule, old: &TableShape, new: &TableShape) -> Result<TableMapping, Vec<MappingProblem>> {
    TableMapping::build(Direction::Forward, rule, old, new)
}

fn codes(problems: &[MappingProblem]) -> Vec<&'static str> {
    problems.iter().map(MappingProblem::code).collect()
}

/// The codes of what is found, and whether it maps.
fn found(old: &TableShape, new: &TableShape) -> (Vec<&'static str>, bool) {
    match build(&rule(), old, new) {
        Ok(mapping) => (codes(&mapping.warnings), true),
        Err(problems) => (codes(&problems), false),
    }
}

#[test]
fn a_table_maps_to_its_twin_whole() {
    let mapping = build(&rule(), &users(), &users()).expect("it maps");
    assert_eq!(mapping.warnings, []);
    assert_eq!(mapping.columns.iter().map(|c| c.target.as_str()).collect::<Vec<_>>(), ["id", "email", "updated_at"]);
    assert_eq!((mapping.row_key.as_slice(), mapping.keyless, mapping.in_order), (&[0][..], false, false));
    let clock = mapping.clock.expect("it has a clock");
    assert_eq!((clock.index, clock.kind), (2, ClockKind::Time { fraction_digits: 6 }));
    assert!(mapping.strict_clock);
}

#[test]
fn columns_are_matched_by_name_and_rename() {
    let mut new = users();
    new.columns.rotate_right(1);
    new.columns[2].name = "Mail".to_owned();
    new.primary_key = vec![1];
    let mut renamed = rule();
    renamed.renamed.insert("email".to_owned(), "mail".to_owned());
    for direction in [Direction::Forward, Direction::Reverse] {
        let (source, target) =
            if direction == Direction::Forward { (users(), new.clone()) } else { (new.clone(), users()) };
        let mapping = TableMapping::build(direction, &renamed, &source, &target).expect("it maps");
        assert_eq!(mapping.warnings, []);
        assert_eq!(mapping.columns.len(), 3);
        let key = &mapping.columns[mapping.row_key[0]];
        assert_eq!((key.source.as_str(), key.target.as_str()), ("id", "id"));
        let mail = mapping.columns.iter().find(|c| c.target.eq_ignore_ascii_case("mail") || c.target == "email");
        let mail = mail.expect("the renamed column is carried");
        assert_ne!(mail.source, mail.target);
        assert_eq!(mapping.identity, renamed.old);
    }
    assert_eq!(
        codes(&build(&rule(), &users(), &new).expect_err("nothing fills Mail")),
        ["column-unfilled", "column-dropped"]
    );
}

#[test]
fn a_rename_of_nothing_is_an_error() {
    let mut renamed = rule();
    renamed.renamed = BTreeMap::from([("gone".to_owned(), "lost".to_owned())]);
    let problems = build(&renamed, &users(), &users()).expect_err("both names are wrong");
    assert_eq!(codes(&problems), ["renamed-column-missing"; 2]);
}

#[test]
fn a_column_that_the_source_lacks_must_fill_itself() {
    let with = |change: fn(&mut Column)| {
        let mut new = users();
        let mut extra = integer("extra", 4);
        change(&mut extra);
        new.columns.push(extra);
        found(&users(), &new)
    };
    assert_eq!(with(|_| {}), (vec!["column-unfilled"], false));
    assert_eq!(with(|extra| extra.nullable = true), (vec![], true));
    assert_eq!(with(|extra| extra.has_default = true), (vec![], true));
    assert_eq!(with(|extra| extra.auto_increment = true), (vec![], true));
    assert_eq!(with(|extra| extra.generated = true), (vec![], true));
}

#[test]
fn generated_columns_are_never_written() {
    let mut both = users();
    both.columns.push(Column { generated: true, ..integer("sum", 8) });
    let mapping = build(&rule(), &both, &both).expect("it maps");
    assert_eq!(mapping.columns.len(), 3);
    assert_eq!(mapping.warnings, []);
    let mut plain = users();
    plain.columns.push(integer("sum", 8));
    assert_eq!(found(&both, &plain), (vec!["column-generated-at-source"], false));
    assert_eq!(found(&plain, &both), (vec!["column-dropped"], true));
}

#[test]
fn a_column_carries_another_or_says_why_not() {
    use ColumnKind::*;
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
    let charset = |name: &str| Text { charset: name.to_owned() };
    let whole = [
        (Integer { bytes: 4, unsigned: false }, Integer { bytes: 8, unsigned: false }),
        (Integer { bytes: 4, unsigned: true }, Integer { bytes: 8, unsigned: false }),
        (Integer { bytes: 8, unsigned: true }, Decimal { precision: 20, scale: 0 }),
        (Decimal { precision: 10, scale: 2 }, Decimal { precision: 12, scale: 3 }),
        (Float, Double),
        (Enum { labels: labels(&["a"]) }, Enum { labels: labels(&["b", "a"]) }),
        (Enum { labels: labels(&["a"]) }, charset("utf8mb4")),
        (charset("latin1"), charset("utf8mb4")),
        (charset("utf8mb3"), charset("utf8mb4")),
        (Bytes { fixed_len: 16 }, Bytes { fixed_len: 0 }),
        (Bit { bits: 3 }, Bit { bits: 8 }),
        (Datetime { fraction_digits: 3 }, Datetime { fraction_digits: 6 }),
        (Date, Datetime { fraction_digits: 0 }),
        (Year, Integer { bytes: 2, unsigned: true }),
        (Json, Json),
        (Uuid, Uuid),
    ];
    let no = [
        (Integer { bytes: 8, unsigned: false }, Integer { bytes: 4, unsigned: false }),
        (Integer { bytes: 4, unsigned: false }, Integer { bytes: 8, unsigned: true }),
        (Integer { bytes: 8, unsigned: true }, Decimal { precision: 20, scale: 1 }),
        (Decimal { precision: 10, scale: 2 }, Decimal { precision: 10, scale: 3 }),
        (Decimal { precision: 10, scale: 2 }, Decimal { precision: 10, scale: 1 }),
        (Double, Float),
        (Enum { labels: labels(&["a", "b"]) }, Enum { labels: labels(&["a"]) }),
        (charset("utf8mb4"), Enum { labels: labels(&["a"]) }),
        (charset("utf8mb4"), Bytes { fixed_len: 0 }),
        (charset("utf8mb4"), Json),
        (Bytes { fixed_len: 0 }, Bytes { fixed_len: 16 }),
        (Bytes { fixed_len: 8 }, Bytes { fixed_len: 16 }),
        (Bit { bits: 8 }, Bit { bits: 3 }),
        (Datetime { fraction_digits: 6 }, Datetime { fraction_digits: 3 }),
        (Time { fraction_digits: 6 }, Time { fraction_digits: 0 }),
        (Datetime { fraction_digits: 0 }, Date),
        (Inet4, Inet6),
        (Integer { bytes: 4, unsigned: false }, charset("utf8mb4")),
    ];
    let partly = [
        (charset("utf8mb4"), charset("latin1")),
        (charset("utf8mb4"), charset("utf8mb3")),
        (Timestamp { fraction_digits: 0 }, Datetime { fraction_digits: 0 }),
        (Datetime { fraction_digits: 0 }, Timestamp { fraction_digits: 0 }),
    ];
    let with = |kind: &ColumnKind| {
        let mut shape = users();
        shape.columns.push(column("c", "", kind.clone()));
        shape
    };
    for (from, to) in &whole {
        assert_eq!(found(&with(from), &with(to)), (vec![], true), "{from:?} {to:?}");
    }
    for (from, to) in &no {
        assert_eq!(found(&with(from), &with(to)), (vec!["column-incompatible"], false), "{from:?} {to:?}");
    }
    for (from, to) in &partly {
        assert_eq!(found(&with(from), &with(to)), (vec!["column-partly-compatible"], true), "{from:?} {to:?}");
    }
    let other = Other { name: "xml".to_owned() };
    assert_eq!(found(&with(&other), &with(&other)), (vec!["column-type-unsupported"], false));
}

#[test]
fn shorter_texts_and_refused_nulls_are_found() {
    let with =
        |declared: &str| table(vec![integer("id", 4), text("email", declared, "utf8mb4"), stamp("updated_at", 6)]);
    assert_eq!(found(&with("varchar(190)"), &with("varchar(100)")), (vec!["column-incompatible"], false));
    assert_eq!(found(&with("varchar(190)"), &with("tinytext")), (vec![], true));
    assert_eq!(found(&with("text"), &with("VARCHAR(190)")), (vec!["column-incompatible"], false));
    let mut nullable = users();
    nullable.columns[1].nullable = true;
    assert_eq!(found(&nullable, &users()), (vec!["column-null-refused"], true));
    assert_eq!(found(&users(), &nullable), (vec![], true));
}

#[test]
fn the_clock_is_checked_on_both_sides() {
    let with = |clock: Column| table(vec![integer("id", 4), text("email", "varchar(190)", "utf8mb4"), clock]);
    let mapping = build(&rule(), &with(stamp("updated_at", 6)), &with(stamp("updated_at", 3))).expect("it maps");
    assert_eq!(codes(&mapping.warnings), ["column-partly-compatible", "clock-coarse"]);
    assert_eq!(mapping.clock.map(|clock| clock.kind), Some(ClockKind::Time { fraction_digits: 3 }));
    assert!(!mapping.strict_clock);

    let untouched = Column { on_update_now: false, ..stamp("updated_at", 6) };
    let mapping = build(&rule(), &with(untouched.clone()), &with(stamp("updated_at", 6))).expect("it maps");
    assert_eq!(codes(&mapping.warnings), ["clock-not-updated"]);
    assert!(!mapping.strict_clock);

    assert_eq!(found(&with(integer("updated_at", 8)), &with(integer("updated_at", 8))), (vec!["clock-type"; 2], false));
    let renamed = with(stamp("changed_at", 6));
    assert_eq!(found(&renamed, &renamed), (vec!["clock-missing"], false));
    let mut unnamed = rule();
    unnamed.clock = None;
    assert_eq!(codes(&build(&unnamed, &users(), &users()).expect_err("no clock")), ["clock-not-named"]);
    unnamed.policy = Policy::PreferOld;
    let mapping = build(&unnamed, &users(), &users()).expect("it maps");
    assert!(mapping.clock.is_none() && !mapping.strict_clock);
}

#[test]
fn a_row_shows_that_it_is_untouched_by_a_clock_that_every_write_moves() {
    let mapping = build(&rule(), &users(), &users()).expect("it maps");
    let clock = mapping.clock.clone().expect("the table has a clock");
    let row = |value: Value| {
        let mut row = vec![Value::Null; mapping.columns.len()];
        row[clock.index] = value;
        row
    };
    assert!(mapping.shows_untouched(&row(Value::Timestamp(1_700_000_000_000_001))));
    assert!(!mapping.shows_untouched(&row(Value::Null)), "NULL stays NULL");
    assert!(!mapping.shows_untouched(&row(Value::Timestamp(0))), "and so does no time at all");
    assert!(!mapping.shows_untouched(&[]));
    let coarse = TableMapping { strict_clock: false, ..mapping.clone() };
    assert!(!coarse.shows_untouched(&row(Value::Timestamp(1_700_000_000_000_001))));
}

#[test]
fn a_change_moves_the_clock_when_it_is_later_than_its_row_and_than_all_before() {
    let mapping = build(&rule(), &users(), &users()).expect("it maps");
    let clock = mapping.clock.clone().expect("the table has a clock");
    let row = |micros: i64| {
        let mut row = vec![Value::Null; mapping.columns.len()];
        row[clock.index] = Value::Timestamp(micros);
        row
    };
    let moves = |after: Option<i64>, effective: i64| {
        mapping.moves_clock(&row(5), after.map(row).as_deref(), Some(Clock(effective)))
    };
    assert!(moves(Some(6), 6) && moves(None, 6));
    assert!(!moves(Some(5), 5) && !moves(None, 5), "it left its clock alone");
    assert!(!moves(Some(4), 5), "it went back");
    assert!(!moves(Some(6), 7), "something before it was later");
    assert!(!mapping.moves_clock(&row(5), Some(&row(6)), None));
}

#[test]
fn a_version_is_an_integer() {
    let mut version = rule();
    version.policy = Policy::Version;
    let shape = table(vec![integer("id", 4), integer("updated_at", 4)]);
    let mapping = build(&version, &shape, &shape).expect("it maps");
    assert_eq!(mapping.clock.map(|clock| clock.kind), Some(ClockKind::Version));
    assert!(!mapping.strict_clock, "a version starts again with every insert");
    assert_eq!(codes(&build(&version, &users(), &users()).expect_err("a time is no version")), ["clock-type"; 2]);
}

fn merging(rules: &[(&str, MergeRule)]) -> TableRule {
    TableRule { merge: Some(rules.iter().map(|(name, rule)| ((*name).to_owned(), *rule)).collect()), ..rule() }
}

fn accounts() -> TableShape {
    let kind = |name: &str, kind| column(name, "declared", kind);
    table(vec![
        integer("id", 4),
        integer("balance", 8),
        kind("price", ColumnKind::Decimal { precision: 65, scale: 30 }),
        kind("ratio", ColumnKind::Double),
        text("email", "varchar(190)", "utf8mb4"),
        Column { nullable: true, ..kind("last_seen", ColumnKind::Datetime { fraction_digits: 0 }) },
        Column { nullable: true, ..integer("loose", 4) },
        stamp("updated_at", 6),
    ])
}

#[test]
fn every_carried_column_has_a_rule_for_merging() {
    use MergeRule::{Max, Min, Newer, SumDelta};
    let mut rule = merging(&[("Balance", SumDelta), ("price", SumDelta), ("ratio", Min), ("last_seen", Max)]);
    rule.renamed.insert("balance".to_owned(), "saldo".to_owned());
    let mut new = accounts();
    new.columns[1].name = "saldo".to_owned();
    new.columns.swap(1, 2);
    let forward = TableMapping::build(Direction::Forward, &rule, &accounts(), &new).expect("it maps");
    assert_eq!(forward.merge, Some(vec![Newer, SumDelta, SumDelta, Min, Newer, Max, Newer, Newer]));
    let reverse = TableMapping::build(Direction::Reverse, &rule, &new, &accounts()).expect("it maps");
    assert_eq!(reverse.merge, forward.merge);
    assert_eq!(build(&self::rule(), &accounts(), &accounts()).expect("it maps").merge, None);
    assert_eq!(build(&merging(&[]), &accounts(), &accounts()).expect("it maps").merge, Some(vec![Newer; 8]));
}

#[test]
fn rules_for_merging_must_fit_their_columns() {
    use MergeRule::{Max, Min, Newer, SumDelta};
    let wrong = |column: &str, rule: MergeRule| {
        codes(&build(&merging(&[(column, rule)]), &accounts(), &accounts()).expect_err("it does not map"))
    };
    assert_eq!(wrong("email", SumDelta), ["merge-type"]);
    assert_eq!(wrong("email", Max), ["merge-type"]);
    assert_eq!(wrong("ratio", SumDelta), ["merge-type"], "the order of additions would count");
    assert_eq!(wrong("last_seen", SumDelta), ["merge-type"]);
    assert_eq!(wrong("loose", SumDelta), ["merge-null"]);
    assert_eq!(wrong("gone", Newer), ["merge-column-missing"]);
    assert_eq!(wrong("id", SumDelta), ["merge-column-fixed"]);
    assert_eq!(wrong("id", Newer), ["merge-column-fixed"]);
    assert_eq!(wrong("updated_at", Max), ["merge-column-fixed"]);
    assert!(build(&merging(&[("updated_at", Newer), ("loose", Min)]), &accounts(), &accounts()).is_ok());
    let mut nullable = accounts();
    nullable.columns[1].nullable = true;
    let rule = merging(&[("balance", SumDelta)]);
    assert_eq!(codes(&build(&rule, &accounts(), &nullable).expect_err("NULL on one side")), ["merge-null"]);
    let one_way = TableRule { one_way: true, ..merging(&[]) };
    assert_eq!(codes(&build(&one_way, &accounts(), &accounts()).expect_err("one way")), ["merge-one-way"]);
}

#[test]
fn a_row_whose_greatest_value_may_still_change_does_not_look_untouched() {
    let row = |rules: &[(&str, MergeRule)]| {
        let mapping = build(&merging(rules), &accounts(), &accounts()).expect("it maps");
        let mut row = vec![Value::Int(1); 8];
        row[7] = Value::Timestamp(1_700_000_000_000_001);
        mapping.shows_untouched(&row)
    };
    assert!(row(&[]) && row(&[("balance", MergeRule::SumDelta)]));
    assert!(!row(&[("balance", MergeRule::Max)]) && !row(&[("price", MergeRule::Min)]));
}

#[test]
fn both_directions_identify_rows_by_the_same_key() {
    // The old side's primary key is the new side's unique key, and the other way round.
    let columns = || vec![integer("id", 4), integer("code", 4), stamp("updated_at", 6)];
    let unique = |column| UniqueKey { name: "u".to_owned(), columns: vec![column], nullable: false, partial: false };
    let old = TableShape { unique_keys: vec![unique(1)], ..table(columns()) };
    let new = TableShape { primary_key: vec![1], unique_keys: vec![unique(0)], ..table(columns()) };
    let forward = TableMapping::build(Direction::Forward, &rule(), &old, &new).expect("it maps");
    let reverse = TableMapping::build(Direction::Reverse, &rule(), &new, &old).expect("it maps");
    assert_eq!((&forward.row_key, &forward.unique_keys), (&vec![0], &vec![vec![1]]));
    assert_eq!((&reverse.row_key, &reverse.unique_keys), (&vec![0], &vec![vec![1]]));

    let apart = TableShape { primary_key: vec![1], ..table(columns()) };
    let problems = build(&rule(), &users(), &apart).map_err(|problems| codes(&problems));
    let expected = ["column-unfilled", "column-dropped", "no-common-key", "unique-key-opaque"];
    assert_eq!(problems.expect_err("no common key"), expected);
}

#[test]
fn a_keyless_table_goes_one_way() {
    let keyless = TableShape { primary_key: vec![], ..users() };
    assert_eq!(found(&keyless, &users()), (vec!["keyless"], false));
    let mut one_way = rule();
    one_way.one_way = true;
    assert!(build(&one_way, &keyless, &keyless).expect("it maps").keyless);
    let nullable = UniqueKey { name: "u".to_owned(), columns: vec![1], nullable: true, partial: false };
    let with_nullable = TableShape { unique_keys: vec![nullable], ..keyless.clone() };
    assert_eq!(found(&with_nullable, &with_nullable).0, ["keyless"]);
    let whole = UniqueKey { name: "u".to_owned(), columns: vec![1], nullable: false, partial: false };
    let with_unique = TableShape { unique_keys: vec![whole], ..keyless };
    assert_eq!(build(&rule(), &with_unique, &with_unique).expect("a unique key serves").row_key, [1]);
}

#[test]
fn a_unique_key_that_cannot_be_told_keeps_source_order() {
    let key = |columns, partial| UniqueKey { name: "u".to_owned(), columns, nullable: true, partial };
    let partial = TableShape { unique_keys: vec![key(vec![1], true)], ..users() };
    let mapping = build(&rule(), &users(), &partial).expect("it maps");
    assert!(mapping.in_order);
    assert_eq!(codes(&mapping.warnings), ["unique-key-opaque"]);
    assert!(!build(&rule(), &partial, &users()).expect("only the target's keys bind").in_order);

    let mut generated = TableShape { unique_keys: vec![key(vec![3], false)], ..users() };
    generated.columns.push(Column { generated: true, ..integer("sum", 8) });
    assert!(build(&rule(), &users(), &generated).expect("it maps").in_order);

    // A number that the target hands out collides with nothing.
    let mut surrogate = users();
    surrogate.columns.push(Column { auto_increment: true, ..integer("number", 8) });
    surrogate.unique_keys = vec![key(vec![3], false)];
    let mapping = build(&rule(), &users(), &surrogate).expect("it maps");
    assert!(!mapping.in_order && mapping.unique_keys.is_empty());
}

#[test]
fn foreign_keys_of_the_target_are_kept() {
    let link = |columns| ForeignKey {
        name: "fk".to_owned(),
        columns,
        parent: TableName::new("app", "teams"),
        parent_columns: vec!["id".to_owned()],
        on_delete: ReferentialAction::SetNull,
        on_update: ReferentialAction::Restrict,
    };
    let mut new = users();
    new.columns.push(Column { nullable: true, ..integer("extra", 4) });
    new.foreign_keys = vec![link(vec![1]), link(vec![3])];
    let mapping = build(&rule(), &users(), &new).expect("it maps");
    assert_eq!(mapping.parents.len(), 1);
    assert_eq!((&mapping.parents[0].columns, mapping.parents[0].on_delete), (&vec![1], ReferentialAction::SetNull));
}

#[test]
fn every_problem_has_words_and_a_remedy() {
    let new = table(vec![integer("id", 2), text("mail", "text", "utf8mb4")]);
    let problems = build(&rule(), &users(), &new).expect_err("much is wrong");
    assert_eq!(
        codes(&problems),
        ["column-incompatible", "column-unfilled", "column-dropped", "column-dropped", "clock-missing"]
    );
    for problem in &problems {
        assert!(problem.to_string().contains("app.users") && !problem.hint().is_empty(), "{problem}");
    }
    assert!(problems.iter().any(|problem| problem.severity() == Severity::Warning));
}

fn layout(names: &[&str], kinds: Vec<ColumnKind>) -> TableLayout {
    let columns = names.iter().map(|name| Arc::from(*name)).collect();
    TableLayout { name: TableName::new("app", "users"), columns, kinds, row_key: vec![0] }
}

#[test]
fn rows_are_projected_by_column_name() {
    let mapping = build(&rule(), &users(), &users()).expect("it maps");
    let kind = |name: &str| users().columns[users().column(name).expect("a column of the table")].kind.clone();
    let names = ["new_one", "UPDATED_AT", "id", "email"];
    let kinds = vec![ColumnKind::Json, kind("updated_at"), kind("id"), kind("email")];
    let projection = mapping.project(&layout(&names, kinds)).expect("all columns are there");
    assert_eq!(projection.unmapped, [Arc::from("new_one")]);
    let row = vec![Value::Null, Value::Timestamp(5), Value::Int(1), Value::Text("a".to_owned())];
    let expected = vec![Value::Int(1), Value::Text("a".to_owned()), Value::Timestamp(5)];
    assert_eq!(projection.row(&row), Ok(expected.clone()));
    assert_eq!(projection.into_row(row), Ok(expected.clone()));
    let table = TableName::new("app", "users");
    assert_eq!(projection.row(&vec![Value::Null]), Err(RulesError::RowWidth { table, found: 1, expected: 4 }));

    let same = layout(&["id", "email", "updated_at"], vec![kind("id"), kind("email"), kind("updated_at")]);
    let projection = mapping.project(&same).expect("all columns are there");
    assert_eq!(projection.into_row(expected.clone()), Ok(expected));
}

#[test]
fn a_layout_that_changed_is_taken_while_it_fits() {
    let mapping = build(&rule(), &users(), &users()).expect("it maps");
    let kinds = |id: ColumnKind, fraction_digits| {
        let email = ColumnKind::Text { charset: "utf8mb4".to_owned() };
        vec![id, email, ColumnKind::Timestamp { fraction_digits }]
    };
    let names = ["id", "email", "updated_at"];
    let project = |id, digits| mapping.project(&layout(&names, kinds(id, digits)));
    assert!(project(ColumnKind::Integer { bytes: 2, unsigned: false }, 3).is_ok());
    let wider = project(ColumnKind::Integer { bytes: 8, unsigned: false }, 6);
    assert!(matches!(wider, Err(RulesError::ColumnChanged { column, .. }) if column == "id"));
    let kinds = vec![ColumnKind::Integer { bytes: 4, unsigned: false }, ColumnKind::Timestamp { fraction_digits: 6 }];
    let gone = mapping.project(&layout(&["id", "updated_at"], kinds));
    assert!(matches!(gone, Err(RulesError::ColumnGone { column, .. }) if column == "email"));
}

#[test]
fn the_hash_of_the_rules_follows_every_rule_and_no_order() {
    let mut other = rule();
    other.old = TableName::new("app", "teams");
    let hash = rules_hash(&[rule(), other.clone()], Side::New, FamilyPolicy::default());
    assert_ne!(hash, rules_hash(&[rule(), other.clone()], Side::New, FamilyPolicy::ChildGoes));
    assert_eq!(hash, rules_hash(&[other.clone(), rule()], Side::New, FamilyPolicy::default()));
    let changed = |change: fn(&mut TableRule)| {
        let mut changed = rule();
        change(&mut changed);
        rules_hash(&[changed, other.clone()], Side::New, FamilyPolicy::default())
    };
    let mut hashes = vec![
        hash,
        rules_hash(&[rule(), other.clone()], Side::Old, FamilyPolicy::default()),
        rules_hash(&[rule()], Side::New, FamilyPolicy::default()),
        changed(|rule| rule.clock = None),
        changed(|rule| rule.clock = Some(String::new())),
        changed(|rule| rule.policy = Policy::PreferNew),
        changed(|rule| rule.one_way = true),
        changed(|rule| rule.new = TableName::new("app", "people")),
        changed(|rule| rule.renamed = BTreeMap::from([("a".to_owned(), "b".to_owned())])),
        changed(|rule| rule.merge = Some(BTreeMap::new())),
        changed(|rule| rule.merge = Some(BTreeMap::from([("a".to_owned(), MergeRule::Max)]))),
        changed(|rule| rule.merge = Some(BTreeMap::from([("a".to_owned(), MergeRule::Min)]))),
    ];
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 12);
}

#[test]
fn the_hash_of_plans_follows_what_plans_depend_on() {
    let mapping = build(&rule(), &users(), &users()).expect("it maps");
    let hash = plan_hash(std::slice::from_ref(&mapping));
    assert_eq!(hash, plan_hash(&[build(&rule(), &users(), &users()).expect("it maps")]));
    let changed = |change: fn(&mut TableMapping)| {
        let mut changed = mapping.clone();
        change(&mut changed);
        plan_hash(&[changed])
    };
    assert_ne!(hash, changed(|mapping| mapping.row_key = vec![1]));
    assert_ne!(hash, changed(|mapping| mapping.unique_keys = vec![vec![1]]));
    assert_ne!(hash, changed(|mapping| mapping.in_order = true));
    assert_eq!(hash, changed(|mapping| mapping.warnings.clear()));
}
