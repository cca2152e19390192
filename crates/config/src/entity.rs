//! `[entity]`: what moves from one side to the other by itself, and which rows hang on it.

use std::collections::BTreeMap;
use std::time::Duration;

use crossfade_model::TableName;

use crate::reader::{Section, Text};
use crate::table::{TablePattern, TableSettings};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntitySettings {
    /// How messages call one.
    pub name: String,
    /// In the file's order; never empty. The [root](Self::root) is among them.
    pub tables: Vec<EntityTable>,
    /// Entities that are moved under one fence.
    pub batch: u32,
    /// Most entities that are moved in a second; `None` for no limit.
    pub per_second: Option<u32>,
    /// Nobody writes an entity's rows for so long at most; then all is as before.
    pub fence_timeout: Duration,
    /// For so long what was answered about an entity may be used.
    pub lease: Duration,
    /// An entity whose move has failed so often is tried no more by itself.
    pub attempts: u32,
    /// Where in the file it begins, from 1.
    pub line: usize,
}

/// One `[[entity.table]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTable {
    /// As the old side calls it.
    pub old: TableName,
    pub reach: EntityReach,
    /// Columns, as the old side calls them, that may still change there after the move.
    pub allow_on_old: Vec<String>,
    /// Where in the file it begins, from 1.
    pub line: usize,
}

/// How an entity is found that a row hangs on. Columns are as the old side calls them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityReach {
    /// This column holds its key.
    Key(String),
    /// The row that this column refers to hangs on it.
    Through { parent: TableName, via: String },
}

impl EntitySettings {
    /// The first table that holds the key itself: each of its rows is one entity.
    pub fn root(&self) -> &EntityTable {
        let holds_key = |table: &&EntityTable| matches!(table.reach, EntityReach::Key(_));
        self.tables.iter().find(holds_key).unwrap_or(&self.tables[0])
    }

    /// The entry of a table, by the old side's name.
    pub fn table(&self, old: &TableName) -> Option<&EntityTable> {
        self.tables.iter().find(|table| table.old == *old)
    }
}

const TABLE_EXAMPLE: &str = "name = \"app.users\"` and `key = \"id\"";

/// `None` where there is no such section, or what is wrong with it was said.
pub(crate) fn read(root: &mut Section, synced: &[TableSettings]) -> Option<EntitySettings> {
    let mut section = root.section("entity", "[entity]")?;
    let name = name(&mut section);
    let allowed = columns(&mut section, "allow_on_old");
    let allowed_line = section.line_of("allow_on_old");
    let batch = section.number("batch", 1..=10_000, 100);
    let is_limited = section.has("per_second");
    let per_second = section.number("per_second", 1..=1_000_000, 50);
    let fence_timeout = section.duration("fence_timeout", Duration::from_secs(1), "10s");
    let lease = section.duration("lease", Duration::from_millis(100), "2s");
    if lease >= fence_timeout {
        section.problem(
            section.line_of("lease"),
            "`lease` is not shorter than `fence_timeout` of `[entity]`, and a fence waits until answers given before it have run out",
            "shorten `lease`, or raise `fence_timeout`",
        );
    }
    let attempts = section.number("attempts", 1..=1_000, 3);
    let line = section.line;
    let mut tables = tables(&mut section, synced);
    let has_root = tables.iter().any(|table| matches!(table.reach, EntityReach::Key(_)));
    if !tables.is_empty() && !has_root {
        section.problem(
            line,
            "no `[[entity.table]]` holds the key itself",
            "name the table that has one row for each entity, with `key = \"<column>\"`",
        );
    }
    let root_table = tables.iter_mut().find(|table| matches!(table.reach, EntityReach::Key(_)));
    if let Some(root_table) = root_table {
        let clash = allowed.iter().find(|column| is_key(root_table, column));
        if let Some(column) = clash {
            key_cannot_change(&section, allowed_line, column);
        }
        let more = allowed.into_iter().filter(|column| !names(&root_table.allow_on_old, column));
        let more: Vec<String> = more.collect();
        root_table.allow_on_old.extend(more);
    }
    section.finish();
    if tables.is_empty() || !has_root {
        return None;
    }
    let per_second = is_limited.then_some(per_second);
    Some(EntitySettings { name, tables, batch, per_second, fence_timeout, lease, attempts, line })
}

fn name(section: &mut Section) -> String {
    const DEFAULT: &str = "entity";
    let Some(Text { value, written, line }) = section.text("name", "\"user\"") else { return DEFAULT.to_owned() };
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == ' ';
    if !(1..=32).contains(&value.chars().count()) || !value.chars().all(is_word) || value.trim() != value {
        section.problem(
            line,
            format!("`name = \"{written}\"` is no word for an entity"),
            "use 1 to 32 letters and digits, as in `name = \"user\"`",
        );
        return DEFAULT.to_owned();
    }
    value
}

/// A list of column names, each once.
fn columns(section: &mut Section, key: &'static str) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for (column, line) in section.names(key, "[\"password_hash\", \"banned\"]") {
        if column.is_empty() {
            section.problem(line, format!("`{key}` has an empty name"), "name columns of the old side");
        } else if names(&columns, &column) {
            section.problem(line, format!("`{key}` names `{column}` twice"), "name each column once");
        } else {
            columns.push(column);
        }
    }
    columns
}

/// Column names ignore case (MySQL manual, "Identifier Case Sensitivity").
fn names(columns: &[String], column: &str) -> bool {
    columns.iter().any(|known| known.eq_ignore_ascii_case(column))
}

fn is_key(table: &EntityTable, column: &str) -> bool {
    let (EntityReach::Key(key) | EntityReach::Through { via: key, .. }) = &table.reach;
    key.eq_ignore_ascii_case(column)
}

fn key_cannot_change(section: &Section, line: usize, column: &str) {
    section.problem(
        line,
        format!("`allow_on_old` names `{column}`, by which a row's entity is found"),
        "leave it out: who a row belongs to is for the side that has authority",
    );
}

fn tables(section: &mut Section, synced: &[TableSettings]) -> Vec<EntityTable> {
    let sections = section.require_sections("table", "[[entity.table]]", TABLE_EXAMPLE);
    let mut tables: Vec<EntityTable> = Vec::new();
    for mut entry in sections {
        if let Some(table) = table(&mut entry, synced) {
            match tables.iter().find(|known| known.old == table.old) {
                Some(known) => entry.problem(
                    entry.line,
                    format!("`{}` is named a second time", table.old),
                    format!("remove this `[[entity.table]]`, or the one of line {}", known.line),
                ),
                None => tables.push(table),
            }
        }
        entry.finish();
    }
    parents(section, &tables);
    tables
}

fn table(entry: &mut Section, synced: &[TableSettings]) -> Option<EntityTable> {
    let name = entry.require_text("name", "\"app.users\"");
    let old = name.and_then(|name| table_name(entry, name, synced));
    let reach = reach(entry);
    let allow_on_old = columns(entry, "allow_on_old");
    let table = EntityTable { old: old?, reach: reach?, allow_on_old, line: entry.line };
    if let Some(column) = table.allow_on_old.iter().find(|column| is_key(&table, column)) {
        key_cannot_change(entry, entry.line_of("allow_on_old"), column);
    }
    Some(table)
}

/// Either `key`, or `parent` and `via`.
fn reach(entry: &mut Section) -> Option<EntityReach> {
    let key = entry.text("key", "\"user_id\"");
    let parent = entry.text("parent", "\"app.orders\"");
    let via = entry.text("via", "\"order_id\"");
    for (name, text) in [("key", &key), ("via", &via)] {
        if text.as_ref().is_some_and(|text| text.value.is_empty()) {
            entry.problem(entry.line_of(name), format!("`{name}` is empty"), "name a column of the old side");
            return None;
        }
    }
    match (key, parent, via) {
        (Some(key), None, None) => Some(EntityReach::Key(key.value)),
        (None, Some(parent), Some(via)) => {
            let name = exact_name(entry, "parent", &parent)?;
            Some(EntityReach::Through { parent: name, via: via.value })
        }
        _ => {
            entry.problem(
                entry.line,
                "`[[entity.table]]` needs either `key`, or both `parent` and `via`",
                "write `key = \"user_id\"`, or `parent = \"app.orders\"` and `via = \"order_id\"`",
            );
            None
        }
    }
}

fn exact_name(entry: &Section, key: &str, text: &Text) -> Option<TableName> {
    let wrong = match TablePattern::parse(&text.value) {
        Ok(pattern) if !pattern.is_pattern => {
            return Some(TableName::new(pattern.schema.as_str(), pattern.table.as_str()));
        }
        Ok(_) => "stands for several tables",
        Err(wrong) => wrong,
    };
    entry.problem(
        text.line,
        format!("`{key} = \"{}\"` {wrong}", text.written),
        "write `schema.table` as the old side has it, each table by itself",
    );
    None
}

/// The name of a table that crosses in both directions.
fn table_name(entry: &Section, text: Text, synced: &[TableSettings]) -> Option<TableName> {
    let name = exact_name(entry, "name", &text)?;
    let is_exact = |settings: &&TableSettings| !settings.old.is_pattern && settings.old.matches(&name);
    let is_meant = |settings: &&TableSettings| settings.old.matches(&name);
    let settings = synced.iter().find(is_exact).or_else(|| synced.iter().find(is_meant));
    let (message, remedy) = match settings {
        None => ("is no table that is synced", "add a `[[table]]` for it, or correct the name: the old side's"),
        Some(settings) if settings.skip => ("is left out by its `[[table]]`", "sync it, or remove it here"),
        Some(settings) if settings.one_way => {
            ("crosses one way only", "remove `one_way` from its `[[table]]`: what is written after a move must go back")
        }
        Some(_) => return Some(name),
    };
    entry.problem(text.line, format!("`{name}` {message}"), remedy);
    None
}

/// Every parent must be named, and lead to a table that holds the key.
fn parents(section: &Section, tables: &[EntityTable]) {
    let by_name: BTreeMap<&TableName, &EntityTable> = tables.iter().map(|table| (&table.old, table)).collect();
    for table in tables {
        let EntityReach::Through { parent, .. } = &table.reach else { continue };
        if !by_name.contains_key(parent) {
            section.problem(
                table.line,
                format!("`parent = \"{parent}\"` has no `[[entity.table]]`"),
                format!("add one for `{parent}`, since `{}` is reached through it", table.old),
            );
            continue;
        }
        let (mut at, mut steps) = (table, 0);
        while let EntityReach::Through { parent, .. } = &at.reach
            && let Some(next) = by_name.get(parent)
            && steps <= tables.len()
        {
            (at, steps) = (next, steps + 1);
        }
        if steps > tables.len() {
            section.problem(
                table.line,
                format!("the parents of `{}` lead back to it, or in a circle", table.old),
                "name for one of them the column that holds the key itself: `key = \"<column>\"`",
            );
        }
    }
}
