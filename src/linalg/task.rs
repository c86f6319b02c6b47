//! Checks of inputs and results, and their errors.

use super::backend::Triangle;
use crate::error::{Error, Result};
use crate::kernel::Isa;
use crate::kernel::finite::max_magnitude;
use crate::numeric::Real;
use ndarray::{ArrayRef, ArrayRef2, Dimension, s};

const NOT_SQUARE: &str = "it must be square";
const NOT_FINITE: &str = "it holds a NaN or an infinity";
const OVERFLOW: &str = "the result is too large for the number type";

/// What is computed of which matrix, as errors say it.
#[derive(Clone, Copy)]
pub(super) struct Task {
    what: &'static str,
    dim: (usize, usize),
}

impl Task {
    pub(super) fn new<R>(what: &'static str, a: &ArrayRef2<R>) -> Self {
        Task { what, dim: a.dim() }
    }

    pub(super) fn fails(self, problem: &'static str) -> Error {
        let (rows, cols) = self.dim;
        Error::Decomposition { what: self.what, rows, cols, problem }
    }

    pub(super) fn square(self) -> Result<()> {
        if self.dim.0 == self.dim.1 { Ok(()) } else { Err(self.fails(NOT_SQUARE)) }
    }

    /// max |aᵢⱼ|, or an error if one is not finite.
    pub(super) fn largest<R: Real>(self, a: &ArrayRef2<R>) -> Result<R> {
        self.finite(largest(a))
    }

    /// The same over one triangle with its diagonal; the rest is not read.
    pub(super) fn largest_in<R: Real>(self, a: &ArrayRef2<R>, triangle: Triangle) -> Result<R> {
        let mut all = R::zero();
        for (i, row) in a.rows().into_iter().enumerate() {
            let diagonal = i.min(row.len());
            let held = match triangle {
                Triangle::Lower => row.slice_move(s![..(diagonal + 1).min(a.ncols())]),
                Triangle::Upper => row.slice_move(s![diagonal..]),
            };
            all = larger(all, largest(&held));
        }
        self.finite(all)
    }

    fn finite<R: Real>(self, x: R) -> Result<R> {
        if x.is_finite() { Ok(x) } else { Err(self.fails(NOT_FINITE)) }
    }

    /// Finite input whose result is not: it lies outside the number type.
    pub(super) fn check<R: Real, D: Dimension>(self, result: &ArrayRef<R, D>) -> Result<()> {
        if largest(result).is_finite() { Ok(()) } else { Err(self.fails(OVERFLOW)) }
    }
}

/// max |x|; NaN if one is NaN.
pub(super) fn largest<R: Real, D: Dimension>(a: &ArrayRef<R, D>) -> R {
    match a.as_slice_memory_order() {
        Some(entries) => max_magnitude(Isa::detect(), entries),
        None => a.fold(R::zero(), |m, x| larger(m, x.abs())),
    }
}

/// The larger one; NaN if one of them is NaN.
fn larger<R: Real>(m: R, x: R) -> R {
    if x > m || x.is_nan() { x } else { m }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may panic")]

    use super::*;
    use ndarray::Array2;

    #[test]
    fn the_largest_is_found_at_any_place_and_what_is_not_finite_too() {
        let mut a = Array2::from_shape_fn((5, 7), |(i, j)| -((i * 7 + j) as f32));
        assert_eq!((largest(&a), largest(&a.slice(s![..;2, ..;3]))), (34.0, 34.0));
        for place in 0..a.len() {
            let index = (place / 7, place % 7);
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let good = std::mem::replace(&mut a[index], bad);
                assert_eq!(largest(&a).is_nan(), bad.is_nan());
                assert!(!largest(&a).is_finite() && !largest(&a.t()).is_finite());
                a[index] = good;
            }
        }
    }
}
