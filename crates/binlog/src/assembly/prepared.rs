//! XA transactions: rows that wait for their COMMIT, and rows that are read again for it.

use super::{Assembly, Here, Request};
use crate::BinlogError;
use crate::decode::RowsEvent;
use crate::dump::Frame;
use crate::error::StopReason;
use crate::event_type as code;
use crate::query::Query;
use crate::source::Source;
use crate::statement::{Effect, Statement, effect};
use crate::transaction::OpenTransaction;
use crate::xa::{FilePlace, Prepared, Xid};

impl Assembly {
    /// An XA transaction's first half ends.
    pub(super) fn prepare(&mut self, body: &[u8]) -> Result<(), BinlogError> {
        let Some((one_phase, xid)) = Xid::from_prepare_event(body) else {
            return Err(self.corrupt("an XA transaction without identifier"));
        };
        let Some(open) = &mut self.open else { return Err(self.corrupt("an XA PREPARE outside transactions")) };
        if one_phase {
            if !open.rows_left_out {
                return self.finish(true);
            }
            // Committed at once, but too big to have been kept: read again, in parts.
            let known = Some(open.place.clone());
            return self.ask_for_prepared(xid, known);
        }
        let group = open.group.clone();
        let empty = OpenTransaction::new(group, open.place.clone(), 0);
        let read = std::mem::replace(open, empty);
        open.bytes = read.bytes;
        open.only_crossfade = read.only_crossfade;
        let place = read.place.clone();
        let transaction = (!read.rows_left_out).then_some(read);
        self.prepared.keep(xid, Prepared { place, transaction });
        self.finish(true)
    }

    pub(super) fn commit_prepared(&mut self, xid: Xid) -> Result<(), BinlogError> {
        let prepared = self.prepared.take(&xid);
        let known = prepared.as_ref().map(|prepared| prepared.place.clone());
        match (prepared.and_then(|prepared| prepared.transaction), &mut self.open) {
            (Some(transaction), Some(open)) => {
                open.adopt(transaction);
                self.finish(true)
            }
            _ => self.ask_for_prepared(xid, known),
        }
    }

    pub(super) fn ask_for_prepared(&mut self, xid: Xid, known: Option<FilePlace>) -> Result<(), BinlogError> {
        let commit = FilePlace { file: self.here.file.clone(), offset: self.here.begin };
        self.waiting_for = Some(xid.clone());
        self.request = Some(Request::Prepared { xid, known, commit });
        if let Some(open) = &mut self.open {
            (open.xa, open.rows_left_out, open.counted, open.row_events) = (false, false, 0, 0);
            (open.echoes, open.origin, open.mapped) = (0, None, false);
            open.heartbeats.clear();
            open.checkpoints.clear();
        }
        Ok(())
    }

    /// The answer to a request for prepared rows that are not in the binlog any more.
    pub fn prepared_is_gone(&self) -> BinlogError {
        let xid = self.waiting_for.as_ref().map(ToString::to_string).unwrap_or_default();
        self.stop(StopReason::PreparedRowsGone { xid }, None)
    }

    /// Takes an event of the prepared transaction that is read again. True at its end, which is the end of the commit as well.
    pub fn replay(&mut self, frame: Frame, source: &Source, file: &str) -> Result<bool, BinlogError> {
        let commit = self.here.clone();
        self.here = Here { file: file.to_owned(), begin: frame.begin, end: frame.end };
        let result = self.replay_event(&frame, source);
        self.here = commit;
        if result? {
            self.waiting_for = None;
            self.finish(true)?;
            return Ok(true);
        }
        Ok(false)
    }

    pub(super) fn replay_event(&mut self, frame: &Frame, source: &Source) -> Result<bool, BinlogError> {
        match frame.event_type() {
            code::TABLE_MAP => self.table_map(frame, source)?,
            rows if RowsEvent::is_rows(rows) => self.rows(frame)?,
            code::QUERY => {
                let Some(query) = Query::parse(frame.body(), false, false) else {
                    return Err(self.corrupt("a statement that cannot be read"));
                };
                let statement = Statement { text: &query.text, default_schema: &query.schema, backslash_escapes: true };
                let Some(open) = &mut self.open else { return Ok(false) };
                let late = match effect(statement, &self.tables, source.folds_names()) {
                    Effect::Savepoint(name) => {
                        open.savepoint(name);
                        false
                    }
                    Effect::RollbackTo(name) => open.roll_back_to(&name).is_err(),
                    _ => false,
                };
                if late {
                    return Err(self.stop(StopReason::LateRollback, Some(&query.text)));
                }
            }
            code::XA_PREPARE => {
                let prepared = Xid::from_prepare_event(frame.body()).map(|(_, xid)| xid);
                if prepared != self.waiting_for {
                    return Err(self.prepared_is_gone());
                }
                return Ok(true);
            }
            code::XID => return Err(self.prepared_is_gone()),
            _ => {}
        }
        Ok(false)
    }
}
