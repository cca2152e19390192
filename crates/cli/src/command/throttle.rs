//! `crossfade throttle`: from where on crossfade's work waits for the databases.

use crossfade_config::Settings;
use serde::Serialize;

use super::{new_table, open_known_store, print_json, print_table};
use crate::args::{JsonOutput, ThrottleSetArgs};
use crate::failure::{Failure, Kind};
use crate::output::out;
use crate::sync::throttle::limits;

#[derive(Serialize)]
struct Shown {
    limits: Vec<Limit>,
    waits: Vec<Waits>,
}

#[derive(Serialize)]
struct Limit {
    name: &'static str,
    /// `off` for none.
    value: String,
    configured: String,
}

#[derive(Serialize)]
struct Waits {
    direction: String,
    reason: String,
    since: String,
}

pub async fn get(settings: &Settings, args: JsonOutput) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    let configured = settings.throttle.limits.named();
    let counting = limits(settings, &store).await?.named();
    let limits = counting.into_iter().zip(configured);
    let limits = limits.map(|((name, value), (_, configured))| Limit { name, value, configured }).collect();
    let waits = store.throttled().await?.into_iter();
    let waits = waits
        .map(|waits| Waits { direction: waits.subject, reason: waits.reason, since: waits.since.to_rfc3339() })
        .collect();
    let shown = Shown { limits, waits };
    if args.json {
        return print_json(&shown);
    }
    let mut table = new_table(&["limit", "counts now", "configured"]);
    for limit in &shown.limits {
        table.add_row([limit.name, &limit.value, &limit.configured]);
    }
    print_table(&table);
    for waits in &shown.waits {
        out!("{} waits since {}: {}", waits.direction, waits.since, waits.reason);
    }
    if shown.waits.is_empty() {
        out!("nothing waits");
    }
    Ok(())
}

/// Processes follow within some seconds.
pub async fn set(settings: &Settings, args: &ThrottleSetArgs) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    let mut limits = limits(settings, &store).await?;
    let mut wanted = Vec::new();
    for limit in &args.limits {
        let how = "write name=value, as in `threads_running=40` or `rows_per_second=off`";
        let parts = limit.split_once('=');
        let (name, value) = parts.ok_or_else(|| Failure::new(Kind::Usage, format!("`{limit}` sets nothing"), how))?;
        limits.set(name, value).map_err(|error| Failure::new(Kind::Usage, error, how))?;
        wanted.push((name, value));
    }
    for (name, value) in &wanted {
        store.set_throttle_limit(name, value).await?;
        store.journal("throttle", &format!("{name} is {value}")).await?;
    }
    if limits.replica_lag.is_some() && settings.throttle.replicas.is_empty() {
        eprintln!("no replicas are named in `[throttle]`, so `replica_lag` limits nothing");
    }
    if limits.probe_limit.is_some() && settings.throttle.probe.is_none() {
        eprintln!("there is no `probe` in `[throttle]`, so `probe_limit` limits nothing");
    }
    eprintln!("counts within some seconds, until `crossfade throttle reset`");
    Ok(())
}

pub async fn reset(settings: &Settings) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    store.reset_throttle_limits().await?;
    store.journal("throttle", "the configuration's limits count again").await?;
    eprintln!("the limits of the configuration count again");
    Ok(())
}
