//! How property tests draw their cases.

use proptest::test_runner::{Config, RngSeed};

/// `count` cases, the same in every run, so that no run fails by chance.
///
/// `PROPTEST_RNG_SEED` in the environment draws others, `PROPTEST_CASES` does not.
pub fn cases(count: u32) -> Config {
    let default = Config::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(0x5eed),
        chosen => chosen,
    };
    Config { cases: count, failure_persistence: None, rng_seed, ..default }
}
