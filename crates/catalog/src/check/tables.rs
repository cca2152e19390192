//! Findings about synced tables.

use std::collections::{BTreeMap, BTreeSet};

use crossfade_config::{Policy, SelectedTable, Settings, TablePattern, TableSettings};
use crossfade_model::{ColumnKind, Direction, ForeignKey, ReferentialAction, Side, TableName, TableShape};
use crossfade_rules::authority::EntityProblem;
use crossfade_rules::mapping;
use crossfade_rules::{EntityTables, TableMapping};

use super::{Finding, Severity};
use crate::ServerFacts;
use crate::rule::{entity_rules, table_rule};

/// The synced tables with their definitions on both sides.
pub(super) struct Tables<'s> {
    pub(super) selected: Vec<SelectedTable<'s>>,
    pub(super) old: BTreeMap<TableName, TableShape>,
    pub(super) new: BTreeMap<TableName, TableShape>,
}

impl<'s> Tables<'s> {
    pub(super) fn new(settings: &'s Settings, old: Vec<TableShape>) -> Tables<'s> {
        let names: Vec<TableName> = old.iter().map(|shape| shape.name.clone()).collect();
        Tables { selected: settings.select(&names), old: by_name(old), new: BTreeMap::new() }
    }

    pub(super) fn set_new(&mut self, new: Vec<TableShape>) {
        self.new = by_name(new);
    }

    fn shapes(&self, side: Side) -> &BTreeMap<TableName, TableShape> {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// The definitions of synced tables on a side, without those that are missing.
    pub(super) fn on(&self, side: Side) -> Vec<&TableShape> {
        self.selected.iter().filter_map(|table| self.shapes(side).get(name_on(table, side))).collect()
    }

    pub(super) fn missing_on(&self, side: Side) -> Vec<&TableName> {
        let names = self.selected.iter().map(|table| name_on(table, side));
        names.filter(|name| !self.shapes(side).contains_key(*name)).collect()
    }

    pub(super) fn schemas(&self, side: Side) -> BTreeSet<&str> {
        self.selected.iter().map(|table| &*name_on(table, side).schema).collect()
    }

    /// Tables whose values both sides hand out.
    pub(super) fn with_auto_increment(&self) -> Vec<String> {
        let hands_out = |name: &TableName, side| {
            self.shapes(side).get(name).is_some_and(|shape| shape.columns.iter().any(|column| column.auto_increment))
        };
        let both = |table: &&SelectedTable| hands_out(&table.old, Side::Old) && hands_out(&table.new, Side::New);
        let two_way = self.selected.iter().filter(|table| !table.settings.one_way);
        two_way.filter(both).map(|table| table.old.to_string()).collect()
    }

    /// Patterns that take no table on the old side.
    fn empty_patterns<'p>(&'p self, settings: &'p Settings) -> impl Iterator<Item = &'p TableSettings> {
        let takes_none = |pattern: &TablePattern| !self.old.keys().any(|name| pattern.matches(name));
        let patterns = settings.tables.iter().filter(|entry| entry.old.is_pattern && !entry.skip);
        patterns.filter(move |entry| takes_none(&entry.old))
    }

    /// All tables of the schemas, on a side, of patterns that take none: perhaps the account may not see them.
    pub(super) fn unseen_by_patterns(&self, settings: &Settings, side: Side) -> Vec<TableName> {
        let pattern = |entry: &TableSettings| if side == Side::Old { entry.old.clone() } else { entry.new.clone() };
        self.empty_patterns(settings).map(pattern).map(|pattern| TableName::new(pattern.schema, "*")).collect()
    }

    /// Everything that definitions alone tell.
    pub(super) fn findings(&self, settings: &Settings, old: &ServerFacts, new: &ServerFacts) -> Vec<Finding> {
        let mut findings = self.selection_findings(settings);
        for side in [Side::Old, Side::New] {
            let engines = self.on(side).into_iter().filter_map(|shape| engine_finding(side, shape));
            findings.extend(engines);
        }
        for table in &self.selected {
            let (Some(old_shape), Some(new_shape)) = (self.old.get(&table.old), self.new.get(&table.new)) else {
                continue;
            };
            findings.extend(mapping_findings(table, old_shape, new_shape));
            for (side, here, there, facts) in
                [(Side::Old, old_shape, new_shape, old), (Side::New, new_shape, old_shape, new)]
            {
                findings.extend(clock_findings(table, side, here));
                findings.extend(self.foreign_key_findings(table, side, here, there, facts));
            }
        }
        findings.extend(self.entity_findings(settings));
        findings
    }

    /// Why an entity would not be found by its rows. Tables that do not map have findings of their own.
    fn entity_findings(&self, settings: &Settings) -> Vec<Finding> {
        let rules = entity_rules(settings);
        let mut findings: Vec<Finding> = Vec::new();
        for direction in [Direction::Forward, Direction::Reverse] {
            let mapping = |table: &SelectedTable| {
                let (old, new) = (self.old.get(&table.old)?, self.new.get(&table.new)?);
                let (source, target) = if direction == Direction::Forward { (old, new) } else { (new, old) };
                TableMapping::build(direction, &table_rule(table), source, target).ok()
            };
            let mappings: Vec<TableMapping> = self.selected.iter().filter_map(mapping).collect();
            let problems = EntityTables::build(&rules, &mappings).err().unwrap_or_default();
            let is_synced = |name: &TableName| self.selected.iter().any(|table| table.old == *name);
            for problem in problems {
                let is_told = matches!(&problem, EntityProblem::NotSynced { table } if is_synced(table));
                let text = problem.to_string();
                if !is_told && findings.iter().all(|finding| finding.message != text) {
                    let (table, remedy) = (problem.table().to_string(), problem.remedy());
                    findings.push(Finding::new(Severity::Error, "entity", Side::Old, table, text, remedy));
                }
            }
        }
        findings
    }

    fn selection_findings(&self, settings: &Settings) -> Vec<Finding> {
        self.empty_patterns(settings)
            .map(|entry| {
                Finding::new(
                    Severity::Error,
                    "pattern-without-tables",
                    Side::Old,
                    entry.old.to_string(),
                    format!("`{}` (line {}) takes no table that the account can see", entry.old, entry.line),
                    "correct the name, create the tables, or grant the account SELECT on them",
                )
            })
            .collect()
    }

    fn foreign_key_findings(
        &self,
        table: &SelectedTable,
        side: Side,
        here: &TableShape,
        there: &TableShape,
        facts: &ServerFacts,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for key in &here.foreign_keys {
            let synced = self.selected.iter().any(|other| *name_on(other, side) == key.parent);
            if !synced {
                findings.push(Finding::new(
                    Severity::Warning,
                    "foreign-key-parent",
                    side,
                    here.name.to_string(),
                    format!("foreign key `{}` leads to {}, which is not synced", key.name, key.parent),
                    "sync the parent too, or make sure that its rows are on both sides",
                ));
            }
            if acts(key) {
                findings.push(cascade_finding(table, side, here, there, key, facts.logs_cascades));
            }
        }
        findings
    }
}

fn by_name(shapes: Vec<TableShape>) -> BTreeMap<TableName, TableShape> {
    shapes.into_iter().map(|shape| (shape.name.clone(), shape)).collect()
}

pub(super) fn name_on<'t>(table: &'t SelectedTable, side: Side) -> &'t TableName {
    match side {
        Side::Old => &table.old,
        Side::New => &table.new,
    }
}

fn engine_finding(side: Side, shape: &TableShape) -> Option<Finding> {
    let engine = shape.engine.as_str();
    let name = &shape.name;
    (!engine.eq_ignore_ascii_case("InnoDB")).then(|| {
        Finding::new(
            Severity::Error,
            "not-innodb",
            side,
            name.to_string(),
            format!("{name} uses engine {engine}, which cannot take part in a transaction"),
            format!("ALTER TABLE {} ENGINE = InnoDB;", name.quoted()),
        )
    })
}

/// What stands in the way of carrying rows. Problems that both directions see the same way are told once.
fn mapping_findings(table: &SelectedTable, old: &TableShape, new: &TableShape) -> Vec<Finding> {
    let rule = table_rule(table);
    let directions = if rule.one_way { &[Direction::Forward][..] } else { &[Direction::Forward, Direction::Reverse] };
    let mut findings: Vec<Finding> = Vec::new();
    let mut told: Vec<String> = Vec::new();
    for &direction in directions {
        let (source, target) = if direction == Direction::Forward { (old, new) } else { (new, old) };
        let problems = match TableMapping::build(direction, &rule, source, target) {
            Ok(mapping) => mapping.warnings,
            Err(problems) => problems,
        };
        for problem in problems {
            let of_both = matches!(problem.code(), "keyless" | "no-common-key" | "nothing-mapped" | "clock-not-named");
            // `clock_findings` tells these for each side.
            let of_clock = matches!(problem.code(), "clock-coarse" | "clock-not-updated");
            let text = problem.to_string();
            if told.contains(&text) || of_clock || (of_both && direction == Direction::Reverse) {
                continue;
            }
            let severity = match problem.severity() {
                mapping::Severity::Error => Severity::Error,
                mapping::Severity::Warning => Severity::Warning,
            };
            findings.push(Finding::new(
                severity,
                problem.code(),
                direction.source(),
                table.old.to_string(),
                // Both sides' tables may have one name: the direction tells which side is which.
                if of_both { text.clone() } else { format!("{direction}: {text}") },
                problem.hint(),
            ));
            told.push(text);
        }
    }
    findings
}

/// Whether the clock column tells changes apart on a side. That it exists and has a fitting type is the mapping's.
fn clock_findings(table: &SelectedTable, side: Side, shape: &TableShape) -> Vec<Finding> {
    let mut findings = Vec::new();
    let column = table.settings.clock_on(side).and_then(|name| Some(&shape.columns[shape.column(name)?]));
    let (Some(column), Policy::Newest) = (column, table.settings.policy) else { return findings };
    let (ColumnKind::Datetime { fraction_digits } | ColumnKind::Timestamp { fraction_digits }) = column.kind else {
        return findings;
    };
    let (name, quoted) = (&shape.name, crossfade_model::quote_identifier(&column.name));
    let type_word = if matches!(column.kind, ColumnKind::Datetime { .. }) { "DATETIME(6)" } else { "TIMESTAMP(6)" };
    let null = if column.nullable { "NULL" } else { "NOT NULL" };
    let remedy = format!(
        "ALTER TABLE {} MODIFY {quoted} {type_word} {null} DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6);",
        name.quoted()
    );
    let mut warn = |code, message: String| {
        findings.push(Finding::new(Severity::Warning, code, side, name.to_string(), message, remedy.as_str()));
    };
    if fraction_digits < 6 {
        let message = format!(
            "the clock column {quoted} has {fraction_digits} fractional digits: changes in the same instant look equal"
        );
        warn("clock-coarse", message);
    }
    if !column.on_update_now {
        warn("clock-not-updated", format!("the clock column {quoted} is not updated by the server on every update"));
    }
    findings
}

/// The key does something itself when the parent changes.
fn acts(key: &ForeignKey) -> bool {
    [key.on_delete, key.on_update].iter().any(|action| *action != ReferentialAction::Restrict)
}

fn cascade_finding(
    table: &SelectedTable,
    side: Side,
    here: &TableShape,
    there: &TableShape,
    key: &ForeignKey,
    is_logged: bool,
) -> Finding {
    let (name, other) = (&here.name, side.opposite());
    let finding =
        |severity, code, message, remedy: &str| Finding::new(severity, code, side, name.to_string(), message, remedy);
    let what = format!("foreign key `{}` of {name} changes rows by itself ({})", key.name, actions(key));
    if is_logged {
        let message = format!("{what}; this server writes such changes to its binlog, so they are carried");
        return finding(Severity::Info, "foreign-key-cascade", message, "nothing needs to be done");
    }
    if has_counterpart(table, side, here, there, key) {
        let message = format!("{what}, and the binlog does not show it: {other} repeats it with its own key");
        let remedy =
            "keep both keys the same; where children were added on the other side meanwhile, verify afterwards";
        return finding(Severity::Warning, "foreign-key-cascade", message, remedy);
    }
    let message =
        format!("{what}, the binlog does not show it, and {other} has no such key: those changes would be lost");
    let remedy = "declare the same key with the same actions on both sides, or without actions on this one";
    finding(Severity::Error, "foreign-key-cascade-lost", message, remedy)
}

fn actions(key: &ForeignKey) -> String {
    let word = |action| match action {
        ReferentialAction::Restrict => None,
        ReferentialAction::Cascade => Some("CASCADE"),
        ReferentialAction::SetNull => Some("SET NULL"),
    };
    let on = |event: &str, action| word(action).map(|word| format!("ON {event} {word}"));
    let both = [on("DELETE", key.on_delete), on("UPDATE", key.on_update)];
    both.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The other side has a key on the same columns that acts in the same way.
fn has_counterpart(table: &SelectedTable, side: Side, here: &TableShape, there: &TableShape, key: &ForeignKey) -> bool {
    let names = |shape: &TableShape, columns: &[usize]| -> Vec<String> {
        columns.iter().map(|&column| shape.columns[column].name.to_ascii_lowercase()).collect()
    };
    let translate = |name: &String| -> String {
        let columns = &table.settings.columns;
        let renamed = match side {
            Side::Old => columns.iter().find(|(old, _)| old.eq_ignore_ascii_case(name)).map(|(_, new)| new),
            Side::New => columns.iter().find(|(_, new)| new.eq_ignore_ascii_case(name)).map(|(old, _)| old),
        };
        renamed.unwrap_or(name).to_ascii_lowercase()
    };
    let mine: Vec<String> = names(here, &key.columns).iter().map(translate).collect();
    there.foreign_keys.iter().any(|other| {
        names(there, &other.columns) == mine && (other.on_delete, other.on_update) == (key.on_delete, key.on_update)
    })
}
