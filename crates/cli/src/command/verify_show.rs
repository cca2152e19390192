//! `crossfade verify show`: the rows that a comparison found missing or different, column by column.

use crossfade_config::Settings;
use crossfade_message::{Comparisons, ListedDifference, Store, Verification};
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::messages::table_name;
use super::{add_row, new_table, open_known_store, print_json, print_table};
use crate::args::VerifyShowArgs;
use crate::failure::{Failure, Kind};

/// A value is shown up to so many characters; `--json` has all of it.
const VALUE_CHARS: usize = 60;

type Image = serde_json::Map<String, Json>;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Shown {
    verification: Verification,
    differences: Vec<ListedDifference>,
}

pub async fn run(settings: &Settings, args: &VerifyShowArgs) -> anyhow::Result<()> {
    let table = args.table.as_deref().map(table_name).transpose()?;
    let store = open_known_store(settings).await?;
    let Some(verification) = find(&store, args).await? else {
        let (message, hint) = match args.continuous {
            true => ("no round was begun in the background", "`crossfade verify --continuous` has them begun"),
            false => ("there is no such comparison", "`crossfade verify` compares both sides"),
        };
        return Err(Failure::new(Kind::Finding, message, hint).into());
    };
    let differences = store.differences(verification.id, table.as_ref(), args.limit).await?;
    if args.output.json {
        return print_json(&Shown { verification, differences });
    }
    let mut shown = new_table(&["table", "key", "kind", "column", "old", "new"]);
    for difference in &differences {
        for row in lines(difference) {
            add_row(&mut shown, row);
        }
    }
    print_table(&shown);
    let when = verification.begun_at.format("%Y-%m-%d %H:%M:%S");
    let state = if verification.ended_at.is_some() { "" } else { ", which has not ended" };
    let kind = if verification.continuous { "the background's comparison" } else { "comparison" };
    eprintln!("{} rows of {kind} {}, begun {when} UTC{state}", differences.len(), verification.id);
    Ok(())
}

async fn find(store: &Store, args: &VerifyShowArgs) -> anyhow::Result<Option<Verification>> {
    if let Some(id) = args.id {
        return Ok(store.verification(id).await?);
    }
    let last = |kind| store.verifications(kind, 2);
    let rounds = last(Comparisons::Rounds).await?;
    let round = rounds.iter().find(|round| round.ended_at.is_some()).or(rounds.first()).cloned();
    if args.continuous {
        return Ok(round);
    }
    Ok(last(Comparisons::Asked).await?.into_iter().next().or(round))
}

/// A line for each column that differs; of a missing row for each that it has.
fn lines(difference: &ListedDifference) -> Vec<[String; 6]> {
    let image =
        |json: &Option<Box<RawValue>>| json.as_ref().and_then(|json| serde_json::from_str::<Image>(json.get()).ok());
    let (old, new) = (image(&difference.old_image), image(&difference.new_image));
    let names = match (&old, &new) {
        (Some(row), None) | (None, Some(row)) if difference.kind != "different" => {
            row.keys().map(|name| (name.clone(), name.clone())).collect()
        }
        _ => column_names(difference),
    };
    let of = |image: &Option<Image>, name: &str| match image {
        Some(image) => image.get(name).map_or_else(|| "-".to_owned(), |value| cut(&value.to_string())),
        None => "-".to_owned(),
    };
    let table = format!("{}.{}", difference.table_schema, difference.table_name);
    let key = difference.row_key.as_ref().map_or_else(String::new, |key| key.get().to_owned());
    let line = |column: String, old: String, new: String| {
        [table.clone(), key.clone(), difference.kind.clone(), column, old, new]
    };
    if names.is_empty() {
        return vec![line("-".to_owned(), "-".to_owned(), "-".to_owned())];
    }
    let of_names = |(on_old, on_new): (String, String)| {
        let name = if on_old == on_new { on_old.clone() } else { format!("{on_old} / {on_new}") };
        line(name, of(&old, &on_old), of(&new, &on_new))
    };
    names.into_iter().map(of_names).collect()
}

/// The names on both sides of the columns that differ.
fn column_names(difference: &ListedDifference) -> Vec<(String, String)> {
    let columns = difference.columns.as_ref().and_then(|json| serde_json::from_str::<Vec<Image>>(json.get()).ok());
    let name = |column: &Image, side: &str| column.get(side).and_then(Json::as_str).unwrap_or_default().to_owned();
    columns.unwrap_or_default().iter().map(|column| (name(column, "old"), name(column, "new"))).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}
