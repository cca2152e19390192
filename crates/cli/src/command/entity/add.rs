//! `crossfade entity add`.

use std::sync::Arc;

use crossfade_catalog::Purpose;
use crossfade_config::{EntitySettings, Settings};
use crossfade_model::{EntityKey, Side};
use serde::Serialize;

use super::AddArgs;
use super::rows::Rows;
use super::selection::PAGE;
use crate::command::{open_known_store, print_json};
use crate::output::out;
use crate::pair::{Pair, connect_side};

#[derive(Debug, Default, Serialize)]
struct Added {
    /// That were asked for and have a row on the old side.
    found: u64,
    /// Of these, not known before.
    added: u64,
    /// Named, without a row on the old side.
    without_row: Vec<String>,
    dry_run: bool,
}

pub async fn run(settings: &Arc<Settings>, entity: &EntitySettings, args: &AddArgs) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    let pair = Pair::read(settings.clone()).await?;
    let rows = Rows::new(&pair, entity);
    let mut conn = connect_side(settings, Side::Old, Purpose::Catalog).await?;
    let mut told = Added { dry_run: args.dry_run, ..Added::default() };
    if !args.ids.is_empty() {
        let existing = rows.existing(&mut conn, &args.ids).await?;
        let missing: Vec<EntityKey> = args.ids.iter().filter(|key| !existing.contains(key)).cloned().collect();
        told.found = existing.len() as u64;
        told.without_row = missing.iter().map(|key| key.as_str().to_owned()).collect();
        if !args.dry_run {
            told.added = store.add_entities(&existing, true).await? + store.add_entities(&missing, false).await?;
        }
    }
    let mut after: Option<EntityKey> = None;
    while args.ids.is_empty() && args.limit.is_none_or(|limit| told.found < limit) {
        let most = args.limit.map_or(u64::from(PAGE), |limit| (limit - told.found).min(PAGE.into()));
        let page = rows.keys(&mut conn, Side::Old, args.condition.as_deref(), after.as_ref(), most as u32).await?;
        told.found += page.len() as u64;
        if !args.dry_run {
            told.added += store.add_entities(&page, true).await?;
        }
        if (page.len() as u64) < most {
            break;
        }
        after = page.into_iter().last();
    }
    if args.output.json {
        return print_json(&told);
    }
    let name = &entity.name;
    match args.dry_run {
        true => out!("{}: {} have a row on the old side", name, told.found),
        false => out!("{}: {} have a row on the old side, {} were not known before", name, told.found, told.added),
    }
    if !told.without_row.is_empty() {
        eprintln!("no row on the old side: {}", told.without_row.join(", "));
    }
    Ok(())
}
