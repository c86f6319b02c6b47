//! Sampling with Gumbel noise: the largest of the perturbed logits.

use super::batch::{
    Batch, check_tau, from_batch, from_rows, invalid, jacobian_row, last_axis, rows, softmax_row,
};
use crate::error::{Result, check_shape};
use crate::numeric::Real;
use ndarray::{Array, ArrayView, RemoveAxis};

/// A Gumbel number `−ln(−ln u)` from a uniform number `u` in `[0, 1)`.
///
/// `u` is limited to the range from 2⁻⁵⁴ to the largest number below 1, so that the result is finite.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::gumbel;
///
/// assert!((gumbel((-1f64).exp())).abs() < 1e-15);
/// assert!(gumbel(0.0).is_finite() && gumbel(1.0).is_finite());
/// ```
pub fn gumbel(u: f64) -> f64 {
    -(-u.clamp(1.0 / (1u64 << 54) as f64, 1.0 - f64::EPSILON / 2.0).ln()).ln()
}

/// Samples and their smooth counterparts, which [`gumbel_softmax`] returns.
///
/// `sample` is a sample of `softmax(θ)` for any τ. [`GumbelSoftmax::gradient`] is the straight-through
/// gradient.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::gumbel_softmax;
/// use ndarray::array;
///
/// let drawn = gumbel_softmax(array![[1.0f32, 2.0]].view(), array![[0.5, 0.0]].view(), 1.0)?;
/// assert_eq!((drawn.sample[0], drawn.soft.sum()), (1, 1.0));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GumbelSoftmax<R, D: RemoveAxis> {
    /// `softmax((θ + G)/τ)`, batch × K.
    pub soft: Array<R, D>,
    /// The index of the largest element of every row.
    pub sample: Array<usize, Batch<D>>,
    tau: f64,
}

/// Draws samples with Gumbel noise (ST-Gumbel).
///
/// ```text
/// y = softmax((θ + G)/τ),  D = one-hot of the largest element,  G = −ln(−ln U)
/// ```
///
/// | argument | shape, range |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `noise` G | batch × K: [`gumbel`] of uniform numbers |
/// | `tau` τ | finite, > 0; below 1 is usual |
///
/// # Errors
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) names `noise`;
/// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names `tau`, or `logits` without a
/// category.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::{gumbel, gumbel_softmax};
/// use ndarray::array;
///
/// let noise = array![[0.9f64, 0.1], [0.2, 0.6]].mapv(gumbel);
/// let drawn = gumbel_softmax(array![[0.0, 0.0], [0.0, 0.0]].view(), noise.view(), 0.5)?;
/// assert_eq!(drawn.sample, array![0, 1]);
/// let grad = drawn.gradient(array![[1.0, -1.0], [1.0, -1.0]].view())?;
/// assert!(grad[[0, 0]] > 0.0 && grad.sum().abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// E. Jang, S. Gu, B. Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017.
pub fn gumbel_softmax<R: Real, D: RemoveAxis>(
    logits: ArrayView<'_, R, D>,
    noise: ArrayView<'_, R, D>,
    tau: f64,
) -> Result<GumbelSoftmax<R, D>> {
    check_tau(tau, 0.0)?;
    check_shape("noise", logits.shape(), noise.shape())?;
    let (axis, batch) = last_axis(logits.shape())?;
    if logits.len_of(axis) == 0 && batch.iter().all(|&dim| dim > 0) {
        return Err(invalid("logits", "at least one category".into(), "none".into()));
    }
    let perturbed = rows(&logits, axis).zip(rows(&noise, axis));
    let soft: Vec<Vec<f64>> = perturbed
        .map(|(row, noise)| softmax_row(row.iter().zip(&noise).map(|(x, g)| x + g), tau))
        .collect();
    // NaN compares as not larger; a row of NaN gives the first category
    let largest = |row: &Vec<f64>| {
        let mut best = (0, f64::NEG_INFINITY);
        for (i, &y) in row.iter().enumerate() {
            best = if y > best.1 { (i, y) } else { best };
        }
        best.0
    };
    let sample = from_batch(&logits, axis, soft.iter().map(largest));
    Ok(GumbelSoftmax { soft: from_rows(&logits, axis, soft.into_iter()), sample, tau })
}

impl<R: Real, D: RemoveAxis> GumbelSoftmax<R, D> {
    /// The straight-through gradient `J(y)g/τ`, for the gradient `g` at the one-hot sample.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) names `upstream`.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::categorical::gumbel_softmax;
    /// use ndarray::array;
    ///
    /// let drawn = gumbel_softmax(array![0.0f64, 0.0].view(), array![0.0, 0.0].view(), 0.5)?;
    /// assert_eq!(drawn.gradient(array![1.0, 3.0].view())?, array![-1.0, 1.0]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn gradient(&self, upstream: ArrayView<'_, R, D>) -> Result<Array<R, D>> {
        check_shape("upstream", self.soft.shape(), upstream.shape())?;
        let soft = self.soft.view();
        let (axis, _) = last_axis(soft.shape())?;
        let pairs = rows(&soft, axis).zip(rows(&upstream, axis));
        let values = pairs.map(|(y, g)| jacobian_row(&y, &g, 1.0 / self.tau));
        Ok(from_rows(&soft, axis, values))
    }
}
