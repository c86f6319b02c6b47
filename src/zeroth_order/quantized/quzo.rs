//! Training of weights on a grid.

use super::format::Format;
use super::integer_format::IntegerFormat;
use super::normal::QuantizedNormal;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::hyperparameters;
use crate::kernel::scratch::with_scratch;
use crate::numeric::random::round_at_random;
use crate::numeric::{Element, Real};
use crate::optim::{IntoLoss, NonFinite};
use crate::params::Parameters;
use crate::zeroth_order::estimator::{Estimator, Noise, ParamSnapshot, Purpose, Report};
use crate::zeroth_order::spsa::{Spsa, SpsaEstimator};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// QuZO: training of weights of few bits by forward passes only, with perturbations and updates of few
/// bits.
///
/// *Use it when* a quantized model has to be fine-tuned on the device that runs it. *Not when* there is
/// memory for weights in full precision: then [`Spsa`] with any optimizer is better.
///
/// ```text
/// u, v: independent roundings of the same normal numbers, see QuantizedNormal
/// c_i = (f(w + ε·u_i) − f(w − ε·u_i))/(2ε)
/// integers: w ← w − Σ Δ·SR((γ·c_i/n)·v_i/Δ),  clamped to the range          Δ: scale of the tensor
/// 8-bit floating point: w ← SR(w − Σ(γ·c_i/n)·v_i)
/// ```
/// `SR` is stochastic rounding, whose mean is exact. Steps far below the spacing of the grid therefore have
/// their full effect on average, where rounding to the nearest number would ignore them.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-6 | MeZO, paper |
/// | `epsilon` ε | 1e-3; for weights of few bits about Δ | paper |
/// | `num_samples` n | 1 | paper |
/// | `weights` | `Format::INT8` | paper (INT8, INT4, FP8) |
/// | `directions` | 8 bits | – |
/// | `round_each_query` | false: the sum over directions is rounded once; true: the formula of the paper | – |
/// | `seed` | 0 | – |
/// | `non_finite` | `Error` | – |
///
/// The tree holds the weights as `f32` or `f64` numbers on the grid. [`QuzoOptimizer::quantize`] rounds
/// them to the grid and chooses the scales. Additional memory: one copy of the weights.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::{Format, Quzo};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, -0.6, 0.3];
/// let config = Quzo { lr: 0.02, epsilon: 0.1, weights: Format::INT8, ..Quzo::default() };
/// let mut opt = config.build::<f64>()?;
/// opt.quantize(&mut w)?;
/// for _ in 0..300 {
///     opt.step(&mut w, |w| (&*w * &*w).sum())?;
/// }
/// assert!((&w * &w).sum() < 0.05, "{w}");
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// J. Zhou, Y. Yang, K. Zhen, Z. Liu, Y. Zhao, E. Banijamali, A. Mouchtaris, N. Wong, Z. Zhang, "QuZO:
/// Quantized Zeroth-Order Fine-Tuning for Large Language Models", EMNLP 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Quzo {
    /// The learning rate, at least 0.
    pub lr: f64,
    /// The perturbation size, above 0.
    pub epsilon: f64,
    /// The number of directions per step, at least 1.
    pub num_samples: usize,
    /// The grid of the weights.
    pub weights: Format,
    /// The grid of the directions.
    pub directions: IntegerFormat,
    /// Whether the update of every direction is rounded separately.
    pub round_each_query: bool,
    /// The seed of all random numbers.
    pub seed: u64,
    /// What happens to losses that are NaN or infinite.
    pub non_finite: NonFinite,
}
crate::config_file::named_fields!(Quzo);

impl Default for Quzo {
    fn default() -> Self {
        Self {
            lr: 1e-6,
            epsilon: 1e-3,
            num_samples: 1,
            weights: Format::INT8,
            directions: QuantizedNormal::default().format,
            round_each_query: false,
            seed: 0,
            non_finite: NonFinite::Error,
        }
    }
}

hyperparameters!(Quzo, "Quzo", {
    "lr": NonNegative = lr;
    "epsilon": Positive = epsilon;
    "num_samples": Count(1, (1 << 24) - 1) = num_samples;
    "round_each_query": Flag = round_each_query;
}, |config| {
    config.weights.validate()?;
    config.directions.validate()
});

impl Quzo {
    /// An optimizer for parameters of element type `T`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range;
    /// [`Error::UnsupportedElement`] for 16-bit parameters.
    pub fn build<T: Element>(self) -> Result<QuzoOptimizer<T>> {
        self.validate()?;
        let spsa = Spsa {
            epsilon: self.epsilon,
            num_samples: self.num_samples,
            seed: self.seed,
            non_finite: self.non_finite,
            ..Spsa::with_sampler(QuantizedNormal { format: self.directions })
        };
        Ok(QuzoOptimizer { estimator: spsa.build()?, config: self, scales: BTreeMap::new() })
    }
}

/// The report of a step of [`Quzo`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuzoReport<'r> {
    /// The losses and coefficients of the step.
    pub report: &'r Report,
    /// The number of weights that reached an end of the grid, where the update is biased.
    pub saturated: usize,
}

/// The optimizer that [`Quzo`] builds.
#[derive(Debug)]
pub struct QuzoOptimizer<T: Element> {
    config: Quzo,
    estimator: SpsaEstimator<T, QuantizedNormal>,
    /// The scales, by name of the tensor.
    scales: BTreeMap<String, f64>,
}

impl<T: Element> QuzoOptimizer<T> {
    /// Sets the scales of some tensors, by name. The scale of any other tensor follows from its largest
    /// element.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless all are finite and above 0.
    pub fn with_scales(mut self, scales: BTreeMap<String, f64>) -> Result<Self> {
        if let Some((name, scale)) = scales.iter().find(|(_, s)| !(**s > 0.0 && s.is_finite())) {
            let found = format!("{scale} for `{name}`");
            return Err(Quzo::invalid("scales", "finite and > 0", found));
        }
        self.scales.extend(scales);
        Ok(self)
    }

    /// Replaces Philox by another source of random numbers, for tests that supply the numbers.
    pub fn with_noise(mut self, noise: impl Noise<T::Compute> + 'static) -> Self {
        self.estimator = self.estimator.with_noise(noise);
        self
    }

    /// The scales that are known so far, by name of the tensor.
    pub fn scales(&self) -> &BTreeMap<String, f64> {
        &self.scales
    }

    /// Changes the learning rate, from the next step on.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless it is finite and at least 0.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.config.set_option("lr", lr)
    }

    /// The estimator, which holds the state to save and load.
    pub fn estimator(&mut self) -> &mut SpsaEstimator<T, QuantizedNormal> {
        &mut self.estimator
    }

    /// Rounds every weight to the nearest number of the grid, and chooses the scales that are not set.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for a weight that is not finite. Nothing changes then.
    pub fn quantize(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        let mut snapshot = ParamSnapshot::<T>::new(Quzo::NAME)?;
        snapshot.read(Quzo::NAME, params, true)?;
        let mut scales = Vec::new();
        for segment in snapshot.layout.segments() {
            let values = snapshot.values().get(segment.offset..).unwrap_or_default();
            let values = values.get(..segment.numel()).unwrap_or_default();
            if let Some(x) = values.iter().find(|x| !x.widen().is_finite()) {
                return Err(Error::NonFinite { what: "a weight to quantize", value: x.widen() });
            }
            let known = self.scales.get(&segment.name).copied();
            scales.push(known.unwrap_or_else(|| self.config.weights.scale(values)));
        }
        let weights = self.config.weights;
        snapshot.write(Quzo::NAME, params, |tensor, _, before, out| {
            let scale = scales.get(tensor).copied().unwrap_or(0.0);
            for (x, before) in out.iter_mut().zip(before) {
                *x = T::Compute::of(weights.nearest(before.widen(), scale));
            }
        })?;
        let names = snapshot.layout.segments().iter().map(|segment| segment.name.clone());
        self.scales.extend(names.zip(scales));
        Ok(())
    }

    /// One step.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] if a tensor has no scale yet; those of the closure and of
    /// [`Estimator::estimate`]. Everything is unchanged then.
    pub fn step<M, V>(
        &mut self,
        model: &mut M,
        loss: impl FnMut(&mut M) -> V,
    ) -> Result<QuzoReport<'_>>
    where
        M: Parameters<T>,
        V: IntoLoss,
    {
        let scale = |name: &String| {
            let problem = "the weights have to be quantized first";
            self.scales.get(name).copied().ok_or(Error::OutOfOrder { what: "Quzo::step", problem })
        };
        let layout = self.estimator.layout_of(model)?;
        let segments = layout.segments().iter();
        let scales: Vec<f64> = segments.map(|s| scale(&s.name)).collect::<Result<_>>()?;
        let skipped = self.estimator.estimate(model, loss)?.report().skipped;
        let saturated = AtomicUsize::new(0);
        if !skipped {
            let written = self.estimator.rewrite(model, |tensor, offset, before, out| {
                let scale = scales.get(tensor).copied().unwrap_or(0.0);
                let count = self.update((tensor, scale), offset, before, out);
                saturated.fetch_add(count, Ordering::Relaxed);
            });
            if written.is_err() {
                // the closure has changed the tree
                self.estimator.undo();
            }
            written?;
        }
        Ok(QuzoReport { report: self.estimator.report(), saturated: saturated.into_inner() })
    }

    /// Writes the new weights of one piece. Returns how many reached an end of the grid.
    fn update(
        &self,
        (tensor, scale): (usize, f64),
        offset: usize,
        before: &[T::Compute],
        out: &mut [T::Compute],
    ) -> usize {
        out.copy_from_slice(before);
        if scale == 0.0 {
            return 0;
        }
        let Quzo { lr, num_samples, weights, round_each_query, .. } = self.config;
        // fewer than 2^24
        let queries = num_samples as u32;
        let len = out.len();
        with_scratch(3 * len, |scratch: &mut [f64]| {
            let (steps, rest) = scratch.split_at_mut(len);
            let (uniform, total) = rest.split_at_mut(len);
            steps.fill(0.0);
            total.fill(0.0);
            for query in 0..queries {
                with_scratch(len, |part: &mut [T::Compute]| {
                    self.estimator.contribution(tensor, query, offset, part);
                    for (step, part) in steps.iter_mut().zip(part) {
                        *step += lr * part.widen();
                    }
                });
                let rounds = round_each_query || query + 1 == queries;
                if !rounds {
                    continue;
                }
                let draw = if round_each_query { query } else { 0 };
                self.estimator.uniform(Purpose::UpdateRounding, (tensor, draw), offset, uniform);
                for ((total, step), u) in total.iter_mut().zip(steps.iter_mut()).zip(&*uniform) {
                    *total += match weights {
                        Format::Int(_) => round_at_random(*step / scale, *u),
                        _ => *step,
                    };
                    *step = 0.0;
                }
            }
            let mut saturated = 0;
            for ((x, step), u) in out.iter_mut().zip(&*total).zip(&*uniform) {
                let new = match weights {
                    Format::Int(_) => scale * ((x.widen() / scale).round_ties_even() - step),
                    _ => x.widen() - step,
                };
                saturated += usize::from(weights.saturates(new, scale));
                *x = T::Compute::of(match weights {
                    Format::Int(_) => weights.nearest(new, scale),
                    _ => weights.round(new, scale, *u),
                });
            }
            saturated
        })
    }
}
