//! `crossfade entity list`.

use std::collections::BTreeMap;

use crossfade_config::Settings;
use crossfade_message::Entity;
use crossfade_model::Side;
use serde::Serialize;

use super::ListArgs;
use crate::command::{add_row, new_table, open_known_store, print_json, print_table};
use crate::output::out;

#[derive(Debug, Serialize)]
struct Listed {
    /// By state; what nobody has is left out.
    counts: BTreeMap<&'static str, u64>,
    on_old: u64,
    on_new: u64,
    entities: Vec<EntityLine>,
}

/// One entity.
#[derive(Debug, Serialize)]
pub struct EntityLine {
    pub entity: String,
    pub state: &'static str,
    pub side: Side,
    pub version: u64,
    pub fenced: bool,
    pub attempts: u32,
    pub reason: Option<String>,
    /// Of its last fence that was not undone.
    pub pause_ms: Option<u64>,
    pub changed_at: String,
}

impl EntityLine {
    /// `rest`: the side of all that have none of their own.
    pub fn of(entity: Entity, rest: Side) -> EntityLine {
        EntityLine {
            entity: entity.key.as_str().to_owned(),
            state: entity.state.as_str(),
            side: entity.side.unwrap_or(rest),
            version: entity.version,
            fenced: entity.fenced,
            attempts: entity.attempts,
            reason: entity.reason,
            pause_ms: entity.pause_ms,
            changed_at: entity.changed_at.to_rfc3339(),
        }
    }
}

pub async fn run(settings: &Settings, args: &ListArgs) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    let rest = store.rest_side().await?;
    let mut listed = Listed { counts: BTreeMap::new(), on_old: 0, on_new: 0, entities: Vec::new() };
    for (state, side, count) in store.entity_counts().await? {
        *listed.counts.entry(state.as_str()).or_default() += count;
        match side.unwrap_or(rest) {
            Side::Old => listed.on_old += count,
            Side::New => listed.on_new += count,
        }
    }
    if args.limit > 0 {
        let found = store.entities(args.state, args.after.as_ref(), args.limit).await?;
        listed.entities = found.into_iter().map(|entity| EntityLine::of(entity, rest)).collect();
    }
    if args.output.json {
        return print_json(&listed);
    }
    if !listed.entities.is_empty() {
        let mut table = new_table(&["entity", "state", "side", "version", "attempts", "pause", "changed", "reason"]);
        for line in &listed.entities {
            let fenced = if line.fenced { " (fenced)" } else { "" };
            add_row(
                &mut table,
                [
                    line.entity.clone(),
                    format!("{}{fenced}", line.state),
                    line.side.to_string(),
                    line.version.to_string(),
                    line.attempts.to_string(),
                    line.pause_ms.map_or("-".to_owned(), |pause_ms| format!("{pause_ms} ms")),
                    line.changed_at.clone(),
                    line.reason.clone().unwrap_or_default(),
                ],
            );
        }
        print_table(&table);
    }
    let counts: Vec<String> = listed.counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    match counts.is_empty() {
        true => out!("no entity is known: `crossfade entity add`"),
        false => out!("{}; {} on old, {} on new", counts.join(", "), listed.on_old, listed.on_new),
    }
    Ok(())
}
