//! Table maps and the rows that follow them.

use crossfade_model::{Origin, RowOp};

use super::Assembly;
use crate::BinlogError;
use crate::checkpoint::{Checkpoint, authority_of, heartbeat_of, returned_token};
use crate::decode::{DecodeError, RowsEvent};
use crate::dump::Frame;
use crate::route::{Route, RouteError, Routed};
use crate::source::Source;

/// A table id that no table map announces: an event without rows that only ends a statement (MySQL source,
/// `Rows_log_event`).
const NO_TABLE: u64 = 0xff_ffff;

impl Assembly {
    pub(super) fn table_map(&mut self, frame: &Frame, source: &Source) -> Result<(), BinlogError> {
        self.opened(frame)?;
        let learned = self.routes.learn(frame.body(), source.flavor, source.folds_names(), &self.tables);
        let (routed, notice) = match learned {
            Ok(learned) => learned,
            Err(RouteError::Decode(error)) => return Err(self.undecoded(error)),
            Err(RouteError::Stop(reason)) => return Err(self.stop(reason, None)),
        };
        notice.into_iter().for_each(|notice| self.note(notice));
        let open = self.open.as_mut().expect("opened above");
        open.only_crossfade &= !matches!(routed.route, Route::Synced(_) | Route::Other);
        // Only the first table map of a transaction can mark it as crossfade's own.
        if !std::mem::replace(&mut open.mapped, true) && !matches!(routed.route, Route::Checkpoint(_)) {
            open.origin = Some(Origin::User);
        }
        Ok(())
    }

    pub(super) fn rows(&mut self, frame: &Frame) -> Result<(), BinlogError> {
        let table_id = RowsEvent::peek_table_id(frame.body()).map_err(|error| self.undecoded(error))?;
        let index = self.opened(frame)?.row_events;
        if table_id == NO_TABLE {
            return Ok(());
        }
        let Some(routed) = self.routes.get(table_id) else {
            return Err(self.corrupt("rows of a table that no table map announces"));
        };
        let decoded = self.routed_rows(frame, &routed, index);
        decoded.map_err(|error| self.undecoded(error))?;
        let open = self.open.as_mut().expect("opened above");
        open.row_events += 1;
        // The first rows that are no checkpoint of ours make the transaction a user's.
        open.origin.get_or_insert(Origin::User);
        self.bound_memory();
        Ok(())
    }

    pub(super) fn routed_rows(&mut self, frame: &Frame, routed: &Routed, index: u32) -> Result<(), DecodeError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let parse = || RowsEvent::parse(frame.event_type(), frame.body(), index);
        match &routed.route {
            Route::Synced(map) if open.origin == Some(Origin::Sync) => match &self.echo_watch {
                Some(watch) if watch.watches() => {
                    for change in map.changes(parse()?) {
                        watch.note(&change?, &mut open.echo_keys);
                        open.echoes += 1;
                    }
                }
                _ => open.echoes += parse()?.count(&routed.body)?,
            },
            Route::Synced(map) => map.changes(parse()?).try_for_each(|change| {
                open.push(change?);
                Ok(())
            })?,
            Route::Checkpoint(map) => {
                for change in map.changes(parse()?) {
                    let ours = Checkpoint::of(&change?, &self.pair, self.opposite)?;
                    let origin = if ours.is_some() { Origin::Sync } else { Origin::User };
                    if *open.origin.get_or_insert(origin) == Origin::Sync {
                        open.checkpoints.extend(ours);
                    }
                }
            }
            Route::Heartbeat(map) => {
                for change in map.changes(parse()?) {
                    let beat = heartbeat_of(&change?).filter(|(pair, _)| *pair == self.pair);
                    open.heartbeats.extend(beat.map(|(_, beat)| beat));
                }
            }
            // Marks that go after a while are rows of this table, too.
            Route::Returned(map) if open.origin == Some(Origin::Sync) => {
                for change in map.changes(parse()?) {
                    let change = change?;
                    if change.op == RowOp::Insert {
                        open.returned.extend(returned_token(&change, &self.pair, self.opposite.opposite()));
                    }
                }
            }
            Route::Authority(map) if open.origin == Some(Origin::Sync) => {
                for change in map.changes(parse()?) {
                    open.authority.extend(authority_of(&change?, &self.pair)?);
                }
            }
            Route::Returned(_) | Route::Authority(_) | Route::Crossfade | Route::Other => {}
        }
        Ok(())
    }

    pub(super) fn bound_memory(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.xa {
            let room = self.prepared_bytes.saturating_sub(self.prepared.bytes());
            if open.changes_bytes > room.min(self.part_bytes) {
                open.leave_rows_out();
            }
        } else if open.changes_bytes >= self.part_bytes {
            self.deliver(false);
        }
    }
}
