//! From the columns of an event to the columns of a mapping.

use std::sync::Arc;

use crossfade_model::{Row, TableLayout};

use super::TableMapping;
use super::kinds::{Fit, fit_kinds, time_fraction_digits};
use crate::RulesError;

/// Where a mapping's columns stand in rows of one layout. Made once per layout and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// Per mapped column its index in the layout.
    pub indexes: Vec<usize>,
    /// Columns of the layout that the mapping does not carry.
    pub unmapped: Vec<Arc<str>>,
    width: usize,
    identity: bool,
    source: crossfade_model::TableName,
}

impl TableMapping {
    /// Finds the mapping's columns in an event's layout, by name.
    ///
    /// # Errors
    /// A mapped column is gone, or its type has changed to one that the target cannot carry.
    pub fn project(&self, layout: &TableLayout) -> Result<Projection, RulesError> {
        let mut indexes = Vec::with_capacity(self.columns.len());
        for (place, column) in self.columns.iter().enumerate() {
            let gone = || RulesError::ColumnGone { table: layout.name.clone(), column: column.source.clone() };
            let index = layout.column(&column.source).ok_or_else(gone)?;
            let kind = layout.kinds.get(index).ok_or_else(gone)?;
            let clock = self.clock.as_ref().is_some_and(|clock| clock.index == place);
            let still_time =
                time_fraction_digits(kind).is_some() && time_fraction_digits(&column.target_kind).is_some();
            if *kind != column.source_kind
                && !(clock && still_time)
                && let Fit::No(found) = fit_kinds(kind, &column.target_kind)
            {
                return Err(RulesError::ColumnChanged {
                    table: layout.name.clone(),
                    column: column.source.clone(),
                    found: format!("{kind:?} ({found})"),
                    target: self.target.to_string(),
                });
            }
            indexes.push(index);
        }
        let carried = |(index, _): &(usize, &Arc<str>)| !indexes.contains(index);
        let unmapped = layout.columns.iter().enumerate().filter(carried).map(|(_, name)| name.clone()).collect();
        let width = layout.columns.len();
        let identity = indexes.len() == width && indexes.iter().enumerate().all(|(place, index)| place == *index);
        Ok(Projection { indexes, unmapped, width, identity, source: layout.name.clone() })
    }
}

impl Projection {
    /// A row's carried values, in the mapping's order.
    ///
    /// # Errors
    /// The row does not have as many values as the layout has columns.
    pub fn row(&self, row: &Row) -> Result<Row, RulesError> {
        self.check_width(row)?;
        Ok(self.indexes.iter().map(|index| row[*index].clone()).collect())
    }

    /// As [`Projection::row`], without copying values.
    ///
    /// # Errors
    /// As [`Projection::row`].
    pub fn into_row(&self, mut row: Row) -> Result<Row, RulesError> {
        self.check_width(&row)?;
        if self.identity {
            return Ok(row);
        }
        // Columns are matched one to one, so no value is taken twice.
        let take = |index: &usize| std::mem::replace(&mut row[*index], crossfade_model::Value::Null);
        Ok(self.indexes.iter().map(take).collect())
    }

    fn check_width(&self, row: &Row) -> Result<(), RulesError> {
        if row.len() == self.width {
            return Ok(());
        }
        Err(RulesError::RowWidth { table: self.source.clone(), found: row.len(), expected: self.width })
    }
}
