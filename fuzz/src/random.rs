//! Random numbers that depend on the seed and the number of the execution alone.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, execution: u64) -> Self {
        let mut random = Self(seed ^ execution.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'x, X>(&mut self, from: &'x [X]) -> &'x X {
        &from[self.below(from.len())]
    }

    /// An element of a list that may be empty.
    pub fn choose<X>(&mut self, from: &[X]) -> Option<usize> {
        (!from.is_empty()).then(|| self.below(from.len()))
    }
}

/// Numbers at which something changes.
pub const INTEGERS: [i64; 22] = [
    0,
    1,
    2,
    3,
    7,
    16,
    255,
    256,
    4096,
    65_535,
    65_536,
    1 << 31,
    1 << 32,
    1 << 33,
    1 << 40,
    (1 << 53) - 1,
    1 << 53,
    1 << 60,
    i64::MAX,
    -1,
    -2,
    i64::MIN,
];

pub const FLOATS: [f64; 24] = [
    0.0,
    -0.0,
    0.5,
    1.0,
    1.5,
    -1.0,
    1e-8,
    1e-45,
    5e-324,
    1e-300,
    1e16,
    9.007_199_254_740_992e15,
    1.844_674_407_370_955_2e19,
    3e38,
    3.5e38,
    -3e38,
    1e42,
    1e154,
    1e200,
    f64::MAX,
    f64::MIN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];
