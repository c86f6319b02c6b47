//! Counter-based random numbers: the same (key, counter) gives the same bits everywhere, so that any
//! slice of a stream can be produced on any thread, and produced again.
//!
//! Philox4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel Random Numbers: As
//! Easy as 1, 2, 3", 2011.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, TAU};

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
    // written out: a loop over blocks is vectorised only if there is no other in it
    let five = |c, first| {
        let c = round(round(c, key, first), key, first + 1);
        round(round(round(c, key, first + 2), key, first + 3), key, first + 4)
    };
    five(five(counter, 0), 5)
}

/// One round, number `i` from 0, of a counter under a key.
#[inline(always)]
fn round([c0, c1, c2, c3]: [u32; 4], [k0, k1]: [u32; 2], i: u32) -> [u32; 4] {
    let product0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
    let product1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
    let key0 = k0.wrapping_add(WEYL[0].wrapping_mul(i));
    let key1 = k1.wrapping_add(WEYL[1].wrapping_mul(i));
    [
        (product1 >> 32) as u32 ^ c1 ^ key0,
        product1 as u32,
        (product0 >> 32) as u32 ^ c3 ^ key1,
        product0 as u32,
    ]
}

/// FNV-1a: the same key for the same name in every program.
pub(crate) fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
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
/// The same bits on every machine: logarithm, sine and cosine are computed here, to a few units in the
/// last place.
///
/// # Source
/// G. E. P. Box, M. E. Muller, "A Note on the Generation of Random Normal Deviates", 1958.
pub fn normal_pair([a, b, c, d]: [u32; 4]) -> [f64; 2] {
    box_muller(unit(a, b), unit(c, d))
}

/// A number in `(0, 1]` from the highest bits of two words.
#[inline(always)]
pub(crate) fn unit(high: u32, low: u32) -> f64 {
    let wide = (u64::from(high >> 5) << 26) + u64::from(low >> 6);
    (wide as f64 + 0.5) * (1.0 / 9_007_199_254_740_992.0)
}

/// `√(−2 ln a)·(cos, sin)(2πb)`, without a branch: a loop over it is as wide as the processor allows.
#[inline(always)]
pub(crate) fn box_muller(a: f64, b: f64) -> [f64; 2] {
    let radius = (-2.0 * ln_unit(a)).sqrt();
    let [sin, cos] = sin_cos(TAU * b);
    [radius * cos, radius * sin]
}

/// `ln x` for a normal number `x`: with `x = 2ᵏm`, `m` between `√½` and `√2`, and `s = (m−1)/(m+1)`,
/// ```text
/// ln x = k ln 2 + 2 artanh s = k ln 2 + 2(s + s³/3 + s⁵/5 + …)
/// ```
#[inline(always)]
fn ln_unit(x: f64) -> f64 {
    // the bits of √½, and what takes those of 1 there
    const ROOT: u64 = 0x3fe6_a09e_667f_3bcd;
    const SHIFT: u64 = 0x3ff0_0000_0000_0000 - ROOT;
    // ln 2 with 33 bits, so that k times it is exact, and what is left of it
    const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let shifted = x.to_bits().wrapping_add(SHIFT);
    // the exponent as a number: behind the bits of 2⁵², less 2⁵² and its own offset
    let k = f64::from_bits((shifted >> 52) | 0x4330_0000_0000_0000)
        - (4_503_599_627_370_496.0 + 1023.0);
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + ROOT);
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let artanh = ARTANH.iter().rev().fold(0.0, |sum, &c| sum * z + c);
    // 2s = f − s·f, which keeps the digits of f
    let small = (2.0 * s * z) * artanh + k * LN2_LOW;
    k * LN2_HIGH + (f - (s * f - small))
}

/// `1/3`, `1/5`, …
const ARTANH: [f64; 10] = [
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
    1.0 / 19.0,
    1.0 / 21.0,
];

/// Sine and cosine of an angle in `[0, 2π]`: the angle is reduced to the nearest multiple of π/2, the
/// series are taken of what is left, and the result is rotated by that multiple.
#[inline(always)]
fn sin_cos(angle: f64) -> [f64; 2] {
    // π/2, whose last three bits happen to be zero, so that four times it is exact; and what it lacks
    const QUARTER_HIGH: f64 = FRAC_PI_2;
    const QUARTER_LOW: f64 = 6.123_233_995_736_766e-17;
    // adding it rounds to a whole number, which then stands in the lowest bits
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let rounded = angle * FRAC_2_PI + ROUND;
    let quarters = rounded - ROUND;
    let x = (angle - quarters * QUARTER_HIGH) - quarters * QUARTER_LOW;
    let z = x * x;
    let sin = x + x * z * series(z, &SINE);
    let cos = 1.0 + z * series(z, &COSINE);
    let multiple = rounded.to_bits();
    let (sin, cos) = if multiple & 1 == 1 { (cos, sin) } else { (sin, cos) };
    let negative = |bit: u64, x: f64| f64::from_bits(x.to_bits() ^ (bit & 2) << 62);
    [negative(multiple, sin), negative(multiple + 1, cos)]
}

/// `−c₀ + c₁z − c₂z² + …`
#[inline(always)]
fn series(z: f64, coefficients: &[f64; 8]) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, &c| -(sum * z) - c)
}

/// `1/3!`, `1/5!`, …
const SINE: [f64; 8] = [
    1.0 / 6.0,
    1.0 / 120.0,
    1.0 / 5_040.0,
    1.0 / 362_880.0,
    1.0 / 39_916_800.0,
    1.0 / 6_227_020_800.0,
    1.0 / 1_307_674_368_000.0,
    1.0 / 355_687_428_096_000.0,
];

/// `1/2!`, `1/4!`, …
const COSINE: [f64; 8] = [
    1.0 / 2.0,
    1.0 / 24.0,
    1.0 / 720.0,
    1.0 / 40_320.0,
    1.0 / 3_628_800.0,
    1.0 / 479_001_600.0,
    1.0 / 87_178_291_200.0,
    1.0 / 20_922_789_888_000.0,
];

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

#[cfg(test)]
mod tests {
    use super::{ln_unit, normal_pair, philox4x32, sin_cos, unit};
    use std::f64::consts::{LN_2, TAU};

    /// Units in the last place between two numbers.
    fn apart(x: f64, y: f64) -> u64 {
        let ordered = |x: f64| match x.is_sign_negative() {
            true => -((x.to_bits() & (u64::MAX >> 1)).cast_signed()),
            false => x.to_bits().cast_signed(),
        };
        ordered(x).abs_diff(ordered(y))
    }

    #[test]
    fn logarithm_sine_and_cosine_are_those_of_the_system() {
        let ends = [[0; 4], [u32::MAX; 4], [0x8000_0000; 4], [0x4000_0000; 4], [0xc000_0000; 4]];
        let near =
            |quarter: u32| [quarter.wrapping_sub(1), u32::MAX, quarter.wrapping_sub(1), u32::MAX];
        let blocks = (0..200_000).map(|i| philox4x32([i, 0, 0, 0], [3, 4]));
        let corners = [0x4000_0000, 0x8000_0000, 0xc000_0000].map(near);
        for [a, b, c, d] in blocks.chain(ends).chain(corners) {
            let (x, turn) = (unit(a, b), unit(c, d));
            assert!(apart(ln_unit(x), x.ln()) <= 2, "ln {x}");
            let ([sin, cos], expected) = (sin_cos(TAU * turn), (TAU * turn).sin_cos());
            assert!(apart(sin, expected.0) <= 2, "sin of {turn}: {sin}, {}", expected.0);
            assert!(apart(cos, expected.1) <= 2, "cos of {turn}: {cos}, {}", expected.1);
        }
        let largest = normal_pair([0, 0, 0, 0]).map(f64::abs).into_iter().fold(0.0, f64::max);
        assert!((largest - (108.0 * LN_2).sqrt()).abs() < 1e-9);
    }
}
