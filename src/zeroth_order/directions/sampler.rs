//! The traits of samplers and directions, and what a step passes to them.

use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::Real;
use crate::optim::{Layout, ReadVector};
use crate::state::{Lookup, Record, StateBytes};
use crate::zeroth_order::estimator::{Noise, Purpose, RngStream};
use std::fmt::Debug;

/// The configuration of random directions.
///
/// An estimator perturbs the parameters by `ε·u` and adds `a·c·v` to the estimate, where `c` is the
/// derivative along `u`. `u` is [`Directions::probe`], `a` is [`Directions::scale`], and `v` is
/// [`Directions::update`], which is `u` by default. The estimate is unbiased, up to curvature, if
/// `a·E[v·uᵀ] = I`.
///
/// # Examples
/// A sampler from outside the crate, with uniform numbers of variance 1:
/// ```
/// use eigenstep::zeroth_order::{DirectionKey, DirectionSampler, Directions, Estimator, Purpose, Spsa};
/// use eigenstep::{hyper::Hyper, hyper::Hyperparameters, numeric::Real};
/// use ndarray::array;
///
/// #[derive(Clone, Debug)]
/// struct Uniform;
///
/// impl Hyperparameters for Uniform {
///     const NAME: &'static str = "Uniform";
///     fn visit_options(&mut self, _: &mut dyn FnMut(Hyper<'_>)) {}
/// }
/// impl DirectionSampler for Uniform {
///     type Directions<R: Real> = Uniform;
///     fn directions<R: Real>(&self) -> Uniform {
///         Uniform
///     }
/// }
/// impl<R: Real> Directions<R> for Uniform {
///     fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
///         let mut numbers = vec![0.0; out.len()];
///         key.noise.uniform(&key.stream(Purpose::Direction), offset, &mut numbers);
///         for (x, u) in out.iter_mut().zip(numbers) {
///             *x = R::of(12f64.sqrt() * (u - 0.5));
///         }
///     }
/// }
///
/// let mut w = array![1.0f64, 2.0];
/// let mut estimator = Spsa { num_samples: 1000, ..Spsa::with_sampler(Uniform) }.build::<f64>()?;
/// let estimate = estimator.estimate(&mut w, |w| 3.0 * w[0])?;
/// let mut found = [0.0];
/// estimate.fill(0, 0, &mut found);
/// assert!((found[0] - 3.0).abs() < 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait DirectionSampler: Hyperparameters + 'static {
    /// The directions of one run.
    type Directions<R: Real>: Directions<R>;

    /// The directions before the first step.
    fn directions<R: Real>(&self) -> Self::Directions<R>;
}

/// The tensors and the random numbers of one step.
#[expect(missing_debug_implementations, reason = "a borrowed view that lives for one call")]
pub struct StepContext<'a, R> {
    /// The step, from 0.
    pub step: u64,
    /// The number of directions.
    pub queries: u32,
    /// The tensors.
    pub layout: &'a Layout,
    /// The elements of the tensors, unperturbed.
    pub parameters: &'a dyn ReadVector<R>,
    /// The source of random numbers.
    pub noise: &'a dyn Noise<R>,
}

/// The key of the random numbers for one tensor's part of one direction.
#[expect(missing_debug_implementations, reason = "a borrowed view that lives for one call")]
#[derive(Clone, Copy)]
pub struct DirectionKey<'a, R> {
    /// The source of random numbers.
    pub noise: &'a dyn Noise<R>,
    /// The step, from 0.
    pub step: u64,
    /// The direction within the step.
    pub query: u32,
    /// The tensor, in the order of the tree.
    pub tensor: usize,
}

impl<R> DirectionKey<'_, R> {
    /// The stream of random numbers for a purpose.
    pub fn stream(&self, purpose: Purpose) -> RngStream {
        // the number of tensors is checked before a step begins
        let tensor = u32::try_from(self.tensor).unwrap_or(u32::MAX);
        RngStream { step: self.step, query: self.query, tensor, purpose }
    }
}

/// The differences of losses that one step has found, from which directional derivatives follow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectionalDerivatives {
    /// The perturbation size of every tensor.
    pub epsilons: Vec<f64>,
    /// `(f(p + εu) − f(p − εu))/2` or `f(p + εu) − f(p)` of every direction, divided by the number of
    /// directions that count; 0 for directions that do not count.
    pub differences: Vec<f64>,
    /// `f(p + εu) + f(p − εu) − 2f(p)` of every direction, divided by the same number; empty unless
    /// [`Directions::needs_centre`].
    pub second_differences: Vec<f64>,
    /// Whether differences have to be divided by the perturbation size. Signs are not divided.
    pub divided: bool,
    /// Which tensors were perturbed; all if empty.
    pub active: Vec<bool>,
}

impl DirectionalDerivatives {
    /// The weight of a direction in the estimate of a tensor, without the factor [`Directions::scale`].
    pub fn weight(&self, tensor: usize, query: usize) -> f64 {
        let difference = self.differences.get(query).copied().unwrap_or(0.0);
        if self.divided { difference / self.epsilon(tensor) } else { difference }
    }

    /// Whether a tensor was perturbed. The differences say nothing about other tensors.
    pub fn takes_part(&self, tensor: usize) -> bool {
        self.active.get(tensor).copied().unwrap_or(true)
    }

    /// The perturbation size of a tensor.
    pub fn epsilon(&self, tensor: usize) -> f64 {
        self.epsilons.get(tensor).copied().unwrap_or(1.0)
    }
}

/// The directions of one run. Pieces of them are computed on any thread, in any order, and more than once.
pub trait Directions<R: Real>: Debug + Send + Sync + 'static {
    /// Prepares the directions of a step.
    ///
    /// # Errors
    /// What these directions cannot do with these tensors.
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// Writes the elements `offset .. offset + out.len()` of `u`, the direction of the perturbation. They are 0
    /// before; what is not written stays so.
    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]);

    /// Writes the same elements of `v`, the direction that enters the estimate.
    fn update(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.probe(key, offset, out);
    }

    /// The factor `a` of a tensor in the estimate.
    fn scale(&self, tensor: usize) -> f64 {
        let _ = tensor;
        1.0
    }

    /// Whether the directions need the loss at the unperturbed parameters.
    fn needs_centre(&self) -> bool {
        false
    }

    /// Learns from the losses of the step. [`Directions::update`] is called after that.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for something that would be remembered and is not finite.
    /// [`Directions::undo`] follows then.
    fn observe(
        &mut self,
        context: &StepContext<'_, R>,
        derivatives: &DirectionalDerivatives,
    ) -> Result<()> {
        let _ = (context, derivatives);
        Ok(())
    }

    /// Takes back what [`Directions::begin`] and [`Directions::observe`] of the last step have changed, as far
    /// as it is remembered from step to step: the step has failed. It can follow either of them, and is called
    /// at most once per step. A step that was the first is taken back by new directions instead.
    ///
    /// Directions that remember nothing have nothing to do here.
    fn undo(&mut self) {}

    /// Writes a piece of a tensor's estimate, without the factor `a`, and returns `true` if the estimate is
    /// not the weighted sum of the step's directions. Returns `false` otherwise. `key` is that of the
    /// first direction of the step.
    fn own_estimate(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) -> bool {
        let _ = (key, offset, out);
        false
    }

    /// Whether every element is written whatever is there before, so that none has to be set to 0 first.
    #[doc(hidden)]
    fn writes_all(&self) -> bool {
        false
    }

    /// A bound on the magnitude of every element of [`Directions::update`], if one is known.
    fn bound(&self) -> Option<f64> {
        None
    }

    /// Adds the bytes that are held, slot by slot.
    fn count(&self, bytes: &mut StateBytes) {
        let _ = bytes;
    }

    /// Writes what cannot be computed again from the seed.
    fn save(&self, record: &mut Record<'_>) {
        let _ = record;
    }

    /// Reads what [`Directions::save`] wrote.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load(&mut self, layout: &Layout, lookup: &Lookup<'_>) -> Result<()> {
        let _ = (layout, lookup);
        Ok(())
    }
}

/// Refuses names that no tensor has.
pub(in crate::zeroth_order) fn check_names<'a>(
    mut names: impl Iterator<Item = &'a String>,
    layout: &Layout,
) -> Result<()> {
    match names.find(|name| !layout.segments().iter().any(|s| s.name == **name)) {
        Some(name) => Err(Error::MissingParameter { name: name.clone() }),
        None => Ok(()),
    }
}
