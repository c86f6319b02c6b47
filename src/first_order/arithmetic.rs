//! Operations on one element that several rules share.

use crate::numeric::Real;

/// `a + w·(b − a)`: the moving average of first moments, in the order PyTorch computes it.
#[inline(always)]
pub(super) fn lerp<R: Real>(a: R, b: R, weight: R) -> R {
    a + weight * (b - a)
}

/// `n/d`, and 0 where `d` is 0: with `eps = 0` an element that has seen no gradient stands still.
#[inline(always)]
pub(super) fn ratio<R: Real>(n: R, d: R) -> R {
    if d == R::zero() { d } else { n / d }
}

/// `x^power`, exactly for the powers that matter.
#[inline(always)]
pub(super) fn power<R: Real>(x: R, power: R) -> R {
    let two = R::one() + R::one();
    if power == R::one() {
        x
    } else if power == two {
        x * x
    } else if power == R::one() / two {
        x.sqrt()
    } else {
        x.powf(power)
    }
}
