//! Which tables are synced, and how.

use std::collections::BTreeMap;
use std::fmt;

use crossfade_model::{MergeRule, Side, TableName};

/// Schemas that belong to the server or to crossfade.
const RESERVED_SCHEMAS: [&str; 5] = ["mysql", "sys", "information_schema", "performance_schema", "crossfade"];

const NO_NAME: &str = "is not a table with its schema";

/// What decides between two changes of a row that did not know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Policy {
    /// The later modification time.
    Newest,
    /// The higher version number.
    Version,
    PreferOld,
    PreferNew,
}

impl Policy {
    pub(crate) fn parse(text: &str) -> Option<Policy> {
        Some(match text {
            "newest" => Policy::Newest,
            "version" => Policy::Version,
            "prefer-old" => Policy::PreferOld,
            "prefer-new" => Policy::PreferNew,
            _ => return None,
        })
    }

    pub(crate) fn prefer(side: Side) -> Policy {
        match side {
            Side::Old => Policy::PreferOld,
            Side::New => Policy::PreferNew,
        }
    }

    /// Whether the policy compares clocks.
    pub fn needs_clock(self) -> bool {
        matches!(self, Policy::Newest | Policy::Version)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Newest => "newest",
            Policy::Version => "version",
            Policy::PreferOld => "prefer-old",
            Policy::PreferNew => "prefer-new",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A table name, or many: `app.users`, `app.*`, `app.user_*`. Parts in back-quotes are taken as they are, so
/// `` `my.app`.`a*b` `` is one table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TablePattern {
    pub schema: String,
    /// The table part; `*` stands for any text where `is_pattern`.
    pub table: String,
    pub is_pattern: bool,
}

impl TablePattern {
    /// # Errors
    ///
    /// A fragment that says what is wrong, to stand after the text: `has a back-quote that is not closed`.
    pub fn parse(text: &str) -> Result<TablePattern, &'static str> {
        let (schema, schema_quoted, rest) = name_part(text)?;
        let rest = rest.strip_prefix('.').ok_or(NO_NAME)?;
        let (table, table_quoted, rest) = name_part(rest)?;
        if !rest.is_empty() {
            return Err("has more than a schema and a table");
        }
        if !schema_quoted && schema.contains('*') {
            return Err("has a `*` in its schema");
        }
        if RESERVED_SCHEMAS.iter().any(|reserved| reserved.eq_ignore_ascii_case(&schema)) {
            return Err("is in a schema that cannot be synced");
        }
        let is_pattern = !table_quoted && table.contains('*');
        Ok(TablePattern { schema, table, is_pattern })
    }

    pub fn exact(name: &TableName) -> TablePattern {
        TablePattern { schema: name.schema.to_string(), table: name.table.to_string(), is_pattern: false }
    }

    /// Whether the pattern takes a table. Names are compared as they are spelled.
    pub fn matches(&self, name: &TableName) -> bool {
        *self.schema == *name.schema
            && if self.is_pattern { glob(&self.table, &name.table) } else { *self.table == *name.table }
    }
}

/// Splits one name off: the name, whether it was quoted, what follows it.
fn name_part(text: &str) -> Result<(String, bool, &str), &'static str> {
    let Some(mut rest) = text.strip_prefix('`') else {
        let end = text.find('.').unwrap_or(text.len());
        let name = &text[..end];
        if name.is_empty() || name.trim() != name || name.contains('`') {
            return Err(NO_NAME);
        }
        return Ok((name.to_owned(), false, &text[end..]));
    };
    let mut name = String::new();
    loop {
        let quote = rest.find('`').ok_or("has a back-quote that is not closed")?;
        name.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('`') {
            Some(after) => {
                name.push('`');
                rest = after;
            }
            None if name.is_empty() => return Err("has an empty name in back-quotes"),
            None => return Ok((name, true, rest)),
        }
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// One `[[table]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    pub old: TablePattern,
    /// Where `old` is a pattern, `new` has the same table part: such tables keep their names.
    pub new: TablePattern,
    /// The column that orders versions of a row, as the old side calls it.
    pub clock: Option<String>,
    pub policy: Policy,
    /// Renamed columns: the old side's name to the new side's.
    pub columns: BTreeMap<String, String>,
    /// Changes go from old to new only.
    pub one_way: bool,
    /// Concurrent changes of one row are merged column by column; columns that are not named here, as the old side calls
    /// them, follow the newer change.
    pub merge: Option<BTreeMap<String, MergeRule>>,
    /// The tables are left out, also where a later pattern would take them.
    pub skip: bool,
    /// Users of these tables change sides by themselves, with those of the other tables of the group.
    pub group: Option<String>,
    /// Where in the file it begins, from 1.
    pub line: usize,
}

impl TableSettings {
    /// The name of the clock column on a side.
    pub fn clock_on(&self, side: Side) -> Option<&str> {
        self.clock.as_deref().map(|clock| self.column_on(side, clock))
    }

    /// The name on a side of a column that the old side calls `old_name`.
    pub fn column_on<'n>(&'n self, side: Side, old_name: &'n str) -> &'n str {
        match side {
            Side::Old => old_name,
            // Column names ignore case (MySQL manual, "Identifier Case Sensitivity").
            Side::New => self
                .columns
                .iter()
                .find(|(old, _)| old.eq_ignore_ascii_case(old_name))
                .map_or(old_name, |(_, new)| new.as_str()),
        }
    }
}

/// A table that is synced, with the `[[table]]` that says how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedTable<'s> {
    pub old: TableName,
    pub new: TableName,
    pub settings: &'s TableSettings,
}

/// Finds the tables that `[[table]]` entries mean among those that the old side has. An entry for one table goes before
/// a pattern, and an earlier pattern before a later one. An exact entry is selected whether its table exists or not, so
/// that a missing one is noticed. What is skipped is not selected.
pub(crate) fn select<'s>(entries: &'s [TableSettings], existing: &[TableName]) -> Vec<SelectedTable<'s>> {
    let mut selected: BTreeMap<TableName, SelectedTable<'s>> = BTreeMap::new();
    for settings in entries.iter().filter(|entry| !entry.old.is_pattern) {
        let name = |pattern: &TablePattern| TableName::new(pattern.schema.as_str(), pattern.table.as_str());
        let old = name(&settings.old);
        selected.entry(old.clone()).or_insert(SelectedTable { old, new: name(&settings.new), settings });
    }
    for settings in entries.iter().filter(|entry| entry.old.is_pattern) {
        for old in existing.iter().filter(|name| settings.old.matches(name)) {
            let new = TableName::new(settings.new.schema.as_str(), old.table.clone());
            selected.entry(old.clone()).or_insert(SelectedTable { old: old.clone(), new, settings });
        }
    }
    selected.into_values().filter(|table| !table.settings.skip).collect()
}
