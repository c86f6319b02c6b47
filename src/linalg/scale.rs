//! Scaling by powers of two, which is exact, and the order of numbers.

use crate::numeric::Real;
use ndarray::{Array1, ArrayRef2};

/// 2⁻ᵉ for 2ᵉ ≤ |x| < 2ᵉ⁺¹, as far as it is a normal number; multiplying by it is exact, apart
/// from underflow. `x` is finite and not zero.
pub(super) fn reciprocal_power_of_two<R: Real>(x: R) -> R {
    let log2 = |x: R| {
        let (mantissa, exponent, _sign) = x.integer_decode();
        i32::from(exponent) + 63 - mantissa.leading_zeros() as i32
    };
    let limit = -log2(R::min_positive_value());
    R::of(2.0_f64.powi(-log2(x).clamp(-limit, limit)))
}

/// Multiplies `x` by a power of two that brings its largest entry near 1, and returns it: 1 if there is
/// nothing but zeros, or an entry that is not finite.
pub(crate) fn scale_to_one<R: Real>(x: &mut ArrayRef2<R>) -> R {
    let largest = x.iter().fold(R::zero(), |largest, x| largest.max(x.abs()));
    if largest == R::zero() || !largest.is_finite() {
        return R::one();
    }
    let scale = reciprocal_power_of_two(largest);
    x.mapv_inplace(|x| x * scale);
    scale
}

/// Indices that put `values` in the order of `before`; equal ones keep theirs.
pub(crate) fn sorted<R: Real>(values: &Array1<R>, before: impl Fn(R, R) -> bool) -> Vec<usize> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let mut order: Vec<(usize, R)> = values.iter().copied().enumerate().collect();
    order.sort_by(|&(_, x), &(_, y)| match (before(x, y), before(y, x)) {
        (true, _) => Less,
        (_, true) => Greater,
        _ => Equal,
    });
    order.into_iter().map(|(i, _)| i).collect()
}
