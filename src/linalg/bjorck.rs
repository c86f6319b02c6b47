//! Orthogonality: how far a matrix is from it, and a step towards it.

use super::functions::{gram_left, gram_right, matmul_into};
use super::spectral::spectral_norm;
use super::task::Task;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2};

/// Brings a nearly orthogonal matrix closer to the nearest orthogonal one.
///
/// ```text
/// repeat:  V ← 1.5 V − 0.5 V Vᵀ V
/// ```
///
/// `v`: m × n of any shape; the smaller of its two Gram matrices is formed, 4n³ flops an iteration
/// for a square one. Every singular value moves by s ← 1.5s − 0.5s³ and singular vectors stay, so
/// with E = VᵀV − I an iteration makes E ← −¾E² + ¼E³.
///
/// Converges, quadratically in the end, to the polar factor of V if all singular values lie in
/// (0, √3). It is safe to ask for [`orthogonality_error`] < 1, that is s in (0, √2). Zeros stay
/// zeros; values in (√3, √5) turn to −1; larger ones diverge.
///
/// # Errors
/// `v` holds a NaN or an infinity, or the iteration diverged beyond the number type.
///
/// # Examples
/// ```
/// use eigenstep::linalg::{bjorck, orthogonality_error};
/// use ndarray::array;
///
/// let rounded = array![[0.8_f64, -0.5], [0.7, 0.8]];
/// assert!(orthogonality_error(&rounded)? > 0.1);
/// assert!(orthogonality_error(&bjorck(&rounded, 4)?)? < 1e-9);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Å. Björck, C. Bowie, "An Iterative Algorithm for Computing the Best Estimate of an Orthogonal
/// Matrix", SIAM Journal on Numerical Analysis, 1971.
pub fn bjorck<R: Real>(v: &ArrayRef2<R>, iterations: usize) -> Result<Array2<R>> {
    let task = Task::new("Björck iteration", v);
    task.largest(v)?;
    let (minus_half, three_halves) = (R::of(-0.5), R::of(1.5));
    let mut v = v.as_standard_layout().into_owned();
    for _ in 0..iterations {
        let mut next = v.clone();
        if v.nrows() < v.ncols() {
            matmul_into(minus_half, &gram_left(&v), &v, three_halves, &mut next)?;
        } else {
            matmul_into(minus_half, &v, &gram_right(&v), three_halves, &mut next)?;
        }
        v = next;
    }
    task.check(&v)?;
    Ok(v)
}

/// How far the columns of a matrix are from orthonormal: ‖VᵀV − I‖₂.
///
/// `v`: m × n. The norm is estimated from below by power iteration ([`spectral_norm`]); a singular
/// value s adds |s² − 1|. Zero for a matrix without columns.
///
/// # Errors
/// `v` holds a NaN or an infinity, or VᵀV overflows.
///
/// # Examples
/// ```
/// use eigenstep::linalg::orthogonality_error;
/// use ndarray::array;
///
/// let error = orthogonality_error(&array![[1.5_f64, 0.0], [0.0, 1.0]])?;
/// assert!((error - 1.25).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn orthogonality_error<R: Real>(v: &ArrayRef2<R>) -> Result<f64> {
    let task = Task::new("orthogonality error", v);
    task.largest(v)?;
    let mut error = gram_right(v);
    error.diag_mut().mapv_inplace(|x| x - R::one());
    task.check(&error)?;
    spectral_norm(&error, 100, 1e-6)
}
