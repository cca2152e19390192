//! One event as it comes: its header, and its body without header and checksum.

use std::ops::Range;

use mysql_async::binlog::BinlogChecksumAlg;
use mysql_async::binlog::events::Event as DriverEvent;

use crate::event_type;

pub(crate) const CHECKSUM_BYTES: usize = 4;
const CRC32: u8 = BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32 as u8;
const NO_CHECKSUM: u8 = BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_OFF as u8;
/// The server's note in a format description that it still writes to the file; checksums are of the event without it.
const IN_USE: u16 = 1;

/// The header that begins every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Seconds since the epoch.
    pub timestamp: u32,
    pub code: u8,
    pub server_id: u32,
    /// Bytes of the whole event: header, body, checksum.
    pub size: u32,
    /// Where the event ends in its file, as far as 32 bits say it; 0 where it stands in none.
    pub log_pos: u32,
    pub flags: u16,
}

impl Header {
    pub const BYTES: usize = 19;

    /// Reads the first bytes of an event. `None` where there are too few.
    pub fn read(event: &[u8]) -> Option<Header> {
        let number = |at: usize| Some(u32::from_le_bytes(event.get(at..at + 4)?.try_into().ok()?));
        Some(Header {
            timestamp: number(0)?,
            code: *event.get(4)?,
            server_id: number(5)?,
            size: number(9)?,
            log_pos: number(13)?,
            flags: u16::from_le_bytes(event.get(17..Self::BYTES)?.try_into().ok()?),
        })
    }

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes[4] = self.code;
        bytes[5..9].copy_from_slice(&self.server_id.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.size.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.log_pos.to_le_bytes());
        bytes[17..].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    /// The sum of an event with this header. `body` goes as far as the checksum.
    pub fn checksum(mut self, body: &[u8]) -> u32 {
        if self.code == event_type::FORMAT_DESCRIPTION {
            self.flags &= !IN_USE;
        }
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.to_bytes());
        sum.update(body);
        sum.finalize()
    }
}

/// An event with its body, which is not copied from where it arrived.
#[derive(Debug)]
pub(crate) struct Event {
    pub header: Header,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Driver(Box<DriverEvent>),
    Bytes(Vec<u8>, Range<usize>),
}

impl Event {
    pub fn new(header: Header, body: Vec<u8>) -> Event {
        let all = 0..body.len();
        Event { header, body: Body::Bytes(body, all) }
    }

    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Driver(event) => event.data(),
            Body::Bytes(bytes, range) => bytes.get(range.clone()).unwrap_or_default(),
        }
    }

    /// What came, and where in it the body is.
    pub fn into_parts(self) -> (Vec<u8>, Range<usize>) {
        match self.body {
            Body::Driver(event) => (event.data().to_vec(), 0..event.data().len()),
            Body::Bytes(bytes, range) => (bytes, range),
        }
    }
}

impl From<DriverEvent> for Event {
    fn from(event: DriverEvent) -> Event {
        let header = event.header();
        let header = Header {
            timestamp: header.timestamp(),
            code: header.event_type_raw(),
            server_id: header.server_id(),
            size: header.event_size(),
            log_pos: header.log_pos(),
            flags: header.flags_raw(),
        };
        Event { header, body: Body::Driver(Box::new(event)) }
    }
}

/// What is wrong with bytes that should be an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged(pub &'static str);

pub(crate) const NO_EVENT: Damaged = Damaged("it does not have the form of an event");
pub(crate) const WRONG_SUM: Damaged = Damaged("its checksum does not match");

/// Cuts events out of packets and verifies their checksums.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    /// `None` before the first format description, when nobody knows whether there are checksums.
    checksums: Option<bool>,
}

impl Framing {
    /// Takes the event that fills a packet from `from` to its end.
    pub fn event(&mut self, packet: Vec<u8>, from: usize) -> Result<Event, Damaged> {
        let bytes = packet.get(from..).unwrap_or_default();
        let header = Header::read(bytes).ok_or(NO_EVENT)?;
        if bytes.len() != header.size as usize {
            return Err(NO_EVENT);
        }
        let describes = header.code == event_type::FORMAT_DESCRIPTION;
        if describes {
            self.checksums = Some(names_checksums(bytes)?);
        }
        let checked = self.checksums == Some(true);
        // The format description ends with room for a checksum also where there are none.
        let tail = if checked || describes { CHECKSUM_BYTES } else { 0 };
        let rest = &bytes[Header::BYTES..];
        let (body, sum) = rest.split_at(rest.len().checked_sub(tail).ok_or(NO_EVENT)?);
        if checked && header.checksum(body).to_le_bytes() != *sum {
            return Err(WRONG_SUM);
        }
        let range = from + Header::BYTES..packet.len() - tail;
        Ok(Event { header, body: Body::Bytes(packet, range) })
    }
}

/// The last byte of a format description, before its own checksum, says which checksums the events after it have.
fn names_checksums(format_description: &[u8]) -> Result<bool, Damaged> {
    let at = format_description.len().checked_sub(CHECKSUM_BYTES + 1).filter(|at| *at >= Header::BYTES);
    match at.map(|at| format_description[at]) {
        Some(CRC32) => Ok(true),
        Some(NO_CHECKSUM) => Ok(false),
        _ => Err(Damaged("its format description names no checksum that is known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u8, body: &[u8], sum: bool) -> Vec<u8> {
        let tail = if sum { CHECKSUM_BYTES } else { 0 };
        let size = u32::try_from(Header::BYTES + body.len() + tail).unwrap();
        let header = Header { timestamp: 7, code, server_id: 9, size, log_pos: 300, flags: 0 };
        let mut packet = [&[0][..], &header.to_bytes(), body].concat();
        if sum {
            packet.extend(header.checksum(body).to_le_bytes());
        }
        packet
    }

    #[test]
    fn checksums_count_from_the_description_on() {
        let mut framing = Framing::default();
        // The first rotation comes before anybody knows.
        assert_eq!(
            framing.event(packet(event_type::ROTATE, b"12345678name", false), 1).unwrap().body(),
            b"12345678name"
        );
        assert_eq!(
            framing.event(packet(event_type::FORMAT_DESCRIPTION, &[1, 2, CRC32], true), 1).unwrap().body().len(),
            3
        );
        let event = framing.event(packet(event_type::XID, b"12345678", true), 1).unwrap();
        assert_eq!((event.header.code, event.header.timestamp, event.body()), (event_type::XID, 7, &b"12345678"[..]));
        let mut damaged = packet(event_type::XID, b"12345678", true);
        damaged[25] ^= 1;
        assert_eq!(framing.event(damaged, 1).unwrap_err(), WRONG_SUM);
        // Another file, without checksums.
        framing.event(packet(event_type::FORMAT_DESCRIPTION, &[1, 2, NO_CHECKSUM], true), 1).unwrap();
        assert_eq!(framing.event(packet(event_type::XID, b"12345678", false), 1).unwrap().body(), b"12345678");
    }

    #[test]
    fn whatever_comes_is_an_event_or_an_error() {
        let mut framing = Framing::default();
        let good = packet(event_type::FORMAT_DESCRIPTION, &[1, 2, CRC32], true);
        for len in 0..good.len() {
            assert!(framing.event(good[..len].to_vec(), 1).is_err(), "{len}");
        }
        assert!(framing.event(packet(event_type::FORMAT_DESCRIPTION, &[77], true), 1).is_err());
        framing.event(good, 1).unwrap();
        (0..CHECKSUM_BYTES).for_each(|len| {
            assert_eq!(framing.event(packet(event_type::XID, &vec![0; len], false), 1).unwrap_err(), NO_EVENT);
        });
    }
}
