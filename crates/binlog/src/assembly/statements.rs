//! Statements in the binlog: what frames transactions, and what changes definitions.

use std::sync::Arc;

use crossfade_model::{TableName, TableShape};

use super::{Assembly, Request, shown};
use crate::dump::Frame;
use crate::error::StopReason;
use crate::query::Query;
use crate::source::Source;
use crate::statement::{Effect, Statement, effect};
use crate::{BinlogError, Notice};

impl Assembly {
    pub(super) fn query(
        &mut self,
        frame: &Frame,
        source: &Source,
        loads: bool,
        compressed: bool,
    ) -> Result<(), BinlogError> {
        let Some(query) = Query::parse(frame.body(), loads, compressed) else {
            return Err(self.corrupt("a statement that cannot be read"));
        };
        let statement =
            Statement { text: &query.text, default_schema: &query.schema, backslash_escapes: query.backslash_escapes };
        let effect = effect(statement, &self.tables, source.folds_names());
        let begun = self.opened(frame)?.begun;
        let open = self.open.as_mut().expect("opened just now");
        match effect {
            Effect::Begin => open.begun = true,
            Effect::XaStart => (open.begun, open.xa) = (true, true),
            Effect::XaEnd => {}
            Effect::Commit => return self.finish(true),
            Effect::Rollback => return self.finish(false),
            Effect::Savepoint(name) => open.savepoint(name),
            Effect::RollbackTo(name) => {
                if open.roll_back_to(&name).is_err() {
                    return Err(self.stop(StopReason::LateRollback, Some(&query.text)));
                }
            }
            Effect::XaCommit(xid) => return self.commit_prepared(xid),
            Effect::XaRollback(xid) => {
                self.prepared.take(&xid);
                return self.finish(true);
            }
            Effect::Passes { only_crossfade } => {
                open.only_crossfade &= only_crossfade;
                if only_crossfade {
                    self.request = Some(Request::OwnShapes);
                }
                if !begun {
                    return self.finish(true);
                }
            }
            Effect::Redefines(table) => {
                open.only_crossfade = false;
                self.request = Some(Request::Shape(table.clone()));
                self.redefining = Some((table, shown(&query.text)));
            }
            Effect::Stops(reason) => return Err(self.stop(reason, Some(&query.text))),
        }
        Ok(())
    }

    /// Takes the present definition of the table that the statement at hand has changed, and ends that statement.
    pub fn renew(&mut self, table: &TableName, shape: Option<Arc<TableShape>>) -> Result<(), BinlogError> {
        let Some((_, statement)) = self.redefining.take() else { return Ok(()) };
        let Some(shape) = shape else {
            return Err(self.stop(StopReason::TableLost { table: table.clone() }, Some(&statement)));
        };
        if let Some(synced) = self.tables.get(table) {
            let columns = || shape.columns.iter().filter(|column| !column.generated).map(|column| &*column.name);
            let lost = synced.missing_columns(shape.columns.iter().map(|column| &*column.name));
            if !lost.is_empty() {
                let reason = StopReason::ColumnsLost { table: table.clone(), columns: lost };
                return Err(self.stop(reason, Some(&statement)));
            }
            let notice = self.routes.unmapped(table, synced.unmapped_columns(columns()));
            self.note(Notice::DefinitionChanged { table: table.clone(), statement });
            notice.into_iter().for_each(|notice| self.note(notice));
        }
        self.tables.renew(table, shape);
        self.routes.clear();
        if self.open.as_ref().is_some_and(|open| !open.begun) {
            return self.finish(true);
        }
        Ok(())
    }

    pub(super) fn note(&mut self, notice: Notice) {
        match notice {
            // The table goes on as it is now; nobody has to do anything.
            Notice::DefinitionChanged { .. } => tracing::info!("{notice}"),
            _ => tracing::warn!("{notice}"),
        }
        self.notices.push(notice);
    }
}
