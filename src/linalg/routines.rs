//! What a backend must be able to do.

use super::backend::Triangle;
use crate::numeric::Real;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};

/// A result, or why there is none; the façade adds what was computed and for which shape.
pub(super) type Outcome<T> = Result<T, &'static str>;

/// The eigenvalue or singular value iteration gave up.
pub(super) const NO_CONVERGENCE: &str = "the iteration did not converge";
/// A pivot of the Cholesky factorisation is zero or negative.
pub(super) const NOT_POSITIVE: &str = "the matrix is not positive definite";

/// The decompositions of one backend.
///
/// The façade hands over matrices with at least one row and one column, finite entries and a
/// largest magnitude whose square and reciprocal square are representable. It also makes the
/// results unique (order and signs) and checks that they are finite, so that all backends follow the same
/// conventions.
pub(super) trait Routines<R: Real>: Sync {
    /// Eigenvalues, in any order, and eigenvectors in columns of an exactly symmetric matrix.
    fn eigh(&self, a: Array2<R>) -> Outcome<(Array1<R>, Array2<R>)>;
    /// Thin Q and R; any signs.
    fn qr(&self, a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array2<R>)>;
    /// Lower factor with zeros above the diagonal; reads the lower triangle of a square matrix.
    fn cholesky(&self, a: ArrayView2<'_, R>) -> Outcome<Array2<R>>;
    /// Thin U, singular values ≥ 0 in any order, thin Vᵀ; any signs.
    fn svd(&self, a: ArrayView2<'_, R>) -> Outcome<(Array2<R>, Array1<R>, Array2<R>)>;
    /// The lower triangle of old·C + new·A B into a row-major C; what is above it is ignored.
    fn add_lower(
        &self,
        a: ArrayView2<'_, R>,
        b: ArrayView2<'_, R>,
        (old, new): (R, R),
        mut c: ArrayViewMut2<'_, R>,
    ) {
        general_mat_mul(new, &a, &b, old, &mut c);
    }
    /// α A B + β C into C, shapes that fit; with β = 0 the old C is not read.
    fn product(
        &self,
        (alpha, a): (R, ArrayView2<'_, R>),
        b: ArrayView2<'_, R>,
        (beta, mut c): (R, ArrayViewMut2<'_, R>),
    ) {
        general_mat_mul(alpha, &a, &b, beta, &mut c);
    }
    /// X with T X = B for the given triangle T of `a`, whose diagonal holds no zero.
    fn solve_triangular(
        &self,
        a: ArrayView2<'_, R>,
        triangle: Triangle,
        b: Array2<R>,
    ) -> Outcome<Array2<R>>;
}
