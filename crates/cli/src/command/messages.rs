//! `crossfade messages`: the message table, for people.

use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use crossfade_config::Settings;
use crossfade_message::{ListedMessage, MessageFilter};
use crossfade_model::{ParseNameError, Seen, TableName};

use super::{new_table, open_known_store, print_json, print_table};
use crate::args::{ListArgs, PurgeArgs, ShowArgs};
use crate::failure::{Failure, Kind};

const SECONDS_PER_DAY: u64 = 86_400;

pub async fn list(settings: &Settings, args: &ListArgs) -> anyhow::Result<()> {
    let mut statuses = Vec::new();
    if let Some(status) = &args.status {
        statuses.push(status.parse().map_err(|error| Failure::new(Kind::Usage, error, ""))?);
    }
    if args.conflicts {
        statuses.extend(MessageFilter::CONFLICTS);
    }
    let since = match args.since {
        Some(since) => Some(Utc::now() - chrono::Duration::from_std(*since).context("`--since` is too long")?),
        None => None,
    };
    let table = args.table.as_deref().map(table_name).transpose()?;
    let filter = MessageFilter { stream: args.stream.clone(), table, statuses, since };
    let store = open_known_store(settings).await?;
    let messages = store.list_messages(&filter, args.limit as usize).await?;
    match (args.output.json, args.conflicts) {
        (true, _) => return print_json(&messages),
        (false, true) => print_conflicts(&messages),
        (false, false) => print_messages(&messages),
    }
    eprintln!("{} messages", messages.len());
    Ok(())
}

pub async fn show(settings: &Settings, args: &ShowArgs) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    let Some(message) = store.show_message(&args.id).await? else {
        return Err(Failure::new(
            Kind::Finding,
            format!("there is no message {}", args.id),
            "it was purged, or never captured; `crossfade messages list` shows what there is",
        )
        .into());
    };
    if args.output.json {
        return print_json(&message);
    }
    let mut table = new_table(&[]);
    for (name, value) in details(&message) {
        table.add_row([name.to_owned(), value]);
    }
    print_table(&table);
    Ok(())
}

fn details(message: &ListedMessage) -> Vec<(&'static str, String)> {
    let json = |value: &Option<Box<serde_json::value::RawValue>>| {
        value.as_ref().map_or_else(|| "-".to_owned(), |value| value.get().to_owned())
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        ("message", message.id.clone()),
        ("table", format!("{}.{}", message.table_schema, message.table_name)),
        ("op", message.op.to_owned()),
        ("row key", json(&message.row_key)),
        ("before", json(&message.before_image)),
        ("after", json(&message.after_image)),
        ("status", message.status.as_str().to_owned()),
        ("reason", text(&message.reason)),
        ("winner", text(&message.winner)),
        ("clock", optional(message.source_clock)),
        ("winner's clock", optional(message.target_clock)),
        ("effective clock", optional(message.effective_clock)),
        ("seen", seen(message)),
        ("seen in full", message.seen.get().to_owned()),
        ("committed", message.committed_at.to_rfc3339()),
        ("captured", message.captured_at.to_rfc3339()),
        ("source position", message.source_position.clone()),
    ]
}

pub async fn purge(settings: &Settings, args: &PurgeArgs) -> anyhow::Result<()> {
    let retention: Duration = args.older_than.map_or(settings.store.retention, |older| *older);
    let days = u32::try_from(retention.as_secs().div_ceil(SECONDS_PER_DAY)).unwrap_or(u32::MAX);
    let store = open_known_store(settings).await?;
    let purged = store.purge(days, args.dry_run).await?;
    if args.output.json {
        return print_json(&purged);
    }
    let verb = if args.dry_run { "would drop" } else { "dropped" };
    println!("{verb} {} days and {} outcomes", purged.dropped.len(), purged.outcomes);
    for kept in &purged.kept {
        println!("kept {}: {}", kept.day, kept.reason);
    }
    Ok(())
}

pub fn table_name(text: &str) -> anyhow::Result<TableName> {
    let hint = "write it as schema.table; a name that holds a dot stands in back-quotes";
    text.parse().map_err(|error: ParseNameError| Failure::new(Kind::Usage, error.to_string(), hint).into())
}

fn print_messages(messages: &[ListedMessage]) {
    let mut table = new_table(&["message", "committed (UTC)", "table", "op", "key", "status", "reason"]);
    for message in messages {
        table.add_row([
            message.id.clone(),
            message.committed_at.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
            format!("{}.{}", message.table_schema, message.table_name),
            message.op.to_owned(),
            key(message),
            message.status.as_str().to_owned(),
            message.reason.clone().unwrap_or_default(),
        ]);
    }
    print_table(&table);
}

/// The losers, each with what it lost against.
fn print_conflicts(messages: &[ListedMessage]) {
    let header = ["loser", "committed (UTC)", "table", "key", "clock", "winner", "its clock", "status", "why"];
    let mut table = new_table(&header);
    for message in messages {
        table.add_row([
            message.id.clone(),
            message.committed_at.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
            format!("{}.{}", message.table_schema, message.table_name),
            key(message),
            optional(message.source_clock),
            message.winner.clone().unwrap_or_else(|| "-".to_owned()),
            optional(message.target_clock),
            message.status.as_str().to_owned(),
            message.reason.clone().unwrap_or_default(),
        ]);
    }
    print_table(&table);
}

fn key(message: &ListedMessage) -> String {
    message.row_key.as_ref().map_or_else(String::new, |key| key.get().to_owned())
}

pub fn optional(number: Option<i64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// What a message's writer had before him, in short: the last message of each opposite stream that was applied with all
/// before it, `+` where some lanes were further, and what was set aside.
pub fn seen(message: &ListedMessage) -> String {
    let Ok(seen) = serde_json::from_str::<Seen>(message.seen.get()) else { return "-".to_owned() };
    let short = seen.streams.iter().map(|(stream, progress)| {
        let further = if progress.partial_batch().is_some() { "+" } else { "" };
        let parked: Vec<String> = progress.parked.iter().map(u64::to_string).collect();
        let without = if parked.is_empty() { String::new() } else { format!(" without {}", parked.join(",")) };
        format!("{stream}:{}{further}{without}", progress.applied_through())
    });
    let short = short.collect::<Vec<_>>().join(" ");
    if short.is_empty() { "-".to_owned() } else { short }
}
