//! Equal averages of weights.

use super::averaged::WeightAverage;

/// The equal average of all weights it is shown: stochastic weight averaging.
///
/// *Use it when* a training ends with a constant or cyclic learning rate, and its last weights, one per epoch,
/// lie around a better point than any of them: with [`SwaLr`](crate::schedule::SwaLr). *Not when* the average
/// has to be good from the beginning on: that is [`Ema`](super::Ema).
///
/// ```text
/// update number n, counted from 0; p: the weights, a: the average
/// a ← a + (p − a)/(n + 1)
/// ```
/// There are no options. State: `average`, 4 bytes per `f32`, `bf16` or `f16` parameter, 8 per `f64` one.
///
/// Statistics of batch normalisation are those of other weights: run the model over training data once before it
/// is used, which PyTorch calls `update_bn`.
///
/// # Errors
/// None of its own.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut swa = Swa.build()?;
/// for weight in [1.0f32, 2.0, 6.0] { // once per epoch
///     swa.update(&mut array![weight])?;
/// }
/// assert_eq!(swa.weights().values(), [3.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// PyTorch's `AveragedModel` with its default `avg_fn`, to a few units in the last place. A parameter that appears
/// later is averaged over the updates that it was there in.
///
/// # Source
/// P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson, "Averaging Weights Leads to Wider Optima and
/// Better Generalization", UAI 2018.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Swa;

crate::hyperparameters!(Swa, "Swa", {});

impl WeightAverage for Swa {
    fn weight(&self, n: u64, _: &mut f64) -> f64 {
        1.0 / (n as f64 + 1.0)
    }
}
