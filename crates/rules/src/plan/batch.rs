//! What every batch must fulfil before it is planned.

use super::MappedChange;
use super::table::PlannedTable;
use crate::RulesError;

/// Two halves per change and a mark for none must fit a `u32`.
const MAX_CHANGES: usize = (u32::MAX / 4) as usize;

/// The changes fit the tables, and are in order.
pub(super) fn check(tables: &[PlannedTable], changes: &[MappedChange]) -> Result<(), RulesError> {
    if changes.len() > MAX_CHANGES {
        return Err(RulesError::TooLarge { changes: changes.len() });
    }
    let mut previous = None;
    for change in changes {
        let seq = change.seq;
        if let Some(previous) = previous.replace(seq).filter(|previous| *previous >= seq) {
            return Err(RulesError::OutOfOrder { seq, previous });
        }
        check_images(tables, change)?;
    }
    Ok(())
}

fn check_images(tables: &[PlannedTable], change: &MappedChange) -> Result<(), RulesError> {
    let MappedChange { seq, table, .. } = *change;
    let planned = tables.get(table).ok_or(RulesError::UnknownTable { seq, table, tables: tables.len() })?;
    if change.before.is_none() && change.after.is_none() {
        return Err(RulesError::NoImage { seq });
    }
    match [&change.before, &change.after].into_iter().flatten().find(|row| row.len() != planned.width) {
        None => Ok(()),
        Some(row) => {
            Err(RulesError::RowWidth { table: planned.target.clone(), found: row.len(), expected: planned.width })
        }
    }
}
