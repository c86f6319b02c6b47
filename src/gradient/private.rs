//! Gradients of single examples, clipped and made noisy: DP-SGD.

use super::accumulate::Accumulator;
use super::clip::Clipped;
use super::noise::with_noise;
use super::norm::total_norm;
use super::transformed::Transformed;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::params::{Gradients, Scaled};

/// Options of [`PrivateGradients`].
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `max_norm` C | 1 | Opacus' examples; > 0, norm that the gradient of an example is clipped to |
/// | `noise_multiplier` σ | 1 | ours, Opacus has none; ≥ 0, standard deviation of the noise over C |
/// | `seed` | 0 | to be chosen at random, kept secret, and used for one run |
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct DpSgd {
    /// Norm that the gradient of an example is clipped to.
    pub max_norm: f64,
    /// Standard deviation of the noise on the sum, over `max_norm`.
    pub noise_multiplier: f64,
    /// Chooses the random numbers.
    pub seed: u64,
}
crate::config_file::named_fields!(DpSgd);

impl Default for DpSgd {
    fn default() -> Self {
        Self { max_norm: 1.0, noise_multiplier: 1.0, seed: 0 }
    }
}

crate::hyperparameters!(DpSgd, "DpSgd", {
    "max_norm": Positive = max_norm;
    "noise_multiplier": NonNegative = noise_multiplier;
    "seed": CountFrom(0) = seed;
});

/// Adds up gradients of single examples, each clipped, and shows their mean with noise: DP-SGD.
///
/// *Use it when* the trained weights must not tell whether any one example was in the data. *Not for* gradients of
/// whole batches: clipped as one, they say nothing about an example's influence.
///
/// ```text
/// sum ← Σ gᵢ·min(1, C/(‖gᵢ‖ + 1e-6))
/// g   = (sum + N(0, σ²C²))/B            B: the expected size of a batch
/// ```
/// The guarantee (ε, δ) follows from σ, from how batches are drawn, and from the number of steps; computing it is
/// an accountant's work, of which there is none here. For Poisson sampling, `B` is the size that is expected, not
/// the one that was drawn. Every element of the sum gets noise, so every trained parameter must have a gradient in
/// some example: what is absent in all of them stays absent, and that shows. A batch may be empty if the leaves are
/// known from an earlier one.
///
/// Random numbers are those of Philox, which is no cryptographic generator: whoever knows the seed can take the
/// noise away.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::{DpSgd, PrivateGradients}, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![0.0f32, 0.0];
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let mut private = PrivateGradients::new(DpSgd { noise_multiplier: 0.0, ..DpSgd::default() })?;
/// for example in [array![30.0f32, 40.0], array![0.0, 0.5]] {
///     private.add(&example)?; // clipped to (0.6, 0.8), and left alone
/// }
/// opt.step(&mut w, &private.mean(2.0)?.noisy()?)?;
/// private.next_step();
/// assert!((w[0] + 0.3).abs() < 1e-6 && (w[1] + 0.65).abs() < 1e-6);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang, "Deep Learning with
/// Differential Privacy", CCS 2016.
#[derive(Debug)]
pub struct PrivateGradients<T: Element> {
    config: DpSgd,
    sum: Accumulator<T>,
    step: u64,
}

impl<T: Element> PrivateGradients<T> {
    /// An empty sum, at step 0.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`].
    pub fn new(config: DpSgd) -> Result<Self> {
        Self::resume(config, 0)
    }

    /// An empty sum at this step, for runs that go on: noise that is used twice can be taken away.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`].
    pub fn resume(config: DpSgd, step: u64) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, sum: Accumulator::new(), step })
    }

    /// Clips the gradients of one example, and adds them.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for a norm that is not finite: leaving the example out is up to you. Those of
    /// [`Accumulator::add`]. Nothing has changed then.
    pub fn add<G: Gradients<T> + ?Sized>(&mut self, grads: &G) -> Result<()> {
        let norm = total_norm(grads, 2.0)?;
        if !norm.is_finite() {
            let what = "the norm of the gradients of an example";
            return Err(Error::NonFinite { what, value: norm });
        }
        self.sum.add(&Clipped::new(grads, self.config.max_norm, norm, true))
    }

    /// The mean of a batch of `expected` examples, and the noise that belongs to it.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for a size that is not positive.
    pub fn mean(&self, expected: f64) -> Result<PrivateMean<'_, T>> {
        if !(expected > 0.0 && expected.is_finite()) {
            let size = "finite and > 0";
            return Err(Error::invalid("PrivateGradients", "expected", size, expected));
        }
        let deviation = self.config.noise_multiplier * self.config.max_norm / expected;
        let mean = Scaled::new(1.0 / expected, &self.sum);
        Ok(PrivateMean { mean, deviation, seed: self.config.seed, step: self.step })
    }

    /// Number of examples added since the last step.
    pub fn count(&self) -> u64 {
        self.sum.count()
    }

    /// Number of the step: the noise depends on it. Save it with the model.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Empties the sum, for the next batch and its noise. Call it after the step.
    pub fn next_step(&mut self) {
        self.sum.reset();
        self.step = self.step.saturating_add(1);
    }
}

/// The mean of the clipped gradients of a batch; not private before [`PrivateMean::noisy`].
#[derive(Debug)]
pub struct PrivateMean<'s, T: Element> {
    mean: Scaled<'s, Accumulator<T>>,
    deviation: f64,
    seed: u64,
    step: u64,
}

impl<'s, T: Element> PrivateMean<'s, T> {
    /// The mean with its noise, as a view.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] for a buffer that does not fit its shape.
    pub fn noisy(&self) -> Result<Transformed<'_, T, Scaled<'s, Accumulator<T>>>> {
        with_noise(&self.mean, self.deviation, self.seed, self.step)
    }
}
