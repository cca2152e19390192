//! Which rule merges which column.

use crossfade_model::{Column, ColumnKind, MergeRule};

use super::build::Builder;
use super::{ClockColumn, MappingProblem};

impl Builder<'_> {
    /// The rule of each carried column, where the table's columns are merged.
    pub fn merge(&mut self, row_key: &[usize], clock: Option<&ClockColumn>) -> Option<Vec<MergeRule>> {
        let named = self.rule.merge.as_ref()?;
        let table = self.source.name.clone();
        if row_key.is_empty() || self.rule.one_way {
            self.problems.push(MappingProblem::MergeOneWay { table });
            return None;
        }
        let mut rules = vec![MergeRule::Newer; self.columns.len()];
        for (name, rule) in named {
            let of_old = |pair: &super::build::Pair| match self.direction {
                crossfade_model::Direction::Forward => pair.column.source.eq_ignore_ascii_case(name),
                crossfade_model::Direction::Reverse => pair.column.target.eq_ignore_ascii_case(name),
            };
            let Some(place) = self.columns.iter().position(of_old) else {
                let (table, column) = (table.clone(), name.clone());
                self.problems.push(MappingProblem::MergeColumnMissing { table, column });
                continue;
            };
            let (table, column) = (table.clone(), self.columns[place].column.source.clone());
            if let Some(reason) = fixed(place, *rule, row_key, clock) {
                let rule = rule.as_str();
                self.problems.push(MappingProblem::MergeColumnFixed { table, column, rule, reason });
            } else if let Some(problem) = self.kind_problem(place, *rule) {
                self.problems.push(problem);
            }
            rules[place] = *rule;
        }
        Some(rules)
    }

    fn kind_problem(&self, place: usize, rule: MergeRule) -> Option<MappingProblem> {
        let pair = &self.columns[place];
        let sides =
            [(self.source, &self.source.columns[pair.source]), (self.target, &self.target.columns[pair.target])];
        sides.iter().find_map(|(shape, column)| {
            let (table, name, rule_name) = (shape.name.clone(), column.name.clone(), rule.as_str());
            if !is_merged_by(rule, column) {
                let declared = column.declared.clone();
                return Some(MappingProblem::MergeKind { table, column: name, declared, rule: rule_name });
            }
            let refused = rule == MergeRule::SumDelta && column.nullable;
            refused.then_some(MappingProblem::MergeNullable { table, column: name, rule: rule_name })
        })
    }
}

/// Columns that no rule can change.
fn fixed(place: usize, rule: MergeRule, row_key: &[usize], clock: Option<&ClockColumn>) -> Option<&'static str> {
    if row_key.contains(&place) {
        return Some("it belongs to the key that identifies the row");
    }
    let is_clock = clock.is_some_and(|clock| clock.index == place);
    (is_clock && rule != MergeRule::Newer).then_some("it is the clock, which follows the newer change")
}

/// Floating point numbers are not added up: the sum would depend on the order.
fn is_merged_by(rule: MergeRule, column: &Column) -> bool {
    use ColumnKind::*;
    match rule {
        MergeRule::Newer => true,
        MergeRule::SumDelta => matches!(column.kind, Integer { .. } | Decimal { .. }),
        MergeRule::Max | MergeRule::Min => matches!(
            column.kind,
            Integer { .. }
                | Decimal { .. }
                | Float
                | Double
                | Date
                | Time { .. }
                | Datetime { .. }
                | Timestamp { .. }
                | Year
        ),
    }
}
