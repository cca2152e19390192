//! `crossfade mark`: positions of both sides that belong together.

use chrono::Utc;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::{Mark, Store, StoreError};
use crossfade_model::Side;
use serde::Serialize;

use super::{new_table, open_known_store, print_json, print_table};
use crate::args::{JsonOutput, MarkTakeArgs};
use crate::failure::{Failure, Kind};
use crate::meeting::Source;
use crate::output::out;

/// The heartbeat by which a replica's position is found.
const WRITER: &str = "mark";

/// As wide as the store's column.
const NAME_MOST_CHARS: usize = 64;

#[derive(Serialize)]
struct MarkLine {
    name: String,
    taken_at: String,
    old_position: String,
    new_position: String,
    note: Option<String>,
}

impl MarkLine {
    fn of(mark: Mark) -> MarkLine {
        MarkLine {
            name: mark.name,
            taken_at: mark.taken_at.to_rfc3339(),
            old_position: mark.old_position.to_string(),
            new_position: mark.new_position.to_string(),
            note: mark.note,
        }
    }
}

pub async fn take(settings: &Settings, args: &MarkTakeArgs) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    let name = args.name.clone().unwrap_or_else(|| Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
    if name.is_empty() || name.chars().count() > NAME_MOST_CHARS {
        let hint = format!("use 1 to {NAME_MOST_CHARS} letters");
        return Err(Failure::new(Kind::Usage, format!("`{name}` is no name of a mark"), hint).into());
    }
    match keep(settings, &store, &name, args.note.as_deref()).await {
        Ok(()) => {}
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::MarkExists(_))) => {
            let hint = "marks stay as they are; choose another name";
            return Err(Failure::new(Kind::Finding, error.to_string(), hint).into());
        }
        Err(error) => return Err(error),
    }
    let taken = store.marks().await?.into_iter().find(|mark| mark.name == name).map(MarkLine::of);
    if args.output.json {
        return print_json(&taken);
    }
    if let Some(mark) = taken {
        out!("{}: old at {}, new at {}", mark.name, mark.old_position, mark.new_position);
    }
    Ok(())
}

/// Takes a mark of now, and keeps it.
///
/// # Errors
///
/// [`StoreError::MarkExists`] among others.
pub async fn keep(settings: &Settings, store: &Store, name: &str, note: Option<&str>) -> anyhow::Result<()> {
    let mut positions = Vec::new();
    // As `init` does: what is written on new meanwhile is after the mark on both sides.
    for side in [Side::New, Side::Old] {
        let source = Source::new(settings, side, Servers::new(settings.side(side).urls()));
        positions.push(source.position(WRITER).await?);
    }
    let [new, old] = &positions[..] else { return Ok(()) };
    store.keep_mark(name, old, new, note).await?;
    store.journal("mark", &format!("{name}: old at {old}, new at {new}")).await?;
    Ok(())
}

pub async fn list(settings: &Settings, args: JsonOutput) -> anyhow::Result<()> {
    let marks: Vec<MarkLine> = open_known_store(settings).await?.marks().await?.into_iter().map(MarkLine::of).collect();
    if args.json {
        return print_json(&marks);
    }
    let mut table = new_table(&["mark", "taken", "old at", "new at", "note"]);
    for mark in marks {
        table.add_row([mark.name, mark.taken_at, mark.old_position, mark.new_position, mark.note.unwrap_or_default()]);
    }
    print_table(&table);
    Ok(())
}
