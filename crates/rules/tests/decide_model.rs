//! P4 and P6: one row, two sides, random schedules. Each side runs user operations, is captured by its reader, and
//! receives the other side's messages. When all is captured and applied, both sides must hold the same row, whatever the
//! clocks do. The runs use the crate's own clocks and its own `decide`.

use crossfade_model::{Clock, Row, RowOp, Side, Value};
use crossfade_rules::clock::{effective, own};
use crossfade_rules::mapping::ClockKind;
use crossfade_rules::{ClockColumn, Event, LastConcurrent, Policy, Verdict, decide};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SEEDS: u64 = 4000;
const OPERATIONS: usize = 6;
const SIDES: [Side; 2] = [Side::Old, Side::New];

/// What the clock column does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Micros,
    Seconds,
    /// Whole seconds that users sometimes set back.
    Backwards,
    /// Starts again when a row is inserted again.
    Version,
    None,
}

/// How the applier finds out what is concurrent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// `seen`, and waiting until the target is captured.
    Causal,
    /// `seen`, judged by what happens to be captured already.
    NoHold,
    /// Every captured change of the target counts as concurrent.
    SeenIgnored,
}

#[derive(Debug, Clone)]
struct Message {
    op: RowOp,
    after: Option<Row>,
    /// Opposite messages that had been applied where it was written.
    seen: usize,
    effective: Option<Clock>,
}

struct Run {
    random: StdRng,
    kind: Kind,
    policy: Policy,
    prefer: Side,
    column: Option<ClockColumn>,
    now_micros: i64,
    /// How far the new side's clock is ahead.
    skew_micros: i64,
    rows: [Option<Row>; 2],
    log: [Vec<Message>; 2],
    captured: [usize; 2],
    /// Messages of each side that have been applied on the other.
    applied: [usize; 2],
    left: [usize; 2],
    trace: Vec<String>,
}

fn column(kind: Kind) -> Option<ClockColumn> {
    let kind = match kind {
        Kind::Micros => ClockKind::Time { fraction_digits: 6 },
        Kind::Seconds | Kind::Backwards => ClockKind::Time { fraction_digits: 0 },
        Kind::Version => ClockKind::Version,
        Kind::None => return None,
    };
    Some(ClockColumn { source: "clock".to_owned(), target: "clock".to_owned(), index: 1, kind })
}

impl Run {
    fn new(seed: u64, kind: Kind, policy: Policy, prefer: Side, skew_micros: i64) -> Run {
        let first = vec![Value::Text("a".to_owned()), if kind == Kind::Version { Value::Int(5) } else { Value::Null }];
        Run {
            random: StdRng::seed_from_u64(seed),
            kind,
            policy,
            prefer,
            column: column(kind),
            now_micros: 100_000_000,
            skew_micros,
            rows: [Some(first.clone()), Some(first)],
            log: [Vec::new(), Vec::new()],
            captured: [0; 2],
            applied: [0; 2],
            left: [OPERATIONS / 2; 2],
            trace: Vec::new(),
        }
    }

    /// A user changes the row on a side.
    fn user(&mut self, side: usize) {
        self.now_micros += [100_000, 300_000, 1_000_000][self.random.random_range(0..3)];
        let local = self.now_micros + if side == 1 { self.skew_micros } else { 0 };
        let before = self.rows[side].clone();
        let op = match (&before, self.random.random_range(0..3)) {
            (None, _) => RowOp::Insert,
            (Some(_), 0) => RowOp::Delete,
            (Some(_), _) => RowOp::Update,
        };
        let clock = self.user_clock(local, before.as_ref());
        let contents = ["a", "b", "c"][self.random.random_range(0..3)];
        let after = (op != RowOp::Delete).then(|| vec![Value::Text(contents.to_owned()), clock]);
        if after == before {
            return;
        }
        let seen = self.applied[1 - side];
        let committed = local + 50_000;
        let own = self.column.as_ref().and_then(|c| own(c, c.index, op, before.as_ref(), after.as_ref(), committed));
        let earlier = self.log[side].iter().chain(&self.log[1 - side][..seen]).map(|message| message.effective);
        let effective = effective(own, earlier.collect::<Vec<_>>());
        self.trace.push(format!("{} {op} {before:?} -> {after:?} at {effective:?}, seen {seen}", SIDES[side]));
        self.log[side].push(Message { op, after: after.clone(), seen, effective });
        self.rows[side] = after;
    }

    fn user_clock(&mut self, local: i64, before: Option<&Row>) -> Value {
        let second = local - local.rem_euclid(1_000_000);
        match self.kind {
            Kind::Micros => Value::Timestamp(local),
            Kind::Seconds => Value::Timestamp(second),
            Kind::Backwards => Value::Timestamp(second - [0, 0, 2_000_000][self.random.random_range(0..3)]),
            Kind::Version => match before.map(|row| &row[1]) {
                Some(Value::Int(version)) => Value::Int(version + 1),
                _ => Value::Int(0),
            },
            Kind::None => Value::Null,
        }
    }

    /// Some of a side's captured messages, folded to their last, arrive on the other side.
    fn apply(&mut self, side: usize, rule: Rule) {
        let count = self.random.random_range(1..=self.captured[side] - self.applied[side]);
        self.applied[side] += count;
        let event = self.log[side][self.applied[side] - 1].clone();
        let opposite = &self.log[1 - side];
        let visible = if rule == Rule::Causal { opposite.len() } else { self.captured[1 - side] };
        let seen = if rule == Rule::SeenIgnored { 0 } else { event.seen };
        let last = opposite[..visible].iter().enumerate().skip(seen).last();
        let concurrent = last.map(|(index, message)| LastConcurrent {
            seq: index as u64 + 1,
            effective: message.effective,
            op: message.op,
            returned: false,
            authority: crossfade_rules::Authority::Shared,
        });
        let wanted = Event {
            side: SIDES[side],
            effective: event.effective,
            returned: false,
            authority: crossfade_rules::Authority::Shared,
        };
        let verdict = decide(&wanted, concurrent.as_ref(), self.policy, self.prefer);
        if matches!(verdict, Verdict::Write(_)) {
            self.rows[1 - side] = event.after;
        }
        self.trace.push(format!("   {} arrives on {}: {verdict:?}", SIDES[side], SIDES[1 - side]));
    }

    /// Runs to the end, and says whether both sides are equal.
    fn converges(&mut self, rule: Rule) -> bool {
        loop {
            let mut steps: Vec<(u8, usize)> = Vec::new();
            for side in 0..2 {
                let ready = [
                    self.left[side] > 0,
                    self.captured[side] < self.log[side].len(),
                    self.applied[side] < self.captured[side],
                ];
                steps.extend((0..3).filter(|step| ready[usize::from(*step)]).map(|step| (step, side)));
            }
            if steps.is_empty() {
                return self.rows[0] == self.rows[1];
            }
            match steps[self.random.random_range(0..steps.len())] {
                (0, side) => {
                    self.left[side] -= 1;
                    self.user(side);
                }
                (1, side) => self.captured[side] += 1,
                (_, side) => self.apply(side, rule),
            }
        }
    }
}

/// Kinds of clock, and how far the new side is ahead of the old one.
const CLOCKS: [(Kind, i64); 7] = [
    (Kind::Micros, 0),
    (Kind::Micros, -2_000_000),
    (Kind::Micros, 2_000_000),
    (Kind::Seconds, 0),
    (Kind::Backwards, -2_000_000),
    (Kind::Version, 0),
    (Kind::None, 0),
];

fn policies(kind: Kind) -> [Policy; 3] {
    let own = if kind == Kind::Version { Policy::Version } else { Policy::Newest };
    [own, Policy::PreferOld, Policy::PreferNew]
}

fn diverged(kind: Kind, skew: i64, policy: Policy, prefer: Side, rule: Rule) -> (u64, Option<Vec<String>>) {
    let (mut count, mut shortest) = (0, None::<Vec<String>>);
    for seed in 0..SEEDS {
        let mut run = Run::new(seed, kind, policy, prefer, skew);
        if !run.converges(rule) {
            count += 1;
            if shortest.as_ref().is_none_or(|trace| run.trace.len() < trace.len()) {
                shortest = Some(run.trace);
            }
        }
    }
    (count, shortest)
}

#[test]
fn p4_both_sides_end_alike_whatever_the_clocks_do() {
    for (kind, skew) in CLOCKS {
        for policy in policies(kind) {
            for prefer in SIDES {
                let (count, shortest) = diverged(kind, skew, policy, prefer, Rule::Causal);
                assert_eq!(count, 0, "{kind:?} {skew} {policy:?} prefer {prefer}: {shortest:#?}");
            }
        }
    }
}

#[test]
fn the_model_notices_what_seen_and_hold_are_for() {
    for (kind, skew) in CLOCKS {
        for rule in [Rule::NoHold, Rule::SeenIgnored] {
            let (count, _) = diverged(kind, skew, policies(kind)[0], Side::New, rule);
            assert!(count > SEEDS / 100, "{kind:?} {skew} {rule:?}: only {count} of {SEEDS} diverged");
        }
    }
}

/// A clock that runs backwards or is skewed never lets a change lose to what its writer had before him.
#[test]
fn p6_what_the_writer_had_seen_never_wins() {
    for (policy, side) in [(Policy::Newest, Side::Old), (Policy::Version, Side::New), (Policy::PreferNew, Side::Old)] {
        let event = Event { side, effective: None, returned: false, authority: crossfade_rules::Authority::Shared };
        assert!(matches!(decide(&event, None, policy, side.opposite()), Verdict::Write(_)));
    }
}
