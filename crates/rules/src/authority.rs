//! Authority over entities: whose changes count.
//!
//! An entity, usually a user, is all rows that hang on one key. At each place of a side's binlog one side has authority over
//! it; each change is judged by the authority at its own place, wherever and whenever that happens. A change by the side that
//! has it is one as any other, and wins whatever the other side does meanwhile. A change by the other side is *late*: it is
//! lost and undone there, but for columns that may still change.
//!
//! Which tables hang on an entity, and how it is found, is the same in both directions.

use std::fmt;

use crossfade_model::{ColumnKind, EntityKey, Row, Side, TableName, Value};

use crate::digest::Digest;
use crate::mapping::TableMapping;

/// What the side where a change was made had over its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Authority {
    /// Both sides may write the row: it hangs on no entity.
    #[default]
    Shared,
    Held,
    Lacking,
}

impl Authority {
    /// Wins over the other, whatever the clocks say.
    pub fn goes_before(self, other: Authority) -> bool {
        self == Authority::Held && other == Authority::Lacking
    }
}

/// Before anything was given, users write the old side.
pub const AT_FIRST: Side = Side::Old;

/// A change of authority as a stream has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuthorityChange {
    /// It holds for the stream's messages from this one on.
    pub from_seq: u64,
    pub side: Side,
    pub version: u64,
}

/// The side that has authority at a message. `own` are the changes of the entity, `rest` those of all that have none of their
/// own, each in the order of their places.
pub fn side_at(own: &[AuthorityChange], rest: &[AuthorityChange], seq: u64) -> Side {
    let last =
        |changes: &[AuthorityChange]| changes.iter().rfind(|change| change.from_seq <= seq).map(|last| last.side);
    last(own).or_else(|| last(rest)).unwrap_or(AT_FIRST)
}

/// What the configuration says of one table of an entity. Columns are as the old side calls them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityRule {
    /// By the old side's name.
    pub table: TableName,
    pub reach: Reach,
    /// Columns that may still change on old when new has authority.
    pub allow_on_old: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The column holds the key.
    Key(String),
    /// The row that the column refers to hangs on the entity.
    Through { parent: TableName, via: String },
}

/// Adds what the rules say of entities to a hash of all other rules. Without any, that stays what it was.
pub fn hash_with(rules_hash: u64, rules: &[EntityRule]) -> u64 {
    if rules.is_empty() {
        return rules_hash;
    }
    let mut sorted: Vec<&EntityRule> = rules.iter().collect();
    sorted.sort_by(|a, b| a.table.cmp(&b.table));
    let mut digest = Digest::default();
    digest.text("crossfade entity 1").number(rules_hash).number(sorted.len() as u64);
    for rule in sorted {
        digest.text(&rule.table.schema).text(&rule.table.table);
        match &rule.reach {
            Reach::Key(column) => digest.text("key").text(column),
            Reach::Through { parent, via } => digest.text("via").text(&parent.schema).text(&parent.table).text(via),
        };
        digest.number(rule.allow_on_old.len() as u64);
        for column in &rule.allow_on_old {
            digest.text(column);
        }
    }
    digest.finish()
}

/// The tables of an entity in one direction, by their place among its mappings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntityTables(Vec<Option<EntityTable>>);

/// Columns are places in the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTable {
    pub place: KeyPlace,
    /// Columns that may still change at the source when the target has authority.
    pub allowed: Vec<usize>,
    /// Columns that may still change at the target when the source has authority.
    pub kept: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    Key(usize),
    Through {
        parent: usize,
        via: usize,
        /// The parent's column that `via` refers to.
        referred: usize,
    },
}

/// Why an entity cannot be found by its rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntityProblem {
    #[error("table {table} of `[entity]` is not synced in both directions")]
    NotSynced { table: TableName },
    #[error("column `{column}` of {table}, which `[entity]` names, is not carried between the sides")]
    ColumnMissing { table: TableName, column: String },
    #[error("column `{column}` of {table} cannot hold an entity's key: {reason}")]
    KeyKind { table: TableName, column: String, reason: &'static str },
    #[error("what column `{column}` of {table} refers to in {parent} cannot be told")]
    Unreferred { table: TableName, column: String, parent: TableName },
    #[error("rows of {table} cannot be told apart by a key, so nothing of them can be undone")]
    Keyless { table: TableName },
}

impl EntityProblem {
    pub fn table(&self) -> &TableName {
        match self {
            EntityProblem::NotSynced { table }
            | EntityProblem::ColumnMissing { table, .. }
            | EntityProblem::KeyKind { table, .. }
            | EntityProblem::Unreferred { table, .. }
            | EntityProblem::Keyless { table } => table,
        }
    }

    pub fn remedy(&self) -> String {
        match self {
            EntityProblem::NotSynced { .. } => "correct its name, or its `[[table]]`".to_owned(),
            EntityProblem::ColumnMissing { .. } => {
                "name a column that both sides have, as the old side calls it".to_owned()
            }
            EntityProblem::KeyKind { .. } => {
                "use a column of whole numbers, text or bytes that is the same on both sides".to_owned()
            }
            EntityProblem::Unreferred { parent, .. } => {
                format!(
                    "let a foreign key refer to one column of {parent}, or give {parent} a primary key of one column"
                )
            }
            EntityProblem::Keyless { .. } => "give the table a primary key on both sides".to_owned(),
        }
    }
}

impl EntityTables {
    /// Finds the rules' columns in one direction's mappings.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn build(rules: &[EntityRule], mappings: &[TableMapping]) -> Result<EntityTables, Vec<EntityProblem>> {
        let mut tables: Vec<Option<EntityTable>> = vec![None; mappings.len()];
        let mut problems = Vec::new();
        for rule in rules {
            match place_of(&rule.table, mappings) {
                None => problems.push(EntityProblem::NotSynced { table: rule.table.clone() }),
                Some(at) => match entity_table(rule, at, mappings) {
                    Ok(table) => tables[at] = Some(table),
                    Err(found) => problems.extend(found),
                },
            }
        }
        if problems.is_empty() { Ok(EntityTables(tables)) } else { Err(problems) }
    }

    /// No table hangs on an entity.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    pub fn table(&self, table: usize) -> Option<&EntityTable> {
        self.0.get(table)?.as_ref()
    }
}

impl EntityTable {
    /// The value by which a row's entity is found: its key, or what refers to the row's parent.
    pub fn value<'r>(&self, row: &'r Row) -> Option<&'r Value> {
        let (KeyPlace::Key(column) | KeyPlace::Through { via: column, .. }) = self.place;
        row.get(column).filter(|value| !value.is_null())
    }

    /// The entity that a row names itself; `None` also where it must be looked for through a parent.
    pub fn key(&self, row: &Row) -> Option<EntityKey> {
        match self.place {
            KeyPlace::Key(_) => EntityKey::of(self.value(row)?),
            KeyPlace::Through { .. } => None,
        }
    }
}

fn place_of(table: &TableName, mappings: &[TableMapping]) -> Option<usize> {
    mappings.iter().position(|mapping| mapping.identity == *table)
}

fn entity_table(rule: &EntityRule, at: usize, mappings: &[TableMapping]) -> Result<EntityTable, Vec<EntityProblem>> {
    let mapping = &mappings[at];
    let (table, mut problems) = (rule.table.clone(), Vec::new());
    let mut column = |name: &String| {
        let found = old_column(mapping, name);
        if found.is_none() {
            problems.push(EntityProblem::ColumnMissing { table: table.clone(), column: name.clone() });
        }
        found
    };
    let columns: Vec<Option<usize>> = rule.allow_on_old.iter().map(&mut column).collect();
    let columns: Vec<usize> = columns.into_iter().flatten().collect();
    let (Reach::Key(name) | Reach::Through { via: name, .. }) = &rule.reach;
    let via = column(name);
    if mapping.keyless {
        problems.push(EntityProblem::Keyless { table: table.clone() });
    }
    let place = match (&rule.reach, via) {
        (_, None) => None,
        (Reach::Key(name), Some(key)) => match unfit(mapping, key) {
            None => Some(KeyPlace::Key(key)),
            Some(reason) => {
                problems.push(EntityProblem::KeyKind { table: table.clone(), column: name.clone(), reason });
                None
            }
        },
        (Reach::Through { parent, via: name }, Some(via)) => match place_of(parent, mappings) {
            None => {
                problems.push(EntityProblem::NotSynced { table: parent.clone() });
                None
            }
            Some(parent_at) => match referred(mapping, via, &mappings[parent_at]) {
                Some(referred) => Some(KeyPlace::Through { parent: parent_at, via, referred }),
                None => {
                    let (column, parent) = (name.clone(), parent.clone());
                    problems.push(EntityProblem::Unreferred { table: table.clone(), column, parent });
                    None
                }
            },
        },
    };
    match place.filter(|_| problems.is_empty()) {
        Some(place) => {
            let from_old = mapping.direction.source() == Side::Old;
            let (allowed, kept) = if from_old { (columns, Vec::new()) } else { (Vec::new(), columns) };
            Ok(EntityTable { place, allowed, kept })
        }
        None => Err(problems),
    }
}

/// The column that the old side calls so.
fn old_column(mapping: &TableMapping, name: &str) -> Option<usize> {
    let from_old = mapping.direction.source() == Side::Old;
    mapping.columns.iter().position(|column| {
        let old = if from_old { &column.source } else { &column.target };
        old.eq_ignore_ascii_case(name)
    })
}

/// Why the two sides may print the key otherwise.
fn unfit(mapping: &TableMapping, column: usize) -> Option<&'static str> {
    let column = mapping.columns.get(column)?;
    match (form(&column.source_kind), form(&column.target_kind)) {
        (None, _) | (_, None) => Some("it holds neither whole numbers, nor text, nor bytes"),
        (Some(source), Some(target)) if source != target => Some("the two sides print it differently"),
        _ => None,
    }
}

#[derive(PartialEq, Eq)]
enum Form {
    Number,
    Text,
    Bytes(u32),
}

fn form(kind: &ColumnKind) -> Option<Form> {
    match kind {
        ColumnKind::Integer { .. } | ColumnKind::Decimal { .. } | ColumnKind::Year | ColumnKind::Bit { .. } => {
            Some(Form::Number)
        }
        ColumnKind::Text { .. } | ColumnKind::Enum { .. } | ColumnKind::Uuid => Some(Form::Text),
        // A fixed length is filled up with zeros, and these count.
        ColumnKind::Bytes { fixed_len } => Some(Form::Bytes(*fixed_len)),
        _ => None,
    }
}

/// The column of the parent that a child's column refers to: by a foreign key, else its whole row key.
fn referred(child: &TableMapping, via: usize, parent: &TableMapping) -> Option<usize> {
    let link = child.parents.iter().find(|link| link.columns == [via] && link.parent == parent.target);
    match link {
        Some(link) => parent.target_column(link.parent_columns.first()?),
        None => match parent.row_key[..] {
            [key] => Some(key),
            _ => None,
        },
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Authority::Shared => "shared",
            Authority::Held => "held",
            Authority::Lacking => "lacking",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from_seq: u64, side: Side) -> AuthorityChange {
        AuthorityChange { from_seq, side, version: from_seq }
    }

    #[test]
    fn each_message_is_judged_by_its_own_place() {
        let own = [change(10, Side::New), change(20, Side::Old)];
        let at = |seq| side_at(&own, &[], seq);
        assert_eq!(
            [at(1), at(9), at(10), at(19), at(20), at(99)].map(|side| side == Side::New),
            [false, false, true, true, false, false]
        );
    }

    #[test]
    fn who_has_no_authority_of_its_own_goes_with_the_rest() {
        let rest = [change(5, Side::New)];
        assert_eq!((side_at(&[], &rest, 4), side_at(&[], &rest, 5)), (Side::Old, Side::New));
        // What it was given before stays its own.
        let own = [change(3, Side::Old)];
        assert_eq!((side_at(&own, &rest, 2), side_at(&own, &rest, 7)), (Side::Old, Side::Old));
    }

    #[test]
    fn only_who_holds_it_goes_before_who_lacks_it() {
        use Authority::{Held, Lacking, Shared};
        for (a, b) in [Shared, Held, Lacking].into_iter().flat_map(|a| [Shared, Held, Lacking].map(|b| (a, b))) {
            assert_eq!(a.goes_before(b), (a, b) == (Held, Lacking));
        }
    }

    #[test]
    fn rules_change_the_hash_and_their_absence_does_not() {
        let table = TableName::new("a", "u");
        let rule = |allow: &[&str]| EntityRule {
            table: table.clone(),
            reach: Reach::Key("id".into()),
            allow_on_old: allow.iter().map(|column| (*column).to_owned()).collect(),
        };
        assert_eq!(hash_with(7, &[]), 7);
        assert_ne!(hash_with(7, &[rule(&[])]), 7);
        assert_ne!(hash_with(7, &[rule(&["x"])]), hash_with(7, &[rule(&[])]));
    }
}
