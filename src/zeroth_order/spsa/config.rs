//! How estimates along random directions are configured.

use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::optim::NonFinite;
use crate::zeroth_order::directions::{DirectionSampler, Random};
use crate::zeroth_order::estimator::{FiniteDifference, FitnessShaping};

/// What an estimate uses of the derivative along a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Slope {
    /// Its value.
    #[default]
    Value,
    /// Its sign. With one direction of random signs, the estimate has the same signs as with `Value`.
    Sign,
}

/// Estimates along random directions: simultaneous perturbation, MeZO, evolution strategies.
///
/// *Use it when* there are only losses, or not enough memory for a backward pass. *Not when* a backward
/// pass is affordable: the relative error of an estimate is about `√(d/q)` for d parameters.
/// [`Coordinate`](crate::zeroth_order::Coordinate) does not have this error, and suits few parameters.
///
/// ```text
/// central:   c_i = (f(p + ε·u_i) − f(p − ε·u_i))/(2ε)            2q evaluations
/// forward:   c_i = (f(p + ε·u_i) − f(p))/ε                       q + 1 evaluations
/// ĝ = (1/q)·Σ a·c_i·v_i                                           u, v, a: of the sampler
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `epsilon` ε | 1e-3; 1e-5 is better for losses in `f64` | MeZO |
/// | `num_samples` q | 1 | MeZO |
/// | `difference` | `Central` | MeZO |
/// | `sampler` | `Random::Rademacher` | – (MeZO: `Gaussian`) |
/// | `shaping` | `None` | – (evolution strategies: `CenteredRank`) |
/// | `slope` | `Value` | – (ZO-Bench's sign method: `Sign`) |
/// | `clip` | ∞; a bound on the magnitude of every c_i | – |
/// | `seed` | 0 | – |
/// | `non_finite` | `Error`; `Skip` leaves such a direction out, `Propagate` does not check | – |
///
/// `‖ĝ‖` is about `√d·‖g‖`. Learning rates are therefore about 1/d times those for true gradients: MeZO
/// takes 1e-6 for whole language models. For the same reason, clipping `ĝ` to a norm that suits true
/// gradients leaves almost nothing of it; use `clip` instead. Losses are converted to `f64`.
///
/// Memory: one copy of the parameters, from which they are restored bit for bit, and the memory of the
/// sampler.
///
/// # Errors
/// `build` refuses options out of range, 2^24 directions or more, `Forward` with a sampler that needs the
/// loss at the unperturbed parameters, and 16-bit parameters.
///
/// # Examples
/// MeZO with 8-bit AdamW:
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, Spsa}};
/// use ndarray::Array1;
///
/// let mut w = Array1::<f32>::ones(50);
/// let mut estimator = Spsa { num_samples: 8, ..Spsa::default() }.build::<f32>()?;
/// let mut opt = AdamW { lr: 0.02, ..AdamW::default() }.build()?
///     .with_state_precision(Precision::INT8_LINEAR)?;
/// for _ in 0..500 {
///     let estimate = estimator.estimate(&mut w, |w| w.mapv(|x| x * x).sum())?;
///     opt.step(&mut w, &estimate)?;
/// }
/// assert!(w.mapv(|x| x * x).sum() < 5.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// J. C. Spall, "Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
/// Approximation", 1992; S. Malladi, T. Gao, E. Nichani, A. Damian, J. D. Lee, D. Chen, S. Arora,
/// "Fine-Tuning Language Models with Just Forward Passes", 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "Spsa::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "S: Default + serde::Deserialize<'de>")))]
pub struct Spsa<S = Random> {
    /// The perturbation size, above 0.
    pub epsilon: f64,
    /// The number of directions per step, at least 1 and below 2^24.
    pub num_samples: usize,
    /// Where the loss is evaluated.
    pub difference: FiniteDifference,
    /// The sampler of the directions.
    pub sampler: S,
    /// The weights that are used in place of the losses.
    pub shaping: FitnessShaping,
    /// What is used of the derivatives.
    pub slope: Slope,
    /// The largest magnitude of a derivative, above 0.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub clip: f64,
    /// The seed of all random numbers.
    pub seed: u64,
    /// What happens to losses that are NaN or infinite.
    pub non_finite: NonFinite,
}
crate::config_file::named_fields!(Spsa<S>, S);

impl<S: Default> Spsa<S> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        Self::with_sampler(S::default())
    }
}

impl Default for Spsa {
    fn default() -> Self {
        Self::with_sampler(Random::default())
    }
}

impl Spsa {
    /// Evolution strategies: `pairs` antithetic pairs of Gaussian perturbations with standard deviation
    /// `sigma`, and ranks in place of the losses.
    pub fn evolution(pairs: usize, sigma: f64) -> Self {
        let shaping = FitnessShaping::CenteredRank;
        Self { epsilon: sigma, num_samples: pairs, shaping, ..Self::with_sampler(Random::Gaussian) }
    }
}

impl<S> Spsa<S> {
    /// The defaults with another sampler.
    pub fn with_sampler(sampler: S) -> Self {
        Self {
            epsilon: 1e-3,
            num_samples: 1,
            difference: FiniteDifference::Central,
            sampler,
            shaping: FitnessShaping::None,
            slope: Slope::Value,
            clip: f64::INFINITY,
            seed: 0,
            non_finite: NonFinite::Error,
        }
    }
}

impl<S: DirectionSampler> Hyperparameters for Spsa<S> {
    const NAME: &'static str = "Spsa";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        visitor(Hyper { name: "epsilon", range: Range::Positive, value: &mut self.epsilon });
        let range = Range::CountFrom(1);
        visitor(Hyper { name: "num_samples", range, value: &mut self.num_samples });
        self.sampler.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.sampler.validate_together()?;
        let invalid =
            |field, expected: &str, found: String| Err(Self::invalid(field, expected, found));
        if self.num_samples >> 24 != 0 {
            return invalid("num_samples", "below 2^24", self.num_samples.to_string());
        }
        if self.clip.is_nan() || self.clip <= 0.0 {
            return invalid("clip", "above 0", self.clip.to_string());
        }
        if self.shaping != FitnessShaping::None && self.difference == FiniteDifference::Forward {
            return invalid("difference", "`Central` with ranks", "Forward".into());
        }
        Ok(())
    }
}
