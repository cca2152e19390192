//! One function for each gate.

use std::time::Duration;

use crossfade_config::{CutoverSettings, Fence};
use crossfade_message::Flag;
use crossfade_model::{Phase, Side};
use humantime::format_duration;

use super::{DirectionSeen, FenceSeen, Gate, VerificationSeen};
use crate::Change;

/// More than this is not listed.
const LISTED: usize = 3;

pub(super) fn phase(change: Change, flag: &Flag, group: Option<&str>) -> Gate {
    let (is, from, to) = (flag.phase, change.from(), change.to());
    if flag.fenced {
        let why = format!("the phase is {is}, and users are kept from writing for a moment");
        return Gate::closed("phase", why, "wait until that is over; it ends by itself").passing();
    }
    if change.leads_from(is) {
        let follows =
            if change == Change::Abort { "nobody has changed sides".to_owned() } else { format!("{to} may follow") };
        return Gate::open("phase", format!("{is}, and {follows}"));
    }
    if change == Change::Abort && is == Phase::ReadNew {
        let why = format!("the phase is {is}: users write on new");
        return Gate::closed("phase", why, "run `crossfade rollback` first: it leads users back to old");
    }
    let command = |change: Change| match group {
        Some(group) if change.drains().is_some() => Some(format!("`{} --group {group}`", change.command())),
        // What is for all tables leads a group nowhere that it could go alone.
        Some(_) => None,
        None => Some(format!("`{}`", change.command())),
    };
    let ways: Vec<String> =
        Change::ALL.into_iter().filter(|change| change.leads_from(is)).filter_map(command).collect();
    let remedy = match ways.is_empty() {
        true if group.is_some() => "`crossfade flag set write_both` opens two-way writing, for all groups".to_owned(),
        true => "nothing leads back from there".to_owned(),
        false => format!("from {is} lead {}", ways.join(" and ")),
    };
    Gate::closed("phase", format!("the phase is {is}, and `{}` leads from {from} to {to}", change.command()), remedy)
}

pub(super) fn other_run(run: Option<&str>) -> Gate {
    match run {
        None => Gate::open("no other change", "nothing else changes the phase"),
        Some(run) => Gate::closed(
            "no other change",
            format!("{run} is not over"),
            "wait until it is; where its tool has died, the same command goes on or undoes it",
        ),
    }
}

pub(super) fn process(seen: &DirectionSeen, may_rest: bool) -> Gate {
    let direction = seen.direction;
    let name = if direction == crossfade_model::Direction::Forward { "forward runs" } else { "reverse runs" };
    let reason = seen.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let why = format!("{direction} is {}{reason}", seen.state);
    if !seen.is_served {
        return Gate::closed(name, why, format!("run `crossfade sync {direction}`"));
    }
    if seen.is_green {
        return Gate::open(name, why);
    }
    if !seen.applies {
        return match may_rest {
            true => Gate::open(name, format!("{why}; it will be started")),
            false => Gate::closed(name, why, format!("`crossfade start {direction}`")),
        };
    }
    Gate::closed(name, why, "remove that reason; `crossfade status` shows when it is gone").passing()
}

pub(super) fn canary(seen: &DirectionSeen, is_later: bool) -> Gate {
    let direction = seen.direction;
    let name = if direction == crossfade_model::Direction::Forward { "forward is proved" } else { "reverse is proved" };
    let on = direction.target();
    match &seen.unproved {
        None => Gate::open(name, format!("what {direction} writes on {on} is recognised there")),
        Some(_) if is_later => Gate::open(name, format!("{direction} rests; it is proved when it has been started")),
        Some(why) => {
            let remedy = "both processes must run: each finds what the other one writes";
            Gate::closed(name, format!("what {direction} writes on {on} is not known to be recognised: {why}"), remedy)
                .passing()
        }
    }
}

pub(super) fn lag(seen: &DirectionSeen, most: Duration) -> Gate {
    let (direction, limit) = (seen.direction, format_duration(most));
    match seen.lag {
        None => Gate::unknown("lag", format!("nobody knows how far {direction} is behind"), "its process must run"),
        Some(lag) if lag <= most => {
            Gate::open("lag", format!("{direction} is {:.1} s behind, at most {limit}", lag.as_secs_f64()))
        }
        Some(lag) => {
            let why = format!("{direction} is {:.1} s behind, and `max_lag` is {limit}", lag.as_secs_f64());
            Gate::closed("lag", why, "wait until it has caught up, or raise `max_lag` in `[cutover]`").passing()
        }
    }
}

pub(super) fn failures(seen: &DirectionSeen) -> Gate {
    let direction = seen.direction;
    let forward = direction == crossfade_model::Direction::Forward;
    let name = if forward { "forward has nothing aside" } else { "reverse has nothing aside" };
    let (refused, held) = (seen.refused, seen.held);
    if refused + held == 0 {
        return Gate::open(name, "no change is refused or held");
    }
    let why = format!("{refused} changes are refused by {}, {held} are held", direction.target());
    let remedy = "`crossfade messages list --status failed` (or `held`) shows them; `retry` or `discard` each";
    let gate = Gate::closed(name, why, remedy);
    if refused == 0 { gate.passing() } else { gate }
}

pub(super) fn backfill(uncopied: &Result<Vec<String>, String>) -> Gate {
    match uncopied {
        Err(why) => Gate::unknown("history", why, "the store must answer"),
        Ok(tables) if tables.is_empty() => Gate::open("history", "no table waits to be copied"),
        Ok(tables) => {
            let remedy = "`crossfade backfill status` shows what each table waits for";
            Gate::closed("history", listed(tables), remedy)
        }
    }
}

pub(super) fn verification(seen: &Result<Option<VerificationSeen>, String>, settings: &CutoverSettings) -> Gate {
    let name = "verified";
    let again = "run `crossfade verify`, or `crossfade verify --continuous` for good";
    let seen = match seen {
        Err(why) => return Gate::unknown(name, why, "the store must answer"),
        Ok(None) => return Gate::closed(name, "all rows of all tables were never compared to the end", again),
        Ok(Some(seen)) => seen,
    };
    let age = format_duration(Duration::from_secs(seen.age.as_secs()));
    if seen.age > settings.verified_within {
        let limit = format_duration(settings.verified_within);
        let why = format!("the last comparison of all rows began {age} ago, and `verified_within` is {limit}");
        let remedy = format!("{again}; where that takes longer, raise `verified_within` in `[cutover]`");
        return Gate::closed(name, why, remedy);
    }
    if !seen.unknown.is_empty() {
        let why = format!("{} came to the configuration after the last comparison", listed(&seen.unknown));
        return Gate::closed(name, why, "run `crossfade verify`; `crossfade backfill start` copies what they had");
    }
    if !seen.copied.is_empty() {
        let why = format!("{} was copied after the last comparison began", listed(&seen.copied));
        return Gate::closed(name, why, again);
    }
    if !seen.skipped.is_empty() {
        let why = format!("nothing was compared of {}", listed(&seen.skipped));
        return Gate::closed(name, why, "`crossfade verify` says why; give these tables a key on both sides");
    }
    if seen.unconfirmed > 0 {
        let why =
            format!("{} rows differ of which nobody knows whether a change of theirs is under way", seen.unconfirmed);
        return Gate::closed(name, why, again);
    }
    if seen.worst_ppm > f64::from(settings.max_mismatch_ppm) {
        let (rows, percent) = (seen.mismatches, seen.worst_ppm / 10_000.0);
        let why = format!("{rows} rows are missing or different, {percent:.4}% of a table");
        return Gate::closed(name, why, "`crossfade verify show` shows them, `crossfade verify --repair` mends them");
    }
    Gate::open(name, format!("compared {age} ago, {} rows are missing or different", seen.mismatches))
}

/// Applications that follow the flag are waited for whatever else keeps users from writing; they alone do by `flag`.
pub(super) fn instances(instances: usize, settings: &CutoverSettings) -> Gate {
    let name = "instances";
    let alone = settings.fence == Fence::Flag;
    match (instances, settings.require_instances && alone) {
        (0, true) => Gate::closed(
            name,
            "no instance of an application has registered, so nobody is kept from writing",
            "let the applications follow the flag and register; or set `fence = \"account\"` or `\"read_only\"` in `[cutover]`; or, where you see \
             to it yourself that nobody writes, `require_instances = false`",
        ),
        (0, false) if alone => Gate::open(name, "none has registered; you see to it that nobody writes"),
        (0, false) => Gate::open(name, "none has registered; the side itself refuses writes"),
        (1, _) => Gate::open(name, "1 follows the flag"),
        (more, _) => Gate::open(name, format!("{more} follow the flag")),
    }
}

pub(super) fn fence(seen: &FenceSeen) -> Option<Gate> {
    let name = "fence";
    match seen {
        FenceSeen::FlagAlone => None,
        FenceSeen::Possible(why) => Some(Gate::open(name, why)),
        FenceSeen::Impossible { why, remedy } => Some(Gate::closed(name, why, remedy)),
        FenceSeen::Unknown(why) => Some(Gate::unknown(name, why, "the side must answer")),
    }
}

pub(super) fn prepared(prepared: &Result<u64, String>, side: Side) -> Gate {
    let name = "no XA transaction";
    match prepared {
        Err(why) => Gate::unknown(name, why, "`crossfade check` prints the GRANT that is missing"),
        Ok(0) => Gate::open(name, format!("none is prepared on {side}")),
        Ok(count) => Gate::closed(
            name,
            format!("{count} are prepared on {side} and not decided"),
            "end each by XA COMMIT or XA ROLLBACK; XA RECOVER lists them",
        )
        .passing(),
    }
}

pub(super) fn check(errors: &Result<Vec<String>, String>) -> Gate {
    let name = "check";
    match errors {
        Err(why) => Gate::unknown(name, why, "both sides must answer"),
        Ok(errors) if errors.is_empty() => Gate::open(name, "nothing stands in the way"),
        Ok(errors) => Gate::closed(name, listed(errors), "`crossfade check` shows each with its remedy"),
    }
}

fn listed(all: &[String]) -> String {
    let more = all.len().saturating_sub(LISTED);
    let first = all[..all.len().min(LISTED)].join("; ");
    if more > 0 { format!("{first}; and {more} more") } else { first }
}

#[cfg(test)]
mod tests;
