//! A binlog file's bytes, event by event.

use super::DecodeError;
use super::cursor::le_uint;

/// How every binlog file begins.
const MAGIC: &[u8] = b"\xfebin";
const HEADER_LEN: usize = 19;
const CHECKSUM_LEN: usize = 4;
const FORMAT_DESCRIPTION: u8 = 15;
/// A bit that the server sets in the format description while it writes the file; the checksum is of the event without it.
const IN_USE: u8 = 1;

/// One event, its checksum verified and cut off.
#[derive(Debug, Clone, Copy)]
pub struct FileEvent<'a> {
    /// Where the event begins in the file.
    pub offset: u64,
    /// Seconds since the epoch.
    pub timestamp: u32,
    pub code: u8,
    pub server_id: u32,
    pub flags: u16,
    pub body: &'a [u8],
}

/// The events of a file. After an error there are no more. A file that ends inside an event is an error.
#[derive(Debug, Clone)]
pub struct FileEvents<'a> {
    file: &'a [u8],
    offset: usize,
    checksums: bool,
}

impl<'a> FileEvents<'a> {
    pub fn new(file: &'a [u8]) -> Result<FileEvents<'a>, DecodeError> {
        if !file.starts_with(MAGIC) {
            return Err(DecodeError::NotABinlog);
        }
        Ok(FileEvents { file, offset: MAGIC.len(), checksums: false })
    }

    fn event(&mut self) -> Result<FileEvent<'a>, DecodeError> {
        let rest = &self.file[self.offset..];
        let header = rest.get(..HEADER_LEN).ok_or(DecodeError::Truncated { what: "an event header" })?;
        let len = le_uint(&header[9..13]) as usize;
        let event = rest.get(..len).ok_or(DecodeError::Truncated { what: "an event" })?;
        let code = header[4];
        if code == FORMAT_DESCRIPTION {
            // The last byte before its own checksum, which is always there since 5.6, names the algorithm.
            let algorithm = len.checked_sub(CHECKSUM_LEN + 1).and_then(|place| event.get(place));
            self.checksums = algorithm == Some(&1);
        }
        let body_end =
            if self.checksums || code == FORMAT_DESCRIPTION { len.saturating_sub(CHECKSUM_LEN) } else { len };
        let body = event.get(HEADER_LEN..body_end).ok_or(DecodeError::Malformed { what: "an event's length" })?;
        if self.checksums && checksum(&event[..body_end], code) != le_uint(&event[body_end..]) as u32 {
            return Err(DecodeError::Checksum { offset: self.offset as u64 });
        }
        let offset = self.offset as u64;
        self.offset += len;
        Ok(FileEvent {
            offset,
            timestamp: le_uint(&header[..4]) as u32,
            code,
            server_id: le_uint(&header[5..9]) as u32,
            flags: le_uint(&header[17..19]) as u16,
            body,
        })
    }
}

fn checksum(event: &[u8], code: u8) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if code == FORMAT_DESCRIPTION {
        hasher.update(&event[..17]);
        hasher.update(&[event[17] & !IN_USE]);
        hasher.update(&event[18..]);
    } else {
        hasher.update(event);
    }
    hasher.finalize()
}

impl<'a> Iterator for FileEvents<'a> {
    type Item = Result<FileEvent<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.file.len() {
            return None;
        }
        let event = self.event();
        if event.is_err() {
            self.offset = self.file.len();
        }
        Some(event)
    }
}
