//! Events into transactions: a state machine without I/O.

#[cfg(test)]
mod damage;
mod prepared;
mod rows;
mod statements;

use std::sync::Arc;

use crossfade_model::{Direction, Origin, Position, ResumePoint, Seen, TableName, TableShape, TransactionHead};

use crate::decode::{DecodeError, RowsEvent};
use crate::dump::Frame;
use crate::error::{Place, StopReason};
use crate::event_type as code;
use crate::group::{Group, GroupReader, Number};
use crate::route::Routes;
use crate::source::Source;
use crate::transaction::OpenTransaction;
use crate::xa::{FilePlace, PreparedStore, Xid};
use crate::{BinlogError, EchoWatch, Notice, ReaderOptions, SyncedTables, TransactionPart};

/// How much of a statement an error shows.
const SHOWN_CHARS: usize = 300;

/// What the assembly needs from outside before it can go on.
#[derive(Debug)]
pub(crate) enum Request {
    /// The present definition of a synced table.
    Shape(TableName),
    OwnShapes,
    /// The events of a prepared XA transaction, which are then given to [`Assembly::replay`].
    Prepared {
        xid: Xid,
        known: Option<FilePlace>,
        commit: FilePlace,
    },
}

/// Where the event at hand stands.
#[derive(Debug, Clone, Default)]
struct Here {
    file: String,
    begin: u64,
    end: u64,
}

pub(crate) struct Assembly {
    pair: String,
    opposite: Direction,
    part_bytes: usize,
    prepared_bytes: usize,
    echo_watch: Option<EchoWatch>,
    tables: SyncedTables,
    routes: Routes,
    groups: GroupReader,
    /// After the last whole transaction.
    position: Position,
    /// Row changes of the next transaction that were delivered, and which one that was, as far as this reader knows.
    rows_done: u64,
    begun_with: Option<Number>,
    seen: Arc<Seen>,
    open: Option<OpenTransaction>,
    prepared: PreparedStore,
    part: Option<TransactionPart>,
    request: Option<Request>,
    /// The statement whose effect on a definition is being looked up; it ends its transaction.
    redefining: Option<(TableName, String)>,
    waiting_for: Option<Xid>,
    notices: Vec<Notice>,
    here: Here,
}

impl Assembly {
    pub fn new(options: &ReaderOptions) -> Assembly {
        Assembly {
            pair: options.pair.clone(),
            opposite: options.direction.opposite(),
            part_bytes: options.part_bytes,
            prepared_bytes: options.prepared_bytes,
            echo_watch: options.echo_watch.clone(),
            tables: options.tables.clone(),
            routes: Routes::default(),
            groups: GroupReader::default(),
            position: options.start.position.clone(),
            rows_done: options.start.rows_done,
            begun_with: None,
            seen: Arc::new(options.seen.clone()),
            open: None,
            prepared: PreparedStore::default(),
            part: None,
            request: None,
            redefining: None,
            waiting_for: None,
            notices: Vec::new(),
            here: Here::default(),
        }
    }

    pub fn position(&self) -> &Position {
        &self.position
    }

    pub fn resume_point(&self) -> ResumePoint {
        ResumePoint { position: self.position.clone(), rows_done: self.rows_done }
    }

    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    pub fn take_part(&mut self) -> Option<TransactionPart> {
        self.part.take()
    }

    pub fn has_no_part(&self) -> bool {
        self.part.is_none()
    }

    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Forgets what was read of the transaction at hand; it is read again.
    pub fn abandon(&mut self) {
        self.open = None;
        self.request = None;
        self.redefining = None;
        self.waiting_for = None;
        self.routes.clear();
    }

    /// A new connection begins at [`Assembly::position`]. `same_server`: file names mean what they meant.
    pub fn restart(&mut self, own_shapes: Vec<Arc<TableShape>>, same_server: bool) {
        self.abandon();
        if !same_server {
            self.prepared = PreparedStore::default();
        }
        self.routes.own_shapes = own_shapes;
    }

    pub fn set_own_shapes(&mut self, shapes: Vec<Arc<TableShape>>) {
        self.routes.own_shapes = shapes;
        self.routes.clear();
    }

    /// Takes the next event. `after` is the file and offset behind it.
    pub fn take(&mut self, frame: Frame, source: &Source, after: (&str, u64)) -> Result<(), BinlogError> {
        let rotates = frame.event_type() == code::ROTATE;
        if !rotates && self.here.file != after.0 {
            after.0.clone_into(&mut self.here.file);
        }
        (self.here.begin, self.here.end) = (frame.begin, frame.end);
        self.event(&frame, source)?;
        if self.open.is_none() && self.request.is_none() && !frame.inner {
            self.follow_file(after);
        }
        Ok(())
    }

    /// Between transactions a position by file and offset follows every event, so that it crosses into new files.
    fn follow_file(&mut self, (at_file, at_offset): (&str, u64)) {
        if let Position::File { file, offset, .. } = &mut self.position {
            if file != at_file {
                at_file.clone_into(file);
            }
            *offset = at_offset;
        }
    }

    fn event(&mut self, frame: &Frame, source: &Source) -> Result<(), BinlogError> {
        if let Some(open) = &mut self.open {
            open.bytes += u64::from(frame.event.header.size);
        }
        match frame.event_type() {
            code::GTID | code::ANONYMOUS_GTID | code::GTID_TAGGED | code::MARIADB_GTID => self.begin(frame),
            code::QUERY => self.query(frame, source, false, false),
            code::MARIADB_QUERY_COMPRESSED => self.query(frame, source, false, true),
            code::EXECUTE_LOAD_QUERY => self.query(frame, source, true, false),
            code::TABLE_MAP => self.table_map(frame, source),
            code::XID => self.finish(true),
            code::XA_PREPARE => self.prepare(frame.body()),
            rows if RowsEvent::is_rows(rows) => self.rows(frame),
            code::FORMAT_DESCRIPTION | code::ROTATE => self.new_file(frame),
            code::INCIDENT => Err(self.stop(StopReason::Incident, None)),
            code::STOP
            | code::INTVAR
            | code::RAND
            | code::USER_VAR
            | code::BEGIN_LOAD_QUERY
            | code::APPEND_BLOCK
            | code::DELETE_FILE
            | code::HEARTBEAT
            | code::HEARTBEAT_V2
            | code::IGNORABLE
            | code::ROWS_QUERY
            | code::PREVIOUS_GTIDS
            | code::TRANSACTION_CONTEXT
            | code::VIEW_CHANGE
            | code::MARIADB_ANNOTATE_ROWS
            | code::MARIADB_BINLOG_CHECKPOINT
            | code::MARIADB_GTID_LIST
            | code::MARIADB_START_ENCRYPTION => Ok(()),
            _ if frame.event.header.flags & code::IGNORABLE_FLAG != 0 => Ok(()),
            event_type => Err(self.stop(StopReason::UnknownEvent { event_type }, None)),
        }
    }

    fn begin(&mut self, frame: &Frame) -> Result<(), BinlogError> {
        if self.open.is_some() {
            return Err(self.corrupt("a transaction begins inside another"));
        }
        let group = self.groups.read(&frame.event).ok_or_else(|| self.corrupt("a GTID that cannot be read"))?;
        if group.number == Number::None && !matches!(self.position, Position::File { .. }) {
            return Err(self.stop(StopReason::Anonymous, None));
        }
        // Another server may have lost the one that was delivered in part, and goes on with another.
        if self.rows_done > 0 && self.begun_with.as_ref().is_some_and(|begun| *begun != group.number) {
            let expected = self.rows_done;
            return Err(self.stop(StopReason::TransactionChanged { expected, found: 0 }, None));
        }
        self.open_group(group);
        Ok(())
    }

    fn open_group(&mut self, group: Group) {
        let place = FilePlace { file: self.here.file.clone(), offset: self.here.begin };
        self.open = Some(OpenTransaction::new(group, place, self.rows_done));
    }

    /// The transaction at hand. Servers before GTIDs begin transactions without announcing them.
    fn opened(&mut self, frame: &Frame) -> Result<&mut OpenTransaction, BinlogError> {
        if self.open.is_none() {
            if !matches!(self.position, Position::File { .. }) {
                return Err(self.corrupt("an event outside transactions"));
            }
            let committed_at_micros = i64::from(frame.event.header.timestamp) * 1_000_000;
            self.open_group(Group { number: Number::None, committed_at_micros, begun: false, xa: false });
        }
        Ok(self.open.as_mut().expect("opened just now"))
    }

    /// A file that begins inside a transaction: the server crashed while it wrote that, and has rolled it back.
    fn new_file(&mut self, frame: &Frame) -> Result<(), BinlogError> {
        self.routes.clear();
        if self.open.is_none() || frame.artificial {
            return Ok(());
        }
        self.open = None;
        if self.rows_done > 0 {
            return Err(self.stop(StopReason::LateRollback, None));
        }
        tracing::warn!(file = %self.here.file, offset = self.here.begin, "the binlog file ends inside a transaction, which is left out");
        Ok(())
    }

    /// Ends the transaction at hand.
    fn finish(&mut self, commits: bool) -> Result<(), BinlogError> {
        let Some(open) = &mut self.open else { return Err(self.corrupt("a commit outside transactions")) };
        if !commits {
            if self.rows_done > 0 {
                return Err(self.stop(StopReason::LateRollback, None));
            }
            open.changes.clear();
            open.counted = 0;
            open.checkpoints.clear();
            open.returned.clear();
            open.authority.clear();
        }
        if open.counted < open.skip {
            let (expected, found) = (open.skip, open.counted);
            return Err(self.stop(StopReason::TransactionChanged { expected, found }, None));
        }
        if !open.group.number.advance(&mut self.position, &self.here.file, self.here.end) {
            return Err(self.stop(StopReason::Anonymous, None));
        }
        if open.origin == Some(Origin::Sync) {
            let seen = Arc::make_mut(&mut self.seen);
            open.checkpoints.drain(..).for_each(|checkpoint| checkpoint.note_in(seen));
        }
        self.deliver(true);
        self.open = None;
        self.rows_done = 0;
        Ok(())
    }

    /// Makes a part of what is kept of the transaction at hand.
    fn deliver(&mut self, last: bool) {
        let Some(open) = &mut self.open else { return };
        let rows_before = open.rows_before();
        let mut end = self.position.clone();
        if !last {
            open.group.number.advance_by_number(&mut end);
            self.rows_done = open.counted;
            self.begun_with = Some(open.group.number.clone());
        }
        let head = TransactionHead {
            source_position: open.source_position.clone(),
            committed_at_micros: open.group.committed_at_micros,
            origin: open.origin.unwrap_or(Origin::User),
            seen: self.seen.clone(),
            end,
        };
        let rows_done = if last { 0 } else { self.rows_done };
        open.changes_bytes = 0;
        self.part = Some(TransactionPart {
            head,
            rows_before,
            changes: std::mem::take(&mut open.changes),
            last,
            echoes: std::mem::take(&mut open.echoes),
            echo_keys: std::mem::take(&mut open.echo_keys),
            heartbeats: std::mem::take(&mut open.heartbeats),
            returned: std::mem::take(&mut open.returned),
            authority: std::mem::take(&mut open.authority),
            only_crossfade: open.only_crossfade,
            bytes: std::mem::take(&mut open.bytes),
            resume: ResumePoint { position: self.position.clone(), rows_done },
        });
    }

    fn place(&self) -> Place {
        let transaction = self.open.as_ref().map(|open| open.group.number.text()).unwrap_or_default();
        Place { file: self.here.file.clone(), offset: self.here.begin, transaction }
    }

    fn stop(&self, reason: StopReason, statement: Option<&str>) -> BinlogError {
        let statement = statement.map(|text| match reason {
            // Statements that change rows hold their values.
            StopReason::StatementFormat { .. } | StopReason::OpaqueStatement => {
                format!("{} …", text.split_whitespace().next().unwrap_or_default())
            }
            _ => shown(text),
        });
        BinlogError::Stopped { place: Box::new(self.place()), reason, statement }
    }

    fn undecoded(&self, error: DecodeError) -> BinlogError {
        match error {
            DecodeError::PartialRowImage { table, .. } => self.stop(StopReason::PartialRowImage { table }, None),
            source => BinlogError::Decode { place: Box::new(self.place()), source },
        }
    }

    fn corrupt(&self, what: &str) -> BinlogError {
        BinlogError::Corrupt { place: Box::new(self.place()), what: what.to_owned() }
    }
}

/// A statement for an error: cut, in one line.
fn shown(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}
