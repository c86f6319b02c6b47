//! Where arithmetic ends: numbers too large to be squared and summed, and numbers too small to be kept.

use super::Real;

/// A magnitude below every limit of [`largest_of_power`] that optimizers have, in `f32` and `f64`.
pub(crate) const HARMLESS: f64 = (1_u64 << 42) as f64;

/// The largest number whose `power`-th power, summed over any number of steps, has `spare` bits to go
/// until it overflows; with power 0 the largest number.
///
/// A sum of equal terms ends at `2^digits` times one of them: what is added to it later is rounded away.
/// So there are `(exponents − digits − spare)/power` bits for the number itself.
///
/// ```text
/// f32:  power 1, spare 4: 2^100    power 2, spare 4: 2^50     power 2, spare 20: 2^42
/// f64:  power 1, spare 4: 2^967    power 2, spare 4: 2^483    power 2, spare 20: 2^475
/// ```
pub(crate) fn largest_of_power<R: Real>(power: u32, spare: i32) -> R {
    let Ok(power @ 1..) = i32::try_from(power) else { return R::max_value() };
    let exponents = R::max_value().widen().log2().round() as i32;
    let digits = 1 - R::epsilon().widen().log2().round() as i32;
    R::of(2_f64.powi((exponents - digits - spare) / power))
}

/// [`largest_of_power`], for state that may have the range of `bf16`, which is that of `f32`.
pub(crate) fn largest_for<R: Real>(power: u32, spare: i32, bf16: bool) -> R {
    let largest = largest_of_power::<R>(power, spare);
    // what a rule caps fits its arithmetic, and not what that is stored as
    let stored = || R::of(largest_of_power::<f32>(power.max(2), spare).into());
    if bf16 { largest.min(stored()) } else { largest }
}

/// `x` flushed to zero where it has decayed to nothing: below 1024 times the smallest normal number.
///
/// Processors take tens to hundreds of cycles for an operation on a subnormal number, and a moment whose
/// gradient has gone would end as one and stay it. Where a moment decays as `x − w·x` the product is
/// subnormal first, for which there are ten bits; a NaN stays one.
#[inline(always)]
pub(crate) fn flushed<R: Real>(x: R) -> R {
    let least = R::min_positive_value() * R::of(1024.0);
    if x.abs() < least { R::zero() } else { x }
}

/// `x` in the arithmetic type; beyond its range the largest number, which times 0 is 0 where infinity is NaN.
pub(crate) fn finite_of<R: Real>(x: f64) -> R {
    capped(R::of(x), R::max_value())
}

/// `x` with its magnitude clamped to `limit`; a NaN stays one.
#[inline(always)]
pub(crate) fn capped<R: Real>(x: R, limit: R) -> R {
    if x.abs() > limit { limit * x.signum() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_powers_can_be_summed_for_ever() {
        assert_eq!(largest_of_power::<f32>(2, 4), 2_f32.powi(50));
        assert_eq!(largest_of_power::<f32>(2, 20), 2_f32.powi(42));
        assert_eq!(largest_of_power::<f64>(2, 4), 2_f64.powi(483));
        assert_eq!(largest_of_power::<f32>(1, 4), 2_f32.powi(100));
        assert_eq!(largest_of_power::<f32>(0, 4), f32::MAX);
        assert!(HARMLESS <= f64::from(largest_of_power::<f32>(2, 20)));
        let square = largest_of_power::<f32>(2, 4).powi(2);
        let end = square * 2_f32.powi(24);
        assert_eq!(end + square, end);
        assert!((end * 15.0).is_finite());
    }

    #[test]
    fn only_what_has_decayed_is_flushed() {
        let least = 1024.0 * f32::MIN_POSITIVE;
        for x in [least, -least, 1.0, f32::INFINITY] {
            assert_eq!(flushed(x), x);
        }
        for x in [0.0, -0.0, least.next_down(), -least.next_down(), 1e-45] {
            assert_eq!(flushed(x).to_bits(), 0);
        }
        assert!(flushed(f32::NAN).is_nan());
    }
}
