//! Sums of Gram matrices that wait for a factor to take them.

use super::{FactorOptions, FactorStorage};
use crate::error::{Result, check_shape};
use crate::linalg::{add_gram_right, mirror_lower, symmetric_from_lower};
use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2};

/// `Σ XᵀX` over several matrices X of rows, such as the micro-batches of a step.
///
/// In `f64` where the factor's statistic is, else in its own type. Only the lower triangle is kept.
#[derive(Clone, Debug)]
pub enum GramSum<R> {
    /// In the type of the parameters.
    Own(Array2<R>),
    /// In `f64`.
    Double(Array2<f64>),
}

impl<R: Real> GramSum<R> {
    /// No rows yet, for a factor of order `n` with these options.
    pub fn new(n: usize, options: &FactorOptions) -> Self {
        match options.stored(n) {
            FactorStorage::Double => Self::Double(Array2::zeros((n, n))),
            _ => Self::Own(Array2::zeros((n, n))),
        }
    }

    /// Adds the Gram matrix of the columns of `rows`.
    ///
    /// # Errors
    /// `rows` has another number of columns.
    pub fn add(&mut self, rows: &ArrayRef2<R>) -> Result<()> {
        match self {
            Self::Own(sum) => add_gram_right(rows, (R::one(), R::one()), sum),
            Self::Double(sum) => add_gram_right(&rows.mapv(R::widen), (1.0, 1.0), sum),
        }
    }

    /// Adds `weight` times a Gram matrix.
    ///
    /// # Errors
    /// `gram` has another shape.
    pub fn add_gram(&mut self, gram: &ArrayRef2<R>, weight: f64) -> Result<()> {
        match self {
            Self::Own(sum) => add(sum, gram, weight),
            Self::Double(sum) => add(sum, gram, weight),
        }
    }

    /// Whether every entry is finite.
    pub fn is_finite(&self) -> bool {
        match self {
            Self::Own(sum) => lower_is_finite(sum),
            Self::Double(sum) => lower_is_finite(sum),
        }
    }

    /// The whole matrix, in the type of the parameters.
    pub(super) fn whole(&self) -> Array2<R> {
        match self {
            Self::Own(sum) => symmetric_from_lower(sum),
            Self::Double(sum) => mirror_lower(sum.mapv(R::of)),
        }
    }
}

fn add<S: Real, R: Real>(sum: &mut Array2<S>, gram: &ArrayRef2<R>, weight: f64) -> Result<()> {
    check_shape("a Gram matrix", sum.shape(), gram.shape())?;
    sum.zip_mut_with(gram, |sum, x| *sum += S::of(weight * x.widen()));
    Ok(())
}

fn lower_is_finite<S: Real>(a: &Array2<S>) -> bool {
    let mut rows = a.rows().into_iter().enumerate();
    rows.all(|(i, row)| row.into_iter().take(i + 1).all(|x| x.is_finite()))
}
