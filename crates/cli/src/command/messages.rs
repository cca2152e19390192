//! `crossfade messages`: the message table, for people.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use crossfade_config::Settings;
use crossfade_message::{FailureFilter, ListedFailure, ListedMessage, MessageFilter, Status};
use crossfade_model::{Origin, ParseNameError, Seen, TableName};

use super::{add_row, new_table, open_known_store, print_json, print_table};
use crate::args::{ListArgs, PurgeArgs};
use crate::failure::{Failure, Kind};
use crate::output::out;
use crate::pair::Pair;

const SECONDS_PER_DAY: u64 = 86_400;

pub async fn list(settings: Arc<Settings>, args: &ListArgs) -> anyhow::Result<()> {
    let statuses = statuses(args)?;
    let since = match args.since {
        Some(since) => Some(Utc::now() - chrono::Duration::from_std(*since).context("`--since` is too long")?),
        None => None,
    };
    let table = args.table.as_deref().map(table_name).transpose()?;
    let failed = (args.error.is_some() && statuses.is_empty()) || statuses == [Status::Failed];
    if failed {
        let filter = FailureFilter { stream: args.stream.clone(), table, error_code: args.error.clone(), since };
        return list_failures(settings, filter, args).await;
    }
    if args.error.is_some() {
        let hint = "leave out `--status` and `--conflicts`";
        return Err(Failure::new(Kind::Usage, "only failed messages have an error", hint).into());
    }
    let filter = MessageFilter { stream: args.stream.clone(), table, statuses, since };
    let store = open_known_store(&settings).await?;
    let messages = store.list_messages(&filter, args.limit as usize).await?;
    if let Some(table) = filter.table.filter(|_| messages.is_empty()) {
        refuse_unknown(settings, &table).await?;
    }
    match (args.output.json, args.conflicts) {
        (true, _) => return print_json(&messages),
        (false, true) => print_conflicts(&messages),
        (false, false) => print_messages(&messages),
    }
    eprintln!("{}", counted(messages.len()));
    Ok(())
}

/// Any of these; none for all.
fn statuses(args: &ListArgs) -> anyhow::Result<Vec<Status>> {
    let parsed = args.status.as_deref().map(str::parse::<Status>).transpose();
    let wanted = parsed.map_err(|error| Failure::new(Kind::Usage, error, ""))?;
    match (wanted, args.conflicts) {
        (Some(status), true) if !MessageFilter::CONFLICTS.contains(&status) => {
            let hint = "leave out one of `--conflicts` and `--status`";
            Err(Failure::new(Kind::Usage, format!("nothing that is {} has lost a conflict", status.as_str()), hint)
                .into())
        }
        (Some(status), _) => Ok(vec![status]),
        (None, true) => Ok(MessageFilter::CONFLICTS.to_vec()),
        (None, false) => Ok(Vec::new()),
    }
}

/// An empty list may mean that nothing happened to a table, or that it is misspelt. Where the sides cannot be asked, nothing is
/// said.
async fn refuse_unknown(settings: Arc<Settings>, table: &TableName) -> anyhow::Result<()> {
    let Ok(pair) = Pair::read_as_is(settings).await else { return Ok(()) };
    match pair.synced(table) {
        Some(_) => Ok(()),
        None => Err(pair.not_synced(table).into()),
    }
}

async fn list_failures(settings: Arc<Settings>, filter: FailureFilter, args: &ListArgs) -> anyhow::Result<()> {
    let store = open_known_store(&settings).await?;
    let failures = store.list_failures(&filter, args.limit as usize).await?;
    if let Some(table) = filter.table.filter(|_| failures.is_empty()) {
        refuse_unknown(settings, &table).await?;
    }
    if args.output.json {
        return print_json(&failures);
    }
    print_failures(&failures);
    eprintln!("{}", counted(failures.len()));
    if !failures.is_empty() {
        eprintln!(
            "`crossfade messages show <message>` compares a row on both sides; `crossfade retry --help` tells what you can do"
        );
    }
    Ok(())
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
    out!("{verb} {} days and {} outcomes", purged.dropped.len(), purged.outcomes);
    for kept in &purged.kept {
        out!("kept {}: {}", kept.day, kept.reason);
    }
    Ok(())
}

/// `1 message`, `2 messages`.
pub fn counted(messages: usize) -> String {
    format!("{messages} {}", if messages == 1 { "message" } else { "messages" })
}

pub fn table_name(text: &str) -> anyhow::Result<TableName> {
    let hint = "write it as schema.table; a name that holds a dot stands in back-quotes";
    text.parse().map_err(|error: ParseNameError| Failure::new(Kind::Usage, error.to_string(), hint).into())
}

fn print_messages(messages: &[ListedMessage]) {
    let mut table = new_table(&["message", "committed (UTC)", "table", "op", "key", "status", "reason"]);
    for message in messages {
        add_row(
            &mut table,
            [
                message.id.clone(),
                message.committed_at.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
                format!("{}.{}", message.table_schema, message.table_name),
                operation(message),
                key(message),
                message.status.as_str().to_owned(),
                message.reason.clone().unwrap_or_default(),
            ],
        );
    }
    print_table(&table);
}

fn print_failures(failures: &[ListedFailure]) {
    let header =
        ["message", "table", "op", "key", "error", "what the target said", "attempts", "since (UTC)", "next try (UTC)"];
    let mut table = new_table(&header);
    let time = |time: &DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S").to_string();
    for failure in failures {
        add_row(
            &mut table,
            [
                failure.id.clone(),
                format!("{}.{}", failure.table_schema, failure.table_name),
                failure.op.clone(),
                failure.row_key.as_ref().map_or_else(String::new, |key| key.get().to_owned()),
                failure.error_code.clone(),
                failure.reason.clone(),
                failure.attempts.to_string(),
                time(&failure.first_failed_at),
                failure.next_retry_at.as_ref().map_or_else(|| "-".to_owned(), time),
            ],
        );
    }
    print_table(&table);
}

/// The losers, each with what it lost against.
fn print_conflicts(messages: &[ListedMessage]) {
    let header = ["loser", "committed (UTC)", "table", "key", "clock", "winner", "its clock", "status", "why"];
    let mut table = new_table(&header);
    for message in messages {
        add_row(
            &mut table,
            [
                message.id.clone(),
                message.committed_at.format("%Y-%m-%d %H:%M:%S%.6f").to_string(),
                format!("{}.{}", message.table_schema, message.table_name),
                key(message),
                optional(message.source_clock),
                message.winner.clone().unwrap_or_else(|| "-".to_owned()),
                optional(message.target_clock),
                message.status.as_str().to_owned(),
                message.reason.clone().unwrap_or_default(),
            ],
        );
    }
    print_table(&table);
}

/// `insert`, and `insert (returned)` where it was not a user who made it.
pub fn operation(message: &ListedMessage) -> String {
    match message.origin {
        Origin::User => message.op.to_owned(),
        origin => format!("{} ({})", message.op, origin.as_str()),
    }
}

fn key(message: &ListedMessage) -> String {
    message.row_key.as_ref().map_or_else(String::new, |key| key.get().to_owned())
}

/// What the message is judged by, beside what its writer had before him.
pub fn effective_clock(message: &ListedMessage) -> String {
    match message.goes_before_policy {
        true => "goes before the policy".to_owned(),
        false => optional(message.effective_clock),
    }
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
