//! One binlog connection: events, checked and with their places.
//!
//! The driver gives the connection, its authentication and TLS, and the framing of events. It unpacks a compressed transaction
//! (TRANSACTION_PAYLOAD) in memory as a whole before it gives the first of its events, and gives none, and no error, when
//! the payload is damaged: the announced size is counted down here, so that nothing goes missing.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use crossfade_config::ServerUrl;
use crossfade_model::Position;
use futures_util::{FutureExt, StreamExt};
use mysql_async::binlog::BinlogChecksumAlg;
use mysql_async::binlog::events::{BinlogEventHeader, Event, TransactionPayloadEvent};
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, GnoInterval, Sid};
use mysql_common::packets::Tag;
use tokio::time::Instant;

use crate::decode::Flavor;
use crate::error::Place;
use crate::group::uuid_bytes;
use crate::source::Source;
use crate::xa::FilePlace;
use crate::{BinlogError, event_type};

/// The source gives up a connection that takes nothing for this long; back-pressure may last.
const NET_WRITE_TIMEOUT_S: u32 = 24 * 3600;
const ARTIFICIAL: u16 = 0x20;
const CHECKSUM_BYTES: usize = 4;
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
        self.event.header().event_type_raw()
    }

    pub fn body(&self) -> &[u8] {
        self.event.data()
    }
}

pub(crate) struct Dump {
    stream: BinlogStream,
    server: String,
    read_timeout: Duration,
    /// When the connection counts as dead.
    deadline: Instant,
    /// Until when somebody waited for an event.
    listened_until: Instant,
    pub file: String,
    /// Where the last event ended.
    offset: u64,
    /// Bytes of the compressed transaction that have not come yet.
    inner_left: u64,
    /// Where it begins.
    payload_begin: u64,
    described: bool,
}

/// Notes when the waiting ends, also by a future that is dropped.
struct Listening<'a>(&'a mut Instant);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        *self.0 = Instant::now();
    }
}

impl Dump {
    /// Asks for the binlog from a position on a fresh connection.
    pub async fn start(
        mut conn: Conn,
        source: &Source,
        position: &Position,
        until: Until,
        (heartbeat, read_timeout): (Duration, Duration),
    ) -> Result<Dump, BinlogError> {
        let server_id = source.free_server_id(&mut conn).await?;
        let resume = prepare_session(source, position, heartbeat, server_id);
        for statement in resume {
            conn.query_drop(statement).await.map_err(source.refused("SET of the binlog session"))?;
        }
        let mut request = BinlogStreamRequest::new(server_id).with_hostname(b"crossfade");
        if until == Until::EndOfBinlog {
            request = request.with_non_blocking();
        }
        let (mut file, mut offset) = (String::new(), 4);
        match position {
            Position::MySql { executed } => request = request.with_gtid().with_gtid_set(sids(executed)),
            Position::MariaDb { .. } => {}
            Position::File { file: from_file, offset: from, .. } => {
                if *from > LARGEST_OFFSET {
                    return Err(BinlogError::OffsetTooLarge { file: from_file.clone(), offset: *from });
                }
                (file, offset) = (from_file.clone(), *from);
                request = request.with_filename(from_file.as_bytes()).with_pos(*from);
            }
        }
        let server = source.address.clone();
        let stream = conn
            .get_binlog_stream(request)
            .await
            .map_err(|error| BinlogError::Broken { server: server.clone(), source: Box::new(error) })?;
        let now = Instant::now();
        Ok(Dump {
            stream,
            server,
            read_timeout,
            deadline: now + read_timeout,
            listened_until: now,
            file,
            offset,
            inner_left: 0,
            payload_begin: offset,
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
        Dump::start(conn, source, &position, Until::EndOfBinlog, timeouts).await
    }

    pub fn place(&self) -> Place {
        Place { file: self.file.clone(), offset: self.offset, transaction: String::new() }
    }

    /// The next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Frame, BinlogError> {
        // Time in which nobody listened is not silence.
        self.deadline += self.listened_until.elapsed();
        let deadline = self.deadline;
        let listening = Listening(&mut self.listened_until);
        // The driver's parser panics on events shorter than their own header says.
        let next = AssertUnwindSafe(self.stream.next()).catch_unwind();
        let next = tokio::time::timeout_at(deadline, next).await;
        drop(listening);
        self.deadline = Instant::now() + self.read_timeout;
        let silent = |_| BinlogError::Silent { server: self.server.clone(), seconds: self.read_timeout.as_secs() };
        let next = next.map_err(silent)?;
        let Ok(next) = next else { return Err(self.corrupt("it does not have the form of an event")) };
        match next {
            Some(Ok(event)) => self.frame(event),
            Some(Err(error)) => Err(self.broken(error)),
            None => Err(BinlogError::Ended { server: self.server.clone() }),
        }
    }

    fn frame(&mut self, event: Event) -> Result<Frame, BinlogError> {
        let header = event.header();
        let event_type = header.event_type_raw();
        if self.inner_left > 0 {
            return self.inner_frame(event);
        }
        self.verify(&event)?;
        let artificial = header.flags_raw() & ARTIFICIAL != 0 || header.log_pos() == 0;
        if event_type == event_type::ROTATE {
            self.rotate(&event)?;
        } else if !artificial && event_type != event_type::HEARTBEAT {
            self.offset = unwrapped(self.offset, header.log_pos());
        }
        if event_type == event_type::FORMAT_DESCRIPTION {
            self.described = true;
        }
        if event_type == event_type::TRANSACTION_PAYLOAD {
            self.inner_left =
                payload_bytes(&event).ok_or_else(|| self.corrupt("a compressed transaction without size"))?;
        }
        // Transactions that are left out by GTID may lie between the last event and this one.
        let begin = self.offset.saturating_sub(u64::from(header.event_size()));
        Ok(Frame { event, inner: false, begin, end: self.offset, artificial })
    }

    /// A damaged payload gives no events, so that the next one comes from outside: of a type that no payload holds.
    fn inner_frame(&mut self, event: Event) -> Result<Frame, BinlogError> {
        let bytes = u64::from(event.header().event_size());
        if bytes > self.inner_left || event_type::is_never_inside_payload(event.header().event_type_raw()) {
            return Err(self.corrupt("a compressed transaction cannot be unpacked"));
        }
        self.inner_left -= bytes;
        Ok(Frame { event, inner: true, begin: self.payload_begin, end: self.offset, artificial: false })
    }

    fn verify(&self, event: &Event) -> Result<(), BinlogError> {
        // Before the format description nobody knows whether there are checksums.
        if !self.described && event.header().event_type_raw() != event_type::FORMAT_DESCRIPTION {
            return Ok(());
        }
        let crc32 = BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32;
        let checked = matches!(event.footer().get_checksum_alg(), Ok(Some(algorithm)) if algorithm == crc32);
        match event.checksum() {
            Some(sum) if checked && u32::from_le_bytes(sum) != event.calc_checksum(crc32) => {
                Err(self.corrupt("its checksum does not match"))
            }
            _ => Ok(()),
        }
    }

    /// Body: offset in the next file (8 bytes), its name.
    fn rotate(&mut self, event: &Event) -> Result<(), BinlogError> {
        let body = event.data();
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

/// The size of what a compressed transaction unpacks to.
fn payload_bytes(event: &Event) -> Option<u64> {
    let payload: TransactionPayloadEvent<'_> = event.read_event().ok()?;
    let bytes = match payload.uncompressed_size() {
        0 => payload.payload_size(),
        bytes => bytes,
    };
    (bytes > 0).then_some(bytes)
}

/// The first rotation comes before the format description, so that a checksum at its end is not recognised as one.
fn without_checksum(event: &Event) -> &[u8] {
    let (header, body) = (event.header(), event.data());
    let Some(end) = body.len().checked_sub(CHECKSUM_BYTES) else { return body };
    let mut sum = crc32fast::Hasher::new();
    sum.update(&header_bytes(&header));
    sum.update(&body[..end]);
    if sum.finalize().to_le_bytes() == body[end..] { &body[..end] } else { body }
}

fn header_bytes(header: &BinlogEventHeader) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BinlogEventHeader::LEN);
    bytes.extend(header.timestamp().to_le_bytes());
    bytes.push(header.event_type_raw());
    bytes.extend(header.server_id().to_le_bytes());
    bytes.extend(header.event_size().to_le_bytes());
    bytes.extend(header.log_pos().to_le_bytes());
    bytes.extend(header.flags_raw().to_le_bytes());
    bytes
}

/// Offsets in events have 32 bits; files can be larger.
fn unwrapped(last: u64, log_pos: u32) -> u64 {
    let offset = last & !LARGEST_OFFSET | u64::from(log_pos);
    if offset < last { offset + LARGEST_OFFSET + 1 } else { offset }
}
