//! Random numbers and norms for compressors.

use crate::numeric::Real;
use crate::numeric::random::{philox4x32, uniform};
use crate::numeric::reduce::LaneSum;

/// The stream of random 32-bit numbers of a seed and a step.
fn bits(seed: u64, t: u64) -> impl Iterator<Item = u32> {
    let key = [seed as u32, (seed >> 32) as u32];
    let block = move |number: u64| {
        philox4x32([number as u32, (number >> 32) as u32, t as u32, (t >> 32) as u32], key)
    };
    (0u64..).flat_map(block)
}

/// Uniform numbers in `[0, 1)`, multiples of 2⁻³².
pub(super) fn uniforms(seed: u64, t: u64) -> impl Iterator<Item = f64> {
    bits(seed, t).map(uniform)
}

/// Random 64-bit numbers.
pub(super) fn words(seed: u64, t: u64) -> impl Iterator<Item = u64> {
    let mut bits = bits(seed, t);
    std::iter::from_fn(move || Some(u64::from(bits.next()?) << 32 | u64::from(bits.next()?)))
}

/// `Σ f(|x|)`, added in a fixed order.
fn sum<R: Real>(x: &[R], f: impl Fn(f64) -> f64) -> f64 {
    let mut sum = LaneSum::default();
    sum.extend(x, |x| f(x.widen().abs()));
    sum.total()
}

/// `Σ|x|/d`. It is finite if all elements are.
pub(super) fn mean_magnitude<R: Real>(x: &[R]) -> f64 {
    let numel = x.len().max(1) as f64;
    let total = sum(x, |x| x);
    if total.is_finite() { total / numel } else { sum(x, |x| x / numel) }
}

/// `‖x‖₂`, correct also if the squares overflow or underflow.
pub(super) fn euclidean_norm<R: Real>(x: &[R]) -> f64 {
    let squares = sum(x, |x| x * x);
    if squares.is_finite() && squares > 1e-280 {
        return squares.sqrt();
    }
    let largest = x.iter().fold(0.0_f64, |a, x| a.max(x.widen().abs()));
    if largest > 0.0 { largest * sum(x, |x| (x / largest).powi(2)).sqrt() } else { 0.0 }
}
