//! `crossfade entity move` and `crossfade entity return`.

use std::sync::Arc;
use std::time::Duration;

use crossfade_config::{EntitySettings, Settings};
use crossfade_control::Gate;
use crossfade_control::entity::{MoveReport, Mover, Taken, take_run};
use crossfade_message::Store;
use crossfade_model::Side;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::MoveArgs;
use super::rows::Rows;
use super::selection::{Selection, words};
use super::sight::{Eyes, gates};
use crate::command::{gates as shown_gates, open_known_store, print_json};
use crate::failure::{Failure, Kind};
use crate::output::out;
use crate::pair::Pair;
use crate::sync::{failpoint, holder, is_dead, throttle};

/// So many of those that would be moved are named.
const NAMED: usize = 20;

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct Plan<'g> {
    to: Side,
    /// Entities that would be moved, and the first of them.
    entities: u64,
    first: Vec<String>,
    gates: &'g [Gate],
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'r> {
    /// Found by what was asked for, where this command has looked.
    found: Option<u64>,
    /// Of these, taken up: the others are there already, or another tool has them.
    asked: u64,
    #[serde(flatten)]
    report: &'r MoveReport,
}

/// Gives the exit code.
pub async fn run(
    settings: &Arc<Settings>,
    entity: &EntitySettings,
    (to, args): (Side, &MoveArgs),
    stop: CancellationToken,
) -> anyhow::Result<u8> {
    let probe = failpoint::from_environment()?;
    let store = open_known_store(settings).await?;
    let holder = holder();
    if args.withdraw {
        return withdraw(&store, to, &holder, args.output.json).await;
    }
    let pair = Pair::read(settings.clone()).await?;
    let rows = Rows::new(&pair, entity);
    if args.dry_run {
        return plan(settings, &store, &rows, (to, args)).await;
    }
    // Nothing is asked for behind closed gates.
    let looked = gates(settings, &store).await?;
    if looked.iter().any(|gate| !gate.is_open()) {
        return closed(to, &looked, args.output.json);
    }
    store.set_entity_lease(entity.lease).await?;
    let Taken { run, resumed } = take_run(&store, (to, &words(to, args)), &holder, is_dead).await?;
    if resumed {
        eprintln!("goes on with what the same command had begun (run {})", run.id);
    }
    let (mut found, mut asked) = (None, 0);
    if !run.has_asked {
        let before: u64 = store.run_counts(run.id).await?.iter().map(|(_, count)| count).sum();
        let mut selection = Selection::new(settings, &store, &rows, (to, args), before).await?;
        loop {
            let page = selection.next(true).await?;
            if page.is_empty() || stop.is_cancelled() {
                break;
            }
            *found.get_or_insert(0) += page.len() as u64;
            let taken = store.ask_for_entities(&run, &holder, &page).await?;
            let taken = taken.ok_or_else(|| taken_over(run.id))?;
            selection.took(taken);
            asked += taken;
            store.renew_entity_run(run.id, &holder, HELD_WHILE_ASKING).await?;
        }
        found.get_or_insert(0);
        if !stop.is_cancelled() && !store.end_asking(&run, &holder).await? {
            return Err(taken_over(run.id).into());
        }
    }
    let (throttle, _following_limits) = throttle::watch(settings, &store, &stop).await;
    let eyes = Eyes::new(&pair, entity, &store, throttle);
    let mover = Mover {
        settings,
        entity,
        store: &store,
        run: &run,
        resumed,
        holder: &holder,
        is_dead,
        sight: &eyes,
        probe,
        stop,
    };
    let report = mover.carry_out().await?;
    eyes.end();
    if args.output.json {
        print_json(&Told { found, asked, report: &report })?;
        return Ok(u8::from(report.ended_early.is_some() || report.failed > 0));
    }
    print(entity, (found, asked), &report)
}

/// Looking for more takes no longer.
const HELD_WHILE_ASKING: Duration = Duration::from_secs(30);

fn taken_over(run: u64) -> Failure {
    let hint = "`crossfade entity list` shows where they stand; run this again to go on";
    Failure::new(Kind::Finding, format!("somebody else has taken run {run} over"), hint)
}

fn closed(to: Side, looked: &[Gate], json: bool) -> anyhow::Result<u8> {
    if json {
        print_json(&Plan { to, entities: 0, first: Vec::new(), gates: looked })?;
        return Ok(1);
    }
    shown_gates::print(looked);
    let names: Vec<&str> = looked.iter().filter(|gate| !gate.is_open()).map(|gate| gate.name).collect();
    let message = format!("nothing was moved: gates are closed: {}", names.join(", "));
    Err(Failure::new(Kind::Finding, message, "above stands what would open each of them").into())
}

async fn plan(
    settings: &Arc<Settings>,
    store: &Store,
    rows: &Rows<'_>,
    (to, args): (Side, &MoveArgs),
) -> anyhow::Result<u8> {
    let gates = gates(settings, store).await?;
    let rest = store.rest_side().await?;
    let mut selection = Selection::new(settings, store, rows, (to, args), 0).await?;
    let (mut entities, mut first) = (0, Vec::new());
    loop {
        let page = selection.next(false).await?;
        if page.is_empty() {
            break;
        }
        let mut of_page = 0;
        for key in page {
            let is_there = store.entity(&key).await?.map_or(rest, |known| known.side.unwrap_or(rest)) == to;
            let shown = if key.is_rest() { key.to_string() } else { key.as_str().to_owned() };
            if is_there {
                continue;
            }
            of_page += 1;
            if first.len() < NAMED {
                first.push(shown);
            }
        }
        selection.took(of_page);
        entities += of_page;
    }
    let code = u8::from(!gates.iter().all(Gate::is_open));
    if args.output.json {
        print_json(&Plan { to, entities, first, gates: &gates })?;
        return Ok(code);
    }
    shown_gates::print(&gates);
    let more = if entities > first.len() as u64 { ", …" } else { "" };
    match entities {
        0 => out!("no entity would go to {to}"),
        _ => out!("{entities} would go to {to}: {}{more}", first.join(", ")),
    }
    Ok(code)
}

/// What nobody works at any more, rests where it is.
async fn withdraw(store: &Store, to: Side, holder: &str, json: bool) -> anyhow::Result<u8> {
    let (mut withdrawn, mut busy) = (0, Vec::new());
    for (run, held_by) in store.open_entity_runs().await?.into_iter().filter(|(run, _)| run.to == to) {
        match held_by {
            Some(other) if !is_dead(&other) => busy.push(run.id.to_string()),
            other => {
                if let Some(dead) = other {
                    store.renew_entity_run(run.id, &dead, Duration::ZERO).await?;
                }
                let Some(run) = store.take_entity_run(run.id, holder, HELD_WHILE_ASKING).await? else { continue };
                if !store.open_batches(&run).await?.is_empty() {
                    store.renew_entity_run(run.id, holder, Duration::ZERO).await?;
                    busy.push(format!("{} (its tool has died in a batch: its own command ends that first)", run.id));
                    continue;
                }
                withdrawn += store.end_entity_run(&run, holder).await?.unwrap_or(0);
                store.journal("entity", &format!("run {} was withdrawn", run.id)).await?;
            }
        }
    }
    if json {
        print_json(&serde_json::json!({ "withdrawn": withdrawn, "busy": busy }))?;
    } else {
        out!("{withdrawn} that were asked for rest where they are");
        if !busy.is_empty() {
            eprintln!("still in hand: run {}", busy.join(", "));
        }
    }
    Ok(u8::from(!busy.is_empty()))
}

fn print(entity: &EntitySettings, (found, asked): (Option<u64>, u64), report: &MoveReport) -> anyhow::Result<u8> {
    let name = &entity.name;
    let verb = if report.to == Side::New { "moved" } else { "returned" };
    if let Some(found) = found.filter(|found| *found > asked) {
        eprintln!("{} of {found} are on {} already, or another tool has them", found - asked, report.to);
    }
    let pauses = match (report.pauses.median_ms(), report.pauses.worst_ms()) {
        (Some(median), Some(worst)) => format!("; the pause was {median} ms (median), {worst} ms at worst"),
        _ => String::new(),
    };
    out!("{name}: {} {verb} in {:.1} s, {} rows{pauses}", report.moved, report.seconds, report.rows);
    for failed in &report.reasons {
        eprintln!("{name} {}: {}", failed.entity, failed.reason);
    }
    if let Some(reason) = &report.ended_early {
        if !report.gates.is_empty() {
            shown_gates::print(&report.gates);
        }
        let message = format!("{} are left: {reason}", report.left);
        return Err(Failure::new(Kind::Finding, message, "run the same command again to go on").into());
    }
    if report.failed > 0 {
        let message = format!("{} have failed, and are where they were", report.failed);
        let hint = "remove the reason, then move them with `--state failed`; `crossfade entity show` tells of each";
        return Err(Failure::new(Kind::Finding, message, hint).into());
    }
    Ok(0)
}
