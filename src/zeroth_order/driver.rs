//! An estimator and an optimizer, one call per step.

use super::conservative::Pick;
use super::coordinate_estimator::CoordinateEstimator;
use super::estimate::Report;
use super::estimator::Estimator;
use super::law::Law;
use super::space::{Space, Visit};
use super::spsa::Spsa;
use super::spsa_estimator::SpsaEstimator;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::optim::{IntoLoss, Optimizer};
use crate::params::{Parameters, Select};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// An estimator and an optimizer: one call per step.
///
/// The family's methods are pairs:
///
/// | method | estimator | optimizer |
/// |---|---|---|
/// | MeZO, ZO-SGD | `Spsa` with Gaussian directions | `Sgd` |
/// | ZO-SGD-MMT | the same | `Sgd` with `momentum` |
/// | the same, no memory for momentum | `Spsa` with `ReplayedMomentum` | `Sgd` |
/// | ZO-Adam, ZO-AdamW | the same | `Adam`, `AdamW` |
/// | ZO-AdaMM | `Spsa`, `Sides::Forward`, `Random::Sphere` | `Adam { amsgrad: true, bias_correction: false, eps: 1e-12, .. }` |
/// | ZO-AdaMM within bounds | the same | `Projected` of that |
/// | ZO-SignSGD | `Spsa` | `SignSgd` |
/// | ZO-Bench's sign method | `Spsa` with `Slope::Sign` | `Sgd` |
/// | ZO-SGD-Cons | `Spsa` | none: [`SpsaEstimator::step_conservatively`] |
/// | HiZOO, LOZO, LOZO-M, SubZero, Sparse-MeZO | `Spsa` with that law | `Sgd` |
/// | evolution strategies | `Spsa::evolution` | any |
/// | DeepZero | `Coordinate` | `Sgd` with `momentum` |
/// | hybrid of losses and gradients | `Spsa` with [`set_active`](SpsaEstimator::set_active) | one optimizer, two steps |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Spsa, ZerothOrder}};
/// use ndarray::array;
///
/// let mut w = array![1.0f32, -1.0];
/// let optimizer = Sgd { lr: 0.02, ..Sgd::default() }.build()?;
/// let mut mezo = ZerothOrder::new(Spsa::default().build::<f32>()?, optimizer);
/// for _ in 0..200 {
///     let report = mezo.step(&mut w, |w| w.mapv(|x| x * x).sum())?;
///     assert_eq!(report.evaluations(), 2);
/// }
/// assert!(w.iter().all(|x| x.abs() < 0.1), "{w}");
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Debug)]
pub struct ZerothOrder<T, E, O> {
    /// Makes gradients of losses.
    pub estimator: E,
    /// Makes steps of gradients.
    pub optimizer: O,
    element: PhantomData<fn() -> T>,
}

impl<T: Element, E: Estimator<T>, O: Optimizer<T>> ZerothOrder<T, E, O> {
    /// A pair.
    pub fn new(estimator: E, optimizer: O) -> Self {
        Self { estimator, optimizer, element: PhantomData }
    }

    /// One step.
    ///
    /// # Errors
    /// Those of [`Estimator::estimate`] and of [`Optimizer::step`]. Parameters are as before then, bit for
    /// bit.
    pub fn step<M, L>(&mut self, model: &mut M, loss: impl FnMut(&mut M) -> L) -> Result<&Report>
    where
        M: Parameters<T>,
        L: IntoLoss,
    {
        let estimate = self.estimator.estimate(model, loss)?;
        self.optimizer.step(model, &estimate)?;
        Ok(estimate.report())
    }

    /// One step whose probes are evaluated by several threads; see [`Estimator::estimate_parallel`].
    ///
    /// # Errors
    /// As [`ZerothOrder::step`].
    pub fn step_parallel<M, L>(
        &mut self,
        model: &mut M,
        workers: &mut [M],
        loss: impl Fn(&M) -> L + Sync,
    ) -> Result<&Report>
    where
        M: Parameters<T> + Clone + Send + Sync,
        L: IntoLoss,
    {
        let estimate = self.estimator.estimate_parallel(model, workers, loss)?;
        self.optimizer.step(model, &estimate)?;
        Ok(estimate.report())
    }
}

impl<T: Element, O: Optimizer<T>> ZerothOrder<T, CoordinateEstimator<T>, O> {
    /// One step that leaves coordinates outside the active set as they are, bit for bit: momentum and
    /// weight decay of the optimizer do not move them. Takes a copy of the parameters.
    ///
    /// # Errors
    /// As [`ZerothOrder::step`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::{prelude::*, zeroth_order::{ActiveSet, Coordinate, ZerothOrder}};
    /// use ndarray::array;
    ///
    /// let optimizer = Sgd { lr: 0.1, weight_decay: 0.5, ..Sgd::default() }.build()?;
    /// let mut pair = ZerothOrder::new(Coordinate::default().build::<f64>()?, optimizer);
    /// pair.estimator.set_active(ActiveSet::Indices([("param".into(), vec![1])].into()))?;
    /// let mut w = array![1.0, 1.0];
    /// pair.step_frozen(&mut w, |w| w[0] + w[1])?;
    /// assert!(w[0] == 1.0 && w[1] < 0.9);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn step_frozen<M, V>(
        &mut self,
        model: &mut M,
        loss: impl FnMut(&mut M) -> V,
    ) -> Result<&Report>
    where
        M: Parameters<T>,
        V: IntoLoss,
    {
        let name = self.estimator.name();
        let (mut space, mut visit) = (Space::<T>::new(name)?, Visit::default());
        space.read(name, &mut visit, model, true)?;
        let estimate = self.estimator.estimate(model, loss)?;
        self.optimizer.step(model, &estimate)?;
        drop(estimate);
        let mut moved = Vec::new();
        let active = self.estimator.active();
        space.each(name, &mut visit, model, active, |_, x| moved.push(*x))?;
        space.restore(name, &mut visit, model)?;
        space.each(name, &mut visit, model, active, |number, x| {
            *x = moved.get(number).copied().unwrap_or(*x);
        })?;
        Ok(self.estimator.report())
    }
}

impl<T: Element, L: Law, O: Optimizer<T>> ZerothOrder<T, SpsaEstimator<T, L>, O> {
    /// One step block by block: each is probed and updated before the next, with the directions that it
    /// would have in a step of all. `2q` evaluations per block.
    ///
    /// # Errors
    /// As [`ZerothOrder::step`]; the blocks before the one that failed have been updated, and the step is
    /// not over.
    ///
    /// # Source
    /// Y. Zhang et al., "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A
    /// Benchmark", 2024.
    pub fn step_blockwise<M, V>(
        &mut self,
        model: &mut M,
        blocks: &[Select],
        mut loss: impl FnMut(&mut M) -> V,
    ) -> Result<&Report>
    where
        M: Parameters<T>,
        V: IntoLoss,
    {
        let step = self.estimator.steps();
        for block in blocks {
            self.estimator.set_step(step)?;
            self.estimator.set_active(Some(block.clone()));
            // a closure that panics leaves no block chosen
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let estimate = self.estimator.estimate(model, &mut loss)?;
                self.optimizer.step(model, &estimate)
            }));
            self.estimator.set_active(None);
            if !matches!(outcome, Ok(Ok(()))) {
                self.estimator.set_step(step)?;
            }
            outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        Ok(self.estimator.report())
    }
}

impl<T: Element, L: Law> SpsaEstimator<T, L> {
    /// One step of plain descent that is taken only if it helps: of `p − γĝ`, `p + γĝ` and `p` the one
    /// with the least loss, in this order where they are equal. `2q + 3` evaluations.
    ///
    /// The loss on this step's data never rises.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) unless `lr` is finite and at
    /// least 0; those of [`Estimator::estimate`], and of the closure: parameters are as before then. If it
    /// is one of the last three evaluations that fails, the step is over.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Pick, Spsa};
    /// use ndarray::array;
    ///
    /// let mut w = array![1.0f64];
    /// let mut estimator = Spsa::default().build::<f64>()?;
    /// let far = estimator.step_conservatively(10.0, &mut w, |w| w[0] * w[0])?;
    /// assert_eq!((far, w[0]), (Pick::Stay, 1.0));
    /// let near = estimator.step_conservatively(0.1, &mut w, |w| w[0] * w[0])?;
    /// assert!(near == Pick::Down && (w[0] - 0.8).abs() < 1e-9);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    ///
    /// # Source
    /// Y. Zhang et al., "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A
    /// Benchmark", 2024; its code prefers `p + γĝ` where losses are equal.
    pub fn step_conservatively<M, V>(
        &mut self,
        lr: f64,
        model: &mut M,
        mut loss: impl FnMut(&mut M) -> V,
    ) -> Result<Pick>
    where
        M: Parameters<T>,
        V: IntoLoss,
    {
        if !(lr >= 0.0 && lr.is_finite()) {
            return Err(Spsa::<L>::invalid("lr", "finite and >= 0", lr.to_string()));
        }
        let estimate = self.estimate(model, &mut loss)?;
        super::conservative::pick(&estimate, lr, model, &mut loss)
    }
}
