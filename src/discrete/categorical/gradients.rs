//! Gradients of logits from one sample, or from all categories.

use super::batch::{
    Batch, check_samples, check_tau, from_rows, jacobian_row, last_axis, rows, softmax_row,
};
use crate::error::{Result, check_shape};
use crate::numeric::Real;
use ndarray::{Array, ArrayView, RemoveAxis};

/// The derivative of the log-probability of the sample, `D − π`. Multiplied by `f(D)`, it is the gradient
/// of REINFORCE.
///
/// | argument | shape |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `sample` | batch; index of the category |
///
/// # Errors
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) or
/// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names `sample`.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::score;
/// use ndarray::{array, aview0};
///
/// assert_eq!(score(array![0.0f64, 0.0].view(), aview0(&1))?, array![-0.5, 0.5]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// R. J. Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
/// Learning", 1992.
pub fn score<R: Real, D: RemoveAxis>(
    logits: ArrayView<'_, R, D>,
    sample: ArrayView<'_, usize, Batch<D>>,
) -> Result<Array<R, D>> {
    let axis = check_samples(&logits, &sample)?;
    let values = rows(&logits, axis).zip(&sample).map(|(row, &sample)| {
        let p = softmax_row(row.iter().copied(), 1.0);
        p.iter().enumerate().map(|(i, p)| f64::from(u8::from(i == sample)) - p).collect()
    });
    Ok(from_rows(&logits, axis, values))
}

/// The exact gradient of `E f(D)`, from the value of `f` at every category.
///
/// ```text
/// Σᵢ f(eᵢ)·πᵢ·(eᵢ − π) = J(π)·f
/// ```
///
/// | argument | shape |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `values` f(eᵢ) | batch × K |
///
/// # Errors
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) names `values`.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::exact_gradient;
/// use ndarray::array;
///
/// let grad = exact_gradient(array![0.0f64, 0.0].view(), array![1.0, 3.0].view())?;
/// assert_eq!(grad, array![-0.5, 0.5]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn exact_gradient<R: Real, D: RemoveAxis>(
    logits: ArrayView<'_, R, D>,
    values: ArrayView<'_, R, D>,
) -> Result<Array<R, D>> {
    check_shape("values", logits.shape(), values.shape())?;
    soft_gradient(&logits, &values, 1.0)
}

/// `J(softmax(θ/τ))g/τ`.
fn soft_gradient<R: Real, D: RemoveAxis>(
    logits: &ArrayView<'_, R, D>,
    upstream: &ArrayView<'_, R, D>,
    tau: f64,
) -> Result<Array<R, D>> {
    let (axis, _) = last_axis(logits.shape())?;
    let values = rows(logits, axis)
        .zip(rows(upstream, axis))
        .map(|(row, g)| jacobian_row(&softmax_row(row.iter().copied(), tau), &g, 1.0 / tau));
    Ok(from_rows(logits, axis, values))
}

/// Straight-through: the gradient at the sample, multiplied by the Jacobian of the softmax.
///
/// ```text
/// J(π_τ)g/τ,  π_τ = softmax(θ/τ)
/// ```
/// At τ = 1, its mean over samples is the exact gradient if `f` is linear, and only then. The sample enters
/// through `upstream` alone.
///
/// | argument | shape, range |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `upstream` g | batch × K: ∂f/∂D at the sample |
/// | `tau` τ | finite, > 0; 1 is usual |
///
/// # Errors
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) names `upstream`;
/// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names `tau`.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::straight_through;
/// use ndarray::array;
///
/// let grad = straight_through(array![0.0f64, 0.0].view(), array![1.0, 3.0].view(), 1.0)?;
/// assert_eq!(grad, array![-0.5, 0.5]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Y. Bengio, N. Léonard, A. Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
/// for Conditional Computation", 2013.
pub fn straight_through<R: Real, D: RemoveAxis>(
    logits: ArrayView<'_, R, D>,
    upstream: ArrayView<'_, R, D>,
    tau: f64,
) -> Result<Array<R, D>> {
    check_tau(tau, 0.0)?;
    check_shape("upstream", logits.shape(), upstream.shape())?;
    soft_gradient(&logits, &upstream, tau)
}

/// ReinMax: a second-order gradient, which is unbiased for every quadratic `f`.
///
/// ```text
/// π = softmax(θ),  π₁ = ½(softmax(θ/τ) + D)
/// 2·J(π₁)g − ½·J(π)g + J(π)g_π,  less its mean
/// ```
/// Samples are drawn from `softmax(θ)`, at temperature 1. The gradient is unbiased at τ = 1; a larger τ
/// has less variance and some bias. Unlike in [`straight_through`], there is no factor `1/τ`.
///
/// | argument | shape, range |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `sample` D | batch; index of the category |
/// | `upstream` g | batch × K: ∂f/∂D at the sample |
/// | `upstream_soft` g_π | batch × K: ∂f/∂π, if `f` uses the probabilities, too |
/// | `tau` τ | finite, ≥ 1; 1 is usual |
///
/// # Errors
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) or
/// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the argument.
///
/// # Examples
/// ```
/// use eigenstep::discrete::categorical::reinmax;
/// use ndarray::array;
///
/// // f(D) = D₁², with one sample of each category; the exact gradient at π = (½, ½) is (−¼, ¼)
/// let logits = array![[0.0f64, 0.0], [0.0, 0.0]];
/// let upstream = array![[0.0, 0.0], [0.0, 2.0]];
/// let grad = reinmax(logits.view(), array![0, 1].view(), upstream.view(), None, 1.0)?;
/// assert_eq!(grad.mean_axis(ndarray::Axis(0)), Some(array![-0.25, 0.25]));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// L. Liu, C. Dong, X. Liu, B. Yu, J. Gao, "Bridging Discrete and Backpropagation: Straight-Through and
/// Beyond", NeurIPS 2023.
pub fn reinmax<R: Real, D: RemoveAxis>(
    logits: ArrayView<'_, R, D>,
    sample: ArrayView<'_, usize, Batch<D>>,
    upstream: ArrayView<'_, R, D>,
    upstream_soft: Option<ArrayView<'_, R, D>>,
    tau: f64,
) -> Result<Array<R, D>> {
    check_tau(tau, 1.0)?;
    check_shape("upstream", logits.shape(), upstream.shape())?;
    if let Some(soft) = &upstream_soft {
        check_shape("upstream_soft", logits.shape(), soft.shape())?;
    }
    let axis = check_samples(&logits, &sample)?;
    let mut soft = upstream_soft.as_ref().map(|soft| rows(soft, axis));
    let inputs = rows(&logits, axis).zip(&sample).zip(rows(&upstream, axis));
    let values = inputs.map(|((row, &sample), g)| {
        let soft = soft.as_mut().and_then(Iterator::next);
        reinmax_row(&row, sample, &g, soft.as_deref(), tau)
    });
    Ok(from_rows(&logits, axis, values))
}

/// [`reinmax`] of one row.
fn reinmax_row(
    logits: &[f64],
    sample: usize,
    g: &[f64],
    g_soft: Option<&[f64]>,
    tau: f64,
) -> Vec<f64> {
    let p = softmax_row(logits.iter().copied(), 1.0);
    let mut middle = softmax_row(logits.iter().copied(), tau);
    for (i, middle) in middle.iter_mut().enumerate() {
        *middle = 0.5 * (*middle + f64::from(u8::from(i == sample)));
    }
    let mut grad = jacobian_row(&middle, g, 2.0);
    let rest = jacobian_row(&p, g, -0.5);
    grad.iter_mut().zip(rest).for_each(|(grad, rest)| *grad += rest);
    if let Some(g_soft) = g_soft {
        let soft = jacobian_row(&p, g_soft, 1.0);
        grad.iter_mut().zip(soft).for_each(|(grad, soft)| *grad += soft);
    }
    let mean = grad.iter().sum::<f64>() / grad.len().max(1) as f64;
    grad.iter_mut().for_each(|grad| *grad -= mean);
    grad
}
