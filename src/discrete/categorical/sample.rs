//! Probabilities from logits, and samples.

use super::batch::{Batch, check_tau, from_batch, from_rows, last_axis, rows, softmax_row};
use crate::error::{Error, Result, check_shape};
use crate::numeric::Real;
use ndarray::{Array, ArrayView, RemoveAxis};

/// Probabilities from logits: `exp(θ/τ)`, divided by its sum.
///
/// | argument | shape, range |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `tau` τ | finite, > 0 |
///
/// # Errors
/// [`Error::InvalidHyperparameter`] names `tau`, or `logits` without an axis.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::softmax;
/// use ndarray::array;
///
/// let p = softmax(array![[0.0f64, 3f64.ln()], [1000.0, 1000.0]].view(), 1.0)?;
/// assert!((p[[0, 1]] - 0.75).abs() < 1e-15);
/// assert_eq!(p[[1, 0]], 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn softmax<R: Real, D: RemoveAxis>(
    logits: ArrayView<'_, R, D>,
    tau: f64,
) -> Result<Array<R, D>> {
    check_tau(tau, 0.0)?;
    let (axis, _) = last_axis(logits.shape())?;
    let values = rows(&logits, axis).map(|row| softmax_row(row.iter().copied(), tau));
    Ok(from_rows(&logits, axis, values))
}

/// The category that a uniform number `u` in `[0, 1)` selects: the first one whose cumulative probability
/// exceeds `u`.
///
/// Categories of probability 0 are never chosen. The result is `None` if no category has a positive
/// probability.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::sample_index;
///
/// let index = [0.0, 0.2, 0.5, 0.99].map(|u| sample_index(&[0.2, 0.0, 0.8], u));
/// assert_eq!(index, [Some(0), Some(2), Some(2), Some(2)]);
/// assert_eq!(sample_index(&[], 0.5), None);
/// ```
pub fn sample_index(probabilities: &[f64], u: f64) -> Option<usize> {
    let mut sum = 0.0;
    let hit = probabilities.iter().position(|p| {
        sum += p;
        u < sum && *p > 0.0
    });
    // rounding may leave the sum below `u`
    hit.or_else(|| probabilities.iter().rposition(|&p| p > 0.0))
}

/// Draws samples of `softmax(θ)`, with one uniform number per row.
///
/// | argument | shape, range |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `uniforms` | batch, in `[0, 1)` |
///
/// # Errors
/// [`Error::ShapeMismatch`] names `uniforms`; [`Error::NonFinite`] if the probabilities of a row are NaN.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::sample;
/// use ndarray::array;
///
/// let logits = array![[0.0f32, 0.0], [f32::NEG_INFINITY, 0.0]];
/// assert_eq!(sample(logits.view(), array![0.25, 0.25].view())?, array![0, 1]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn sample<R: Real, D: RemoveAxis>(
    logits: ArrayView<'_, R, D>,
    uniforms: ArrayView<'_, f64, Batch<D>>,
) -> Result<Array<usize, Batch<D>>> {
    let (axis, batch) = last_axis(logits.shape())?;
    check_shape("uniforms", &batch, uniforms.shape())?;
    let index = |(row, &u): (Vec<f64>, &f64)| {
        let probabilities = softmax_row(row.iter().copied(), 1.0);
        let what = "a sum of probabilities";
        sample_index(&probabilities, u)
            .ok_or_else(|| Error::NonFinite { what, value: probabilities.iter().sum() })
    };
    let found: Vec<usize> = rows(&logits, axis).zip(&uniforms).map(index).collect::<Result<_>>()?;
    Ok(from_batch(&logits, axis, found.into_iter()))
}
