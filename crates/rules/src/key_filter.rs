//! Which key hashes may have been seen: no for certain, or perhaps. Its size does not depend on how many there were.

/// Bits that stand for one hash.
const PROBES: u64 = 3;

#[derive(Debug, Clone, Default)]
pub(crate) struct KeyFilter {
    /// A power of two of them; none before the first hash.
    words: Vec<u64>,
}

impl KeyFilter {
    /// `bytes` is what the filter takes once it holds anything.
    pub fn add(&mut self, hash: u64, bytes: usize) {
        if self.words.is_empty() {
            let words = (bytes / size_of::<u64>()).max(1);
            self.words = vec![0; 1 << words.ilog2()];
        }
        for probe in 0..PROBES {
            let bit = self.bit(hash, probe);
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    pub fn may_hold(&self, hash: u64) -> bool {
        !self.words.is_empty()
            && (0..PROBES).all(|probe| {
                let bit = self.bit(hash, probe);
                self.words[bit / 64] >> (bit % 64) & 1 == 1
            })
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    pub fn clear(&mut self) {
        self.words = Vec::new();
    }

    fn bit(&self, hash: u64, probe: u64) -> usize {
        // Each probe by bits of its own: an odd multiplier carries the low ones upward.
        let mixed = hash.wrapping_add(probe).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 20) as usize & (self.words.len() * 64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_held_and_little_else() {
        let mut filter = KeyFilter::default();
        assert!(!filter.may_hold(1));
        let hash = |n: u64| n.wrapping_mul(0x517c_c1b7_2722_0a95) ^ n.rotate_left(17);
        (0..1_000).for_each(|n| filter.add(hash(n), 4 << 10));
        assert!((0..1_000).all(|n| filter.may_hold(hash(n))));
        let wrong = (1_000..11_000).filter(|n| filter.may_hold(hash(*n))).count();
        assert!(wrong < 500, "{wrong} of 10,000");
        filter.clear();
        assert!(!filter.may_hold(hash(1)));
    }
}
