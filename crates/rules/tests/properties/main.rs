//! Properties of the rules that decide: whatever the input, from seeds that are printed where one fails.

mod clocks;
mod decide;
mod holders;
mod index;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// `PROPTEST_RNG_SEED` repeats a run, `PROPTEST_CASES` makes it longer.
pub fn seeded(cases: u32) -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand::random(),
    };
    println!("the seed is PROPTEST_RNG_SEED={seed}");
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { cases };
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), ..config }
}
