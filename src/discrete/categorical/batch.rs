//! The rows of a batch of logits, and functions of one row.

use crate::error::{Error, Result, check_shape};
use crate::numeric::Real;
use ndarray::{Array, ArrayView, Axis, Dimension, RemoveAxis};

/// The dimensions of a batch: those of the logits without the last one.
pub(super) type Batch<D> = <D as Dimension>::Smaller;

pub(super) fn invalid(field: &'static str, expected: String, found: String) -> Error {
    Error::invalid("categorical", field, expected, found)
}

/// Refuses temperatures that are not finite, below `least`, or not positive.
pub(super) fn check_tau(tau: f64, least: f64) -> Result<()> {
    if tau.is_finite() && tau >= least && tau > 0.0 {
        return Ok(());
    }
    let expected =
        if least > 0.0 { format!("finite and >= {least}") } else { "finite and > 0".into() };
    Err(invalid("tau", expected, tau.to_string()))
}

/// The axis of the categories, and the shape of the batch.
pub(super) fn last_axis(shape: &[usize]) -> Result<(Axis, Vec<usize>)> {
    match shape.split_last() {
        Some((_, batch)) => Ok((Axis(batch.len()), batch.to_vec())),
        None => Err(invalid("logits", "an array with an axis of categories".into(), "none".into())),
    }
}

/// `softmax(x/τ)` of one row.
pub(super) fn softmax_row(x: impl Iterator<Item = f64> + Clone, tau: f64) -> Vec<f64> {
    let largest = x.clone().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = x.map(|x| ((x - largest) / tau).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// `J(p)g` of one row, times `factor`; 0 for a single category, whatever `g`.
pub(super) fn jacobian_row(p: &[f64], g: &[f64], factor: f64) -> Vec<f64> {
    if p.len() < 2 {
        return vec![0.0; p.len()];
    }
    let mean: f64 = p.iter().zip(g).map(|(p, g)| p * g).sum();
    p.iter().zip(g).map(|(p, g)| factor * (p * g - p * mean)).collect()
}

/// The rows of an array in order, as `f64`.
pub(super) fn rows<'a, R: Real, D: RemoveAxis>(
    array: &'a ArrayView<'_, R, D>,
    axis: Axis,
) -> impl Iterator<Item = Vec<f64>> + use<'a, R, D> {
    array.lanes(axis).into_iter().map(|row| row.iter().map(|x| x.widen()).collect())
}

/// An array of the shape of `like` from its rows.
pub(super) fn from_rows<R: Real, D: RemoveAxis>(
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
pub(super) fn from_batch<T: Copy + Default, D: RemoveAxis, R: Real>(
    like: &ArrayView<'_, R, D>,
    axis: Axis,
    values: impl Iterator<Item = T>,
) -> Array<T, Batch<D>> {
    let mut out = Array::from_elem(like.raw_dim().remove_axis(axis), T::default());
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
    out
}

/// Refuses samples of another shape, and categories that do not exist.
pub(super) fn check_samples<R: Real, D: RemoveAxis>(
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
