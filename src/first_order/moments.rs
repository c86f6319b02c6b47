//! The moving average of first moments.

use crate::numeric::Real;

/// `a + w·(b − a)`: the moving average of first moments, in the order PyTorch computes it.
#[inline(always)]
pub(super) fn lerp<R: Real>(a: R, b: R, weight: R) -> R {
    a + weight * (b - a)
}
