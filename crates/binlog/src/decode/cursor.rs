//! Reading forward through bytes, never past their end.

use super::DecodeError;

/// What is left of a slice. `what` in the methods names the part being read, for the error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { what })?;
        self.rest = tail;
        Ok(head)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(1, what)?[0])
    }

    /// A little-endian number of `len` bytes, at most 8.
    #[inline]
    pub fn le(&mut self, len: usize, what: &'static str) -> Result<u64, DecodeError> {
        Ok(le_uint(self.take(len, what)?))
    }

    /// A length-encoded integer (MySQL protocol).
    pub fn packed(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        match self.u8(what)? {
            first @ 0..=250 => Ok(u64::from(first)),
            252 => self.le(2, what),
            253 => self.le(3, what),
            254 => self.le(8, what),
            _ => Err(DecodeError::Malformed { what }),
        }
    }

    /// A length-encoded integer, then as many bytes.
    pub fn packed_bytes(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.packed(what)?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX), what)
    }

    /// Bytes after a little-endian length of `prefix` bytes.
    #[inline]
    pub fn prefixed(&mut self, prefix: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.le(prefix, what)?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX), what)
    }
}

/// The first 8 bytes at most, least significant first.
#[inline]
pub(super) fn le_uint(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The first 8 bytes at most, most significant first.
#[inline]
pub(super) fn be_uint(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A bit of a little-endian bitmap; false beyond its end.
#[inline]
pub(super) fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}
