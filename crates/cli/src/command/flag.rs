//! `crossfade flag`: what applications are told, and which of them follow; two-way writing is opened, or ended again. What moves
//! users takes more than that.

use std::time::Duration;

use clap::Args;
use crossfade_config::Settings;
use crossfade_control::{Change, Gate, mirror};
use crossfade_message::Store;
use crossfade_model::{Phase, Side};
use crossfade_server::{FlagDocument, InstanceLine};
use serde::Serialize;

use super::{add_row, gates, groups, new_table, open_known_store, print_json, print_table, refuse_ended};
use crate::failure::{Failure, Kind, with_causes};
use crate::output::out;
use crate::sync::failpoint;

pub const SET_EXAMPLES: &str = "\
Examples:
  crossfade flag set write_both --dry-run    what stands in the way?
  crossfade flag set write_both              users still read and write old; pilots may write new
  crossfade flag set old_only                nobody writes new any more

write_both is set when all gates are open: both processes run and are proved, all history is copied, and the last comparison of
all rows is young and clean. `crossfade cutover` leads on from there, `crossfade rollback` back to there.";

#[derive(Debug, Args)]
pub struct FlagSetArgs {
    /// write_both (1) or old_only (0)
    pub phase: Phase,
    /// Only show the gates; exit code 1 if one is closed
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct FlagGetArgs {
    /// The flag of a group of tables: a `group` of `[[table]]`
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    flag: FlagDocument,
    instances: Vec<InstanceLine>,
}

pub async fn get(settings: &Settings, args: &FlagGetArgs) -> anyhow::Result<()> {
    groups::refuse_unknown(settings, args.group.as_deref())?;
    let store = open_known_store(settings).await?.of_group(args.group.as_deref());
    let flag = FlagDocument::of(store.flag_key(), store.flag().await?);
    let instances = store.flag_instances().await?.iter().map(InstanceLine::from).collect();
    let shown = Shown { flag, instances };
    if args.json {
        return print_json(&shown);
    }
    let Shown { flag, instances } = &shown;
    let reads = if flag.is_read_new { "new" } else { "old" };
    let writes = match flag.writes_to {
        Some(side) => format!("written to {side}"),
        None => "fenced: users write nowhere".to_owned(),
    };
    out!("{} ({}), version {}: read from {reads}, {writes}", flag.phase, flag.flag, flag.version);
    if instances.is_empty() {
        out!("no instance of an application is registered");
        return Ok(());
    }
    let mut table = new_table(&["instance", "acknowledged", "known for"]);
    for instance in instances {
        let acknowledged = match instance.version < flag.version {
            true => format!("{} (behind)", instance.version),
            false => instance.version.to_string(),
        };
        let left = humantime::format_duration(Duration::from_millis(instance.expires_in_ms)).to_string();
        add_row(&mut table, [instance.instance.clone(), acknowledged, left]);
    }
    print_table(&table);
    Ok(())
}

#[derive(Serialize)]
struct Set<'g> {
    phase: Phase,
    flag: u8,
    version: u64,
    /// The phase is what was asked for.
    set: bool,
    gates: &'g [Gate],
}

/// Gives the exit code.
pub async fn set(settings: &Settings, args: &FlagSetArgs) -> anyhow::Result<u8> {
    let change = change_to(args.phase)?;
    let store = open_known_store(settings).await?;
    refuse_ended(&store).await?;
    let flag = store.flag().await?;
    let is_set = flag.phase == args.phase && !flag.fenced;
    let gates = if is_set { Vec::new() } else { gates::look(settings, &store, change, None).await? };
    let is_open = gates.iter().all(Gate::is_open);
    let mut told =
        Set { phase: flag.phase, flag: flag.phase.flag(), version: flag.version, set: is_set, gates: &gates };
    if is_open && !is_set && !args.dry_run {
        let version = change_flag(settings, &store, change, flag.version).await?;
        (told.phase, told.flag, told.version, told.set) = (args.phase, args.phase.flag(), version, true);
    }
    if args.json {
        print_json(&told)?;
        return Ok(u8::from(!is_open));
    }
    if !is_open || args.dry_run {
        gates::print(&gates);
    }
    if told.set {
        out!("the phase is {} (flag {}, version {})", told.phase, told.flag, told.version);
    }
    if is_open {
        return Ok(0);
    }
    let closed: Vec<&str> = gates.iter().filter(|gate| !gate.is_open()).map(|gate| gate.name).collect();
    let message = format!("the phase stays {}: gates are closed: {}", flag.phase, closed.join(", "));
    Err(Failure::new(Kind::Finding, message, "above stands what would open each of them").into())
}

fn change_to(phase: Phase) -> Result<Change, Failure> {
    let other = match phase {
        Phase::WriteBoth => return Ok(Change::Open),
        Phase::OldOnly => return Ok(Change::Close),
        Phase::ReadNew => {
            "`crossfade cutover` leads there: users must stop for a moment, and all that they wrote must have crossed"
        }
        Phase::NewOnly => "`crossfade finish` leads there: it ends the migration",
    };
    Err(Failure::new(Kind::Usage, format!("{phase} cannot be set"), other))
}

/// Gives the new version.
async fn change_flag(settings: &Settings, store: &Store, change: Change, from: u64) -> anyhow::Result<u64> {
    (failpoint::from_environment()?)("flag-set");
    let Some(flag) = store.change_flag(from, change.to(), None).await? else {
        let hint = "`crossfade status` shows the phase; run this again if it is still to be changed";
        return Err(Failure::new(Kind::Finding, "somebody else has changed the flag meanwhile", hint).into());
    };
    let (phase, version) = (flag.phase, flag.version);
    store.journal("flag", &format!("the phase is {phase} (flag version {version})")).await?;
    let groups = store.groups().await?;
    for group in std::iter::once(None).chain(groups.iter().map(|group| Some(group.as_str()))) {
        let store = store.of_group(group);
        let flag = store.flag().await?;
        for side in [Side::Old, Side::New] {
            if let Err(error) = mirror(settings, &store, side, &flag).await {
                let error = with_causes(&error.into());
                tracing::warn!(error, %side, "the side's node has not been told of the flag yet; its process will");
            }
        }
    }
    Ok(version)
}
