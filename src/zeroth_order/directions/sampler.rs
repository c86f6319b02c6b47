//! The traits of directions, and what one step tells them.

use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::Real;
use crate::optim::{Layout, ReadVector};
use crate::state::{Lookup, Record, StateBytes};
use crate::zeroth_order::estimator::{Noise, Purpose, RngStream};
use std::fmt::Debug;

/// A law of directions, as it is configured.
///
/// An estimator perturbs by `ε·u` and multiplies the slope along `u` into `a·v`: `u` is
/// [`Directions::probe`], `v` is [`Directions::update`], which is `u` unless the law says otherwise,
/// and `a` is [`Directions::scale`]. The estimate is unbiased, up to curvature, if `a·E[v·uᵀ] = I`.
///
/// # Examples
/// Uniform numbers of variance 1, a law from outside the crate:
/// ```
/// use eigenstep::zeroth_order::{Directions, Estimator, DirectionSampler, Purpose, DirectionKey, Spsa};
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

    /// Directions before the first step.
    fn directions<R: Real>(&self) -> Self::Directions<R>;
}

/// One step's tensors and random numbers.
#[expect(missing_debug_implementations, reason = "a borrowed view that lives for one call")]
pub struct StepContext<'a, R> {
    /// Step, from 0.
    pub step: u64,
    /// Number of directions.
    pub queries: u32,
    /// The tensors.
    pub layout: &'a Layout,
    /// Their elements, unperturbed.
    pub parameters: &'a dyn ReadVector<R>,
    /// Where random numbers come from.
    pub noise: &'a dyn Noise<R>,
}

/// One tensor's part of one direction.
#[expect(missing_debug_implementations, reason = "a borrowed view that lives for one call")]
#[derive(Clone, Copy)]
pub struct DirectionKey<'a, R> {
    /// Where random numbers come from.
    pub noise: &'a dyn Noise<R>,
    /// Step, from 0.
    pub step: u64,
    /// Direction within the step.
    pub query: u32,
    /// Tensor, in the order of the tree.
    pub tensor: usize,
}

impl<R> DirectionKey<'_, R> {
    /// The row of random numbers for a purpose.
    pub fn stream(&self, purpose: Purpose) -> RngStream {
        // the number of tensors is checked before a step begins
        let tensor = u32::try_from(self.tensor).unwrap_or(u32::MAX);
        RngStream { step: self.step, query: self.query, tensor, purpose }
    }
}

/// What the evaluations of one step gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirectionalDerivatives {
    /// Perturbation size of each tensor.
    pub epsilons: Vec<f64>,
    /// `(f(p + εu) − f(p − εu))/2` or `f(p + εu) − f(p)` of every direction, over the number of directions
    /// that count; 0 for those that do not.
    pub differences: Vec<f64>,
    /// `f(p + εu) + f(p − εu) − 2f(p)` of every direction, over the same number; empty unless the law
    /// asks for the centre.
    pub second_differences: Vec<f64>,
    /// Whether differences are to be divided by the perturbation size: they are not if they are signs.
    pub divided: bool,
    /// Which tensors were probed; all if empty.
    pub active: Vec<bool>,
}

impl DirectionalDerivatives {
    /// Weight of a direction in the estimate of a tensor, the law's factor apart.
    pub fn weight(&self, tensor: usize, query: usize) -> f64 {
        let difference = self.differences.get(query).copied().unwrap_or(0.0);
        if self.divided { difference / self.epsilon(tensor) } else { difference }
    }

    /// Whether a tensor was probed: of others the differences say nothing.
    pub fn takes_part(&self, tensor: usize) -> bool {
        self.active.get(tensor).copied().unwrap_or(true)
    }

    /// Perturbation size of a tensor.
    pub fn epsilon(&self, tensor: usize) -> f64 {
        self.epsilons.get(tensor).copied().unwrap_or(1.0)
    }
}

/// Directions of one run; pieces of them are asked for on any thread, in any order, and repeatedly.
pub trait Directions<R: Real>: Debug + Send + Sync + 'static {
    /// Prepares the directions of a step.
    ///
    /// # Errors
    /// What the law cannot do with these tensors.
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// Writes the elements `offset .. offset + out.len()` of the direction that is probed.
    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]);

    /// The same of what enters the estimate.
    fn update(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.probe(key, offset, out);
    }

    /// The factor `a` of a tensor in the estimate.
    fn scale(&self, tensor: usize) -> f64 {
        let _ = tensor;
        1.0
    }

    /// Whether the loss at the unperturbed parameters is needed.
    fn needs_centre(&self) -> bool {
        false
    }

    /// Learns from the losses of the step; [`Directions::update`] is asked for afterwards.
    fn observe(&mut self, context: &StepContext<'_, R>, derivatives: &DirectionalDerivatives) {
        let _ = (context, derivatives);
    }

    /// Writes a piece of a tensor's estimate, the factor `a` apart, if that is not the weighted sum of
    /// the step's directions; else returns `false`. The query is the first one of the step.
    fn own_estimate(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) -> bool {
        let _ = (key, offset, out);
        false
    }

    /// A bound on the size of every element of [`Directions::update`], if one is known.
    fn bound(&self) -> Option<f64> {
        None
    }

    /// Adds the bytes held, slot by slot.
    fn count(&self, bytes: &mut StateBytes) {
        let _ = bytes;
    }

    /// Writes what cannot be drawn again.
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

/// Refuses a name that no tensor has.
pub(in crate::zeroth_order) fn check_names<'a>(
    mut names: impl Iterator<Item = &'a String>,
    layout: &Layout,
) -> Result<()> {
    match names.find(|name| !layout.segments().iter().any(|s| s.name == **name)) {
        Some(name) => Err(Error::MissingParameter { name: name.clone() }),
        None => Ok(()),
    }
}
