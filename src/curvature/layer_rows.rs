//! Rows of inputs and output gradients, as statistics take them.

use super::conv::unfold_into;
use super::layer_spec::{LayerKind, LayerSpec, WeightSharing};
use super::layer_stats::{Batch, LayerStats};
use crate::error::Result;
use crate::numeric::{Element, Real};
use ndarray::{Array2, ArrayView4, Axis};

/// Rows that are in memory at a time, if an example does not have more. A constant, so that sums over them
/// depend on shapes alone.
const CHUNK: usize = 4096;

/// What inputs, the ones of a bias among them, and output gradients are multiplied by.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowScales {
    pub inputs: f64,
    pub gradients: f64,
}

/// A row per sample of a few examples.
#[derive(Debug)]
pub(super) struct LayerRows<R> {
    /// Samples × inputs, with the column of a bias.
    pub inputs: Array2<R>,
    /// Samples × outputs.
    pub gradients: Array2<R>,
}

/// Calls `visit` for the rows of all examples, a few examples at a time and in order.
pub(super) fn for_each_chunk<T: Element>(
    spec: &LayerSpec,
    stats: &LayerStats<'_, T>,
    batch: &Batch,
    scales: RowScales,
    mut visit: impl FnMut(&LayerRows<T::Compute>) -> Result<()>,
) -> Result<()> {
    // a copy where the memory is not row-major
    let (x, y) = (stats.inputs.as_standard_layout(), stats.output_gradients.as_standard_layout());
    let (x, y) = (x.as_slice().unwrap_or_default(), y.as_slice().unwrap_or_default());
    let (x_unit, y_unit) = (x.len() / batch.all_units(), y.len() / batch.all_units());
    let image = stats.inputs.shape().get(1..).unwrap_or_default();
    let step = (CHUNK / batch.positions().max(1)).max(1);
    for start in (0..batch.examples).step_by(step) {
        let end = batch.examples.min(start + step);
        let part = |unit: usize| start * batch.units * unit..end * batch.units * unit;
        let x = x.get(part(x_unit)).unwrap_or_default();
        let y = y.get(part(y_unit)).unwrap_or_default();
        let rows = (end - start) * batch.positions();
        let mut chunk = LayerRows {
            inputs: inputs(spec, (x, image), batch, rows, scales.inputs),
            gradients: gradients(spec, y, batch, rows, scales.gradients),
        };
        if spec.sharing() == WeightSharing::Reduce && batch.positions() > 1 {
            let mean = T::Compute::of(1.0 / batch.positions() as f64);
            chunk.inputs = sums(&chunk.inputs, batch.positions());
            chunk.inputs.mapv_inplace(|x| mean * x);
            chunk.gradients = sums(&chunk.gradients, batch.positions());
        }
        visit(&chunk)?;
    }
    Ok(())
}

/// Sums of so many rows each.
fn sums<R: Real>(rows: &Array2<R>, each: usize) -> Array2<R> {
    let mut sums = Array2::zeros((rows.nrows() / each.max(1), rows.ncols()));
    let groups = rows.axis_chunks_iter(Axis(0), each.max(1));
    for (mut sum, group) in sums.rows_mut().into_iter().zip(groups) {
        for row in group.rows() {
            sum.zip_mut_with(&row, |sum, &x| *sum += x);
        }
    }
    sums
}

/// Rows of inputs, and the column of a bias behind them.
fn inputs<T: Element>(
    spec: &LayerSpec,
    (x, image): (&[T], &[usize]),
    batch: &Batch,
    rows: usize,
    scale: f64,
) -> Array2<T::Compute> {
    let (scale, columns) = (T::Compute::of(scale), spec.columns());
    let mut out = Array2::zeros((rows, spec.factor_orders().1));
    let (mut patches, mut ones) = out.view_mut().split_at(Axis(1), columns);
    ones.fill(scale);
    match (&spec.kind, image) {
        (LayerKind::Conv2d(conv), &[channels, height, width]) => {
            let images = x.len() / (channels * height * width).max(1);
            if let Ok(x) = ArrayView4::from_shape((images, channels, height, width), x) {
                unfold_into(x, conv, batch.output, &mut patches, |x| scale * x.load());
            }
        }
        _ => {
            let lines = x.chunks_exact(columns.max(1));
            for (mut out, line) in patches.rows_mut().into_iter().zip(lines) {
                out.iter_mut().zip(line).for_each(|(out, x)| *out = scale * x.load());
            }
        }
    }
    out
}

/// Rows of output gradients.
fn gradients<T: Element>(
    spec: &LayerSpec,
    y: &[T],
    batch: &Batch,
    rows: usize,
    scale: f64,
) -> Array2<T::Compute> {
    let (scale, outputs) = (T::Compute::of(scale), spec.outputs());
    let mut out = Array2::zeros((rows, outputs));
    let copy = |out: &mut T::Compute, y: &T| *out = scale * y.load();
    if let LayerKind::Conv2d(_) = spec.kind {
        let [height, width] = batch.output;
        let shape = (rows / batch.pixels().max(1), outputs, height, width);
        if let Ok(images) = ArrayView4::from_shape(shape, y) {
            let by_channel = images.permuted_axes([0, 2, 3, 1]);
            out.iter_mut().zip(&by_channel).for_each(|(out, y)| copy(out, y));
        }
    } else {
        out.iter_mut().zip(y).for_each(|(out, y)| copy(out, y));
    }
    out
}
