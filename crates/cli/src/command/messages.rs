//! `crossfade messages`: the message table, for people.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use crossfade_config::Settings;
use crossfade_message::{ListedMessage, MessageFilter};
use crossfade_model::{ColumnKind, Message, TableName, Value};
use crossfade_rules::TableMapping;
use crossfade_rules::key::folded_hash;

use super::{new_table, open_store, print_json, print_table};
use crate::args::{HistoryArgs, ListArgs, PurgeArgs, ShowArgs};
use crate::failure::{Failure, Kind};
use crate::pair::Pair;

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
    let store = open_store(settings);
    store.version_check().await?;
    let messages = store.list_messages(&filter, args.limit as usize).await?;
    print_messages(&messages, args.output.json)
}

pub async fn show(settings: &Settings, args: &ShowArgs) -> anyhow::Result<()> {
    let store = open_store(settings);
    store.version_check().await?;
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
    let clock = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
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
        ("clock here", clock(message.source_clock)),
        ("clock there", clock(message.target_clock)),
        ("effective clock", clock(message.effective_clock)),
        ("seen", message.seen.get().to_owned()),
        ("committed", message.committed_at.to_rfc3339()),
        ("captured", message.captured_at.to_rfc3339()),
        ("source position", message.source_position.clone()),
    ]
}

pub async fn history(settings: Arc<Settings>, args: &HistoryArgs) -> anyhow::Result<()> {
    let name = table_name(&args.table)?;
    let pair = Pair::read(settings.clone()).await?;
    let mapping = mapping_of(&pair, &name)?;
    let key = key_values(mapping, &args.key)?;
    let values: Vec<&Value> = key.iter().collect();
    let hash = folded_hash(&mapping.identity, &values);
    let store = open_store(&settings);
    store.version_check().await?;
    let messages = store.history(&[hash], |message| touches(&pair, message, mapping, hash)).await?;
    print_messages(&messages, args.output.json)
}

fn mapping_of<'p>(pair: &'p Pair, name: &TableName) -> anyhow::Result<&'p TableMapping> {
    let forward = pair.mappings(crossfade_model::Direction::Forward);
    forward.iter().find(|mapping| mapping.source == *name || mapping.target == *name).ok_or_else(|| {
        let names: Vec<String> = forward.iter().map(|mapping| mapping.source.to_string()).collect();
        Failure::new(Kind::Usage, format!("{name} is not synced"), format!("synced tables: {}", names.join(", ")))
            .into()
    })
}

/// The key as typed by a person, with the types of the table's key columns.
fn key_values(mapping: &TableMapping, parts: &[String]) -> anyhow::Result<Vec<Value>> {
    if mapping.row_key.len() != parts.len() {
        let columns: Vec<&str> = mapping.row_key.iter().map(|index| mapping.columns[*index].source.as_str()).collect();
        return Err(Failure::new(
            Kind::Usage,
            format!("the key of {} has {} columns, {} were given", mapping.source, columns.len(), parts.len()),
            format!("give {}, in this order", columns.join(", ")),
        )
        .into());
    }
    let typed =
        mapping.row_key.iter().zip(parts).map(|(index, text)| typed(&mapping.columns[*index].source_kind, text));
    Ok(typed.collect())
}

fn typed(kind: &ColumnKind, text: &str) -> Value {
    match kind {
        ColumnKind::Integer { .. } | ColumnKind::Year | ColumnKind::Bit { .. } => text
            .parse()
            .map(Value::Int)
            .or_else(|_| text.parse().map(Value::UInt))
            .unwrap_or_else(|_| Value::Text(text.to_owned())),
        ColumnKind::Decimal { .. } => Value::Decimal(text.to_owned()),
        ColumnKind::Bytes { fixed_len } => {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(bytes.len().max(*fixed_len as usize), 0);
            Value::Bytes(bytes)
        }
        _ => Value::Text(text.to_owned()),
    }
}

/// Whether a message, of either direction, is of the row whose key folds to `hash`.
fn touches(pair: &Pair, message: &Message, mapping: &TableMapping, hash: u64) -> bool {
    let change = &message.change;
    let of_message = [crossfade_model::Direction::Forward, crossfade_model::Direction::Reverse]
        .into_iter()
        .flat_map(|direction| pair.mappings(direction))
        .find(|candidate| candidate.source == change.layout.name && candidate.identity == mapping.identity);
    let Some(of_message) = of_message else { return false };
    [&change.before, &change.after].into_iter().flatten().any(|image| {
        let key: Option<Vec<&Value>> = of_message
            .row_key
            .iter()
            .map(|index| {
                let name = &of_message.columns[*index].source;
                let place = change.layout.columns.iter().position(|column| column.eq_ignore_ascii_case(name))?;
                image.get(place)
            })
            .collect();
        key.is_some_and(|key| folded_hash(&of_message.identity, &key) == hash)
    })
}

pub async fn purge(settings: &Settings, args: &PurgeArgs) -> anyhow::Result<()> {
    let retention: Duration = args.older_than.map_or(settings.store.retention, |older| *older);
    let days = u32::try_from(retention.as_secs().div_ceil(SECONDS_PER_DAY)).unwrap_or(u32::MAX);
    let store = open_store(settings);
    store.version_check().await?;
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

fn table_name(text: &str) -> anyhow::Result<TableName> {
    match text.split_once('.') {
        Some((schema, table)) if !schema.is_empty() && !table.is_empty() => Ok(TableName::new(schema, table)),
        _ => Err(Failure::new(Kind::Usage, format!("`{text}` is not a table"), "write it as schema.table").into()),
    }
}

fn print_messages(messages: &[ListedMessage], json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&messages);
    }
    let mut table = new_table(&["message", "committed (UTC)", "table", "op", "key", "status", "reason"]);
    for message in messages {
        table.add_row([
            message.id.clone(),
            message.committed_at.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
            format!("{}.{}", message.table_schema, message.table_name),
            message.op.to_owned(),
            message.row_key.as_ref().map_or_else(String::new, |key| key.get().to_owned()),
            message.status.as_str().to_owned(),
            message.reason.clone().unwrap_or_default(),
        ]);
    }
    print_table(&table);
    eprintln!("{} messages", messages.len());
    Ok(())
}
