//! Clipping by the norms that earlier gradients had.

use super::clip::Clipped;
use super::norm::total_norm;
use crate::error::Result;
use crate::hyper::{Hyperparameters, Range};
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::params::{Gradients, Parameters};
use crate::state::{Scalar, StateDict, StateReader};

/// What a [`NormBound`] remembers of the norms it has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NormMemory {
    /// Norms in the order in which they came; as many as the rule keeps.
    pub norms: Vec<f64>,
    /// Running mean of the norms.
    pub mean: f64,
    /// Running variance of the norms.
    pub variance: f64,
    /// How many norms there were, those that are kept no more included.
    pub count: u64,
}

/// A rule for the largest norm of the next gradients, made of the norms so far.
///
/// [`AutoClip`](super::AutoClip) and [`ZClip`](super::ZClip) are such rules; [`HistoryClip`] keeps the memory.
///
/// # Examples
/// No norm more than twice the last one:
/// ```
/// use eigenstep::gradient::{NormBound, NormMemory};
/// use ndarray::array;
///
/// #[derive(Clone, Debug)]
/// struct Twice;
/// eigenstep::hyperparameters!(Twice, "Twice", {});
///
/// impl NormBound for Twice {
///     fn bound(&self, memory: &NormMemory, _: f64) -> f64 {
///         if memory.count == 0 { f64::INFINITY } else { 2.0 * memory.mean }
///     }
///     fn observe(&self, memory: &mut NormMemory, norm: f64) {
///         memory.mean = norm.min(self.bound(memory, norm));
///         memory.count += 1;
///     }
/// }
///
/// let mut clip = Twice.build()?;
/// assert_eq!(clip.clip(&array![3.0f32])?.factor(), 1.0);
/// assert!((clip.clip(&array![24.0f32])?.factor() - 0.25).abs() < 1e-6);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait NormBound: Hyperparameters {
    /// The largest norm for gradients of this norm, which is finite.
    fn bound(&self, memory: &NormMemory, norm: f64) -> f64;

    /// Takes the norm of gradients into the memory, after their bound was asked for.
    fn observe(&self, memory: &mut NormMemory, norm: f64);

    /// A clip that has seen nothing.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    fn build(self) -> Result<HistoryClip<Self>> {
        HistoryClip::new(self)
    }
}

/// Scales gradients down to a norm that follows from the norms of earlier ones.
///
/// *Use it when* norms change in the course of the training, so that no fixed limit fits, or when single batches
/// spike. *Not when* a fixed limit is known: [`clip_grad_norm`](super::clip_grad_norm) needs no state.
///
/// Every call of [`clip`](HistoryClip::clip) is one step of its memory, so call it once per step; or call
/// [`step`](HistoryClip::step), which forgets a step that failed. Norms that are not finite are not taken in.
/// Gradients that are not finite are refused by the update, unless its [`NonFinite`](crate::optim::NonFinite) policy says
/// otherwise; finite ones whose norm is beyond the range of `f64` become 0.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::{NormBound, ZClip}, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![0.0f32];
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let mut clip = ZClip { max_norm: None, warmup: 4, ..ZClip::default() }.build()?;
/// for g in [1.0, 1.2, 0.8, 1.0, 100.0] {
///     clip.step(&mut opt, &mut w, &array![g])?;
/// }
/// assert!((w[0] + 5.0).abs() < 0.05); // the spike counts as about 1
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryClip<C> {
    rule: C,
    memory: NormMemory,
}

impl<C: NormBound> HistoryClip<C> {
    /// A clip that has seen nothing.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is out of range.
    pub fn new(rule: C) -> Result<Self> {
        rule.validate()?;
        Ok(Self { rule, memory: NormMemory::default() })
    }

    /// The gradients, scaled down if their norm is larger than the rule allows, as a view.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`](crate::Error::LengthMismatch) for a buffer that does not fit its shape; the memory
    /// has not changed then.
    pub fn clip<'g, T: Element, G: Gradients<T> + ?Sized>(
        &mut self,
        grads: &'g G,
    ) -> Result<Clipped<'g, G>> {
        let clipped = self.clipped(grads)?;
        self.observe(clipped.norm());
        Ok(clipped)
    }

    fn clipped<'g, T: Element, G: Gradients<T> + ?Sized>(
        &self,
        grads: &'g G,
    ) -> Result<Clipped<'g, G>> {
        let norm = total_norm(grads, 2.0)?;
        // without a bound an infinite norm would give a factor that is no number
        let bound = if norm.is_finite() { self.rule.bound(&self.memory, norm) } else { 0.0 };
        Ok(Clipped::new(grads, bound.max(0.0), norm, true))
    }

    fn observe(&mut self, norm: f64) {
        if norm.is_finite() {
            self.rule.observe(&mut self.memory, norm);
        }
    }

    /// Steps the optimizer with the clipped gradients.
    ///
    /// # Errors
    /// Those of [`HistoryClip::clip`], and the optimizer's; the memory has not changed then.
    pub fn step<T: Element, O: Optimizer<T> + ?Sized>(
        &mut self,
        opt: &mut O,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<()> {
        let clipped = self.clipped(grads)?;
        opt.step(params, &clipped)?;
        self.observe(clipped.norm());
        Ok(())
    }

    /// The rule with its options.
    pub fn rule(&self) -> &C {
        &self.rule
    }

    /// What it remembers.
    pub fn memory(&self) -> &NormMemory {
        &self.memory
    }

    /// Options and memory.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new(C::NAME);
        let mut put = |key: &str, value| state.scalars.insert(key.to_owned(), value);
        // a copy: options are visited to be changed
        self.rule.clone().visit_options(&mut |option| {
            put(option.name, Scalar::Float(option.value.get()));
        });
        let memory = &self.memory;
        put("memory.mean", Scalar::Float(memory.mean));
        put("memory.variance", Scalar::Float(memory.variance));
        put("memory.count", Scalar::Int(memory.count as i64));
        put("memory.kept", Scalar::Int(memory.norms.len() as i64));
        for (i, norm) in memory.norms.iter().enumerate() {
            put(&format!("memory.norms.{i}"), Scalar::Float(*norm));
        }
        state
    }

    /// Goes on from a saved state, with its options.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the first key that does not fit; nothing has changed
    /// then.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let mut reader = StateReader::new(state, C::NAME)?;
        let (mut rule, mut outcome) = (self.rule.clone(), Ok(()));
        rule.visit_options(&mut |option| {
            if outcome.is_ok() {
                let read = reader.number(option.name, option.range);
                outcome = read.map(|value| option.value.set(value));
            }
        });
        outcome?;
        let mut memory = NormMemory {
            mean: reader.number("memory.mean", Range::NonNegative)?,
            variance: reader.number("memory.variance", Range::NonNegative)?,
            count: reader.count("memory.count")?,
            norms: Vec::new(),
        };
        for i in 0..reader.count("memory.kept")? {
            memory.norms.push(reader.number(&format!("memory.norms.{i}"), Range::NonNegative)?);
        }
        reader.finish()?;
        (self.rule, self.memory) = (rule, memory);
        Ok(())
    }
}
