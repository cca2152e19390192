//! The event that opens a transaction: its GTID and what else it says.

use std::sync::Arc;

use crossfade_model::Position;
use mysql_async::binlog::BinlogVersion;
use mysql_async::binlog::events::{Event as DriverEvent, FormatDescriptionEvent, GtidEvent};

use crate::event::{Event, Header};
use crate::event_type;

/// MariaDB: the transaction is one statement, without BEGIN and COMMIT (Gtid_log_event::FL_STANDALONE).
const STANDALONE: u8 = 1;
/// MariaDB: the event stands for XA START, and a PREPARE will follow (FL_PREPARED_XA).
const PREPARED_XA: u8 = 64;
const SECONDS_MICROS: i64 = 1_000_000;

/// A transaction's number, in the form of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Number {
    MySql {
        uuid: Arc<str>,
        tag: String,
        number: u64,
    },
    MariaDb {
        domain: u32,
        server: u32,
        sequence: u64,
    },
    /// MySQL without GTIDs.
    None,
}

/// How a transaction begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub number: Number,
    pub committed_at_micros: i64,
    /// The event itself stands for BEGIN.
    pub begun: bool,
    /// The event itself stands for XA START.
    pub xa: bool,
}

impl Number {
    /// For people; empty where there is none.
    pub fn text(&self) -> String {
        match self {
            Number::MySql { uuid, tag, number } if tag.is_empty() => format!("{uuid}:{number}"),
            Number::MySql { uuid, tag, number } => format!("{uuid}:{tag}:{number}"),
            Number::MariaDb { domain, server, sequence } => format!("{domain}-{server}-{sequence}"),
            Number::None => String::new(),
        }
    }

    /// Moves a position past this transaction, which ends at an offset of a file. False where the position's kind does not
    /// fit.
    pub fn advance(&self, position: &mut Position, end_file: &str, end_offset: u64) -> bool {
        match (self, position) {
            (Number::MySql { uuid, tag, number }, Position::MySql { executed }) => executed.insert(uuid, tag, *number),
            (Number::MariaDb { domain, server, sequence }, Position::MariaDb { gtid }) => {
                gtid.advance(*domain, *server, *sequence);
            }
            (_, Position::File { file, offset, .. }) => {
                if file != end_file {
                    end_file.clone_into(file);
                }
                *offset = end_offset;
            }
            _ => return false,
        }
        true
    }
}

impl Number {
    /// As [`Number::advance`] where the transaction's end is not known yet: a position by file and offset stays.
    pub fn advance_by_number(&self, position: &mut Position) {
        if !matches!(position, Position::File { .. }) {
            self.advance(position, "", 0);
        }
    }
}

/// Reads events that open transactions; remembers the last uuid, since the next is usually the same.
#[derive(Debug, Default)]
pub(crate) struct GroupReader {
    last_uuid: Option<([u8; 16], Arc<str>)>,
}

impl GroupReader {
    /// `None` for an event that is damaged or too short.
    pub fn read(&mut self, event: &Event) -> Option<Group> {
        let seconds = i64::from(event.header.timestamp);
        match event.header.code {
            event_type::GTID => self.mysql(event.body(), seconds),
            event_type::ANONYMOUS_GTID => {
                let committed_at_micros = commit_micros(event.body()).unwrap_or(seconds * SECONDS_MICROS);
                Some(Group { number: Number::None, committed_at_micros, begun: false, xa: false })
            }
            event_type::GTID_TAGGED => self.tagged(event, seconds),
            event_type::MARIADB_GTID => mariadb(event.body(), event.header.server_id, seconds),
            _ => None,
        }
    }

    /// Body: flags (1 byte), uuid (16), number (8), then see [`commit_micros`].
    fn mysql(&mut self, body: &[u8], seconds: i64) -> Option<Group> {
        let uuid = self.uuid(body.get(1..17)?.try_into().ok()?);
        let number = u64::from_le_bytes(body.get(17..25)?.try_into().ok()?);
        let committed_at_micros = commit_micros(body).unwrap_or(seconds * SECONDS_MICROS);
        Some(Group {
            number: Number::MySql { uuid, tag: String::new(), number },
            committed_at_micros,
            begun: false,
            xa: false,
        })
    }

    fn tagged(&mut self, event: &Event, seconds: i64) -> Option<Group> {
        // The driver reads this one from an event of its own kind, here without checksum.
        let size = u32::try_from(Header::BYTES + event.body().len()).ok()?;
        let bytes = [&Header { size, ..event.header }.to_bytes()[..], event.body()].concat();
        let event = DriverEvent::read(&FormatDescriptionEvent::new(BinlogVersion::Version4), &bytes[..]).ok()?;
        let gtid: GtidEvent = event.read_event().ok()?;
        let tag = gtid.tag().map(ToString::to_string).unwrap_or_default();
        let times = [gtid.original_commit_timestamp(), gtid.immediate_commit_timestamp()];
        let micros = times.into_iter().find(|micros| *micros != 0).and_then(|micros| i64::try_from(micros).ok());
        Some(Group {
            number: Number::MySql { uuid: self.uuid(gtid.sid()), tag, number: gtid.gno() },
            committed_at_micros: micros.unwrap_or(seconds * SECONDS_MICROS),
            begun: false,
            xa: false,
        })
    }

    fn uuid(&mut self, bytes: [u8; 16]) -> Arc<str> {
        if let Some((last, text)) = &self.last_uuid
            && *last == bytes
        {
            return text.clone();
        }
        let text: Arc<str> = uuid_text(&bytes).into();
        self.last_uuid = Some((bytes, text.clone()));
        text
    }
}

/// When the transaction was committed where it was first written: after the number, in an untagged GTID event, come a type
/// (1 byte, 2), two logical clocks (16 bytes), and the immediate commit's microseconds in 7 bytes, whose top bit says that the
/// original commit's differ and follow.
fn commit_micros(body: &[u8]) -> Option<i64> {
    const TYPE: usize = 25;
    const IMMEDIATE: usize = TYPE + 1 + 16;
    const ORIGINAL_FOLLOWS: u64 = 1 << 55;
    if *body.get(TYPE)? != 2 {
        return None;
    }
    let seven = |at: usize| {
        let mut bytes = [0; 8];
        bytes[..7].copy_from_slice(body.get(at..at + 7)?);
        Some(u64::from_le_bytes(bytes))
    };
    let immediate = seven(IMMEDIATE)?;
    let micros = if immediate & ORIGINAL_FOLLOWS == 0 { immediate } else { seven(IMMEDIATE + 7)? };
    i64::try_from(micros).ok().filter(|micros| *micros > 0)
}

/// Body: sequence (8 bytes), domain (4), flags (1). The commit's time is the event's own, in whole seconds.
fn mariadb(body: &[u8], server: u32, seconds: i64) -> Option<Group> {
    let sequence = u64::from_le_bytes(body.get(..8)?.try_into().ok()?);
    let domain = u32::from_le_bytes(body.get(8..12)?.try_into().ok()?);
    let flags = *body.get(12)?;
    Some(Group {
        number: Number::MariaDb { domain, server, sequence },
        committed_at_micros: seconds * SECONDS_MICROS,
        begun: flags & STANDALONE == 0,
        xa: flags & PREPARED_XA != 0,
    })
}

/// The 16 bytes as they are written by people.
pub(crate) fn uuid_text(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The reverse of [`uuid_text`].
pub(crate) fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (digits.len() == 32).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_survive_their_text() {
        let text = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        assert_eq!(uuid_text(&uuid_bytes(text).unwrap()), text);
        assert_eq!(uuid_bytes("3e11fa47"), None);
        assert_eq!(uuid_bytes(&text.replace('3', "x")), None);
    }

    #[test]
    fn short_bodies_are_none() {
        let mut reader = GroupReader::default();
        for len in 0..25 {
            assert_eq!(reader.mysql(&vec![1; len], 0), None);
        }
        for len in 0..13 {
            assert_eq!(mariadb(&vec![1; len], 1, 0), None);
        }
    }
}
