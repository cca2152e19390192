//! `crossfade finish` and `crossfade abort`: a migration ends on the new side, or on the old one.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use crossfade_config::Settings;
use crossfade_control::gate::VerificationSeen;
use crossfade_control::{
    Cause, Change, Compared, End, EndReport, EndSight, Gate, Memory, Sight, removal, until_none_runs,
};
use crossfade_message::{BackfillWish, CopyState, Store, SwitchRun, SwitchState};
use crossfade_model::{Position, Side};
use crossfade_verify::TableReport;
use tokio_util::sync::CancellationToken;

use super::switch::{Eyes, plan};
use super::{final_report, gates, open_known_store, print_json, verify};
use crate::failure::{Failure, Kind};
use crate::output::out;
use crate::pair::Pair;
use crate::sync::{failpoint, holder, is_dead};

pub const FINISH_EXAMPLES: &str = "\
Examples:
  crossfade finish --dry-run                     the steps, and which gate is closed and why
  crossfade finish --report /var/lib/crossfade   compares, ends both directions, writes the report
  crossfade finish --drop-schemas --yes          also removes the schemas `crossfade`, also later

Users write on. All rows of both sides are compared; applications are told to write new alone, and when all of them do, what both sides
have crosses for the last time. Nothing leads back from there, and both processes end. What fails before that is undone: users can go
back as before. Killed anywhere, the same command goes on. The report tells the whole migration, as JSON and for people.

Exit codes: 0 the migration has ended; 1 a gate is closed, or it was undone; 3 connection or internal error.";

pub const ABORT_EXAMPLES: &str = "\
Examples:
  crossfade abort --dry-run             the steps, and which gate is closed and why
  crossfade abort                       asks, ends both directions, and removes the schema `crossfade` from old
  crossfade abort --yes --drop-schemas  also from new and from the store

Possible as long as users write on old; after a cutover, `crossfade rollback` leads back to there. What pilots have written on new
comes to old first. Then both processes end, and old is as it was before the migration. What is on new stays there. Killed anywhere,
the same command goes on.

Exit codes: 0 the migration has ended; 1 a gate is closed, or it was undone; 2 nobody has agreed; 3 connection or internal error.";

#[derive(Debug, Args)]
pub struct FinishArgs {
    /// Only show the steps and the gates; exit code 1 if a gate is closed
    #[arg(long)]
    pub dry_run: bool,
    /// The folder of the report: `crossfade-report-<pair>.json` and `.md`
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub report: PathBuf,
    /// Then remove the schemas `crossfade` of this pair from both sides and from the store, with every message
    #[arg(long, conflicts_with = "dry_run")]
    pub drop_schemas: bool,
    /// Remove without asking
    #[arg(long, requires = "drop_schemas")]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct AbortArgs {
    /// Only show the steps and the gates; exit code 1 if a gate is closed
    #[arg(long)]
    pub dry_run: bool,
    /// Also remove the schemas `crossfade` of this pair from new and from the store, with every message
    #[arg(long, conflicts_with = "dry_run")]
    pub drop_schemas: bool,
    /// Do it without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Gives the exit code.
pub async fn finish(settings: Arc<Settings>, args: &FinishArgs, stop: CancellationToken) -> anyhow::Result<u8> {
    let store = open_known_store(&settings).await?;
    if args.dry_run {
        return plan(&settings, &store, Change::Finish, args.json).await;
    }
    if args.drop_schemas && !args.yes {
        confirm("remove all that crossfade has kept, with every message, when the migration has ended?")?;
    }
    // Before anything is done: what has ended could not be written down.
    final_report::probe(&args.report)?;
    let ended = match store.ending().await? {
        Some(run) => {
            let ended = ended_before(&store, run, Change::Finish).await?;
            // Of what is half removed, another report would tell half.
            let is_written = !ended.report.is_empty() && ended.report.iter().all(|file| Path::new(file).exists());
            if args.drop_schemas && is_written {
                ended
            } else {
                EndReport { report: final_report::write(&settings, &store, &args.report).await?, ..ended }
            }
        }
        None => carry_out(&settings, &store, Change::Finish, &args.report, stop).await?,
    };
    let code = tell(&ended, args.json)?;
    if code == 0 && args.drop_schemas {
        drop_schemas(&settings, &store).await?;
    }
    Ok(code)
}

/// Nothing more is to be copied. Says whether something was being copied until now.
async fn pause_copying(store: &Store) -> anyhow::Result<bool> {
    let is_over = store.copies().await?.iter().all(|copy| copy.state == CopyState::Copied);
    if is_over || store.backfill_wish().await? != Some(BackfillWish::Run) {
        return Ok(false);
    }
    store.set_backfill_wish(BackfillWish::Pause).await?;
    Ok(true)
}

/// Gives the exit code.
pub async fn abort(settings: Arc<Settings>, args: &AbortArgs, stop: CancellationToken) -> anyhow::Result<u8> {
    let store = open_known_store(&settings).await?;
    if args.dry_run {
        return plan(&settings, &store, Change::Abort, args.json).await;
    }
    if !args.yes {
        confirm("end the migration, and remove from old what crossfade has kept there?")?;
    }
    let (ended, paused) = match store.ending().await? {
        Some(run) => (ended_before(&store, run, Change::Abort).await?, false),
        None => {
            let paused = pause_copying(&store).await?;
            (carry_out(&settings, &store, Change::Abort, Path::new("."), stop).await?, paused)
        }
    };
    let code = tell(&ended, args.json)?;
    if code != 0 && paused {
        store.set_backfill_wish(BackfillWish::Run).await?;
    }
    if code == 0 && args.drop_schemas {
        drop_schemas(&settings, &store).await?;
    }
    Ok(code)
}

async fn carry_out(
    settings: &Arc<Settings>,
    store: &Store,
    change: Change,
    folder: &Path,
    stop: CancellationToken,
) -> anyhow::Result<EndReport> {
    let holder = holder();
    let eyes = Eyes { settings, store, change };
    let sight = EndEyes { eyes, settings, store, folder, stop: stop.clone() };
    let probe = failpoint::from_environment()?;
    let end = End { settings, store, change, holder: &holder, is_dead, sight: &sight, probe, stop };
    Ok(end.carry_out().await?)
}

/// The migration has ended already.
async fn ended_before(store: &Store, run: SwitchRun, change: Change) -> anyhow::Result<EndReport> {
    if run.kind != change.as_str() {
        let word = store.end_word().await?.unwrap_or_default();
        let hint = "`crossfade status` shows how";
        return Err(Failure::new(Kind::Finding, format!("{word}, by `crossfade {}`", run.kind), hint).into());
    }
    let (memory, flag) = (Memory::of(&run)?, store.flag().await?);
    Ok(EndReport {
        run: run.id,
        change,
        state: run.state,
        phase: flag.phase,
        version: flag.version,
        reason: None,
        resumed: false,
        verification: memory.verification.map(|(id, _)| id),
        old_position: memory.old_position.map(|position| position.to_string()),
        new_position: memory.new_position.map(|position| position.to_string()),
        report: memory.report,
        steps: memory.steps,
        gates: Vec::new(),
    })
}

fn tell(ended: &EndReport, json: bool) -> anyhow::Result<u8> {
    let EndReport { change, run, state, phase, .. } = ended;
    if json {
        print_json(ended)?;
        return Ok(u8::from(*state != SwitchState::Done));
    }
    if *state == SwitchState::Done {
        match change {
            Change::Finish => {
                out!("{change} {run}: the migration has ended; users read and write new alone (phase {phase})")
            }
            _ => out!(
                "{change} {run}: the migration was left; users read and write old, which has nothing of it any more"
            ),
        }
        for file in &ended.report {
            out!("report: {file}");
        }
        return Ok(0);
    }
    let is_closed = ended.gates.iter().any(|gate| !gate.is_open());
    if is_closed {
        gates::print(&ended.gates);
    }
    let hint =
        if is_closed { "above stands what would open each of them" } else { "remove the reason, and run it again" };
    let reason = ended.reason.as_deref().unwrap_or("it did not end");
    let message = format!("{change} {run} was undone, and the phase is {phase} as before: {reason}");
    Err(Failure::new(Kind::Finding, message, hint).into())
}

/// Once no process of the pair runs: from the sides first, so that the store tells what is left to be done until the end.
async fn drop_schemas(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    let probe = failpoint::from_environment()?;
    until_none_runs(store, is_dead).await?;
    for side in [Side::Old, Side::New] {
        probe("schemas-dropped");
        eprintln!("{side}: {}", removal::of_node(settings, side).await?);
    }
    probe("schemas-dropped");
    eprintln!("store: {}", removal::of_store(settings).await?);
    Ok(())
}

fn confirm(question: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        let hint = "add --yes if that is what you want";
        return Err(Failure::new(Kind::Usage, format!("nobody can be asked: {question}"), hint).into());
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("standard input cannot be read")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Kind::Usage, "nothing was done", "").into()),
    }
}

/// What the steps of an end see of the pair.
struct EndEyes<'e> {
    eyes: Eyes<'e>,
    settings: &'e Arc<Settings>,
    store: &'e Store,
    folder: &'e Path,
    stop: CancellationToken,
}

impl Sight for EndEyes<'_> {
    async fn gates(&self, run: u64) -> Result<Vec<Gate>, Cause> {
        self.eyes.gates(run).await
    }

    async fn position(&self, side: Side, writes: bool) -> Result<Position, Cause> {
        self.eyes.position(side, writes).await
    }

    fn tell(&self, text: &str) {
        self.eyes.tell(text);
    }
}

impl EndSight for EndEyes<'_> {
    async fn compare(&self) -> Result<Compared, Cause> {
        let pair = Pair::read(self.settings.clone()).await?;
        let (verification, reports) = verify::compare_all(&pair, self.store, &self.stop).await?;
        Ok(Compared { verification, seen: seen(&reports) })
    }

    async fn report(&self) -> Result<Vec<String>, Cause> {
        Ok(final_report::write(self.settings, self.store, self.folder).await?)
    }
}

fn seen(reports: &[TableReport]) -> VerificationSeen {
    // It has asked the sides themselves which tables there are.
    VerificationSeen::new(std::time::Duration::ZERO, reports.iter().map(gates::compared_table), &[])
}
