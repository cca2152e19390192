//! Both sides, looked at and compared.

use std::collections::BTreeSet;

use crossfade_catalog::definition::ObjectKind;
use crossfade_config::{SelectedTable, Settings};
use crossfade_model::{Side, TableName};

use crate::SchemaError;
use crate::difference::{Difference, NotCompared, Report, Thing, differences};
use crate::names::Names;
use crate::objects::{account_things, object_things};
use crate::selection::{Selection, SideSchema};
use crate::table::{TableDefinition, without_needless_order};

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The schemas themselves, and the mapped tables.
    Tables,
    Views,
    Routines,
    Triggers,
    Events,
    Accounts,
}

impl Part {
    pub const ALL: [Part; 6] =
        [Part::Tables, Part::Views, Part::Routines, Part::Triggers, Part::Events, Part::Accounts];

    fn kinds(self) -> &'static [ObjectKind] {
        match self {
            Part::Tables => &[ObjectKind::Schema],
            Part::Views => &[ObjectKind::View],
            Part::Routines => &[ObjectKind::Procedure, ObjectKind::Function],
            Part::Triggers => &[ObjectKind::Trigger],
            Part::Events => &[ObjectKind::Event],
            Part::Accounts => &[],
        }
    }
}

/// Compares the tables that the pair maps, and what else is in their schemas. With `only`, nothing but these tables, by
/// their names on either side.
///
/// # Errors
///
/// [`SchemaError`], where a server cannot be asked. What an account may not see is no error but in the report.
pub async fn compare(
    settings: &Settings,
    old: &mut SideSchema,
    new: &mut SideSchema,
    parts: &BTreeSet<Part>,
    only: &[TableName],
) -> Result<Report, SchemaError> {
    let selection = Selection::read(settings, old, new).await?;
    let mut report = Report::default();
    if only.is_empty() {
        for part in parts {
            for kind in part.kinds() {
                compare_objects(*kind, &selection.names, old, new, &mut report).await?;
            }
        }
    }
    if parts.contains(&Part::Tables) {
        compare_tables(&selection, only, old, new, &mut report).await?;
    }
    if parts.contains(&Part::Accounts) && only.is_empty() {
        compare_accounts(&selection.names, old, new, &mut report).await?;
    }
    Ok(report)
}

async fn compare_tables(
    selection: &Selection<'_>,
    only: &[TableName],
    old: &mut SideSchema,
    new: &mut SideSchema,
    report: &mut Report,
) -> Result<(), SchemaError> {
    for table in selection.selected.iter().filter(|table| is_wanted(table, only)) {
        let Some(shape) = selection.old.get(&table.old).cloned() else {
            report.not_compared.push(absent(old, table));
            continue;
        };
        let old_table = old.definition(shape).await?;
        *report.compared.entry("table").or_default() += 1;
        let new_table = match selection.new.get(&table.new).cloned() {
            Some(shape) => Some(new.definition(shape).await?),
            None => None,
        };
        report.differences.extend(table_differences(&selection.names, &old_table, new_table.as_ref())?);
    }
    if only.is_empty() {
        for name in selection.only_on_new() {
            let thing =
                Thing { kind: "table", name: name.to_string(), key: name.to_string(), attributes: Default::default() };
            report.differences.extend(differences(Vec::new(), vec![thing]));
        }
    }
    Ok(())
}

pub(crate) fn is_wanted(table: &SelectedTable<'_>, only: &[TableName]) -> bool {
    only.is_empty() || only.iter().any(|name| [&table.old, &table.new].contains(&name))
}

fn absent(old: &SideSchema, table: &SelectedTable<'_>) -> NotCompared {
    NotCompared {
        what: format!("table {}", table.old),
        side: Side::Old,
        reason: format!("it does not exist on the old side, or {} may not see it", old.sight.account()),
        remedy: "correct its name, grant the account SELECT on it, or leave it out with `skip = true`".to_owned(),
    }
}

/// A table that is missing is one difference, whatever it has.
pub(crate) fn table_differences(
    names: &Names,
    old: &TableDefinition,
    new: Option<&TableDefinition>,
) -> Result<Vec<Difference>, SchemaError> {
    let mut old_things = old.things(Some(names))?;
    let Some(new) = new else {
        old_things.truncate(1);
        return Ok(differences(old_things, Vec::new()));
    };
    let mut new_things = new.things(None)?;
    without_needless_order(&mut old_things, &mut new_things);
    Ok(differences(old_things, new_things))
}

async fn compare_objects(
    kind: ObjectKind,
    names: &Names,
    old: &mut SideSchema,
    new: &mut SideSchema,
    report: &mut Report,
) -> Result<(), SchemaError> {
    let old_schemas: BTreeSet<&str> = names.schemas().keys().map(String::as_str).collect();
    let mut unseen = Vec::new();
    let old_things = object_things(old, kind, &old_schemas, Some(names), &mut unseen).await?;
    let new_things = object_things(new, kind, &names.new_schemas(), None, &mut unseen).await?;
    if unseen.is_empty() {
        report.add(old_things, new_things);
    }
    for told in unseen {
        if !report.not_compared.contains(&told) {
            report.not_compared.push(told);
        }
    }
    Ok(())
}

async fn compare_accounts(
    names: &Names,
    old: &mut SideSchema,
    new: &mut SideSchema,
    report: &mut Report,
) -> Result<(), SchemaError> {
    let old_schemas: BTreeSet<&str> = names.schemas().keys().map(String::as_str).collect();
    let old_things = account_things(old, &old_schemas, Some(names), &mut report.not_compared).await?;
    let new_things = account_things(new, &names.new_schemas(), None, &mut report.not_compared).await?;
    if let (Some(old_things), Some(new_things)) = (old_things, new_things) {
        report.add(old_things, new_things);
    }
    Ok(())
}
