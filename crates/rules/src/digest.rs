//! Hashes that mean the same in every process and every version.
//!
//! XXH3 with 64 bits and seed 0 is a published, frozen function. What is fed to it is length-prefixed, so that two
//! different sequences of fields never feed the same bytes.

use twox_hash::XxHash3_64;

/// XXH3 of some bytes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Collects fields into one hash.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    bytes: Vec<u8>,
}

impl Digest {
    pub fn text(&mut self, text: &str) -> &mut Digest {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    pub fn number(&mut self, number: u64) -> &mut Digest {
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub fn finish(&self) -> u64 {
        hash_bytes(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_function() {
        // From the reference implementation: XXH3_64bits of nothing, with seed 0.
        assert_eq!(hash_bytes(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn the_border_between_two_fields_counts() {
        let hash = |a: &str, b: &str| Digest::default().text(a).text(b).finish();
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
        assert_eq!(hash("ab", "c"), hash("ab", "c"));
    }
}
