//! Coding of one tile of numbers: the trait of all maps, and the functions that they share.

// Lengths are those of a tile; a check per element would stop the compiler from vectorising.
#![allow(clippy::indexing_slicing)]

use crate::numeric::Real;

/// Elements that are coded together: long enough that the compiler makes vector loops of it, short
/// enough for the first-level cache.
pub(super) const TILE: usize = 128;

/// One map with its rounding: how a block is scaled, and how a tile of scaled numbers is coded.
pub(super) trait Map: Copy {
    /// Codes per byte.
    const PER_BYTE: usize;
    /// Whether vectors of 512 bits pay. Searching tables they do not: `cargo bench --bench quant`.
    const WIDEST: bool = true;
    /// Scale to store and the two numbers that `normalize` needs, for a finite largest magnitude.
    fn scale<R: Real>(absmax: R) -> (R, [R; 2]);
    /// Brings an element to the range in which `encode` expects it.
    fn normalize<R: Real>(x: R, factors: [R; 2]) -> R;
    /// Codes of one tile; `codes` holds exactly `TILE / PER_BYTE` bytes.
    fn encode(self, y: &[f32; TILE], codes: &mut [u8]);
    /// Table entries of one tile; `codes` holds exactly `TILE / PER_BYTE` bytes.
    fn decode(self, codes: &[u8], values: &mut [f32; TILE]);
}

/// Scaling of bitsandbytes: multiply by the reciprocal; the maps clamp by themselves.
#[inline(always)]
pub(super) fn reciprocal<R: Real>(absmax: R) -> (R, [R; 2]) {
    let floor = R::of(1e-38);
    (absmax, [R::one() / if absmax > floor { absmax } else { floor }, R::zero()])
}

/// Scaling of torchao: divide by a scale that is never 0.
#[inline(always)]
pub(super) fn divisor<R: Real>(absmax: R) -> (R, [R; 2]) {
    let floor = R::of(1e-12);
    let scale = if absmax > floor { absmax } else { floor };
    (scale, [scale, R::zero()])
}

/// Rounding to `f32`; the identity for `f32`.
#[inline(always)]
pub(super) fn narrow<R: Real>(x: R) -> f32 {
    x.widen() as f32
}

/// Widening from `f32`; the identity for `f32`.
#[inline(always)]
pub(super) fn widen<R: Real>(x: f32) -> R {
    R::of(f64::from(x))
}

/// Largest magnitude, NaN above infinity: compared as integers, which loses no NaN and lets the
/// compiler choose the lanes.
#[inline(always)]
pub(super) fn max_magnitude<R: Real>(x: &[R]) -> R {
    let largest = x.iter().fold(R::Bits::default(), |largest, x| {
        let bits = x.magnitude_bits();
        if bits > largest { bits } else { largest }
    });
    R::from_magnitude_bits(largest)
}

/// `codes[i] = f(y[i])`; 32 at a time, because the narrowing to bytes is then done on whole vectors.
#[inline(always)]
pub(super) fn bytes(y: &[f32; TILE], codes: &mut [u8], f: impl Fn(f32) -> u32) {
    let rows = y.as_chunks::<32>().0;
    for (codes, y) in codes.as_chunks_mut::<32>().0.iter_mut().zip(rows) {
        *codes = std::array::from_fn(|i| f(y[i]) as u8);
    }
}
