//! `crossfade flag`: what applications are told, and which of them follow.

use std::time::Duration;

use crossfade_config::Settings;
use crossfade_server::{FlagDocument, InstanceLine};
use serde::Serialize;

use super::{add_row, new_table, open_known_store, print_json, print_table};
use crate::args::JsonOutput;
use crate::output::out;

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    flag: FlagDocument,
    instances: Vec<InstanceLine>,
}

pub async fn get(settings: &Settings, args: JsonOutput) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    let flag = FlagDocument::of(&settings.pair, store.flag().await?);
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
