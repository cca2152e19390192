use std::time::Duration;

use crossfade_config::{CutoverSettings, Fence};
use crossfade_message::Flag;
use crossfade_model::{Direction, Phase};

use crate::Change;
use crate::gate::{DirectionSeen, FenceSeen, Gate, GateState, Seen, VerificationSeen, gates};

fn settings() -> CutoverSettings {
    CutoverSettings {
        fence: Fence::Flag,
        accounts: Vec::new(),
        timeout: Duration::from_secs(10),
        max_lag: Duration::from_secs(2),
        verified_within: Duration::from_secs(3_600),
        max_mismatch_ppm: 0,
        require_instances: true,
        end_transactions_after: None,
    }
}

fn direction(direction: Direction) -> DirectionSeen {
    DirectionSeen {
        direction,
        is_served: true,
        state: "running".to_owned(),
        is_green: true,
        reason: None,
        applies: true,
        lag: Some(Duration::from_millis(100)),
        refused: 0,
        held: 0,
        unproved: None,
    }
}

fn compared() -> VerificationSeen {
    VerificationSeen {
        age: Duration::from_secs(60),
        worst_ppm: 0.0,
        mismatches: 0,
        unconfirmed: 0,
        skipped: Vec::new(),
        unknown: Vec::new(),
        copied: Vec::new(),
    }
}

/// Everything as it should be for a change.
fn well(change: Change) -> Seen {
    Seen {
        group: None,
        has_tables: true,
        flag: Flag { version: 3, phase: change.from(), fenced: false },
        other_run: None,
        forward: direction(Direction::Forward),
        reverse: direction(Direction::Reverse),
        verification: Ok(Some(compared())),
        uncopied: Ok(Vec::new()),
        instances: 2,
        fence: FenceSeen::FlagAlone,
        prepared: Ok(0),
        check_errors: Ok(Vec::new()),
    }
}

fn closed(change: Change, seen: &Seen, settings: &CutoverSettings) -> Vec<&'static str> {
    let gates = gates(change, seen, settings);
    for gate in &gates {
        assert_eq!(gate.remedy.is_some(), !gate.is_open(), "who is closed says what would open it: {gate:?}");
    }
    gates.into_iter().filter(|gate| !gate.is_open()).map(|gate| gate.name).collect()
}

/// What a fault closes, for each change that has gates.
fn assert_closes(fault: impl Fn(&mut Seen), names: [&[&str]; 3]) {
    for (change, names) in [Change::Open, Change::Cutover, Change::Rollback].into_iter().zip(names) {
        let mut seen = well(change);
        fault(&mut seen);
        assert_eq!(closed(change, &seen, &settings()), names, "{change}");
    }
}

#[test]
fn all_is_open_where_nothing_is_the_matter() {
    for change in Change::ALL {
        assert_eq!(closed(change, &well(change), &settings()), [""; 0], "{change}");
    }
}

#[test]
fn each_fault_closes_its_gate_and_no_other() {
    let own = |name: &'static str| -> [&'static [&'static str]; 3] {
        let names: &'static [&'static str] = Box::leak(Box::new([name]));
        [names; 3]
    };
    assert_closes(|seen| seen.flag.phase = Phase::NewOnly, own("phase"));
    assert_closes(|seen| seen.flag.fenced = true, own("phase"));
    assert_closes(|seen| seen.other_run = Some("cutover 3".to_owned()), own("no other change"));
    assert_closes(|seen| seen.forward.is_served = false, own("forward runs"));
    assert_closes(
        |seen| (seen.reverse.is_green, seen.reverse.state) = (false, "retrying".to_owned()),
        own("reverse runs"),
    );
    assert_closes(|seen| seen.reverse.unproved = Some("reverse does not run".to_owned()), own("reverse is proved"));
    assert_closes(|seen| seen.forward.refused = 1, own("forward has nothing aside"));
    assert_closes(|seen| seen.reverse.held = 1, own("reverse has nothing aside"));
    assert_closes(|seen| seen.check_errors = Ok(vec!["binlog off".to_owned()]), own("check"));
    assert_closes(|seen| seen.check_errors = Err("away".to_owned()), own("check"));
}

#[test]
fn lag_counts_of_the_direction_that_is_drained() {
    let late = Some(Duration::from_secs(3));
    assert_closes(|seen| seen.forward.lag = late, [&["lag"], &["lag"], &[]]);
    assert_closes(|seen| seen.reverse.lag = late, [&[], &[], &["lag"]]);
    assert_closes(|seen| seen.forward.lag = None, [&["lag"], &["lag"], &[]]);
}

#[test]
fn going_back_asks_for_no_comparison() {
    let faults: [fn(&mut VerificationSeen); 6] = [
        |seen| seen.age = Duration::from_secs(3_601),
        |seen| (seen.worst_ppm, seen.mismatches) = (0.5, 1),
        |seen| seen.unconfirmed = 1,
        |seen| seen.skipped = vec!["app.log".to_owned()],
        |seen| seen.unknown = vec!["app.added".to_owned()],
        |seen| seen.copied = vec!["app.users".to_owned()],
    ];
    let names: [&[&str]; 3] = [&["verified"], &["verified"], &[]];
    for fault in faults {
        let mut found = compared();
        fault(&mut found);
        assert_closes(|seen| seen.verification = Ok(Some(found.clone())), names);
    }
    assert_closes(|seen| seen.verification = Ok(None), names);
    assert_closes(|seen| seen.uncopied = Ok(vec!["app.users is copied".to_owned()]), [&["history"], &["history"], &[]]);
}

#[test]
fn nobody_is_fenced_whom_nobody_knows() {
    assert_closes(|seen| seen.instances = 0, [&[], &["instances"], &["instances"]]);
    let nobody = Seen { instances: 0, ..well(Change::Cutover) };
    for settings in [
        CutoverSettings { require_instances: false, ..settings() },
        CutoverSettings { fence: Fence::ReadOnly, ..settings() },
    ] {
        assert!(closed(Change::Cutover, &nobody, &settings).is_empty());
    }
    let denied = FenceSeen::Impossible { why: "it may not".to_owned(), remedy: "GRANT".to_owned() };
    assert_closes(|seen| seen.fence = denied.clone(), [&[], &["fence"], &["fence"]]);
    assert_closes(|seen| seen.prepared = Ok(1), [&[], &["no XA transaction"], &["no XA transaction"]]);
    assert_closes(
        |seen| seen.prepared = Err("denied".to_owned()),
        [&[], &["no XA transaction"], &["no XA transaction"]],
    );
}

#[test]
fn forward_may_rest_before_it_is_gone_back() {
    let rests = |seen: &mut Seen| {
        seen.forward = DirectionSeen {
            is_green: false,
            applies: false,
            state: "paused".to_owned(),
            unproved: Some("it rests".to_owned()),
            ..direction(Direction::Forward)
        };
    };
    let both: &[&str] = &["forward runs", "forward is proved"];
    assert_closes(rests, [both, both, &[]]);
}

#[test]
fn what_cannot_be_seen_is_not_open() {
    let seen = Seen { prepared: Err("denied".to_owned()), ..well(Change::Cutover) };
    let gates = gates(Change::Cutover, &seen, &settings());
    let unknown: Vec<&Gate> = gates.iter().filter(|gate| gate.state == GateState::Unknown).collect();
    assert!(matches!(unknown[..], [gate] if !gate.is_open()));
}

#[test]
fn an_end_asks_for_what_it_ends() {
    let faults = |change, fault: fn(&mut Seen)| {
        let mut seen = well(change);
        fault(&mut seen);
        closed(change, &seen, &settings())
    };
    // Of the end, the last comparison is a step of its own.
    assert_eq!(faults(Change::Finish, |seen| seen.verification = Ok(None)), [""; 0]);
    assert_eq!(faults(Change::Finish, |seen| seen.reverse.refused = 1), ["reverse has nothing aside"]);
    assert_eq!(faults(Change::Finish, |seen| seen.prepared = Ok(1)), ["no XA transaction"]);
    assert_eq!(faults(Change::Finish, |seen| seen.uncopied = Ok(vec!["app.users".to_owned()])), ["history"]);
    assert_eq!(faults(Change::Finish, |seen| seen.flag.phase = Phase::WriteBoth), ["phase"]);
    assert_eq!(faults(Change::Abort, |seen| seen.reverse.is_served = false), ["reverse runs"]);
    let never_opened = Flag { version: 0, phase: Phase::OldOnly, fenced: false };
    let shut_again = Flag { version: 5, ..never_opened };
    for (flag, ask) in [(never_opened, &[][..]), (shut_again, &["reverse runs", "reverse has nothing aside"][..])] {
        let mut seen = well(Change::Abort);
        (seen.flag, seen.reverse.is_served, seen.reverse.refused) = (flag, false, 1);
        assert_eq!(closed(Change::Abort, &seen, &settings()), ask, "what pilots have written must come to old");
    }
    let seen = Seen { flag: Flag { version: 3, phase: Phase::ReadNew, fenced: false }, ..well(Change::Abort) };
    let phase = gates(Change::Abort, &seen, &settings()).remove(0);
    assert!(phase.remedy.is_some_and(|remedy| remedy.contains("`crossfade rollback` first")));
}

#[test]
fn what_differs_is_no_end() {
    use crate::gate;
    assert!(gate::compared(compared(), &settings()).is_open());
    let worse = VerificationSeen { mismatches: 1, worst_ppm: 0.1, ..compared() };
    assert!(!gate::compared(worse, &settings()).is_open());
}

#[test]
fn a_group_is_shown_its_own_commands() {
    let group = |phase| {
        let flag = Flag { version: 3, phase, fenced: false };
        let seen = Seen { group: Some("billing".to_owned()), flag, ..well(Change::Cutover) };
        gates(Change::Cutover, &seen, &settings()).remove(0).remedy.unwrap_or_default()
    };
    assert_eq!(group(Phase::ReadNew), "from read_new lead `rollback --group billing`");
    assert!(group(Phase::OldOnly).contains("`crossfade flag set write_both`"), "{}", group(Phase::OldOnly));
}

#[test]
fn nobody_must_follow_the_flag_of_no_table() {
    let is_asked = |has_tables| {
        let seen = Seen { instances: 0, has_tables, ..well(Change::Cutover) };
        gates(Change::Cutover, &seen, &settings()).iter().any(|gate| gate.name == "instances" && !gate.is_open())
    };
    assert!(is_asked(true) && !is_asked(false));
}
