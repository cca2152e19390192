//! `crossfade cutover` and `crossfade rollback`: users change sides.

use std::sync::Arc;

use clap::Args;
use crossfade_applier::beat;
use crossfade_catalog::{Purpose, Servers};
use crossfade_config::Settings;
use crossfade_control::{Cause, Change, CountedTable, Gate, Report, Sight, Step, Switch, name, of_group, steps};
use crossfade_message::{Store, SwitchState};
use crossfade_model::{Direction, Position, Side, TableName, TableShape};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{gates, groups, open_known_store, print_json, refuse_ended};
use crate::failure::{Failure, Kind};
use crate::meeting::{Source, in_time};
use crate::output::{one_line, out};
use crate::pair::Pair;
use crate::sync::{failpoint, holder, is_dead};

/// The heartbeat behind everything that users wrote.
const WRITER: &str = "switch";

pub const CUTOVER_EXAMPLES: &str = "\
Examples:
  crossfade cutover --dry-run            the steps, and which gate is closed and why
  crossfade cutover                      users change to the new side
  crossfade cutover --json | jq .pause_ms
  crossfade cutover --group billing      users of the tables of one group alone

Their applications are told to write nowhere, and say that they do so. Then everything that was written on old is brought over, and the
flag is changed: users read and write new. Old stays ready: what is written on new flows back. What is not done within `timeout` of
`[cutover]` is undone, and users write on old as before. Killed anywhere, the same command undoes or finishes what it finds.

Exit codes: 0 users write on new; 1 a gate is closed, or it was undone; 2 there is no such group; 3 connection or internal error.";

pub const ROLLBACK_EXAMPLES: &str = "\
Examples:
  crossfade rollback --dry-run
  crossfade rollback                     users go back to the old side, with everything that they wrote on new
  crossfade rollback --group billing     users of the tables of one group alone

As `crossfade cutover`, the other way round. `crossfade start forward` is done first where forward was stopped.";

#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// Only users of tables of this `group` of `[[table]]`; without it, only those of tables that are in no group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Only show the steps and the gates; exit code 1 if a gate is closed
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `--dry-run --json` prints.
#[derive(Serialize)]
struct Plan<'g> {
    change: Change,
    steps: Vec<Step>,
    gates: &'g [Gate],
}

/// Gives the exit code.
pub async fn run(
    settings: Arc<Settings>,
    change: Change,
    args: &SwitchArgs,
    stop: CancellationToken,
) -> anyhow::Result<u8> {
    let probe = failpoint::from_environment()?;
    groups::refuse_unknown(&settings, args.group.as_deref())?;
    let store = open_known_store(&settings).await?.of_group(args.group.as_deref());
    refuse_ended(&store).await?;
    if args.dry_run {
        return plan(&settings, &store, change, args.json).await;
    }
    groups::know(&settings, &store).await?;
    let pair = Pair::read(settings.clone()).await?;
    let tables = counted(&pair, change, store.group());
    let sight = Eyes { settings: &settings, store: &store, change };
    let holder = holder();
    let switch = Switch {
        settings: &settings,
        store: &store,
        change,
        holder: &holder,
        is_dead,
        tables: &tables,
        sight: &sight,
        probe,
        stop,
    };
    let report = switch.carry_out().await?;
    if args.json {
        print_json(&report)?;
        return Ok(u8::from(report.state != SwitchState::Done));
    }
    print(&report)
}

pub async fn plan(settings: &Settings, store: &Store, change: Change, json: bool) -> anyhow::Result<u8> {
    // One that was left behind is undone, or finished, before anything else.
    let open = store.open_switch_run().await?;
    let is_left = |holder: Option<&String>| holder.is_none_or(|holder| is_dead(holder));
    let left_behind = open.filter(|(_, holder)| is_left(holder.as_ref())).map(|(run, _)| run);
    let gates = gates::look(settings, store, change, left_behind.as_ref().map(|run| run.id)).await?;
    let code = u8::from(!gates.iter().all(Gate::is_open));
    let steps = steps(change, settings.cutover.fence);
    if json {
        print_json(&Plan { change, steps, gates: &gates })?;
        return Ok(code);
    }
    if let Some(run) = left_behind {
        out!("{} was left behind at step `{}`: it is brought to its end first", name(&run), run.step);
    }
    for (at, step) in steps.iter().enumerate() {
        out!("{:2}. {}: {}", at + 1, step.as_str(), step.meaning());
    }
    gates::print(&gates);
    Ok(code)
}

/// Tables of a group whose new rows are numbered by both sides.
fn counted(pair: &Pair, change: Change, group: Option<&str>) -> Vec<CountedTable> {
    let groups = pair.groups(Side::Old);
    let is_meant = |table: &CountedTable| groups.get(&table.old).is_some_and(|of| of.as_deref() == group);
    let direction = change.drains().unwrap_or(Direction::Forward);
    let counts = |side: Side, name: &TableName| {
        let shape: Option<&Arc<TableShape>> = pair.side(side).shapes.get(name);
        shape.is_some_and(|shape| shape.columns.iter().any(|column| column.auto_increment))
    };
    let named = pair.mappings(direction).iter().map(|mapping| match direction {
        Direction::Forward => CountedTable { old: mapping.source.clone(), new: mapping.target.clone() },
        Direction::Reverse => CountedTable { old: mapping.target.clone(), new: mapping.source.clone() },
    });
    named.filter(|table| is_meant(table) && counts(Side::Old, &table.old) && counts(Side::New, &table.new)).collect()
}

fn print(report: &Report) -> anyhow::Result<u8> {
    let (run, phase) = (report.run, report.phase);
    let change = format!("{} {run}{}", report.change, of_group(report.group.as_deref()));
    if report.state == SwitchState::Done {
        let pause = match report.pause_ms {
            Some(ms) => format!("the pause was {ms} ms"),
            None => "nobody has measured the pause".to_owned(),
        };
        let (side, flag, version) = (phase.writes_to(), phase.flag(), report.version);
        out!("{change}: users read and write {side} (phase {phase}, flag {flag}, version {version}); {pause}");
        return Ok(0);
    }
    let reason = report.reason.as_deref().unwrap_or("it was not finished");
    let is_closed = report.gates.iter().any(|gate| !gate.is_open());
    if is_closed {
        gates::print(&report.gates);
    }
    let hint =
        if is_closed { "above stands what would open each of them" } else { "remove the reason, and run it again" };
    let side = phase.writes_to();
    let message = format!("{change} was undone, and users write on {side} as before: {reason}");
    Err(Failure::new(Kind::Finding, message, hint).into())
}

/// What the steps see of the pair.
pub struct Eyes<'e> {
    pub settings: &'e Settings,
    pub store: &'e Store,
    pub change: Change,
}

impl Sight for Eyes<'_> {
    async fn gates(&self, run: u64) -> Result<Vec<Gate>, Cause> {
        Ok(gates::look(self.settings, self.store, self.change, Some(run)).await?)
    }

    async fn position(&self, side: Side, writes: bool) -> Result<Position, Cause> {
        let source = Source::new(self.settings, side, Servers::new(self.settings.side(side).urls()));
        // A replica is met by a heartbeat in any case, and a side that takes no writes of ours has nothing on its way.
        if !writes || source.replica.is_some() {
            return Ok(source.position(WRITER).await?);
        }
        let mut conn = source.primary(Purpose::Apply).await?;
        let counter = in_time(beat(&mut conn, &self.settings.pair, WRITER)).await??;
        Ok(source.position_after(&mut conn, WRITER, counter).await?)
    }

    fn tell(&self, text: &str) {
        eprintln!("{}", one_line(text));
    }
}
