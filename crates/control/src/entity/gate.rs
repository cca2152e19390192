//! What must hold while entities move. Pure: what is judged was looked at before.

use crossfade_message::{Flag, Wish};
use crossfade_model::{Direction, Phase, Side};

use crate::gate::Gate;

/// What was looked at.
#[derive(Debug, Clone)]
pub struct Looked {
    pub flag: Flag,
    /// A change of the phase that is not over: what it is called.
    pub other_run: Option<String>,
    /// Forward, then reverse: whether a process has its lease, and what it is wished to do.
    pub directions: [(bool, Option<Wish>); 2],
}

/// In the order in which one would open them.
pub fn entity_gates(looked: &Looked) -> Vec<Gate> {
    let [forward, reverse] = looked.directions;
    vec![
        phase(looked.flag),
        other_run(looked.other_run.as_deref()),
        direction(Direction::Forward, forward),
        direction(Direction::Reverse, reverse),
    ]
}

/// Whether every entity is on the side that a change of the whole pair leaves them on: it moves none. `elsewhere`: entities that
/// are on the other one by themselves, `at_work`: that are being moved; `rest`: where all that have no side of their own are.
pub fn all_on(side: Side, name: &str, rest: Side, (elsewhere, at_work): (u64, u64)) -> Gate {
    let back = match side {
        Side::New => "move",
        Side::Old => "return",
    };
    let other = side.opposite();
    if at_work > 0 {
        let why = format!("of {name}s, {at_work} are being moved");
        return Gate {
            passes: true,
            ..Gate::closed("entities", why, "wait until `crossfade entity` has ended, or run it again")
        };
    }
    if rest != side {
        return Gate::closed(
            "entities",
            format!("a {name} that was not moved by itself is on {other}, and this moves none"),
            format!("`crossfade entity {back} --all`, then `crossfade entity {back} --rest`"),
        );
    }
    if elsewhere > 0 {
        return Gate::closed(
            "entities",
            format!("of {name}s, {elsewhere} are on {other}, and this moves none"),
            format!("`crossfade entity {back} --all`, and `--state failed` for those that have failed"),
        );
    }
    Gate::open("entities", format!("every {name} is on {side}"))
}

fn phase(flag: Flag) -> Gate {
    let phase = flag.phase;
    if flag.fenced {
        let why = format!("the phase is {phase}, and users are kept from writing for a moment");
        return Gate::closed("phase", why, "wait until that is over; it ends by itself");
    }
    match phase {
        Phase::WriteBoth | Phase::ReadNew => Gate::open("phase", format!("{phase}: both sides are written")),
        Phase::OldOnly => Gate::closed(
            "phase",
            "the phase is old_only, and nothing may be written on new",
            "`crossfade flag set write_both` opens two-way writing",
        ),
        Phase::NewOnly => Gate::closed("phase", "the migration has ended", "nothing leads back from there"),
    }
}

fn other_run(run: Option<&str>) -> Gate {
    match run {
        None => Gate::open("no other change", "nothing changes the phase"),
        Some(run) => Gate::closed("no other change", format!("{run} is not over"), "wait until it is"),
    }
}

fn direction(direction: Direction, (is_served, wish): (bool, Option<Wish>)) -> Gate {
    let name = if direction == Direction::Forward { "forward runs" } else { "reverse runs" };
    if !wish.is_some_and(|wish| wish.apply) {
        let remedy = format!("`crossfade start {direction}`, and `crossfade sync {direction}` where no process runs");
        return Gate::closed(name, format!("{direction} does not apply what users write"), remedy);
    }
    if !is_served {
        return Gate::closed(name, format!("no process runs {direction}"), format!("run `crossfade sync {direction}`"));
    }
    Gate::open(name, format!("a process runs {direction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(looked: &Looked) -> Vec<&'static str> {
        let gates = entity_gates(looked);
        assert!(gates.iter().all(|gate| gate.is_open() == gate.remedy.is_none()), "{gates:?}");
        gates.iter().filter(|gate| !gate.is_open()).map(|gate| gate.name).collect()
    }

    #[test]
    fn a_change_of_the_whole_pair_is_for_when_all_are_on_its_side() {
        for side in [Side::Old, Side::New] {
            assert!(all_on(side, "user", side, (0, 0)).is_open());
            for (rest, counts) in [(side, (1, 0)), (side.opposite(), (0, 0)), (side.opposite(), (3, 0)), (side, (0, 1))]
            {
                let gate = all_on(side, "user", rest, counts);
                assert!(!gate.is_open() && gate.remedy.is_some(), "{gate:?}");
            }
        }
    }

    #[test]
    fn both_directions_must_run_and_two_way_writing_be_open() {
        let runs = (true, Some(Wish::RUN));
        let flag = Flag { version: 3, phase: Phase::WriteBoth, fenced: false };
        let well = Looked { flag, other_run: None, directions: [runs, runs] };
        assert_eq!(closed(&well), [""; 0]);
        let flag = |phase, fenced| Looked { flag: Flag { version: 3, phase, fenced }, ..well.clone() };
        assert_eq!(closed(&flag(Phase::ReadNew, false)), [""; 0]);
        assert_eq!(closed(&flag(Phase::ReadNew, true)), ["phase"]);
        assert_eq!(closed(&flag(Phase::OldOnly, false)), ["phase"]);
        assert_eq!(closed(&flag(Phase::NewOnly, false)), ["phase"]);
        assert_eq!(closed(&Looked { other_run: Some("cutover 3".to_owned()), ..well.clone() }), ["no other change"]);
        let dead = (false, Some(Wish::RUN));
        assert_eq!(closed(&Looked { directions: [dead, runs], ..well.clone() }), ["forward runs"]);
        assert_eq!(closed(&Looked { directions: [runs, (true, None)], ..well }), ["reverse runs"]);
    }
}
