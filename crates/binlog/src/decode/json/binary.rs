//! Reading the binary form (MySQL source, `json_binary.h`).
//!
//! A container begins with its number of elements and its size, then come one entry per key (offset and length) and one per
//! value (type, and the value itself where it is small enough, else its offset). Offsets count from the container's start
//! and have 2 bytes, or 4 in the large form.

use std::borrow::Cow;

use super::super::cursor::{Cursor, le_uint};
use super::tree::{MAX_DEPTH, Scalar, Temporal, Tree};

const MALFORMED: &str = "a malformed JSON document";
const NOT_UTF8: &str = "a JSON document with text that is not UTF-8";

mod kind {
    pub const SMALL_OBJECT: u8 = 0;
    pub const LARGE_OBJECT: u8 = 1;
    pub const SMALL_ARRAY: u8 = 2;
    pub const LARGE_ARRAY: u8 = 3;
    pub const LITERAL: u8 = 4;
    pub const INT16: u8 = 5;
    pub const UINT16: u8 = 6;
    pub const INT32: u8 = 7;
    pub const UINT32: u8 = 8;
    pub const INT64: u8 = 9;
    pub const UINT64: u8 = 10;
    pub const DOUBLE: u8 = 11;
    pub const STRING: u8 = 12;
    pub const OPAQUE: u8 = 15;
}

/// A whole document: its type, then its value.
pub(super) fn read(bytes: &[u8]) -> Result<Tree<'_>, &'static str> {
    // A NOT NULL column that was given no value holds no bytes; the server reads them as the literal null.
    let Some((&kind, value)) = bytes.split_first() else { return Ok(Tree::Scalar(Scalar::Null)) };
    let mut reader = Reader { budget: bytes.len() };
    reader.value(kind, value, 0)
}

/// Honest documents never share bytes between nodes, so what nodes and texts take together is at most the document's length.
/// That bound keeps a forged document, whose offsets meet, from growing without end.
struct Reader {
    budget: usize,
}

impl Reader {
    fn spend(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.budget = self.budget.checked_sub(bytes).ok_or(MALFORMED)?;
        Ok(())
    }

    fn value<'a>(&mut self, kind: u8, bytes: &'a [u8], depth: usize) -> Result<Tree<'a>, &'static str> {
        self.spend(1)?;
        match kind {
            kind::SMALL_OBJECT => self.object(bytes, 2, depth),
            kind::LARGE_OBJECT => self.object(bytes, 4, depth),
            kind::SMALL_ARRAY => self.array(bytes, 2, depth),
            kind::LARGE_ARRAY => self.array(bytes, 4, depth),
            _ => Ok(Tree::Scalar(self.scalar(kind, bytes)?)),
        }
    }

    fn scalar<'a>(&mut self, kind: u8, bytes: &'a [u8]) -> Result<Scalar<'a>, &'static str> {
        let number = |len: usize| bytes.get(..len).map(le_uint).ok_or(MALFORMED);
        Ok(match kind {
            kind::LITERAL => match bytes.first() {
                Some(0) => Scalar::Null,
                Some(1) => Scalar::Bool(true),
                Some(2) => Scalar::Bool(false),
                _ => return Err(MALFORMED),
            },
            kind::INT16 => Scalar::Int(i64::from(number(2)? as i16)),
            kind::UINT16 => Scalar::UInt(number(2)?),
            kind::INT32 => Scalar::Int(i64::from(number(4)? as i32)),
            kind::UINT32 => Scalar::UInt(number(4)?),
            kind::INT64 => Scalar::Int(number(8)? as i64),
            kind::UINT64 => Scalar::UInt(number(8)?),
            kind::DOUBLE => Scalar::Double(f64::from_bits(number(8)?)),
            kind::STRING => {
                let text = sized(&mut Cursor::new(bytes))?;
                self.spend(text.len())?;
                Scalar::String(std::str::from_utf8(text).map_err(|_| NOT_UTF8)?)
            }
            kind::OPAQUE => {
                let (field_type, rest) = bytes.split_first().ok_or(MALFORMED)?;
                let bytes = sized(&mut Cursor::new(rest))?;
                self.spend(bytes.len())?;
                opaque(*field_type, bytes)?
            }
            _ => return Err(MALFORMED),
        })
    }

    fn object<'a>(&mut self, bytes: &'a [u8], offset_len: usize, depth: usize) -> Result<Tree<'a>, &'static str> {
        let (bytes, count) = container(bytes, offset_len, depth)?;
        let keys = 2 * offset_len;
        let values = keys + count * (offset_len + 2);
        if values + count * (offset_len + 1) > bytes.len() {
            return Err(MALFORMED);
        }
        let mut members = Vec::with_capacity(count);
        for nth in 0..count {
            let entry = &bytes[keys + nth * (offset_len + 2)..][..offset_len + 2];
            let (offset, len) = (le_uint(&entry[..offset_len]) as usize, le_uint(&entry[offset_len..]) as usize);
            let key = bytes.get(offset..).and_then(|rest| rest.get(..len)).ok_or(MALFORMED)?;
            self.spend(len)?;
            let key = std::str::from_utf8(key).map_err(|_| NOT_UTF8)?;
            members.push((Cow::Borrowed(key), self.element(bytes, values, nth, offset_len, depth)?));
        }
        Ok(Tree::Object(members))
    }

    fn array<'a>(&mut self, bytes: &'a [u8], offset_len: usize, depth: usize) -> Result<Tree<'a>, &'static str> {
        let (bytes, count) = container(bytes, offset_len, depth)?;
        let values = 2 * offset_len;
        if values + count * (offset_len + 1) > bytes.len() {
            return Err(MALFORMED);
        }
        let elements = (0..count).map(|nth| self.element(bytes, values, nth, offset_len, depth));
        Ok(Tree::Array(elements.collect::<Result<_, _>>()?))
    }

    /// The nth value of a container whose value entries begin at `values`.
    fn element<'a>(
        &mut self,
        bytes: &'a [u8],
        values: usize,
        nth: usize,
        offset_len: usize,
        depth: usize,
    ) -> Result<Tree<'a>, &'static str> {
        let entry = &bytes[values + nth * (offset_len + 1)..][..offset_len + 1];
        let inlined = match entry[0] {
            kind::LITERAL | kind::INT16 | kind::UINT16 => true,
            kind::INT32 | kind::UINT32 => offset_len == 4,
            _ => false,
        };
        if inlined {
            return self.value(entry[0], &entry[1..], depth);
        }
        let rest = bytes.get(le_uint(&entry[1..]) as usize..).ok_or(MALFORMED)?;
        self.value(entry[0], rest, depth + 1)
    }
}

/// A container's own bytes and its number of elements.
fn container(bytes: &[u8], offset_len: usize, depth: usize) -> Result<(&[u8], usize), &'static str> {
    if depth >= MAX_DEPTH {
        return Err("a JSON document that is nested too deep");
    }
    let count = le_uint(bytes.get(..offset_len).ok_or(MALFORMED)?) as usize;
    let size = le_uint(bytes.get(offset_len..2 * offset_len).ok_or(MALFORMED)?) as usize;
    Ok((bytes.get(..size).filter(|own| own.len() >= 2 * offset_len).ok_or(MALFORMED)?, count))
}

/// Bytes after a length in groups of 7 bits, least significant first.
fn sized<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], &'static str> {
    let mut len = 0_u64;
    for group in 0..5 {
        let byte = cursor.u8("a JSON length").map_err(|_| MALFORMED)?;
        len |= u64::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            return cursor.take(len as usize, "a JSON value").map_err(|_| MALFORMED);
        }
    }
    Err(MALFORMED)
}

fn opaque(field_type: u8, bytes: &[u8]) -> Result<Scalar<'_>, &'static str> {
    use super::super::wire::code;
    let temporal = |kind: Temporal| {
        let packed = bytes.try_into().map(i64::from_le_bytes).map_err(|_| MALFORMED)?;
        Ok(Scalar::Temporal { kind, packed })
    };
    match field_type {
        code::NEWDECIMAL => match bytes {
            [precision, scale, packed @ ..] => Ok(Scalar::Decimal { precision: *precision, scale: *scale, packed }),
            _ => Err(MALFORMED),
        },
        code::DATE => temporal(Temporal::Date),
        code::TIME => temporal(Temporal::Time),
        code::DATETIME => temporal(Temporal::Datetime),
        code::TIMESTAMP => temporal(Temporal::Timestamp),
        _ => Ok(Scalar::Opaque { field_type, bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array whose elements all have the same offset.
    fn array(elements: u16, offset: u16, size: u16) -> Vec<u8> {
        let mut bytes = [elements.to_le_bytes(), size.to_le_bytes()].concat();
        for _ in 0..elements {
            bytes.push(kind::SMALL_ARRAY);
            bytes.extend(offset.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn elements_that_share_bytes_do_not_multiply() {
        // 40 arrays of 10 elements, each of which is the next array: honest readers would end in 10^40 steps.
        let mut bytes = vec![kind::SMALL_ARRAY];
        for level in 0..40 {
            bytes.extend(array(10, 34, 34 * (40 - level)));
        }
        bytes.extend([0, 0, 4, 0]);
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn a_document_that_contains_itself_is_refused() {
        let mut bytes = vec![kind::SMALL_ARRAY];
        bytes.extend(array(1, 0, 7));
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn empty_documents() {
        assert_eq!(read(&[]), Ok(Tree::Scalar(Scalar::Null)));
        assert_eq!(read(&[kind::SMALL_ARRAY, 0, 0, 4, 0]), Ok(Tree::Array(Vec::new())));
        assert_eq!(read(&[kind::SMALL_OBJECT, 0, 0, 4, 0]), Ok(Tree::Object(Vec::new())));
        assert!(read(&[kind::SMALL_OBJECT, 0, 0, 4]).is_err());
        assert!(read(&[kind::LITERAL, 3]).is_err());
    }
}
