//! Gradients of logits through a sample of a categorical variable.
//!
//! With `π = softmax(θ)`, the one-hot sample `D`, the gradient `g = ∂f/∂D` there, and
//! `J(p)g = p⊙g − p·(pᵀg)`:
//!
//! | function | gradient of θ | right on average for |
//! |---|---|---|
//! | [`exact_gradient`] | `Σᵢ f(eᵢ)·πᵢ(eᵢ − π)` | everything; needs f at every category |
//! | [`straight_through`] | `J(π_τ)g/τ`, `π_τ = softmax(θ/τ)` | linear f, at τ = 1 |
//! | [`GumbelSoftmax::gradient`] | `J(y)g/τ`, `y = softmax((θ + G)/τ)` | nothing; its bias falls with τ |
//! | [`reinmax`] | `2·J((π_τ + D)/2)g − J(π)g/2` | quadratic f, at τ = 1 |
//!
//! The last axis of every array is that of the K categories, and all axes before it are a batch: an
//! array of samples has the shape of the logits without the last axis. Everything is computed in
//! `f64`. A category with the logit −∞ is never drawn; a row of logits with NaN or +∞ gives NaN.
//!
//! # Examples
//! ```
//! use eigenstep::zeroth_order::categorical;
//! use ndarray::{array, aview1};
//!
//! // descend on E f(D), f(D) = |D − t|², by one sample a step
//! let target = array![[0.1f64, 0.7, 0.2]];
//! let mut logits = array![[0.0f64, 0.0, 0.0]];
//! for step in 0..300 {
//!     let u = (step as f64 * 0.618).fract();
//!     let sample = categorical::sample(logits.view(), aview1(&[u]))?;
//!     let mut upstream = &target * -2.0;
//!     upstream[[0, sample[0]]] += 2.0;
//!     let grad = categorical::reinmax(logits.view(), sample.view(), upstream.view(), None, 1.0)?;
//!     logits.scaled_add(-0.1, &grad);
//! }
//! assert!(categorical::softmax(logits.view(), 1.0)?[[0, 1]] > 0.9);
//! # Ok::<(), eigenstep::Error>(())
//! ```

mod gumbel;

pub use gumbel::{GumbelSoftmax, gumbel, gumbel_softmax};

use crate::error::{Error, Result, check_shape};
use crate::numeric::Real;
use ndarray::{Array, ArrayView, Axis, Dimension, RemoveAxis};

/// Axes of a batch: those of logits without the last.
type Batch<D> = <D as Dimension>::Smaller;

fn invalid(field: &'static str, expected: String, found: String) -> Error {
    Error::invalid("categorical", field, expected, found)
}

/// Refuses temperatures that are not finite, below `least`, or 0.
fn check_tau(tau: f64, least: f64) -> Result<()> {
    if tau.is_finite() && tau >= least && tau > 0.0 {
        return Ok(());
    }
    let expected =
        if least > 0.0 { format!("finite and >= {least}") } else { "finite and > 0".into() };
    Err(invalid("tau", expected, tau.to_string()))
}

/// The axis of the categories, and the shape of the batch.
fn last_axis(shape: &[usize]) -> Result<(Axis, Vec<usize>)> {
    match shape.split_last() {
        Some((_, batch)) => Ok((Axis(batch.len()), batch.to_vec())),
        None => Err(invalid("logits", "an array with an axis of categories".into(), "none".into())),
    }
}

/// `softmax(x/τ)` of one row.
fn softmax_row(x: impl Iterator<Item = f64> + Clone, tau: f64) -> Vec<f64> {
    let largest = x.clone().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = x.map(|x| ((x - largest) / tau).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// `J(p)g` of one row, times `factor`; 0 for a single category, whatever `g`.
fn jacobian_row(p: &[f64], g: &[f64], factor: f64) -> Vec<f64> {
    if p.len() < 2 {
        return vec![0.0; p.len()];
    }
    let mean: f64 = p.iter().zip(g).map(|(p, g)| p * g).sum();
    p.iter().zip(g).map(|(p, g)| factor * (p * g - p * mean)).collect()
}

/// The rows of an array in order, widened.
fn rows<'a, R: Real, D: RemoveAxis>(
    array: &'a ArrayView<'_, R, D>,
    axis: Axis,
) -> impl Iterator<Item = Vec<f64>> + use<'a, R, D> {
    array.lanes(axis).into_iter().map(|row| row.iter().map(|x| x.widen()).collect())
}

/// An array of the shape of `like` from its rows.
fn from_rows<R: Real, D: RemoveAxis>(
    like: &ArrayView<'_, R, D>,
    axis: Axis,
    values: impl Iterator<Item = Vec<f64>>,
) -> Array<R, D> {
    let mut out = Array::from_elem(like.raw_dim(), R::zero());
    for (mut row, values) in out.lanes_mut(axis).into_iter().zip(values) {
        row.iter_mut().zip(values).for_each(|(out, value)| *out = R::of(value));
    }
    out
}

/// An array of a batch from its elements in order.
fn from_batch<T: Copy + Default, D: RemoveAxis, R: Real>(
    like: &ArrayView<'_, R, D>,
    axis: Axis,
    values: impl Iterator<Item = T>,
) -> Array<T, Batch<D>> {
    let mut out = Array::from_elem(like.raw_dim().remove_axis(axis), T::default());
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
    out
}

/// Refuses samples of another shape, and categories that do not exist.
fn check_samples<R: Real, D: RemoveAxis>(
    logits: &ArrayView<'_, R, D>,
    samples: &ArrayView<'_, usize, Batch<D>>,
) -> Result<Axis> {
    let (axis, batch) = last_axis(logits.shape())?;
    check_shape("sample", &batch, samples.shape())?;
    let categories = logits.len_of(axis);
    match samples.iter().find(|&&sample| sample >= categories) {
        Some(sample) => Err(invalid("sample", format!("below {categories}"), sample.to_string())),
        None => Ok(axis),
    }
}

/// Probabilities of logits: `exp(θ/τ)`, divided by its sum.
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
/// use eigenstep::zeroth_order::categorical::softmax;
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

/// The category that a uniform number `u` in `[0, 1)` falls on: the first whose cumulated probability
/// exceeds `u`.
///
/// Categories of probability 0 are never chosen. `None` if there is no category of positive
/// probability.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::categorical::sample_index;
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

/// Samples of `softmax(θ)`, from a uniform number for every row.
///
/// | argument | shape, range |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `uniforms` | batch, in `[0, 1)` |
///
/// # Errors
/// [`Error::ShapeMismatch`] names `uniforms`; [`Error::NonFinite`] if a row has no probabilities.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::categorical::sample;
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

/// The derivative of the log-probability of the sample, `D − π`: times `f(D)`, it is the gradient that
/// REINFORCE takes.
///
/// | argument | shape |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `sample` | batch; index of the category |
///
/// # Errors
/// [`Error::ShapeMismatch`] or [`Error::InvalidHyperparameter`] names `sample`.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::categorical::score;
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

/// The gradient of `E f(D)`, from the value of `f` at every category.
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
/// [`Error::ShapeMismatch`] names `values`.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::categorical::exact_gradient;
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

/// Straight-through: the gradient at the sample, sent through the derivative of the softmax.
///
/// ```text
/// J(π_τ)g/τ,  π_τ = softmax(θ/τ)
/// ```
/// At τ = 1 its mean over samples is the exact gradient for linear `f`, and for no other. The sample
/// enters through `upstream` alone.
///
/// | argument | shape, range |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `upstream` g | batch × K: ∂f/∂D at the sample |
/// | `tau` τ | finite, > 0; 1 is usual |
///
/// # Errors
/// [`Error::ShapeMismatch`] names `upstream`, [`Error::InvalidHyperparameter`] `tau`.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::categorical::straight_through;
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

/// ReinMax: a gradient of second order, right on average for every quadratic `f`.
///
/// ```text
/// π = softmax(θ),  π₁ = ½(softmax(θ/τ) + D)
/// 2·J(π₁)g − ½·J(π)g + J(π)g_π,  less its mean
/// ```
/// Samples are of `softmax(θ)`, at temperature 1. It is right on average at τ = 1; a larger one trades
/// that for less variance. There is no factor `1/τ`, other than in [`straight_through`].
///
/// | argument | shape, range |
/// |---|---|
/// | `logits` θ | batch × K |
/// | `sample` D | batch; index of the category |
/// | `upstream` g | batch × K: ∂f/∂D at the sample |
/// | `upstream_soft` g_π | batch × K: ∂f/∂π, if the probabilities are used, too |
/// | `tau` τ | finite, ≥ 1; 1 is usual |
///
/// # Errors
/// [`Error::ShapeMismatch`] or [`Error::InvalidHyperparameter`] names the argument.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::categorical::reinmax;
/// use ndarray::array;
///
/// // f(D) = D₁², of one sample each; the exact gradient at π = (½, ½) is (−¼, ¼)
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
