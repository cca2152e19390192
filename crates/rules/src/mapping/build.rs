//! Checking two table definitions against a rule, and the mapping that comes out.

use crossfade_model::{Column, Direction, Side, TableShape};

use super::kinds::{Fit, fit_columns, time_fraction_digits};
use super::problem::{MappingProblem, Misfit, Severity};
use super::unique::{MappedKeys, mapped_keys};
use super::{ClockColumn, ClockKind, MappedColumn, ParentLink, Policy, TableMapping, TableRule};

/// With fewer digits, two writes of a row can carry one clock.
const STRICT_FRACTION_DIGITS: u8 = 6;

impl TableMapping {
    /// Checks a table in one direction. `source` and `target` are the definitions on the direction's two sides.
    ///
    /// # Errors
    /// Every problem at once, warnings included, when at least one of them prevents mapping.
    pub fn build(
        direction: Direction,
        rule: &TableRule,
        source: &TableShape,
        target: &TableShape,
    ) -> Result<TableMapping, Vec<MappingProblem>> {
        let is_obstacle = |problem: &MappingProblem| problem.severity() == Severity::Error;
        TableMapping::build_unless(direction, rule, source, target, is_obstacle)
    }

    /// As [`TableMapping::build`], though a column of the target is too short for some values: for looking at messages that
    /// the target has refused for that, and for mending them. The server refuses such a value again.
    ///
    /// # Errors
    /// As [`TableMapping::build`], for other problems.
    pub fn build_as_is(
        direction: Direction,
        rule: &TableRule,
        source: &TableShape,
        target: &TableShape,
    ) -> Result<TableMapping, Vec<MappingProblem>> {
        let is_obstacle = |problem: &MappingProblem| {
            problem.severity() == Severity::Error && !matches!(problem, MappingProblem::Narrow(_))
        };
        TableMapping::build_unless(direction, rule, source, target, is_obstacle)
    }

    fn build_unless(
        direction: Direction,
        rule: &TableRule,
        source: &TableShape,
        target: &TableShape,
        is_obstacle: impl Fn(&MappingProblem) -> bool,
    ) -> Result<TableMapping, Vec<MappingProblem>> {
        let mut builder = Builder { direction, rule, source, target, columns: Vec::new(), problems: Vec::new() };
        builder.check_renames();
        builder.map_columns();
        builder.report_dropped();
        let clock = builder.clock();
        let strict_clock = clock.as_ref().is_some_and(|clock| builder.is_strict(clock));
        let keys = builder.keys();
        let parents = builder.parents();
        let merge = builder.merge(&keys.row_key, clock.as_ref());
        let Builder { columns, problems, .. } = builder;
        if problems.iter().any(is_obstacle) {
            return Err(problems);
        }
        Ok(TableMapping {
            direction,
            source: source.name.clone(),
            target: target.name.clone(),
            identity: rule.old.clone(),
            policy: rule.policy,
            columns: columns.into_iter().map(|pair| pair.column).collect(),
            clock,
            strict_clock,
            keyless: keys.row_key.is_empty(),
            row_key: keys.row_key,
            unique_keys: keys.unique_keys,
            in_order: !keys.opaque.is_empty(),
            parents,
            merge,
            warnings: problems,
        })
    }
}

/// A carried column and its places in both definitions.
pub(super) struct Pair {
    pub source: usize,
    pub target: usize,
    pub column: MappedColumn,
}

pub(super) struct Builder<'a> {
    pub direction: Direction,
    pub rule: &'a TableRule,
    pub source: &'a TableShape,
    pub target: &'a TableShape,
    pub columns: Vec<Pair>,
    pub problems: Vec<MappingProblem>,
}

impl Builder<'_> {
    /// The definition on a side.
    fn shape(&self, side: Side) -> &TableShape {
        if self.direction.source() == side { self.source } else { self.target }
    }

    /// What a column of the target is called at the source.
    fn source_name<'a>(&'a self, target: &'a str) -> &'a str {
        let renamed = &self.rule.renamed;
        match self.direction {
            Direction::Forward => {
                renamed.iter().find(|(_, new)| new.eq_ignore_ascii_case(target)).map_or(target, |(old, _)| old.as_str())
            }
            Direction::Reverse => {
                renamed.iter().find(|(old, _)| old.eq_ignore_ascii_case(target)).map_or(target, |(_, new)| new.as_str())
            }
        }
    }

    /// The column is on the source under this name, and the rule does not give it another name at the target.
    fn source_column(&self, target: &str) -> Option<usize> {
        let name = self.source_name(target);
        let renamed_away = name == target
            && self.rule.renamed.iter().any(|(old, new)| {
                let from = if self.direction == Direction::Forward { old } else { new };
                from.eq_ignore_ascii_case(name) && !old.eq_ignore_ascii_case(new)
            });
        // Two renames of one column, spelled differently, give it to the first.
        let free = |place: &usize| !self.columns.iter().any(|pair| pair.source == *place);
        if renamed_away { None } else { self.source.column(name).filter(free) }
    }

    fn check_renames(&mut self) {
        let mut missing = Vec::new();
        for (old, new) in &self.rule.renamed {
            for (side, column) in [(Side::Old, old), (Side::New, new)] {
                let shape = self.shape(side);
                if shape.column(column).is_none() {
                    let table = shape.name.clone();
                    missing.push(MappingProblem::RenamedColumnMissing { table, column: column.clone() });
                }
            }
        }
        self.problems.append(&mut missing);
    }

    fn map_columns(&mut self) {
        let target = self.target;
        for (index, column) in target.columns.iter().enumerate().filter(|(_, column)| !column.generated) {
            match self.source_column(&column.name) {
                Some(place) => self.map_pair(place, index),
                None if column.nullable || column.has_default || column.auto_increment => {}
                None => self.problems.push(MappingProblem::TargetColumnUnfilled {
                    table: self.source.name.clone(),
                    target_table: target.name.clone(),
                    column: column.name.clone(),
                }),
            }
        }
        if self.columns.is_empty() {
            let table = self.source.name.clone();
            self.problems.push(MappingProblem::NothingMapped { table, target_table: target.name.clone() });
        }
    }

    fn map_pair(&mut self, source: usize, target: usize) {
        let (from, to) = (&self.source.columns[source], &self.target.columns[target]);
        self.problems.extend(self.pair_problem(from, to));
        if from.nullable && !to.nullable {
            self.problems.push(MappingProblem::NullRefused {
                table: self.source.name.clone(),
                column: from.name.clone(),
                target_table: self.target.name.clone(),
                target_column: to.name.clone(),
            });
        }
        let column = MappedColumn {
            source: from.name.clone(),
            target: to.name.clone(),
            source_kind: from.kind.clone(),
            target_kind: to.kind.clone(),
            not_null: !to.nullable,
            on_update_now: from.on_update_now,
        };
        self.columns.push(Pair { source, target, column });
    }

    fn pair_problem(&self, from: &Column, to: &Column) -> Option<MappingProblem> {
        use crossfade_model::ColumnKind::Other;
        let (table, target_table) = (self.source.name.clone(), self.target.name.clone());
        let (column, target_column) = (from.name.clone(), to.name.clone());
        for (shape, declared) in [(self.source, from), (self.target, to)] {
            if matches!(declared.kind, Other { .. }) {
                let (table, column) = (shape.name.clone(), declared.name.clone());
                return Some(MappingProblem::UnsupportedType { table, column, declared: declared.declared.clone() });
            }
        }
        if from.generated {
            return Some(MappingProblem::GeneratedAtSource { table, column, target_table, target_column });
        }
        let (source_type, target_type) = (from.declared.clone(), to.declared.clone());
        let misfit = |reason| Misfit { table, column, source_type, target_table, target_column, target_type, reason };
        match fit_columns(from, to) {
            Fit::Whole => None,
            Fit::No(reason) if self.is_clock(from) && coarser_time(from, to) => {
                Some(MappingProblem::Partly(misfit(reason)))
            }
            Fit::Narrow(reason) => Some(MappingProblem::Narrow(misfit(reason))),
            Fit::No(reason) => Some(MappingProblem::Incompatible(misfit(reason))),
            Fit::Partly(reason) => Some(MappingProblem::Partly(misfit(reason))),
        }
    }

    fn report_dropped(&mut self) {
        for (index, column) in self.source.columns.iter().enumerate() {
            if !column.generated && !self.columns.iter().any(|pair| pair.source == index) {
                self.problems.push(MappingProblem::Dropped {
                    table: self.source.name.clone(),
                    column: column.name.clone(),
                    target_table: self.target.name.clone(),
                });
            }
        }
    }

    /// The clock column's name at the source.
    fn clock_name(&self) -> Option<&str> {
        let old = self.rule.clock.as_deref()?;
        let renamed = self.rule.renamed.iter().find(|(from, _)| from.eq_ignore_ascii_case(old));
        match self.direction {
            Direction::Forward => Some(old),
            Direction::Reverse => Some(renamed.map_or(old, |(_, new)| new.as_str())),
        }
    }

    fn is_clock(&self, column: &Column) -> bool {
        self.clock_name().is_some_and(|name| name.eq_ignore_ascii_case(&column.name))
    }

    fn clock(&mut self) -> Option<ClockColumn> {
        let table = self.source.name.clone();
        let policy = self.rule.policy;
        let Some(name) = self.clock_name().map(str::to_owned) else {
            if matches!(policy, Policy::Newest | Policy::Version) {
                self.problems.push(MappingProblem::ClockNotNamed { table, policy: policy.as_str() });
            }
            return None;
        };
        let Some(index) = self.columns.iter().position(|pair| pair.column.source.eq_ignore_ascii_case(&name)) else {
            let target_table = self.target.name.clone();
            self.problems.push(MappingProblem::ClockMissing { table, target_table, column: name });
            return None;
        };
        let kind = self.clock_kind(index)?;
        let column = &self.columns[index].column;
        Some(ClockColumn { source: column.source.clone(), target: column.target.clone(), index, kind })
    }

    fn clock_kind(&mut self, index: usize) -> Option<ClockKind> {
        let pair = &self.columns[index];
        let sides =
            [(self.source, pair.source), (self.target, pair.target)].map(|(shape, at)| (shape, &shape.columns[at]));
        let policy = self.rule.policy;
        let allowed = |kind: ClockKind| match policy {
            Policy::Newest => matches!(kind, ClockKind::Time { .. }),
            Policy::Version => kind == ClockKind::Version,
            Policy::PreferOld | Policy::PreferNew => true,
        };
        let kinds = sides.map(|(_, column)| clock_kind_of(column).filter(|kind| allowed(*kind)));
        for ((shape, column), kind) in sides.iter().zip(kinds) {
            if kind.is_none() {
                self.problems.push(MappingProblem::ClockKind {
                    table: shape.name.clone(),
                    column: column.name.clone(),
                    declared: column.declared.clone(),
                    policy: policy.as_str(),
                });
            }
        }
        let kind = match (kinds[0]?, kinds[1]?) {
            (ClockKind::Time { fraction_digits: a }, ClockKind::Time { fraction_digits: b }) => {
                ClockKind::Time { fraction_digits: a.min(b) }
            }
            (ClockKind::Version, ClockKind::Version) => ClockKind::Version,
            // A time on one side and a number on the other: the columns' own incompatibility is already reported.
            _ => return None,
        };
        if policy == Policy::Newest {
            for (shape, column) in sides {
                self.problems.extend(clock_warnings(shape, column));
            }
        }
        Some(kind)
    }

    /// A version is never strict: it starts again when a row is inserted again, so a row that was deleted and inserted as
    /// it was before looks untouched.
    fn is_strict(&self, clock: &ClockColumn) -> bool {
        let Some(pair) = self.columns.get(clock.index) else { return false };
        match clock.kind {
            ClockKind::Version => false,
            ClockKind::Time { fraction_digits } => {
                fraction_digits >= STRICT_FRACTION_DIGITS
                    && self.source.columns[pair.source].on_update_now
                    && self.target.columns[pair.target].on_update_now
            }
        }
    }

    fn keys(&mut self) -> MappedKeys {
        let (old, new) = (self.shape(Side::Old), self.shape(Side::New));
        let place = |side: Side, pair: &Pair| if self.direction.source() == side { pair.source } else { pair.target };
        let places = |side: Side| self.columns.iter().map(|pair| place(side, pair)).collect::<Vec<usize>>();
        let keys = mapped_keys((old, &places(Side::Old)), (new, &places(Side::New)), self.direction);
        let (table, target_table) = (self.source.name.clone(), self.target.name.clone());
        if keys.row_key.is_empty() && old.row_key().is_some() && new.row_key().is_some() {
            self.problems.push(MappingProblem::NoCommonKey { table, target_table });
        } else if keys.row_key.is_empty() && !self.rule.one_way {
            self.problems.push(MappingProblem::Keyless { table });
        }
        for key in &keys.opaque {
            let table = self.target.name.clone();
            self.problems.push(MappingProblem::UniqueKeyOpaque { table, key: key.clone() });
        }
        keys
    }

    fn parents(&self) -> Vec<ParentLink> {
        let place = |at: &usize| self.columns.iter().position(|pair| pair.target == *at);
        let links = self.target.foreign_keys.iter().filter_map(|key| {
            let columns: Option<Vec<usize>> = key.columns.iter().map(place).collect();
            Some(ParentLink {
                name: key.name.clone(),
                columns: columns?,
                parent: key.parent.clone(),
                parent_columns: key.parent_columns.clone(),
                on_delete: key.on_delete,
                on_update: key.on_update,
            })
        });
        links.collect()
    }
}

fn clock_kind_of(column: &Column) -> Option<ClockKind> {
    if matches!(column.kind, crossfade_model::ColumnKind::Integer { .. }) {
        return Some(ClockKind::Version);
    }
    time_fraction_digits(&column.kind).map(|fraction_digits| ClockKind::Time { fraction_digits })
}

/// The only thing lost between two clocks is digits of the second, which clocks are truncated to anyway.
fn coarser_time(from: &Column, to: &Column) -> bool {
    matches!((time_fraction_digits(&from.kind), time_fraction_digits(&to.kind)), (Some(a), Some(b)) if a > b)
}

fn clock_warnings(shape: &TableShape, column: &Column) -> Vec<MappingProblem> {
    let mut warnings = Vec::new();
    let (table, name) = (shape.name.clone(), column.name.clone());
    if let Some(fraction_digits) = time_fraction_digits(&column.kind).filter(|digits| *digits < STRICT_FRACTION_DIGITS)
    {
        warnings.push(MappingProblem::ClockCoarse { table: table.clone(), column: name.clone(), fraction_digits });
    }
    if !column.on_update_now {
        warnings.push(MappingProblem::ClockNotUpdated { table, column: name });
    }
    warnings
}
