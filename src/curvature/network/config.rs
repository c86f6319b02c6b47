//! The options of the factors of a network.

use crate::curvature::kronecker_inverse::KroneckerInverse;
use crate::curvature::layer_factors::LayerFactors;
use crate::curvature::layer_rows::RowScales;
use crate::curvature::layer_stats::{Batch, LayerStats, LossReduction};
use crate::linalg::Damping;

/// K-FAC, AdaBK and EKFAC for a network: the gradients of registered layers, whitened by statistics of the
/// layers' inputs and output gradients, for any optimizer.
///
/// *Use it when* your program has both for every layer, in a backward pass of its own or in hooks. *Not
/// when* you have gradients alone: [`Shampoo`](crate::second_order::Shampoo) needs no more.
///
/// A layer is registered under the name of its weight ([`LayerSpec`](crate::curvature::LayerSpec)). In every
/// step the program shows what the layers saw ([`observe`](super::NetworkPreconditioner::observe), as often
/// as there are micro-batches), and [`precondition`](super::NetworkPreconditioner::precondition) returns a
/// view of the gradients in which those of registered layers are directions. All others are as they were.
/// ```text
/// observe         X: rows of inputs with a last 1 for the bias;  Y: rows of the gradients of each sample's loss
///                 Σ_L ← Σ_L + YᵀY,  Σ_R ← Σ_R + XᵀX,  rows ← rows + rows of X
/// precondition    every update_factors_every steps   L ← β·L + (1 − β)·Σ_L/rows,  R alike
///                 every update_roots_every steps     inverses of L and R           KroneckerInverse
///                 D_i = the direction of layer i for its gradient G_i, with the norm of G_i (keep_norm)
///                 ν = min(1, √(kl_clip / (lr²·|Σ_i ⟨D_i, G_i⟩|)))     1 without kl_clip, or if the sum is 0
///                 G_i ← ν·D_i
/// ```
/// [`LayerFactors`] has the equations of L, R and D. `needs_stats` says before a step whether statistics
/// will be read, so that a program need not keep inputs for steps that do not.
///
/// *Nothing happens at first* with the intervals of [`LayerFactors::kfac`]: statistics are due at step 200, the
/// first inverses at step 2000, and until then directions are the gradients. For shorter runs set
/// `update_factors_every` and `update_roots_every`, or `from_first_step`.
///
/// *A step of the optimizer that fails* behind `precondition` does not take back the step of the factors: it
/// has counted, and has used up what was observed. Nothing is lost by it: statistics are averages over
/// batches, and this batch is in them. To try the same step again, keep the view and give it to the optimizer
/// once more; do not call `precondition` again, which would be the next step and, where statistics are due,
/// fail for lack of them. To have the factors as they were, take a `clone` before.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `layer` | [`LayerFactors::kfac`] | options of every layer; groups have their own |
/// | `scale` | `PerExample` | papers; see [`StatisticScale`] |
/// | `kl_clip` | none | kfac-pytorch: 1e-3 |
/// | `lr` | 0.1 | kfac-pytorch; learning rate of the optimizer behind, which only `kl_clip` reads |
///
/// State: for each layer that of its [`LayerFactors`]. While a step observes statistics, also Σ_L and Σ_R,
/// 4(out² + in²) bytes per layer in `f32`, with `FactorStorage::Double` twice that; with `Ekfac` as many
/// as in `f32` again for both eigenbases, and 4·out·in for the sum along them. The view owns the
/// directions, 4 bytes per registered parameter.
///
/// # Errors
/// `build` refuses options out of range. The other errors are those of
/// [`NetworkPreconditioner`](super::NetworkPreconditioner)'s methods.
///
/// # Examples
/// ```
/// # use eigenstep::prelude::*;
/// # use ndarray::Array2;
/// # let wave = |size, seed: f64| Array2::from_shape_fn(size, |(i, j)| (seed * (3 * i + 5 * j) as f64).sin());
/// # let (x, targets) = (wave((32, 3), 1.7), wave((32, 2), 0.3));
/// # let mut losses = vec![];
/// let mut model = (wave((4, 3), 2.1), wave((2, 4), 1.3)); // two layers, named "0" and "1"
/// let layer = LayerFactors { update_factors_every: 1, update_roots_every: 5, ..LayerFactors::kfac() };
/// let mut kfac = NetworkFactors::new(layer)
///     .build()?
///     .with_layer(LayerSpec::linear("0", 4, 3))?
///     .with_layer(LayerSpec::linear("1", 2, 4))?;
/// let mut opt = Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() }.build()?;
/// for _ in 0..100 {
///     let hidden = x.dot(&model.0.t()).mapv(f64::tanh);
///     let dy = (hidden.dot(&model.1.t()) - &targets) / 32.0; // of the mean of ‖y − target‖²/2
///     let dh = dy.dot(&model.1) * hidden.mapv(|h| 1.0 - h * h);
///     kfac.observe(&LayerStats::new("0", &x, &dh, LossReduction::MeanOverExamples))?;
///     kfac.observe(&LayerStats::new("1", &hidden, &dy, LossReduction::MeanOverExamples))?;
///     let grads = (dh.t().dot(&x), dy.t().dot(&hidden));
///     opt.step(&mut model, &kfac.precondition(&grads)?)?;
/// #   losses.push(dy.mapv(|d| d * d).sum());
/// }
/// assert!(losses[99] < 0.5 * losses[0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// kfac-pytorch takes output gradients of the mean loss as they are, without the factor of the number of
/// examples, and divides rows of a convolution by the number of positions; [`StatisticScale::KfacPytorch`]
/// does the same, and [`NetworkFactors::kfac_pytorch`] has all of its options and their defaults. Its hooks
/// find layers by themselves, and it does not look for NaN. Embeddings and grouped convolutions cannot be
/// registered; their gradients pass through.
///
/// # Source
/// K-FAC: J. Martens, R. Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate
/// Curvature", ICML 2015; for convolutions: R. Grosse, J. Martens, "A Kronecker-factored approximate Fisher
/// matrix for convolution layers", ICML 2016. AdaBK: H. Yong, Y. Sun, L. Zhang, "A General Regret Bound of
/// Preconditioned Gradient Method for DNN Training", CVPR 2023. `kl_clip`: J. Ba, R. Grosse, J. Martens,
/// "Distributed Second-Order Optimization using Kronecker-Factored Approximations", ICLR 2017, as
/// kfac-pytorch (J. G. Pauloski and others, 2021) computes it.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, remote = "Self"))]
pub struct NetworkFactors {
    /// Options of the factors of every layer.
    pub layer: LayerFactors,
    /// What rows are multiplied by before statistics are taken.
    pub scale: StatisticScale,
    /// Bound of `lr²·Σ⟨D, G⟩`, twice the change of the model's predictions in Kullback-Leibler divergence.
    pub kl_clip: Option<f64>,
    /// Learning rate that `kl_clip` assumes, `>= 0`.
    pub lr: f64,
}
crate::config_file::named_fields!(NetworkFactors);

crate::hyperparameters!(NetworkFactors, "NetworkFactors", {
    "kl_clip": OptionalPositive = kl_clip;
    "lr": NonNegative = lr;
}, |network| {
    crate::hyper::Hyperparameters::validate(&network.layer)
});

/// What the rows of inputs and output gradients are multiplied by before statistics are taken of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StatisticScale {
    /// Output gradients by the number of samples of a mean loss, so that they are those of each sample's
    /// loss: L does not depend on the size of the batch.
    #[default]
    PerExample,
    /// Output gradients stay those of the mean loss; rows of a convolution, ones of the bias included, are
    /// divided by the number of positions of an image.
    KfacPytorch,
}

impl NetworkFactors {
    /// Options for all layers; no `kl_clip`.
    pub fn new(layer: LayerFactors) -> Self {
        Self { layer, scale: StatisticScale::default(), kl_clip: None, lr: 0.1 }
    }

    /// K-FAC with [`LayerFactors::kfac`] for all layers.
    pub fn kfac() -> Self {
        Self::new(LayerFactors::kfac())
    }

    /// AdaBK with [`LayerFactors::adabk`] for all layers.
    pub fn adabk() -> Self {
        Self::new(LayerFactors::adabk())
    }

    /// What kfac-pytorch computes with its default options: eigenvalue products damped by 0.001, averages
    /// that begin at I, everything renewed at every step, `kl_clip` 0.001 for a learning rate of 0.1.
    pub fn kfac_pytorch() -> Self {
        let layer = LayerFactors {
            inverse: KroneckerInverse::Joint,
            damping: Damping::absolute(1e-3),
            keep_norm: false,
            factor_beta: 0.95,
            bias_correction: false,
            initial: 1.0,
            update_factors_every: 1,
            update_roots_every: 1,
            from_first_step: true,
            ..LayerFactors::kfac()
        };
        Self { scale: StatisticScale::KfacPytorch, kl_clip: Some(1e-3), ..Self::new(layer) }
    }
}

impl StatisticScale {
    /// What the rows of a batch are multiplied by.
    pub(super) fn of<T>(self, stats: &LayerStats<'_, T>, batch: &Batch) -> RowScales {
        let unscaled = stats.loss_scale.recip();
        match self {
            Self::PerExample => {
                let samples = match stats.reduction {
                    LossReduction::MeanOverExamples => batch.examples as f64,
                    LossReduction::MeanOverRows => batch.rows() as f64,
                    LossReduction::Sum => 1.0,
                };
                RowScales { inputs: 1.0, gradients: samples * unscaled }
            }
            Self::KfacPytorch => {
                let share = 1.0 / batch.pixels() as f64;
                RowScales { inputs: share, gradients: share * unscaled }
            }
        }
    }
}
