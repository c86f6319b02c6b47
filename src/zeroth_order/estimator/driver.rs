//! An estimator and an optimizer, one call per step.

use super::estimate::Report;
use super::traits::Estimator;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::{IntoLoss, Optimizer};
use crate::params::Parameters;
use std::marker::PhantomData;

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
/// | ZO-AdaMM | `Spsa`, `FiniteDifference::Forward`, `Random::Sphere` | `Adam { amsgrad: true, bias_correction: false, eps: 1e-12, .. }` |
/// | ZO-AdaMM within bounds | the same | `Projected` of that |
/// | ZO-SignSGD | `Spsa` | `SignSgd` |
/// | ZO-Bench's sign method | `Spsa` with `Slope::Sign` | `Sgd` |
/// | ZO-SGD-Cons | `Spsa` | none: [`step_conservatively`](crate::zeroth_order::SpsaEstimator::step_conservatively) |
/// | HiZOO, LOZO, LOZO-M, SubZero, Sparse-MeZO | `Spsa` with that law | `Sgd` |
/// | evolution strategies | `Spsa::evolution` | any |
/// | DeepZero | `Coordinate` | `Sgd` with `momentum` |
/// | hybrid of losses and gradients | `Spsa` with [`set_active`](crate::zeroth_order::SpsaEstimator::set_active) | one optimizer, two steps |
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
