//! Steps of other forms: block by block, or only where they help.

use super::config::Spsa;
use super::estimator::SpsaEstimator;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::optim::{IntoLoss, Optimizer};
use crate::params::{Parameters, Select};
use crate::zeroth_order::directions::DirectionSampler;
use crate::zeroth_order::estimator::{ConservativeChoice, Estimator, Report, ZerothOrder, choose};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl<T: Element, S: DirectionSampler, O: Optimizer<T>> ZerothOrder<T, SpsaEstimator<T, S>, O> {
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

impl<T: Element, S: DirectionSampler> SpsaEstimator<T, S> {
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
    /// Benchmark", 2024; its code prefers `p + γĝ` where losses are equal.
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
        let estimate = self.estimate(model, &mut loss)?;
        choose(&estimate, lr, model, &mut loss)
    }
}
