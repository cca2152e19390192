//! The commands, one module each.

mod asking;
pub mod backfill;
pub mod check;
mod deferral;
mod edit;
pub mod end;
pub mod entity;
mod final_report;
pub mod flag;
pub mod gates;
pub mod groups;
pub mod history;
pub mod init;
pub mod mark;
pub mod messages;
mod portrait;
pub mod retry;
pub mod rounds;
pub mod schema;
pub mod serve;
pub mod show;
pub mod status;
pub mod switch;
pub mod throttle;
mod value;
pub mod verify;
mod verify_repair;
mod verify_show;
mod wait;
pub mod wish;

use std::io::IsTerminal;

use crossfade_config::Settings;
use crossfade_message::Store;
use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::output::{one_line, out};

/// The pair's store. Connects on first use.
pub fn open_store(settings: &Settings) -> Store {
    Store::new(settings.store_url(), &settings.pair)
}

/// The pair's store, for commands that make no sense before `init`.
///
/// # Errors
///
/// The store has no tables, or does not know the pair: its name may be wrong.
pub async fn open_known_store(settings: &Settings) -> anyhow::Result<Store> {
    let store = open_store(settings);
    store.version_check().await?;
    if store.stream_statuses().await?.is_empty() {
        let message = format!("nothing is known of the pair `{}`", settings.pair);
        return Err(Failure::new(Kind::Finding, message, "run `crossfade init`, or correct `pair`").into());
    }
    Ok(store)
}

/// # Errors
///
/// The migration is over: there is nothing to change any more.
pub async fn refuse_ended(store: &Store) -> anyhow::Result<()> {
    match store.end_word().await? {
        None => Ok(()),
        Some(word) => Err(ended(&word).into()),
    }
}

/// Nothing can be done any more with a migration that is over.
pub fn ended(word: &str) -> Failure {
    let hint = "`crossfade status` shows how it ended; what begins anew needs another `pair`, or `--drop-schemas` with the \
                command that ended it";
    Failure::new(Kind::Usage, format!("{word}: nothing crosses any more, and nothing leads back"), hint)
}

/// Prints data as JSON to standard output.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    out!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A table for people, to be printed with [`print_table`]. Without a header where `header` is empty.
pub fn new_table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    }
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    table
}

/// Adds a row, each cell of it in one line.
pub fn add_row<T: AsRef<str>>(table: &mut comfy_table::Table, cells: impl IntoIterator<Item = T>) {
    table.add_row(cells.into_iter().map(|cell| one_line(cell.as_ref())));
}

/// Prints a table to standard output, without the spaces that would fill its last column.
pub fn print_table(table: &comfy_table::Table) {
    out!("{}", table.trim_fmt());
}
