//! Transactions that MySQL has compressed (TRANSACTION_PAYLOAD), unpacked event by event.

use std::io::{BufRead, BufReader, Cursor as Bytes, Read, Take};
use std::ops::Range;

use super::DecodeError;
use super::cursor::Cursor;
use crate::event::Header;

/// Fields of the payload's head (MySQL source, `Transaction_payload_event`).
const HEAD_END: u64 = 0;
const PAYLOAD_SIZE: u64 = 1;
const COMPRESSION: u64 = 2;
const UNCOMPRESSED_SIZE: u64 = 3;
const ZSTD: u64 = 0;
const NOT_COMPRESSED: u64 = 255;
/// No event is larger: the greatest `max_allowed_packet`, and room for headers.
const LARGEST_EVENT_BYTES: u64 = (1 << 30) + (1 << 16);
/// What an event's own word for its size is trusted with at a time.
const STEP_BYTES: u64 = 1 << 20;
/// How much is unpacked ahead of the event at hand.
const AHEAD_BYTES: usize = 64 << 10;

type Packed = Take<Bytes<Vec<u8>>>;

/// The events of one compressed transaction.
///
/// In memory stand the compressed event, of which the server lets none grow beyond `max_allowed_packet` (1 GiB at most), one
/// unpacked event, 64 KiB ahead of it, and zstd's window: 2 MiB at the server's default level, 128 MiB at the highest.
pub(crate) struct Payload {
    reader: Box<dyn BufRead + Send + Sync>,
    /// Unpacked bytes that have not come yet.
    left: u64,
}

/// What the head of a payload says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    compression: u64,
    unpacked_bytes: u64,
    /// Where the payload stands.
    payload: Range<usize>,
}

impl Head {
    /// Each field is a number, the count of bytes of its value, and the value, which for those known here is a number itself.
    fn read(event: &[u8]) -> Result<Head, DecodeError> {
        const WHAT: &str = "the head of a compressed transaction";
        let mut cursor = Cursor::new(event);
        let (mut payload_bytes, mut compression, mut unpacked_bytes) = (None, None, None);
        loop {
            let field = cursor.packed(WHAT)?;
            if field == HEAD_END {
                break;
            }
            let mut value = Cursor::new(cursor.packed_bytes(WHAT)?);
            match field {
                PAYLOAD_SIZE => payload_bytes = Some(value.packed(WHAT)?),
                COMPRESSION => compression = Some(value.packed(WHAT)?),
                UNCOMPRESSED_SIZE => unpacked_bytes = Some(value.packed(WHAT)?),
                // The server's own reader passes over fields of later versions.
                _ => {}
            }
        }
        let (Some(payload_bytes), Some(compression)) = (payload_bytes, compression) else {
            return Err(DecodeError::Malformed { what: WHAT });
        };
        if payload_bytes != cursor.rest().len() as u64 {
            return Err(DecodeError::Malformed { what: "the size of a compressed transaction" });
        }
        let unpacked_bytes = match (compression, unpacked_bytes) {
            (NOT_COMPRESSED, _) => payload_bytes,
            (_, Some(bytes)) => bytes,
            (_, None) => return Err(DecodeError::Malformed { what: WHAT }),
        };
        Ok(Head { compression, unpacked_bytes, payload: event.len() - cursor.rest().len()..event.len() })
    }
}

impl Payload {
    /// How long the events are together, unpacked, as the event's body says.
    pub fn unpacked_bytes(body: &[u8]) -> Result<u64, DecodeError> {
        Ok(Head::read(body)?.unpacked_bytes)
    }

    /// `body` is where the event's body stands in `bytes`, which are kept as they are.
    pub fn open(bytes: Vec<u8>, body: Range<usize>) -> Result<Payload, DecodeError> {
        let head = Head::read(bytes.get(body.clone()).unwrap_or_default())?;
        let (from, length) = (body.start + head.payload.start, head.payload.len() as u64);
        let mut packed = Bytes::new(bytes);
        packed.set_position(from as u64);
        let packed: Packed = packed.take(length);
        let reader: Box<dyn BufRead + Send + Sync> = match head.compression {
            NOT_COMPRESSED => Box::new(packed),
            ZSTD => {
                let unpacking = zstd::Decoder::with_buffer(packed).map_err(|_| BROKEN)?;
                Box::new(BufReader::with_capacity(AHEAD_BYTES, unpacking))
            }
            code => return Err(DecodeError::UnknownCompression { code }),
        };
        Ok(Payload { reader, left: head.unpacked_bytes })
    }

    /// The next event: header and body. They have no checksums. `None` after the last one, when everything was there.
    pub fn next(&mut self) -> Result<Option<(Header, Vec<u8>)>, DecodeError> {
        if self.left == 0 {
            // Also what stands behind the last event is read, since zstd verifies the whole there.
            return if self.reader.fill_buf().map_err(|_| BROKEN)?.is_empty() { Ok(None) } else { Err(BROKEN) };
        }
        let mut header = [0; Header::BYTES];
        self.reader.read_exact(&mut header).map_err(|_| BROKEN)?;
        let header = Header::read(&header).ok_or(BROKEN)?;
        let size = u64::from(header.size);
        let body_bytes = size.checked_sub(Header::BYTES as u64).ok_or(BROKEN)?;
        if size > self.left.min(LARGEST_EVENT_BYTES) {
            return Err(BROKEN);
        }
        self.left -= size;
        Ok(Some((header, self.body(body_bytes)?)))
    }

    /// Exactly so many bytes, room for which is made as they come.
    fn body(&mut self, bytes: u64) -> Result<Vec<u8>, DecodeError> {
        let mut body = Vec::new();
        while (body.len() as u64) < bytes {
            let step = STEP_BYTES.min(bytes - body.len() as u64);
            let before = body.len();
            body.reserve_exact(step as usize);
            self.reader.by_ref().take(step).read_to_end(&mut body).map_err(|_| BROKEN)?;
            if (body.len() - before) as u64 != step {
                return Err(BROKEN);
            }
        }
        Ok(body)
    }
}

const BROKEN: DecodeError = DecodeError::Malformed { what: "a compressed transaction that cannot be unpacked" };

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, value: u64) -> Vec<u8> {
        let value = if value < 251 { vec![value as u8] } else { [&[254][..], &value.to_le_bytes()].concat() };
        [&[number, value.len() as u8][..], &value].concat()
    }

    fn event(code: u8, body: &[u8]) -> Vec<u8> {
        let size = (Header::BYTES + body.len()) as u32;
        let header = Header { timestamp: 1, code, server_id: 2, size, log_pos: 0, flags: 0 };
        [&header.to_bytes()[..], body].concat()
    }

    fn packed(compression: u64, unpacked: u64, payload: &[u8]) -> Vec<u8> {
        let size = field(1, payload.len() as u64);
        [field(2, compression), field(3, unpacked), field(77, 1000), size, vec![0], payload.to_vec()].concat()
    }

    fn unpack(event: Vec<u8>) -> Result<Vec<(u8, Vec<u8>)>, DecodeError> {
        let all = 0..event.len();
        let mut payload = Payload::open(event, all)?;
        let mut events = Vec::new();
        while let Some((header, body)) = payload.next()? {
            events.push((header.code, body));
        }
        Ok(events)
    }

    fn some_events() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let bodies = [(19, vec![7; 40]), (30, (0..3_000_000_u32).map(|i| (i % 251) as u8).collect()), (16, vec![])];
        let plain = bodies.iter().flat_map(|(code, body)| event(*code, body)).collect();
        (plain, bodies.to_vec())
    }

    #[test]
    fn events_come_back() {
        let (plain, expected) = some_events();
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        assert_eq!(unpack(packed(0, plain.len() as u64, &zstd)).unwrap(), expected);
        assert_eq!(unpack(packed(255, 0, &plain)).unwrap(), expected);
    }

    /// Nothing may go missing: neither an event too few nor one too many, and nothing that is not understood.
    #[test]
    fn whatever_is_wrong_is_an_error() {
        let (plain, _) = some_events();
        let (zstd, len) = (zstd::encode_all(&plain[..], 3).unwrap(), plain.len() as u64);
        let good = packed(0, len, &zstd);
        for wrong in [0, 18, len - 1, len + 1, u64::MAX] {
            assert!(unpack(packed(0, wrong, &zstd)).is_err(), "{wrong}");
        }
        for cut in (0..good.len()).step_by(97).chain(good.len() - 40..good.len()) {
            assert!(unpack(good[..cut].to_vec()).is_err(), "{cut}");
        }
        assert!(unpack([&good[..], &[0]].concat()).is_err());
        assert!(unpack(packed(0, len, &[&zstd[..], &[1, 2, 3]].concat())).is_err());
        assert_eq!(unpack(packed(1, len, &zstd)), Err(DecodeError::UnknownCompression { code: 1 }));
        // Events that lie about their size.
        for size in [0, 18, 60, u32::MAX] {
            let mut plain = plain.clone();
            plain[9..13].copy_from_slice(&u32::to_le_bytes(size));
            assert!(unpack(packed(255, 0, &plain)).is_err(), "{size}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>, at in 0_usize..400, flip: u8) {
            let _ = unpack(bytes);
            let zstd = zstd::encode_all(&event(30, &[5; 3000])[..], 3).unwrap();
            let mut event = packed(0, 3019, &zstd);
            let at = at % event.len();
            event[at] ^= flip;
            let _ = unpack(event);
        }
    }
}
