//! Counter-based random numbers: the same (key, counter) gives the same bits everywhere, so that any
//! slice of a stream can be produced on any thread, and produced again.
//!
//! Philox4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel Random Numbers: As
//! Easy as 1, 2, 3", 2011.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox4x32: 128 random bits of a 64-bit key and a 128-bit counter.
///
/// # Examples
/// ```
/// // the known answer for all-zero input
/// let block = eigenstep::numeric::random::philox4x32([0; 4], [0; 2]);
/// assert_eq!(block, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
#[inline(always)]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = (
            (product1 >> 32) as u32 ^ c1 ^ k0,
            product1 as u32,
            (product0 >> 32) as u32 ^ c3 ^ k1,
            product0 as u32,
        );
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// A number in `[0, 1)` from 32 random bits.
#[inline(always)]
pub fn uniform(bits: u32) -> f64 {
    f64::from(bits) * (1.0 / 4_294_967_296.0)
}

/// Two independent normally distributed numbers of mean 0 and variance 1, from one block of
/// [`philox4x32`].
///
/// ```text
/// √(−2 ln a)·(cos, sin)(2πb),  a, b = (2²⁶·(w ≫ 5) + (w′ ≫ 6) + ½)·2⁻⁵³ of two words each
/// ```
///
/// # Source
/// G. E. P. Box, M. E. Muller, "A Note on the Generation of Random Normal Deviates", 1958.
pub fn normal_pair([a, b, c, d]: [u32; 4]) -> [f64; 2] {
    let unit = |high: u32, low: u32| {
        let wide = (u64::from(high >> 5) << 26) + u64::from(low >> 6);
        (wide as f64 + 0.5) * (1.0 / 9_007_199_254_740_992.0)
    };
    let radius = (-2.0 * unit(a, b).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * unit(c, d)).sin_cos();
    [radius * cos, radius * sin]
}

/// A whole number next to `x` whose mean is `x`: `⌊x⌋ + [u < x − ⌊x⌋]`, `u` uniform in `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::numeric::random::round_at_random;
///
/// assert_eq!(round_at_random(2.25, 0.2), 3.0);
/// assert_eq!(round_at_random(-2.25, 0.8), -3.0);
/// ```
#[inline(always)]
pub fn round_at_random(x: f64, u: f64) -> f64 {
    let below = x.floor();
    if u < x - below { below + 1.0 } else { below }
}
