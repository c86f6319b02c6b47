//! An estimator and an optimizer with one call per step.

use super::estimate::Report;
use super::traits::Estimator;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::{IntoLoss, Optimizer};
use crate::params::Parameters;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// An estimator and an optimizer with one call per step.
///
/// The methods of the literature are pairs of the two:
///
/// | method | estimator | optimizer |
/// |---|---|---|
/// | MeZO, ZO-SGD | `Spsa` with Gaussian directions | `Sgd` |
/// | ZO-SGD-MMT | the same | `Sgd` with `momentum` |
/// | the same, without memory for momentum | `Spsa` with `ReplayedMomentum` | `Sgd` |
/// | ZO-Adam, ZO-AdamW | `Spsa` with Gaussian directions | `Adam`, `AdamW` |
/// | ZO-AdaMM | `Spsa`, `FiniteDifference::Forward`, `Random::Sphere` | `Adam { amsgrad: true, bias_correction: false, eps: 1e-12, .. }` |
/// | ZO-AdaMM within bounds | the same | `Projected` of that |
/// | ZO-SignSGD | `Spsa` | `SignSgd` |
/// | ZO-Bench's sign method | `Spsa` with `Slope::Sign` | `Sgd` |
/// | ZO-SGD-Cons | `Spsa` | none: [`step_conservatively`](crate::zeroth_order::SpsaEstimator::step_conservatively) |
/// | HiZOO, LOZO, LOZO-M, SubZero, Sparse-MeZO | `Spsa` with the sampler of that name | `Sgd` |
/// | evolution strategies | `Spsa::evolution` | any |
/// | DeepZero | `Coordinate` | `Sgd` with `momentum` |
/// | losses for some tensors, gradients for others | `Spsa` with [`set_active`](crate::zeroth_order::SpsaEstimator::set_active) | one optimizer, and two steps with it |
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
    /// Makes gradients from losses.
    pub estimator: E,
    /// Takes steps with these gradients.
    pub optimizer: O,
    element: PhantomData<fn() -> T>,
}

impl<T: Element, E: Estimator<T>, O: Optimizer<T>> ZerothOrder<T, E, O> {
    /// A pair of an estimator and an optimizer.
    pub fn new(estimator: E, optimizer: O) -> Self {
        Self { estimator, optimizer, element: PhantomData }
    }

    /// One step.
    ///
    /// # Errors
    /// Those of [`Estimator::estimate`] and of [`Optimizer::step`]. Parameters, estimator and optimizer are
    /// unchanged then, bit for bit: a step that failed has no part in the run.
    pub fn step<M, L>(&mut self, model: &mut M, loss: impl FnMut(&mut M) -> L) -> Result<&Report>
    where
        M: Parameters<T>,
        L: IntoLoss,
    {
        self.estimator.estimate(model, loss)?;
        self.apply(model)?;
        Ok(self.estimator.report())
    }

    /// Steps the optimizer with the last estimate, or takes the estimate back.
    pub(in crate::zeroth_order) fn apply(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        let Self { estimator, optimizer, .. } = self;
        let estimate = estimator.estimated();
        // after a panic of the optimizer, too
        let outcome = catch_unwind(AssertUnwindSafe(|| optimizer.step(params, &estimate)));
        drop(estimate);
        if !matches!(outcome, Ok(Ok(_))) {
            estimator.undo();
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(())
    }

    /// One step whose probes are evaluated on several threads; see [`Estimator::estimate_parallel`].
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
        self.estimator.estimate_parallel(model, workers, loss)?;
        self.apply(model)?;
        Ok(self.estimator.report())
    }
}
