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

/// The larger of two numbers, as one select instruction.
#[inline(always)]
pub(super) fn larger<R: Real>(a: R, b: R) -> R {
    if a > b { a } else { b }
}

/// `∛x` of `x >= 0`, to a few units in the last place, by square roots and divisions alone.
#[inline(always)]
pub(super) fn cube_root<R: Real>(x: R) -> R {
    let third = R::of(1.0 / 3.0);
    let root = x.sqrt();
    let mut y = R::one();
    // y = (x·y)^(1/4) is the cube root; each round quarters the error of the logarithm
    for _ in 0..6 {
        y = (root * y.sqrt()).sqrt();
    }
    // Newton's method from within 6 %
    for _ in 0..4 {
        y += (x / (y * y) - y) * third;
    }
    if x == R::zero() { x } else { y }
}

/// `1/(1 + e^(−x))` of `x >= 0`, to a few units in the last place, by products and one division.
#[inline(always)]
pub(super) fn sigmoid<R: Real>(x: R) -> R {
    let most = R::of(40.0); // then it is 1
    let x = if x > most { most } else { x };
    // e^(−x) = (e^(−x/128))^128, by its series
    let y = -x * R::of(1.0 / 128.0);
    let mut power = R::one();
    for k in (1..=12).rev() {
        power = R::one() + power * y * R::of(1.0 / f64::from(k));
    }
    for _ in 0..7 {
        power *= power;
    }
    R::one() / (R::one() + power)
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

#[cfg(test)]
mod tests {
    use super::{cube_root, sigmoid};

    #[test]
    fn cube_roots_and_sigmoids_are_exact_to_a_few_units_in_the_last_place() {
        for exponent in -300..300 {
            let x = 1.7 * 10f64.powi(exponent);
            assert!((cube_root(x) / x.cbrt() - 1.0).abs() < 1e-15, "{x}");
        }
        for exponent in -37..38 {
            let x = 1.7 * 10f32.powi(exponent);
            assert!((cube_root(x) / x.cbrt() - 1.0).abs() < 5e-7, "{x}");
        }
        for x in (0..1000).map(|i| f64::from(i) * 0.05) {
            assert!((sigmoid(x) - 1.0 / (1.0 + (-x).exp())).abs() < 1e-14, "{x}");
        }
        assert_eq!((cube_root(0.0), sigmoid(0.0), sigmoid(f64::INFINITY)), (0.0, 0.5, 1.0));
        assert!(cube_root(f64::NAN).is_nan() && sigmoid(f64::NAN).is_nan());
    }
}
