//! `crossfade entity`: users, or whatever else moves by itself, change sides one by one or in groups.

mod add;
mod late;
mod list;
mod moving;
mod rows;
mod selection;
mod show;
mod sight;

pub use sight::entities_gate;

use std::sync::Arc;

use clap::{ArgGroup, Args, Subcommand};
use crossfade_config::{EntitySettings, Settings};
use crossfade_model::{EntityKey, Side};
use crossfade_rules::EntityState;
use tokio_util::sync::CancellationToken;

use crate::args::{JsonOutput, Percent};
use crate::failure::{Failure, Kind};

#[derive(Debug, Subcommand)]
pub enum EntityCommand {
    /// Make entities known: they are then counted, and may be moved
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// List entities, and count them by state
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Move entities to the new side, with everything that hangs on them
    #[command(after_help = MOVE_EXAMPLES)]
    Move(MoveArgs),
    /// Let entities go back to the old side, with everything that was written on new
    #[command(after_help = RETURN_EXAMPLES)]
    Return(MoveArgs),
    /// Show one entity: where it stands, its life, its rows on both sides, and what was written on the wrong one
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "condition", "all"]).required(true))]
pub struct AddArgs {
    /// The entities' keys
    #[arg(value_name = "ID", value_parser = key)]
    pub ids: Vec<EntityKey>,
    /// Those of which the row in the first `[[entity.table]]` fulfils this condition, in the old side's SQL
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// All that the old side has
    #[arg(long)]
    pub all: bool,
    /// At most so many
    #[arg(long, value_name = "N", conflicts_with = "ids", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Only count what would become known
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: JsonOutput,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub state: Option<EntityState>,
    /// At most so many; 0 for the counts alone
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// Only those behind this key
    #[arg(long, value_name = "ID", value_parser = key)]
    pub after: Option<EntityKey>,
    #[command(flatten)]
    pub output: JsonOutput,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "condition", "state", "percent", "all", "limit", "rest", "withdraw"]).multiple(true).required(true))]
pub struct MoveArgs {
    /// The entities' keys
    #[arg(value_name = "ID", value_parser = key, conflicts_with_all = ["condition", "state", "percent", "all", "limit"])]
    pub ids: Vec<EntityKey>,
    /// Those of which the row in the first `[[entity.table]]` fulfils this condition, in the SQL of the side that they leave
    #[arg(long = "where", value_name = "CONDITION", conflicts_with_all = ["state", "percent", "all"])]
    pub condition: Option<String>,
    /// Those that are known and in this state, such as `failed`
    #[arg(long, value_name = "STATE", value_parser = state, conflicts_with_all = ["percent", "all"])]
    pub state: Option<EntityState>,
    /// So many that this share of all that are known is on the side that they go to
    #[arg(long, value_name = "PERCENT", value_parser = share, conflicts_with_all = ["all", "limit"])]
    pub percent: Option<Percent>,
    /// All that are known, but for those that have failed
    #[arg(long)]
    pub all: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// All at once that were never moved by themselves, known or not, and whoever comes later
    #[arg(long, conflicts_with_all = ["ids", "condition", "state", "percent", "all", "limit"])]
    pub rest: bool,
    /// Move nothing: what was asked for before, and not begun, rests where it is
    #[arg(long, conflicts_with_all = ["ids", "condition", "state", "percent", "all", "limit", "rest", "dry_run"])]
    pub withdraw: bool,
    /// Only show the gates, and which entities would be moved; exit code 1 if a gate is closed
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: JsonOutput,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The entity's key
    #[arg(value_name = "ID", value_parser = key)]
    pub id: EntityKey,
    #[command(flatten)]
    pub output: JsonOutput,
}

const ADD_EXAMPLES: &str = "\
Examples:
  crossfade entity add --all
  crossfade entity add --where \"country = 'DE'\" --limit 1000
  crossfade entity add 42 43

One that is known stays as it is. One that is named and has no row on the old side is kept as `identified`; `entity move` adds what it is
asked for by itself.";

const LIST_EXAMPLES: &str = "\
Examples:
  crossfade entity list --limit 0                       the counts alone
  crossfade entity list --state failed
  crossfade entity list --json | jq '.counts'

States:
  identified   its key is known
  eligible     its row was seen on the old side
  requested    a person has asked for its move, or its return
  copying      its rows are being made equal on the side that it goes to
  verified     they were equal; the fence comes next
  moved        the new side has authority over its rows
  returned     the old side has it again
  failed       every attempt was undone; it is where it was, and the reason is kept";

const MOVE_EXAMPLES: &str = "\
Examples:
  crossfade entity move 42 43
  crossfade entity move --where \"country = 'DE'\" --limit 1000
  crossfade entity move --percent 5 --dry-run           what would be moved, and which gate is closed
  crossfade entity move --percent 5                     until 5 % of all that are known are on new
  crossfade entity move --state failed                  once more, when the reason is gone
  crossfade entity move --all --json | jq .pauses
  crossfade entity move --rest                          the others, and new users from now on

Entities move in batches (`batch` of `[entity]`): their rows are made equal on new while users write them, then nobody writes them for a
moment, everything crosses, the rows are compared once more, and new has authority over them. What does not succeed within
`fence_timeout` is undone, and tried again up to `attempts` times. Killed anywhere, the same command goes on: what was in a fence has
been undone or finished by then, and nothing is moved twice.

Exit codes: 0 all were moved; 1 a gate is closed, some have failed, or it was broken off; 3 connection or internal error.";

const RETURN_EXAMPLES: &str = "\
Examples:
  crossfade entity return 42
  crossfade entity return --state moved --limit 100
  crossfade entity return --where \"country = 'DE'\"

As `crossfade entity move`, the other way round: old gets everything that was written on new, and has authority again.";

const SHOW_EXAMPLES: &str = "\
Examples:
  crossfade entity show 42
  crossfade entity show 42 --json | jq '.tables[] | select(.different > 0)'

The rows are compared as they are now. What users wrote on the side that has no authority stands below with its message, which
`crossfade messages show` tells more of.";

/// Gives the exit code.
pub async fn run(settings: Arc<Settings>, command: &EntityCommand, stop: CancellationToken) -> anyhow::Result<u8> {
    let entity = configured(&settings)?;
    match command {
        EntityCommand::Add(args) => add::run(&settings, entity, args).await.map(|()| 0),
        EntityCommand::List(args) => list::run(&settings, args).await.map(|()| 0),
        EntityCommand::Move(args) => moving::run(&settings, entity, (Side::New, args), stop).await,
        EntityCommand::Return(args) => moving::run(&settings, entity, (Side::Old, args), stop).await,
        EntityCommand::Show(args) => show::run(&settings, entity, args, stop).await.map(|()| 0),
    }
}

fn configured(settings: &Settings) -> Result<&EntitySettings, Failure> {
    settings.entity.as_ref().ok_or_else(|| {
        let hint = "add `[entity]` to the configuration: docs/entities.md shows how";
        Failure::new(Kind::Usage, "nothing says what an entity is", hint)
    })
}

fn key(text: &str) -> Result<EntityKey, String> {
    EntityKey::parse(text).ok_or_else(|| "a key has 1 to 512 bytes".to_owned())
}

fn share(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    let share = number.filter(|number| (0.0..=100.0).contains(number)).map(Percent);
    share.ok_or_else(|| "it is written as 5 or 5%, from 0 to 100".to_owned())
}

fn state(text: &str) -> Result<EntityState, String> {
    EntityState::parse(text).ok_or_else(|| {
        let states: Vec<&str> = EntityState::ALL.iter().map(|state| state.as_str()).collect();
        format!("it is one of {}", states.join(", "))
    })
}
