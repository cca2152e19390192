//! Row numbers of which some come up much more often than others.

use rand::Rng;
use rand::rngs::StdRng;

/// A prime that scatters the ranks, so that rows that are often chosen are not neighbours.
const SCATTER: u64 = 7_919;

/// Chooses numbers of `1..=rows`; the one of rank k with a chance in proportion to 1/k.
#[derive(Debug)]
pub struct Zipf {
    /// The chance of this rank or a better one, times the sum of all.
    cumulated: Vec<f64>,
}

impl Zipf {
    pub fn new(rows: u64) -> Zipf {
        let mut sum = 0.0;
        let cumulated = (1..=rows.max(1)).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Zipf { cumulated: cumulated.collect() }
    }

    pub fn choose(&self, random: &mut StdRng) -> u64 {
        let rows = self.cumulated.len() as u64;
        let total = self.cumulated.last().copied().unwrap_or(1.0);
        let chance = random.random_range(0.0..total);
        let rank = self.cumulated.partition_point(|&cumulated| cumulated <= chance) as u64;
        rank.min(rows - 1) * SCATTER % rows + 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_first_rank_comes_up_as_often_as_its_share() {
        let zipf = Zipf::new(1_000);
        let mut random = StdRng::seed_from_u64(1);
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for _ in 0..20_000 {
            *counts.entry(zipf.choose(&mut random)).or_default() += 1;
        }
        assert!(counts.keys().all(|row| (1..=1_000).contains(row)));
        // 1 / (1 + 1/2 + … + 1/1000) = 13.4 %
        let first = f64::from(counts[&1]) / 20_000.0;
        assert!((0.12..0.15).contains(&first), "{first}");
        assert!(counts.len() > 800, "{} rows", counts.len());
    }
}
