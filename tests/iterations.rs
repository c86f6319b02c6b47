//! The laws of the iterations on matrices, tried on random ones; one file per kind.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "iterations/bases.rs"]
mod bases;
#[path = "support/cases.rs"]
mod cases;
#[path = "iterations/kronecker.rs"]
mod kronecker;
mod linalg_checks;
#[path = "iterations/polar.rs"]
mod polar;
#[path = "iterations/roots.rs"]
mod roots;
#[path = "iterations/shapes.rs"]
mod shapes;

use eigenstep::{Error, numeric::Real};
use linalg_checks::{norm, wide};
use ndarray::Array2;

/// ‖found − expected‖ ≤ tolerance · ‖expected‖, or absolute if that is zero.
#[track_caller]
fn close<R: Real>(found: &Array2<R>, expected: &Array2<f64>, tolerance: f64) {
    assert_eq!(found.dim(), expected.dim());
    let error = norm(&(wide(found) - expected));
    let size = norm(expected);
    let bound = tolerance * if size == 0.0 { 1.0 } else { size };
    assert!(error <= bound, "off by {error:e}, allowed {bound:e}");
}

/// The text of a failed decomposition.
#[track_caller]
fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Decomposition { .. }), "{error:?}");
    error.to_string()
}

/// U Diag(values) Vᵀ for random U (m × k) and V (n × k).
fn with_singular_values<R: Real>((m, n): (usize, usize), values: &[f64], seed: u64) -> Array2<R> {
    let k = values.len();
    let u = linalg_checks::orthogonal(m, seed);
    let v = linalg_checks::orthogonal(n, !seed);
    let scaled = &u.slice(ndarray::s![.., ..k]) * &ndarray::aview1(values);
    scaled.dot(&v.slice(ndarray::s![.., ..k]).t()).mapv(R::of)
}
