//! One batch on its way to a plan.

use super::{LanePlan, MappedChange, Plan, Planner, Step};
use crate::RulesError;

pub(super) fn plan(planner: &Planner, changes: Vec<MappedChange>, lanes: u16) -> Result<Plan, RulesError> {
    check(planner, &changes)?;
    let placed = changes.iter().map(|change| (change.seq, 0)).collect();
    let mut plan = Plan { lanes: vec![LanePlan::default(); usize::from(lanes)], placed };
    if !changes.is_empty() {
        plan.lanes[0].steps.push(Step::InOrder(changes));
    }
    Ok(plan)
}

/// The changes fit the tables, and are in order.
fn check(planner: &Planner, changes: &[MappedChange]) -> Result<(), RulesError> {
    if changes.len() > (u32::MAX / 4) as usize {
        return Err(RulesError::TooLarge { changes: changes.len() });
    }
    let mut previous = None;
    for change in changes {
        let (seq, table, tables) = (change.seq, change.table, planner.tables.len());
        let planned = planner.tables.get(table).ok_or(RulesError::UnknownTable { seq, table, tables })?;
        if let Some(previous) = previous.replace(seq).filter(|previous| *previous >= seq) {
            return Err(RulesError::OutOfOrder { seq, previous });
        }
        if change.before.is_none() && change.after.is_none() {
            return Err(RulesError::NoImage { seq });
        }
        for row in [&change.before, &change.after].into_iter().flatten() {
            if row.len() != planned.width {
                let (found, expected) = (row.len(), planned.width);
                return Err(RulesError::RowWidth { table: planned.target.clone(), found, expected });
            }
        }
    }
    Ok(())
}
