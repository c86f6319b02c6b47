//! Inputs and output gradients of a layer, as a program hands them over.

use super::layer_spec::{LayerKind, LayerSpec};
use crate::error::{Error, Result, check_shape};
use crate::numeric::Element;
use ndarray::{ArrayRef, ArrayViewD, Dimension};

/// What the loss is that output gradients belong to.
///
/// Statistics are made of the gradients of each *sample's* loss. A backward pass has the gradients of one
/// loss of the batch, which for a mean are smaller by the number of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReduction {
    /// The mean over the examples of the batch; a sequence or an image is one example.
    MeanOverExamples,
    /// The mean over all rows: over the tokens of all sequences, as losses of language models are.
    MeanOverRows,
    /// The sum.
    Sum,
}

/// The inputs of a layer in one batch, and the gradients of the loss at its outputs: both borrowed.
///
/// The last dimension of a linear layer's arrays is the feature, the first the example, and whatever lies
/// between are positions: batch × in, or batch × sequence × in. Arrays whose rows were made flat state
/// their number of [`examples`](Self::examples). A convolution's arrays have four dimensions. There is no
/// column of ones for a bias.
///
/// # Examples
/// ```
/// use eigenstep::curvature::{LayerStats, LossReduction};
/// use ndarray::Array2;
///
/// let (x, y) = (Array2::<f32>::zeros((12, 8)), Array2::<f32>::zeros((12, 5)));
/// // four sequences of three tokens; the loss was scaled before the backward pass
/// let stats = LayerStats::new("fc.weight", &x, &y, LossReduction::MeanOverExamples)
///     .examples(4)
///     .loss_scale(1024.0);
/// assert_eq!(stats.layer(), "fc.weight");
/// ```
#[derive(Clone, Debug)]
pub struct LayerStats<'a, T> {
    layer: &'a str,
    pub(super) inputs: ArrayViewD<'a, T>,
    pub(super) output_gradients: ArrayViewD<'a, T>,
    pub(super) reduction: LossReduction,
    examples: Option<usize>,
    pub(super) loss_scale: f64,
}

impl<'a, T> LayerStats<'a, T> {
    /// Statistics of the layer whose weight is called `layer`.
    pub fn new<D: Dimension, E: Dimension>(
        layer: &'a str,
        inputs: &'a ArrayRef<T, D>,
        output_gradients: &'a ArrayRef<T, E>,
        reduction: LossReduction,
    ) -> Self {
        let (inputs, output_gradients) =
            (inputs.view().into_dyn(), output_gradients.view().into_dyn());
        Self { layer, inputs, output_gradients, reduction, examples: None, loss_scale: 1.0 }
    }

    /// The number of examples, if it is not the length of the first dimension. An example's rows are
    /// consecutive.
    pub fn examples(self, examples: usize) -> Self {
        Self { examples: Some(examples), ..self }
    }

    /// What the loss was multiplied by before the backward pass: the factor of a
    /// [`GradScaler`](crate::gradient::GradScaler), or `1/k` where each of k micro-batches brings its share
    /// of a mean. Output gradients are divided by it.
    pub fn loss_scale(self, loss_scale: f64) -> Self {
        Self { loss_scale, ..self }
    }

    /// Name of the layer's weight.
    pub fn layer(&self) -> &'a str {
        self.layer
    }
}

/// Sizes of a batch that were checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub examples: usize,
    /// Images, or rows of a linear layer, of each example.
    pub units: usize,
    /// Height and width of a convolution's output; 1 × 1 for other layers.
    pub output: [usize; 2],
}

impl Batch {
    /// Rows of each example.
    pub fn positions(&self) -> usize {
        self.units * self.pixels()
    }

    /// Units of all examples, at least one.
    pub fn all_units(&self) -> usize {
        self.examples * self.units
    }

    /// Rows of all examples.
    pub fn rows(&self) -> usize {
        self.examples * self.positions()
    }

    /// Positions of an image.
    pub fn pixels(&self) -> usize {
        self.output.iter().product()
    }
}

impl<T: Element> LayerStats<'_, T> {
    /// Checks the shapes against those of the layer.
    pub(super) fn check(&self, spec: &LayerSpec) -> Result<Batch> {
        let (inputs, gradients) = (self.inputs.shape(), self.output_gradients.shape());
        let check = |what: &str, expected: &[usize], found: &[usize]| {
            check_shape(&format!("{}, {what}", self.layer), expected, found)
        };
        let (units, output) = match &spec.kind {
            LayerKind::Linear { .. } => {
                let leading = match inputs.split_last() {
                    Some((_, leading)) if !leading.is_empty() => leading,
                    _ => &[1],
                };
                check("inputs", &[leading, &[spec.inputs()]].concat(), inputs)?;
                check("output gradients", &[leading, &[spec.outputs()]].concat(), gradients)?;
                (leading.iter().product(), [1, 1])
            }
            LayerKind::Conv2d(conv) => {
                let size = |axis: usize| inputs.get(axis).copied().unwrap_or(1);
                let (images, height, width) = (size(0), size(2), size(3));
                check("inputs", &[images, spec.inputs(), height, width], inputs)?;
                let output = conv.checked_output([height, width])?;
                let [rows, columns] = output;
                check("output gradients", &[images, spec.outputs(), rows, columns], gradients)?;
                (images, output)
            }
        };
        if !self.loss_scale.is_finite() || self.loss_scale == 0.0 {
            let found = self.loss_scale;
            return Err(Error::invalid("LayerStats", "loss_scale", "finite and not 0", found));
        }
        if units == 0 {
            let expected = "a row per sample, at least one";
            return Err(Error::invalid("LayerStats", "inputs", expected, "none"));
        }
        let examples = self.examples.or(inputs.first().copied()).unwrap_or(0);
        if examples == 0 || units % examples != 0 {
            let expected = format!("a divisor of the number of rows or images, {units}");
            return Err(Error::invalid("LayerStats", "examples", expected, examples));
        }
        Ok(Batch { examples, units: units / examples, output })
    }
}
