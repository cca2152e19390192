//! What MariaDB compresses: rows events and COMPRESSED columns.

use std::borrow::Cow;
use std::io::Read;

use super::DecodeError;
use super::cursor::{Cursor, be_uint};

/// No event and no cell is longer (the greatest `max_allowed_packet`).
const MAX_LEN: u64 = 1 << 30;

/// The rows of a compressed rows event: a byte with the algorithm (0 is zlib) and how many bytes of big-endian length follow, then
/// a zlib stream (MariaDB `binlog_buf_compress`).
pub(super) fn rows(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let header = cursor.u8("compressed rows")?;
    if header & 0xf0 != 0x80 {
        return Err(DecodeError::Malformed { what: "compressed rows of an unknown algorithm" });
    }
    let len = be_uint(cursor.take(usize::from(header & 0x07), "compressed rows")?);
    inflate(flate2::read::ZlibDecoder::new(cursor.rest()), cursor.rest().len(), len)
        .ok_or(DecodeError::Malformed { what: "compressed rows that cannot be unpacked" })
}

/// A COMPRESSED cell: a byte that is 0 before plain content, else 8 in its high half, then a bit that says whether the zlib header
/// is left out, then the number of bytes of big-endian length (MariaDB `compress_zlib`).
pub(super) fn column(cell: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    let Some((&header, rest)) = cell.split_first() else { return Ok(Cow::Borrowed(cell)) };
    if header == 0 {
        return Ok(Cow::Borrowed(rest));
    }
    if header & 0xf0 != 0x80 {
        return Err("a compressed value of an unknown algorithm");
    }
    let (len, data) = rest.split_at_checked(usize::from(header & 0x07)).ok_or("a compressed value that is cut off")?;
    let len = be_uint(len);
    let unpacked = if header & 0x08 != 0 {
        inflate(flate2::read::DeflateDecoder::new(data), data.len(), len)
    } else {
        inflate(flate2::read::ZlibDecoder::new(data), data.len(), len)
    };
    unpacked.map(Cow::Owned).ok_or("a compressed value that cannot be unpacked")
}

/// Exactly `len` bytes, or nothing. What is reserved follows from the input, so that a lie about the length costs no memory.
fn inflate(reader: impl Read, packed_len: usize, len: u64) -> Option<Vec<u8>> {
    if len > MAX_LEN {
        return None;
    }
    // Deflate shrinks to a 1032nd at best.
    let mut bytes = Vec::with_capacity(usize::try_from(len).ok()?.min(packed_len.saturating_mul(1032)));
    reader.take(len + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == len).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn rows_come_back_or_fail() {
        let plain = b"row row row".repeat(50);
        let mut event = vec![0x82, 0x02, 0x26];
        event.extend(zlib(&plain));
        assert_eq!(rows(&event).unwrap(), plain);
        event[2] += 1;
        assert!(rows(&event).is_err());
        assert!(rows(&[0x12, 1, 2]).is_err());
        assert!(rows(&[]).is_err());
    }

    #[test]
    fn plain_and_empty_cells() {
        assert_eq!(&*column(b"").unwrap(), b"");
        assert_eq!(&*column(b"\0abc").unwrap(), b"abc");
        assert!(column(b"\x91\x03abc").is_err());
        assert!(column(b"\x87\x03").is_err());
    }
}
