//! The evenly spaced 8-bit maps.

use super::tile::{Map, TILE, bytes};
use crate::numeric::Real;

/// Adding it puts the integer nearest to a small number into the low bits of the sum, ties to even.
const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³

/// `[lift, steps / (absmax · lift)]`: blocks of tiny numbers are first multiplied by a power of two,
/// so that the quotient is finite and exact scaling by powers of two commutes with coding.
#[inline(always)]
fn factors<R: Real>(absmax: R, steps: f64) -> [R; 2] {
    let lift = if absmax < R::of(2_f64.powi(-60)) { R::of(2_f64.powi(100)) } else { R::one() };
    if absmax > R::zero() { [lift, R::of(steps) / (absmax * lift)] } else { [R::zero(); 2] }
}

/// `x̂ = (c − 127)/127 · scale`.
#[derive(Clone, Copy)]
pub(super) struct LinearSigned;

impl Map for LinearSigned {
    const PER_BYTE: usize = 1;

    #[inline(always)]
    fn scale<R: Real>(absmax: R) -> (R, [R; 2]) {
        (absmax, factors(absmax, 127.0))
    }

    #[inline(always)]
    fn normalize<R: Real>(x: R, [lift, steps]: [R; 2]) -> R {
        (x * lift) * steps
    }

    #[inline(always)]
    fn encode(self, y: &[f32; TILE], codes: &mut [u8]) {
        bytes(y, codes, |y| (y + (ROUND + 127.0)).to_bits());
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], values: &mut [f32; TILE]) {
        for (value, code) in values.iter_mut().zip(codes) {
            *value = (f32::from(*code) - 127.0) * (1.0 / 127.0);
        }
    }
}

/// `x̂ = ((c + 1)/256)² · scale`.
#[derive(Clone, Copy)]
pub(super) struct LinearUnsigned;

impl Map for LinearUnsigned {
    const PER_BYTE: usize = 1;

    #[inline(always)]
    fn scale<R: Real>(absmax: R) -> (R, [R; 2]) {
        (absmax, factors(absmax, 65536.0))
    }

    #[inline(always)]
    fn normalize<R: Real>(x: R, [lift, steps]: [R; 2]) -> R {
        (x * lift) * steps
    }

    /// The middle between `k²` and `(k+1)²` is `(k + ½)² + ¼`: rounding the root of `y − ¼` finds
    /// the nearest square.
    #[inline(always)]
    fn encode(self, y: &[f32; TILE], codes: &mut [u8]) {
        let mut roots = [0_f32; TILE];
        for (root, y) in roots.iter_mut().zip(y) {
            let y = y - 0.25;
            *root = if y > 1.0 { y } else { 1.0 }.sqrt();
        }
        bytes(&roots, codes, |root| (root + (ROUND - 1.0)).to_bits());
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], values: &mut [f32; TILE]) {
        for (value, code) in values.iter_mut().zip(codes) {
            let root = (f32::from(*code) + 1.0) * (1.0 / 256.0);
            *value = root * root;
        }
    }
}
