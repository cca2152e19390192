//! One binlog connection: events, checked and with their places.
//!
//! Transactions that MySQL has compressed are unpacked here, event by event: see [`Payload`].

use std::time::Duration;

use crossfade_config::ServerUrl;
use crossfade_model::Position;
use mysql_async::{Conn, GnoInterval, Sid};
use mysql_common::packets::binlog_request::BinlogRequest;
use mysql_common::packets::{BinlogDumpFlags, Tag};
use tokio::time::Instant;

use crate::decode::payload::Payload;
use crate::decode::{DecodeError, Flavor};
use crate::error::Place;
use crate::event::{CHECKSUM_BYTES, Event};
use crate::group::uuid_bytes;
use crate::link::{Link, NoEvent};
use crate::source::Source;
use crate::xa::FilePlace;
use crate::{BinlogError, event_type};

/// The source gives up a connection that takes nothing for this long; back-pressure may last.
const NET_WRITE_TIMEOUT_S: u32 = 24 * 3600;
/// Whatever checksums the source writes, it sends them. `source` is the newer word for `master`.
const CHECKSUM_AWARE: &str = "SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'";
const ARTIFICIAL: u16 = 0x20;
/// What COM_BINLOG_DUMP can ask for.
const LARGEST_OFFSET: u64 = u32::MAX as u64;

/// What a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Forever,
    /// The stream ends where the binlog ends now.
    EndOfBinlog,
}

/// One event with its place.
#[derive(Debug)]
pub(crate) struct Frame {
    pub event: Event,
    /// From inside a compressed transaction.
    pub inner: bool,
    /// Where the event, or the compressed transaction around it, begins and ends in its file.
    pub begin: u64,
    pub end: u64,
    /// Made up by the server for this connection; not in the binlog.
    pub artificial: bool,
}

impl Frame {
    pub fn event_type(&self) -> u8 {
        self.event.header.code
    }

    pub fn body(&self) -> &[u8] {
        self.event.body()
    }
}

pub(crate) struct Dump {
    link: Link,
    server: String,
    read_timeout: Duration,
    /// When the connection counts as dead, unless more has come than had when that was said.
    deadline: Instant,
    had_come: usize,
    /// Until when somebody waited for an event.
    listened_until: Instant,
    pub file: String,
    /// Where the last event ended.
    offset: u64,
    /// The compressed transaction at hand.
    packed: Option<Packed>,
    described: bool,
}

struct Packed {
    payload: Payload,
    /// Where it begins in its file.
    begin: u64,
}

/// Notes when the waiting ends, also by a future that is dropped.
struct Listening<'a>(&'a mut Instant);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        *self.0 = Instant::now();
    }
}

impl Dump {
    /// Asks for the binlog from a position. `conn` is a fresh connection to the server.
    pub async fn start(
        mut conn: Conn,
        url: &ServerUrl,
        source: &Source,
        position: &Position,
        until: Until,
        (heartbeat, read_timeout): (Duration, Duration),
    ) -> Result<Dump, BinlogError> {
        let server_id = source.free_server_id(&mut conn).await?;
        let statements = prepare_session(source, position, heartbeat, server_id);
        let (mut file, mut offset) = (String::new(), 4);
        let mut request = BinlogRequest::new(server_id);
        if until == Until::EndOfBinlog {
            request = request.with_flags(BinlogDumpFlags::BINLOG_DUMP_NON_BLOCK);
        }
        request = match position {
            Position::MySql { executed } => request.with_use_gtid(true).with_sids(sids(executed)),
            // The session's variables say it.
            Position::MariaDb { .. } => request,
            Position::File { file: from_file, offset: from, .. } => {
                if *from > LARGEST_OFFSET {
                    return Err(BinlogError::OffsetTooLarge { file: from_file.clone(), offset: *from });
                }
                (file, offset) = (from_file.clone(), *from);
                request.with_filename(from_file.as_bytes()).with_pos(*from)
            }
        };
        let link = Link::open(conn, url, source, &statements, &request).await?;
        let now = Instant::now();
        Ok(Dump {
            link,
            server: source.address.clone(),
            read_timeout,
            deadline: now + read_timeout,
            had_come: 0,
            listened_until: now,
            file,
            offset,
            packed: None,
            described: false,
        })
    }

    pub async fn from_place(
        url: &ServerUrl,
        source: &Source,
        place: &FilePlace,
        timeouts: (Duration, Duration),
    ) -> Result<Dump, BinlogError> {
        let conn = crossfade_catalog::connect(url, crossfade_catalog::Purpose::Binlog).await?;
        let server = source.facts.identity.clone();
        let position = Position::File { server, file: place.file.clone(), offset: place.offset };
        Dump::start(conn, url, source, &position, Until::EndOfBinlog, timeouts).await
    }

    pub fn place(&self) -> Place {
        Place { file: self.file.clone(), offset: self.offset, transaction: String::new() }
    }

    /// The next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Frame, BinlogError> {
        loop {
            if self.packed.is_some() {
                // Unpacking waits for nothing, and a transaction can be long: others get their turn.
                tokio::task::consume_budget().await;
                if let Some(frame) = self.unpack()? {
                    return Ok(frame);
                }
            }
            let event = self.arrived().await?;
            if let Some(frame) = self.frame(event)? {
                return Ok(frame);
            }
        }
    }

    async fn arrived(&mut self) -> Result<Event, BinlogError> {
        // Time in which nobody listened is not silence.
        self.deadline += self.listened_until.elapsed();
        let listening = Listening(&mut self.listened_until);
        let next = loop {
            let next = tokio::time::timeout_at(self.deadline, self.link.next()).await;
            let (had_come, come) = (self.had_come, self.link.unfinished_bytes());
            (self.deadline, self.had_come) = (Instant::now() + self.read_timeout, come);
            // A large event takes its time on a slow link.
            if next.is_ok() || come == had_come {
                break next;
            }
        };
        drop(listening);
        let silent = |_| BinlogError::Silent { server: self.server.clone(), seconds: self.read_timeout.as_secs() };
        match next.map_err(silent)? {
            Ok(event) => Ok(event),
            Err(NoEvent::Failed(error)) => Err(self.broken(error)),
            Err(NoEvent::Damaged(damaged)) => Err(self.corrupt(damaged.0)),
            Err(NoEvent::Ended) => Err(BinlogError::Ended { server: self.server.clone() }),
        }
    }

    /// Places an event in its file. `None` for a compressed transaction, whose events follow.
    fn frame(&mut self, event: Event) -> Result<Option<Frame>, BinlogError> {
        let header = event.header;
        let artificial = header.flags & ARTIFICIAL != 0 || header.log_pos == 0;
        if header.code == event_type::ROTATE {
            self.rotate(&event)?;
        } else if !artificial && header.code != event_type::HEARTBEAT {
            self.offset = unwrapped(self.offset, header.log_pos);
        }
        if header.code == event_type::FORMAT_DESCRIPTION {
            self.described = true;
        }
        // Transactions that are left out by GTID may lie between the last event and this one.
        let begin = self.offset.saturating_sub(u64::from(header.size));
        if header.code == event_type::TRANSACTION_PAYLOAD {
            let (bytes, body) = event.into_parts();
            let payload = Payload::open(bytes, body).map_err(|error| self.undone(begin, error))?;
            self.packed = Some(Packed { payload, begin });
            return Ok(None);
        }
        Ok(Some(Frame { event, inner: false, begin, end: self.offset, artificial }))
    }

    /// The next event of the compressed transaction at hand; `None` at its end.
    fn unpack(&mut self) -> Result<Option<Frame>, BinlogError> {
        let Some(packed) = &mut self.packed else { return Ok(None) };
        let (begin, next) = (packed.begin, packed.payload.next());
        let Some((header, body)) = next.map_err(|error| self.undone(begin, error))? else {
            self.packed = None;
            return Ok(None);
        };
        if event_type::is_never_inside_payload(header.code) {
            let what = DecodeError::Malformed { what: "a compressed transaction with events that belong outside" };
            return Err(self.undone(begin, what));
        }
        let event = Event::new(header, body);
        Ok(Some(Frame { event, inner: true, begin, end: self.offset, artificial: false }))
    }

    /// A compressed transaction, which begins there, cannot be unpacked. Where the server writes no checksums, damage on the way
    /// shows only here, so that it is read once more.
    fn undone(&self, begin: u64, error: DecodeError) -> BinlogError {
        let place = Box::new(Place { offset: begin, ..self.place() });
        match error {
            source @ DecodeError::UnknownCompression { .. } => BinlogError::Decode { place, source },
            error => BinlogError::Corrupt { place, what: error.to_string() },
        }
    }

    /// Body: offset in the next file (8 bytes), its name.
    fn rotate(&mut self, event: &Event) -> Result<(), BinlogError> {
        let body = event.body();
        let name = if self.described { body } else { without_checksum(event) };
        let offset = body.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let (Some(offset), Some(name)) = (offset, name.get(8..)) else {
            return Err(self.corrupt("a rotation without a file name"));
        };
        self.file = String::from_utf8_lossy(name).into_owned();
        self.offset = offset;
        Ok(())
    }

    fn broken(&self, error: mysql_async::Error) -> BinlogError {
        const FATAL_READING_BINLOG: u16 = 1236;
        let server = self.server.clone();
        match &error {
            mysql_async::Error::Server(answer) if answer.code == FATAL_READING_BINLOG => {
                let text = answer.message.to_ascii_lowercase();
                if text.contains("purged") || text.contains("too old") || text.contains("could not find first log") {
                    return BinlogError::Purged { server, missing: answer.message.clone() };
                }
                // Another reader took the server id; the next connection draws a new one.
                if text.contains("same server_uuid/server_id") {
                    return BinlogError::Ended { server };
                }
                BinlogError::Broken { server, source: Box::new(error) }
            }
            mysql_async::Error::Io(mysql_async::IoError::Io(io))
                if matches!(io.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::Other) =>
            {
                self.corrupt(&io.to_string())
            }
            _ => BinlogError::Broken { server, source: Box::new(error) },
        }
    }

    fn corrupt(&self, what: &str) -> BinlogError {
        BinlogError::Corrupt { place: Box::new(self.place()), what: what.to_owned() }
    }
}

/// Statements that the dump's session needs before it.
fn prepare_session(source: &Source, position: &Position, heartbeat: Duration, server_id: u32) -> Vec<String> {
    let period = heartbeat.as_nanos();
    let mut statements = vec![
        CHECKSUM_AWARE.to_owned(),
        format!("SET @master_heartbeat_period = {period}, @source_heartbeat_period = {period}"),
        format!("SET SESSION net_write_timeout = {NET_WRITE_TIMEOUT_S}"),
    ];
    match source.flavor {
        // Without a uuid of its own a reader is told apart by its server id alone.
        Flavor::MySql => statements.push(format!(
            "SET @slave_uuid = '{id:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}', @replica_uuid = @slave_uuid",
            rand::random::<u16>(),
            rand::random::<u16>() & 0xfff,
            rand::random::<u16>() & 0xfff,
            rand::random::<u64>() & 0xffff_ffff_ffff,
            id = server_id,
        )),
        Flavor::MariaDb => statements.push("SET @mariadb_slave_capability = 4".to_owned()),
    }
    if let Position::MariaDb { gtid } = position {
        statements.push(format!(
            "SET @slave_connect_state = '{gtid}', @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0"
        ));
    }
    statements
}

fn sids(executed: &crossfade_model::GtidSet) -> Vec<Sid<'static>> {
    let sid = |(uuid, tag, intervals): (&str, &str, &[crossfade_model::Interval])| {
        let intervals = intervals.iter().map(|interval| GnoInterval::new(interval.first, interval.last + 1)).collect();
        let sid = Sid::new(uuid_bytes(uuid)?).with_intervals(intervals);
        Some(if tag.is_empty() { sid } else { sid.with_tag(Tag::new(tag.to_owned()).ok()?) })
    };
    executed.sources().filter_map(sid).collect()
}

/// The first rotation comes before the format description, so that a checksum at its end is not recognised as one.
fn without_checksum(event: &Event) -> &[u8] {
    let body = event.body();
    let Some((name, sum)) = body.len().checked_sub(CHECKSUM_BYTES).map(|end| body.split_at(end)) else { return body };
    if event.header.checksum(name).to_le_bytes() == *sum { name } else { body }
}

/// Offsets in events have 32 bits; files can be larger.
fn unwrapped(last: u64, log_pos: u32) -> u64 {
    let offset = last & !LARGEST_OFFSET | u64::from(log_pos);
    if offset < last { offset + LARGEST_OFFSET + 1 } else { offset }
}
