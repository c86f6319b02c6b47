//! The spectral norm, by power iteration.

use super::functions::matmul;
use super::norms::frobenius;
use super::task::Task;
use crate::error::Result;
use crate::numeric::Real;
use crate::numeric::random::philox4x32;
use ndarray::{Array2, ArrayRef2};

/// The spectral norm of a symmetric matrix, max |λ|, by power iteration.
///
/// ```text
/// v ← A v / ‖A v‖        until ‖A v‖ changes by no more than tolerance · ‖A v‖
/// ```
///
/// `a`: n × n, symmetric. Returns ‖A v‖ of the last step, a lower bound that is short of the norm
/// by about (λ₂/λ₁)²ᵏ relative after k steps: enough for a damping relative to λmax, at 2n² flops
/// a step. The start is pseudo-random and always the same. An empty matrix has norm 0.
///
/// # Errors
/// `a` is not square, or holds a NaN or an infinity.
///
/// # Examples
/// ```
/// use eigenstep::linalg::spectral_norm;
/// use ndarray::array;
///
/// let norm = spectral_norm(&array![[2.0_f64, 1.0], [1.0, 2.0]], 100, 1e-12)?;
/// assert!((norm - 3.0).abs() < 1e-10);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// Source: Golub & Van Loan, Matrix Computations, 4th ed., section 8.2.1.
pub fn spectral_norm<R: Real>(
    a: &ArrayRef2<R>,
    max_iterations: usize,
    tolerance: f64,
) -> Result<f64> {
    let task = Task::new("spectral norm", a);
    task.square()?;
    task.largest(a)?;
    let unit = |v: &Array2<R>, norm: f64| v.mapv(|x| R::of(x.widen() / norm));
    // in no matrix that anybody meets is this orthogonal to the leading eigenvector
    let random = |(i, _): (usize, usize)| {
        let [bits, ..] = philox4x32([i as u32, 0, 0, 0], [0; 2]);
        R::of(f64::from(bits) / f64::from(u32::MAX) - 0.5)
    };
    let mut v = Array2::from_shape_fn((a.nrows(), 1), random);
    v = unit(&v, frobenius(&v));
    let mut norm = 0.0;
    for _ in 0..max_iterations {
        let image = matmul(a, &v)?;
        let last = std::mem::replace(&mut norm, frobenius(&image));
        if norm == 0.0 || (norm - last).abs() <= tolerance * norm {
            break;
        }
        v = unit(&image, norm);
    }
    Ok(norm)
}
