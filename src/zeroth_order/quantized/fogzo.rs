//! Straight-through gradients that are corrected by losses.

use super::guided::{Guided, UnitNoise};
use super::straight_through::StraightThrough;
use crate::error::{Error, Result};
use crate::gradient::{materialize, total_norm};
use crate::hyper::Hyperparameters;
use crate::hyperparameters;
use crate::numeric::{Element, Real};
use crate::optim::{IntoLoss, NonFinite, Segment};
use crate::params::{Gradients, Parameters, Select};
use crate::zeroth_order::estimator::{Core, Estimate, Estimator};
use crate::zeroth_order::spsa::{Spsa, SpsaEstimator};
use ndarray::ArrayD;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// FOGZO: the straight-through gradient of rounded weights gives the direction, losses give the derivative
/// along it.
///
/// *Use it when* weights are rounded to 1 to 4 bits in the forward pass, and a better gradient is worth two
/// more evaluations per step. *Not when* there is no backward pass: then take [`Spsa`] with an `epsilon` of
/// about the spacing of the grid.
///
/// ```text
/// ĝ = G/‖G‖                                            over all tensors of G; 0 if ‖G‖ < 1e-12
/// v_i = √β·s_i·ĝ + √(1 − β)·u_i                        s_i = ±1; u_i: the noise that matches the estimator
/// c_i = (f(p + ε·v_i) − f(p − ε·v_i))/(2ε)             ε = α·ε̄
/// gradient = (1/n)·Σ c_i·v_i                           of the tensors in G; others are not estimated
/// ```
/// On a quadratic its mean is `β·ĝĝᵀ∇f + (1 − β)·∇f`. At β = 1 the gradient is ĝ times the derivative
/// along ĝ: it has the right length, and the right sign even where ĝ has the wrong one. Since `‖u‖` is
/// about `√d`, both parts are of similar size if `1 − β` is about `1/d`.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `alpha` α | 1; the spacing of the grid | – |
/// | `straight_through` | `Identity`: ε̄ = 1/(2√3) and uniform noise | paper |
/// | `num_samples` n | 1 | paper |
/// | `beta_min` | 0.999 | paper, for two layers; nearer to 1 for deep networks |
/// | `total_steps` | 1000; β falls linearly from 1 to `beta_min` over them | paper |
/// | `seed` | 0 | – |
///
/// Memory: a copy of the parameters, and G.
///
/// # Examples
/// A weight that is rounded to a grid of spacing 1 in the forward pass:
/// ```
/// use eigenstep::{prelude::*, zeroth_order::Fogzo};
/// use ndarray::Array1;
///
/// let target = Array1::from_shape_fn(200, |i| (i % 3) as f64 - 1.0);
/// let loss = |w: &Array1<f64>| (w.mapv(f64::round) - &target).mapv(|x| x * x).sum();
/// let mut w = Array1::from_shape_fn(200, |i| (i as f64 * 0.37) % 4.0 - 2.0);
/// let before = loss(&w);
/// let mut estimator = Fogzo { total_steps: 100, ..Fogzo::default() }.build::<f64>()?;
/// let mut opt = Sgd { lr: 0.05, ..Sgd::default() }.build()?;
/// for _ in 0..100 {
///     let straight_through = 2.0 * (w.mapv(f64::round) - &target);
///     let estimate = estimator.estimate(&mut w, &straight_through, |w| loss(w))?;
///     opt.step(&mut w, &estimate)?;
/// }
/// assert!(loss(&w) < 0.5 * before, "{before} -> {}", loss(&w));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// A. Yang, T. Aamodt, "Improving the Straight-Through Estimator with Zeroth-Order Information", NeurIPS
/// 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Fogzo {
    /// The spacing `α > 0` of the grid.
    pub alpha: f64,
    /// The straight-through estimator whose gradient is given.
    pub straight_through: StraightThrough,
    /// The number of directions per step, at least 1.
    pub num_samples: usize,
    /// The share `β` of the given direction at the last step, in `[0, 1]`.
    pub beta_min: f64,
    /// The number of steps after which β is `beta_min`.
    pub total_steps: u64,
    /// The seed of all random numbers.
    pub seed: u64,
    /// What happens to losses that are NaN or infinite.
    pub non_finite: NonFinite,
}
crate::config_file::named_fields!(Fogzo);

impl Default for Fogzo {
    fn default() -> Self {
        Self {
            alpha: 1.0,
            straight_through: StraightThrough::Identity,
            num_samples: 1,
            beta_min: 0.999,
            total_steps: 1000,
            seed: 0,
            non_finite: NonFinite::Error,
        }
    }
}

hyperparameters!(Fogzo, "Fogzo", {
    "alpha": Positive = alpha;
    "num_samples": Count(1, (1 << 24) - 1) = num_samples;
    "beta_min": Unit = beta_min;
    "total_steps": CountFrom(1) = total_steps;
});

impl Fogzo {
    /// The share of the given direction at a step, from 0: `1 + (beta_min − 1)·min(step/total_steps, 1)`.
    pub fn beta(&self, step: u64) -> f64 {
        let part = (step as f64 / self.total_steps.max(1) as f64).min(1.0);
        1.0 + (self.beta_min - 1.0) * part
    }

    /// The perturbation size `ε = α·ε̄`.
    pub fn epsilon(&self) -> f64 {
        self.alpha * self.straight_through.epsilon_bar()
    }

    /// An estimator for parameters of element type `T`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range;
    /// [`Error::UnsupportedElement`] for 16-bit parameters.
    pub fn build<T: Element>(self) -> Result<FogzoEstimator<T>> {
        self.validate()?;
        let noise = UnitNoise::Matched(self.straight_through);
        let spsa = Spsa {
            epsilon: self.epsilon(),
            num_samples: self.num_samples,
            seed: self.seed,
            non_finite: self.non_finite,
            ..Spsa::with_sampler(Guided { beta: 1.0, noise })
        };
        Ok(FogzoEstimator { inner: spsa.build()?, config: self })
    }
}

/// A given direction.
struct Guide<R> {
    /// Its share.
    beta: f64,
    /// The direction by tensor; empty where it is 0.
    directions: Vec<Vec<R>>,
    /// The names of the tensors that take part.
    names: Vec<String>,
}

/// The estimator that [`Fogzo`] builds.
#[derive(Debug)]
pub struct FogzoEstimator<T: Element> {
    config: Fogzo,
    inner: SpsaEstimator<T, Guided>,
}

impl<T: Element> FogzoEstimator<T> {
    /// Estimates the gradient of the tensors that have one in `straight_through`. The closure evaluates
    /// the loss with rounded weights.
    ///
    /// # Errors
    /// Refuses a gradient that is not finite or belongs to no parameter; those of
    /// [`Estimator::estimate`]. Everything is unchanged then.
    pub fn estimate<M, G, L>(
        &mut self,
        model: &mut M,
        straight_through: &G,
        loss: impl FnMut(&mut M) -> L,
    ) -> Result<Estimate<'_, T>>
    where
        M: Parameters<T>,
        G: Gradients<T> + ?Sized,
        L: IntoLoss,
    {
        let beta = self.config.beta(self.inner.steps());
        self.inner.estimate_guided(beta, model, straight_through, loss)
    }

    /// The inner estimator, which holds the state and the report.
    pub fn inner(&mut self) -> &mut SpsaEstimator<T, Guided> {
        &mut self.inner
    }
}

impl<T: Element> SpsaEstimator<T, Guided> {
    /// One step along random directions mixed with a given one, whose share is `beta`. [`Fogzo`] uses it.
    /// Tensors without a gradient in `given` are not perturbed.
    ///
    /// # Errors
    /// As [`FogzoEstimator::estimate`].
    pub fn estimate_guided<M, G, L>(
        &mut self,
        beta: f64,
        model: &mut M,
        given: &G,
        loss: impl FnMut(&mut M) -> L,
    ) -> Result<Estimate<'_, T>>
    where
        M: Parameters<T>,
        G: Gradients<T> + ?Sized,
        L: IntoLoss,
    {
        if !(0.0..=1.0).contains(&beta) {
            return Err(Guided::invalid("beta", "in [0, 1]", beta.to_string()));
        }
        let norm = total_norm(given, 2.0)?;
        if !norm.is_finite() {
            return Err(Error::NonFinite { what: "the norm of the given gradient", value: norm });
        }
        let given = materialize(given)?;
        let guide = Guide::of(self.layout_of(model)?.segments(), (beta, norm), given)?;
        // planned first: a step that is still asked for is cancelled before its directions are replaced
        self.cancel();
        let Guide { beta, directions, names } = guide;
        let named = move |name: &str, _: &[usize]| names.iter().any(|known| known == name);
        let active = self.replace_active(Some(Select::by("with a gradient", named)));
        let before = self.directions_mut().follow(beta, directions);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.estimate(model, loss).map(drop)));
        if !matches!(outcome, Ok(Ok(()))) {
            self.set_active(active);
            self.directions_mut().follow(before.0, before.1);
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(self.estimated())
    }
}

impl<R: Real> Guide<R> {
    /// The unit direction by tensor.
    fn of<T: Element<Compute = R>>(
        segments: &[Segment],
        (beta, norm): (f64, f64),
        mut given: BTreeMap<String, ArrayD<T>>,
    ) -> Result<Self> {
        let inverse = if norm < 1e-12 { 0.0 } else { 1.0 / norm };
        let mut guide = Guide { beta, directions: Vec::new(), names: Vec::new() };
        for segment in segments {
            let Some(gradient) = given.remove(&segment.name) else {
                guide.directions.push(Vec::new());
                continue;
            };
            if gradient.shape() != segment.shape {
                let (expected, found) = (segment.shape.clone(), gradient.shape().to_vec());
                return Err(Error::ShapeMismatch { name: segment.name.clone(), expected, found });
            }
            let unit = gradient.iter().map(|x| R::of(x.load().widen() * inverse));
            guide.directions.push(if inverse == 0.0 { Vec::new() } else { unit.collect() });
            guide.names.push(segment.name.clone());
        }
        match given.into_keys().next() {
            Some(name) => {
                let names = segments.iter().map(|segment| segment.name.as_str());
                Err(Error::unknown_gradient(&name, names))
            }
            None => Ok(guide),
        }
    }
}
