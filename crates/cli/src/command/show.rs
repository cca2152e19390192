//! `crossfade messages show`: one message, its row on both sides, and what would become of it.

use std::sync::Arc;

use crossfade_config::Settings;
use crossfade_message::{ListedMessage, Store};
use crossfade_model::{Message, MessageId};
use serde_json::Value as Json;

use super::messages::{effective_clock, operation, optional, seen};
use super::portrait::{ColumnLine, Painter, Portrait};
use super::{add_row, new_table, open_known_store, print_json, print_table};
use crate::args::ShowArgs;
use crate::failure::with_causes;
use crate::output::{one_line, out};
use crate::pair::Pair;

/// A value is shown up to so many characters; `--json` has all of it.
const VALUE_CHARS: usize = 48;

pub async fn run(settings: Arc<Settings>, args: &ShowArgs) -> anyhow::Result<()> {
    let store = open_known_store(&settings).await?;
    let pair = Pair::read_as_is(settings).await;
    let mut portraits = paint_all(&store, pair.as_ref(), std::slice::from_ref(&args.id), None).await?;
    let Some(portrait) = portraits.pop() else { return Ok(()) };
    if args.output.json {
        return print_json(&portrait);
    }
    print(&portrait, true);
    Ok(())
}

/// Portraits of messages, in order. Without the pair, what the store knows. `proposed` would be tried in their place.
pub async fn paint_all(
    store: &Store,
    pair: Result<&Pair, &anyhow::Error>,
    ids: &[MessageId],
    proposed: Option<&Message>,
) -> anyhow::Result<Vec<Portrait>> {
    let painter = Painter { store, pair: pair.map_err(with_causes), proposed };
    let mut portraits = Vec::new();
    for id in ids {
        portraits.push(painter.paint(id).await?);
    }
    Ok(portraits)
}

/// For people: the message in lines, then its columns as a table. `whole`: also what only detectives need.
pub fn print(portrait: &Portrait, whole: bool) {
    let mut table = new_table(&[]);
    for (name, value) in details(portrait, whole) {
        add_row(&mut table, [name.to_owned(), value]);
    }
    print_table(&table);
    out!("");
    print_columns(portrait);
}

fn print_columns(portrait: &Portrait) {
    let is_edited = portrait.columns.iter().any(|line| line.edited.is_some());
    let mut header = vec!["column", "before", "after"];
    header.extend(is_edited.then_some("edited"));
    if portrait.rows.is_some() {
        header.extend(["old now", "new now", ""]);
    }
    let mut table = new_table(&header);
    for line in &portrait.columns {
        let mut row = vec![name(line), value(line.before.as_ref()), value(line.after.as_ref())];
        row.extend(is_edited.then(|| line.edited.as_ref().map_or_else(String::new, |edited| value(Some(edited)))));
        if portrait.rows.is_some() {
            let differs = if line.differs { "differs" } else { "" };
            row.extend([value(line.old.as_ref()), value(line.new.as_ref()), differs.to_owned()]);
        }
        add_row(&mut table, row);
    }
    print_table(&table);
}

fn name(line: &ColumnLine) -> String {
    match &line.target {
        Some(target) if *target != line.column => format!("{} ({target})", line.column),
        _ => line.column.clone(),
    }
}

fn value(value: Option<&Json>) -> String {
    let text = match value {
        None => return "-".to_owned(),
        Some(Json::Null) => return "NULL".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let text = one_line(&text);
    match text.char_indices().nth(VALUE_CHARS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

fn details(portrait: &Portrait, whole: bool) -> Vec<(&'static str, String)> {
    let message = &portrait.listed;
    let mut lines = vec![
        ("message", message.id.clone()),
        ("table", format!("{}.{}", message.table_schema, message.table_name)),
        ("op", operation(message)),
        ("row key", message.row_key.as_ref().map_or_else(|| "-".to_owned(), |key| key.get().to_owned())),
        ("status", message.status.as_str().to_owned()),
    ];
    match &portrait.failure {
        Some(failure) => {
            lines.push(("reason", failure.error_text.clone()));
            let next = failure.next_retry_at.as_ref().map_or_else(String::new, |next| format!(", next {next}"));
            lines.push(("attempts", format!("{} since {}{next}", failure.attempts, failure.first_failed_at)));
        }
        None => lines.push(("reason", message.reason.clone().unwrap_or_else(|| "-".to_owned()))),
    }
    for edit in &portrait.edits {
        let used = if edit.used { "written" } else { "not written" };
        lines.push(("edited", format!("by {} at {}, {used}", edit.by, edit.at.to_rfc3339())));
    }
    if let Some(prospect) = &portrait.on_retry {
        if !prospect.waits_behind.is_empty() {
            lines.push(("waits behind", prospect.waits_behind.join(", ")));
        }
        lines.push(("on retry", prospect.text.clone()));
        if let Some(open) = &prospect.open {
            lines.push(("open", open.clone()));
        }
    }
    for taken in &portrait.taken {
        let columns = taken.columns.join(", ");
        lines.push(("taken", format!("{columns} by the row {}", taken.row)));
        let side = taken.side;
        let edit = format!("give this one another by `crossfade retry --edit {} --set …`", message.id);
        lines.push(("to do", format!("both cannot have it: change {columns} of that row on {side}, or {edit}")));
    }
    if let Some(rows) = &portrait.rows {
        let there = |is_there| if is_there { "there" } else { "no such row" };
        lines.push(("row now", format!("old: {}, new: {}", there(rows.old), there(rows.new))));
    }
    if let Some(why) = &portrait.not_shown {
        lines.push(("row now", format!("not shown: {why}")));
    }
    if whole {
        lines.extend(origins(message));
    }
    lines
}

/// Where a message comes from, and what it was judged by.
fn origins(message: &ListedMessage) -> Vec<(&'static str, String)> {
    vec![
        ("winner", message.winner.clone().unwrap_or_else(|| "-".to_owned())),
        ("clock", optional(message.source_clock)),
        ("winner's clock", optional(message.target_clock)),
        ("effective clock", effective_clock(message)),
        ("seen", seen(message)),
        ("seen in full", message.seen.get().to_owned()),
        ("committed", message.committed_at.to_rfc3339()),
        ("captured", message.captured_at.to_rfc3339()),
        ("source position", message.source_position.clone()),
    ]
}
