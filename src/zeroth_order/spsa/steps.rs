//! Other forms of a step: block by block, or only if it lowers the loss.

use super::config::Spsa;
use super::estimator::SpsaEstimator;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::optim::{IntoLoss, Optimizer};
use crate::params::{Parameters, Select};
use crate::zeroth_order::directions::DirectionSampler;
use crate::zeroth_order::estimator::{
    ConservativeChoice, Core, Estimator, Report, ZerothOrder, choose,
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl<T: Element, S: DirectionSampler, O: Optimizer<T>> ZerothOrder<T, SpsaEstimator<T, S>, O> {
    /// One step block by block: every block is perturbed and updated before the next one. Its directions
    /// are those of a step over all tensors. A block takes `2q` evaluations.
    ///
    /// # Errors
    /// As [`ZerothOrder::step`]. Blocks before the one that failed have been updated then, that block and those
    /// after it have not, and the step has not ended.
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
            let active = self.estimator.replace_active(Some(block.clone()));
            // after a panic, too, the restriction to the block is removed
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                self.estimator.estimate(model, &mut loss)?;
                self.apply(model)
            }));
            self.estimator.set_active(active);
            if !matches!(outcome, Ok(Ok(()))) {
                self.estimator.set_step(step)?;
            }
            outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        Ok(self.estimator.report())
    }
}

impl<T: Element, S: DirectionSampler> SpsaEstimator<T, S> {
    /// One step of gradient descent that is taken only if it lowers the loss. The loss is evaluated at
    /// `p − γĝ`, `p + γĝ` and `p`, and the model is left at the point with the least loss; of equal losses
    /// the first in this order counts. A step takes `2q + 3` evaluations.
    ///
    /// The loss on the data of this step never rises.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) unless `lr` is finite and at
    /// least 0; those of [`Estimator::estimate`] and of the closure. Parameters and estimator are unchanged then.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{ConservativeChoice, Spsa};
    /// use ndarray::array;
    ///
    /// let mut w = array![1.0f64];
    /// let mut estimator = Spsa::default().build::<f64>()?;
    /// let far = estimator.step_conservatively(10.0, &mut w, |w| w[0] * w[0])?;
    /// assert_eq!((far, w[0]), (ConservativeChoice::Stay, 1.0));
    /// let near = estimator.step_conservatively(0.1, &mut w, |w| w[0] * w[0])?;
    /// assert!(near == ConservativeChoice::Down && (w[0] - 0.8).abs() < 1e-9);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    ///
    /// # Source
    /// Y. Zhang et al., "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A
    /// Benchmark", 2024. The authors' code prefers `p + γĝ` if losses are equal.
    pub fn step_conservatively<M, V>(
        &mut self,
        lr: f64,
        model: &mut M,
        mut loss: impl FnMut(&mut M) -> V,
    ) -> Result<ConservativeChoice>
    where
        M: Parameters<T>,
        V: IntoLoss,
    {
        if !(lr >= 0.0 && lr.is_finite()) {
            return Err(Spsa::<S>::invalid("lr", "finite and >= 0", lr.to_string()));
        }
        self.estimate(model, &mut loss)?;
        let estimate = self.estimated();
        let outcome = catch_unwind(AssertUnwindSafe(|| choose(&estimate, lr, model, &mut loss)));
        drop(estimate);
        if !matches!(outcome, Ok(Ok(_))) {
            self.undo();
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }
}
