//! The corrected image of a message, from what a person typed.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use crossfade_message::Store;
use crossfade_model::{Message, MessageId, Value};
use crossfade_rules::TableMapping;

use super::portrait::mapping_of;
use super::value;
use crate::failure::{Failure, Kind};
use crate::pair::Pair;

/// What a person wants a column to be.
enum Wanted {
    Text(String),
    Json(serde_json::Value),
}

/// The message with the values that were given, on top of what was corrected before.
///
/// # Errors
///
/// All that is wrong with the values, together.
pub async fn edited(
    pair: &Pair,
    store: &Store,
    id: &MessageId,
    set: &[String],
    set_json: Option<&Path>,
) -> anyhow::Result<Message> {
    let captured = store.read_range(&id.stream, id.seq, id.seq).await?.pop();
    let captured = captured.with_context(|| format!("there is no message {id}"))?;
    let before = store.edits_of(id).await?.pop().and_then(|edit| edit.message);
    let mut message =
        Message { change: before.map_or_else(|| captured.change.clone(), |edit| edit.change), ..captured };
    let mapping = mapping_of(pair, id.stream.direction(), &message.change.layout.name)?;
    let wanted = wanted(set, set_json)?;
    let refused = |message: String, hint: &str| Err(Failure::new(Kind::Usage, message, hint).into());
    if mapping.keyless {
        let hint = "discard the message, or mend the table";
        return refused(format!("{} has no key to tell its rows by", mapping.source), hint);
    }
    let layout = message.change.layout.clone();
    let Some(after) = &mut message.change.after else {
        return refused(
            format!("{id} deletes its row: it has no values to correct"),
            "discard it, or mend what refers to the row",
        );
    };
    let (mut problems, mut named, mut is_changed) = (Vec::new(), BTreeSet::new(), false);
    for (name, wanted) in wanted {
        let column = match column_of(mapping, &name) {
            Ok(column) => column,
            Err(problem) => {
                problems.push(format!("{name}: {problem}"));
                continue;
            }
        };
        let source = &mapping.columns[column].source;
        let Some(place) = layout.column(source) else {
            problems.push(format!("{name}: the message does not have it"));
            continue;
        };
        if !named.insert(place) {
            problems.push(format!("{name}: it is given twice"));
            continue;
        }
        let parsed = match wanted {
            Wanted::Text(text) if text == "NULL" => Ok(Value::Null),
            Wanted::Text(text) => value::from_text(&layout.kinds[place], &text),
            Wanted::Json(json) => value::from_json(&layout.kinds[place], &json),
        };
        match parsed {
            Ok(Value::Null) if !takes_null(pair, id, mapping, column) => {
                problems.push(format!("{name}: it cannot be NULL"))
            }
            Ok(value) => {
                is_changed |= after[place] != value;
                after[place] = value;
            }
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    if problems.is_empty() && !is_changed {
        problems.push("nothing would be different".to_owned());
    }
    if problems.is_empty() {
        return Ok(message);
    }
    let message = format!("{id} cannot be corrected so:\n  {}", problems.join("\n  "));
    refused(
        message,
        "`crossfade messages show` has its columns and values; `crossfade retry --help` tells how values are written",
    )
}

/// The place of a column in the mapping, by its name on either side.
fn column_of(mapping: &TableMapping, name: &str) -> Result<usize, String> {
    let named = |of: fn(&crossfade_rules::MappedColumn) -> &str| {
        mapping.columns.iter().position(|column| of(column).eq_ignore_ascii_case(name))
    };
    let column = named(|column| &column.source).or_else(|| named(|column| &column.target));
    let column = column.ok_or_else(|| format!("{} has no such column that is carried", mapping.source))?;
    if mapping.row_key.contains(&column) {
        return Err("it is part of the key by which both sides know the row".to_owned());
    }
    Ok(column)
}

/// The row ends on both sides, so both must take it.
fn takes_null(pair: &Pair, id: &MessageId, mapping: &TableMapping, column: usize) -> bool {
    let mapped = &mapping.columns[column];
    let shape = pair.side(id.stream.direction().source()).shapes.get(&mapping.source);
    let at_source = shape.and_then(|shape| shape.column(&mapped.source).map(|index| shape.columns[index].nullable));
    !mapped.not_null && at_source.unwrap_or(true)
}

fn wanted(set: &[String], set_json: Option<&Path>) -> anyhow::Result<Vec<(String, Wanted)>> {
    let mut wanted = Vec::new();
    for assignment in set {
        let Some((name, text)) = assignment.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            let message = format!("`{assignment}` is no column=value");
            return Err(Failure::new(Kind::Usage, message, "write it as --set column=value").into());
        };
        wanted.push((name.to_owned(), Wanted::Text(text.to_owned())));
    }
    if let Some(file) = set_json {
        let parsed: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&read(file)?);
        let object = parsed.map_err(|error| {
            let message = format!("{} holds no JSON object: {error}", file.display());
            Failure::new(Kind::Usage, message, "write it as {\"column\": value, …}")
        })?;
        wanted.extend(object.into_iter().map(|(name, value)| (name, Wanted::Json(value))));
    }
    if wanted.is_empty() {
        let hint = "add --set column=value, or --set-json with a file or - for standard input";
        return Err(Failure::new(Kind::Usage, "`--edit` needs values", hint).into());
    }
    Ok(wanted)
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| {
        Failure::new(
            Kind::Usage,
            format!("{} cannot be read: {error}", file.display()),
            "name a file, or - for standard input",
        )
    })?;
    Ok(text)
}
