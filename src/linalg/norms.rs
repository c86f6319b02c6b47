//! Sizes of matrices. Sums are taken in `f64` and in logical order: the same bits in any layout.

use super::layout::transposed;
use super::scale::reciprocal_power_of_two;
use super::task::largest;
use crate::numeric::Real;
use crate::numeric::reduce::LaneSum;
use ndarray::{Array2, ArrayRef2};

/// ⟨A, B⟩ = Σ aᵢⱼ bᵢⱼ for matrices of one shape.
pub(super) fn inner<R: Real>(a: &ArrayRef2<R>, b: &ArrayRef2<R>) -> f64 {
    let mut sum = LaneSum::default();
    let products = a.iter().zip(b.iter()).map(|(x, y)| x.widen() * y.widen());
    products.enumerate().for_each(|(i, product)| sum.add(i, product));
    sum.total()
}

/// ‖A‖, also where squares leave the range of `f64`; infinite only where the norm itself is.
pub(crate) fn frobenius<R: Real>(a: &ArrayRef2<R>) -> f64 {
    let largest = max_abs(a);
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let scale = reciprocal_power_of_two(largest);
    let square = |x: R| (scale * x.widen()) * (scale * x.widen());
    let mut sum = LaneSum::default();
    match a.as_slice() {
        Some(xs) => sum.extend(xs, square),
        None => a.iter().enumerate().for_each(|(i, &x)| sum.add(i, square(x))),
    }
    sum.total().sqrt() / scale
}

/// max |aᵢⱼ|; NaN if one is NaN.
pub(super) fn max_abs<R: Real>(a: &ArrayRef2<R>) -> f64 {
    largest(a).widen()
}

/// ‖A‖∞ = maxᵢ Σⱼ |aᵢⱼ|, an upper bound of every |λ|.
pub(super) fn max_row_sum<R: Real>(a: &ArrayRef2<R>) -> f64 {
    let sum = |row: ndarray::ArrayView1<'_, R>| row.iter().map(|x| x.widen().abs()).sum();
    a.rows().into_iter().map(sum).fold(0.0, f64::max)
}

/// (A + Aᵀ)/2 in row-major order, for a square A.
pub(super) fn symmetrized<R: Real>(a: &ArrayRef2<R>) -> Array2<R> {
    let half = R::of(0.5);
    let mut mean = transposed(a);
    mean.zip_mut_with(a, |x, &y| *x = half * *x + half * y);
    mean
}
