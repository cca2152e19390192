//! Messages as changes of the target's columns.

use std::collections::HashMap;
use std::sync::Arc;

use crossfade_model::{Message, RowChange, TableLayout, TableName};
use crossfade_rules::{MappedChange, Projection, TableMapping};

use crate::error::ApplyError;

/// Layouts that are remembered; a reader makes new ones after each reconnect.
const MOST_LAYOUTS: usize = 4_096;

/// Projects messages onto the mappings of one direction. Projections are made once per layout.
pub(crate) struct Mapper {
    mappings: Arc<[TableMapping]>,
    by_name: HashMap<TableName, usize>,
    projections: HashMap<usize, Known>,
}

struct Known {
    /// Keeps the layout's address, by which it is found, from being used again.
    _layout: Arc<TableLayout>,
    table: usize,
    projection: Projection,
}

impl Mapper {
    pub fn new(mappings: Arc<[TableMapping]>) -> Mapper {
        let by_name = mappings.iter().enumerate().map(|(index, mapping)| (mapping.source.clone(), index)).collect();
        Mapper { mappings, by_name, projections: HashMap::new() }
    }

    /// The message's table is carried.
    pub fn knows(&self, message: &Message) -> bool {
        self.by_name.contains_key(&message.change.layout.name)
    }

    /// Takes messages in order; consecutive messages of one source position share a transaction number.
    pub fn map(&mut self, messages: Vec<Message>) -> Result<Vec<MappedChange>, ApplyError> {
        let mut changes = Vec::with_capacity(messages.len());
        let mut transaction = 0;
        let mut position: Option<Arc<str>> = None;
        for message in messages {
            if position.as_ref().is_some_and(|last| **last != *message.source_position) {
                transaction += 1;
            }
            position = Some(message.source_position.clone());
            changes.push(self.map_one(message, transaction)?);
        }
        Ok(changes)
    }

    fn map_one(&mut self, message: Message, transaction: u32) -> Result<MappedChange, ApplyError> {
        let Message { seq, change, origin, seen, effective, .. } = message;
        let RowChange { layout, op, before, after, .. } = change;
        let known = self.known(seq, &layout)?;
        let unmappable = |problem: crossfade_rules::RulesError| ApplyError::Unmappable {
            seq,
            table: layout.name.clone(),
            problem: problem.to_string(),
        };
        let project = |row: Option<Vec<_>>| row.map(|row| known.projection.into_row(row)).transpose();
        Ok(MappedChange {
            seq,
            table: known.table,
            op,
            before: project(before).map_err(unmappable)?,
            after: project(after).map_err(unmappable)?,
            effective,
            seen,
            transaction,
            origin,
        })
    }

    fn known(&mut self, seq: u64, layout: &Arc<TableLayout>) -> Result<&Known, ApplyError> {
        let address = Arc::as_ptr(layout) as usize;
        if !self.projections.contains_key(&address) {
            if self.projections.len() >= MOST_LAYOUTS {
                self.projections.clear();
            }
            let table = self.by_name.get(&layout.name).copied();
            let table = table.ok_or_else(|| ApplyError::TableUnknown { seq, table: layout.name.clone() })?;
            let projection = self.mappings[table].project(layout).map_err(|problem| ApplyError::Unmappable {
                seq,
                table: layout.name.clone(),
                problem: problem.to_string(),
            })?;
            self.projections.insert(address, Known { _layout: layout.clone(), table, projection });
        }
        Ok(&self.projections[&address])
    }
}
