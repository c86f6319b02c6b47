//! Closures: methods that evaluate the model themselves, once or more often per step.

use super::optim::Optim;
use crate::error::{BoxError, Error, Result};
use crate::numeric::Element;
use crate::optim::method::MethodFor;
use crate::optim::optimizer::Optimizer;
use crate::params::{Gradients, Parameters, with_loss};

/// What a closure may return as a loss: `f32`, `f64`, or a `Result` of either.
pub trait IntoLoss {
    /// The loss.
    ///
    /// # Errors
    /// [`Error::Closure`] with the closure's own error.
    fn into_loss(self) -> Result<f64>;
}

impl IntoLoss for f64 {
    fn into_loss(self) -> Result<f64> {
        Ok(self)
    }
}

impl IntoLoss for f32 {
    fn into_loss(self) -> Result<f64> {
        Ok(f64::from(self))
    }
}

impl<L: IntoLoss, E: Into<BoxError>> IntoLoss for std::result::Result<L, E> {
    fn into_loss(self) -> Result<f64> {
        self.map_err(|error| Error::Closure(error.into()))?.into_loss()
    }
}

/// What a closure may return as loss and gradients: `(loss, gradients)`, or a `Result` of it.
pub trait IntoEvaluation<T> {
    /// The tree of gradients.
    type Grads: Gradients<T>;

    /// Loss and gradients.
    ///
    /// # Errors
    /// [`Error::Closure`] with the closure's own error.
    fn into_evaluation(self) -> Result<(f64, Self::Grads)>;
}

impl<T, L: IntoLoss, G: Gradients<T>> IntoEvaluation<T> for (L, G) {
    type Grads = G;
    fn into_evaluation(self) -> Result<(f64, G)> {
        Ok((self.0.into_loss()?, self.1))
    }
}

impl<T, V: IntoEvaluation<T>, E: Into<BoxError>> IntoEvaluation<T> for std::result::Result<V, E> {
    type Grads = V::Grads;
    fn into_evaluation(self) -> Result<(f64, V::Grads)> {
        self.map_err(|error| Error::Closure(error.into()))?.into_evaluation()
    }
}

/// Parameters together with a way to evaluate loss and gradients at them; object safe.
pub trait Problem<T> {
    /// The parameters.
    fn parameters(&mut self) -> &mut dyn Parameters<T>;

    /// Loss and gradients at the parameters as they stand. The gradients are the caller's, so that
    /// the parameters can be changed while they are at hand.
    ///
    /// # Errors
    /// [`Error::Closure`] with the closure's own error.
    fn evaluate(&mut self) -> Result<(f64, Box<dyn Gradients<T>>)>;
}

/// A model and a closure that evaluates it, as a [`Problem`].
#[derive(Debug)]
pub struct Closure<'m, M, F> {
    /// The model.
    pub model: &'m mut M,
    /// Returns loss and gradients of the model; see [`IntoEvaluation`].
    pub evaluate: F,
}

impl<T, M, V, F> Problem<T> for Closure<'_, M, F>
where
    M: Parameters<T>,
    V: IntoEvaluation<T, Grads: 'static>,
    F: FnMut(&mut M) -> V,
{
    fn parameters(&mut self) -> &mut dyn Parameters<T> {
        self.model
    }

    fn evaluate(&mut self) -> Result<(f64, Box<dyn Gradients<T>>)> {
        let (loss, grads) = (self.evaluate)(self.model).into_evaluation()?;
        Ok((loss, Box::new(grads)))
    }
}

/// Optimizers that evaluate the model themselves.
///
/// Every optimizer of the crate is one, also as `Box<dyn Optimizer<T>>`: it evaluates once and takes a step
/// ([`step_once`]). Methods that evaluate again within a step (sharpness-aware minimisation, line searches)
/// implement [`ClosureOptimizer::step_problem`], and so does an optimizer type of your own, with
/// [`step_once`] if one evaluation is enough.
///
/// A loss that is not finite is handled as a gradient that is not, by the policy of the optimizer
/// ([`NonFinite`](crate::optim::NonFinite)).
///
/// A closure returns gradients that it owns. Views of gradients, such as clipped ones, borrow them: copy what
/// they show with [`materialize`](crate::gradient::materialize).
///
/// The closure gets `&mut M`, since models cache activations; it must not change parameters, and all
/// calls within one step must see the same data and the same randomness.
pub trait ClosureOptimizer<T: Element> {
    /// One step of a problem; returns the loss before it.
    ///
    /// # Errors
    /// Those of the closure and of the step; [`Error::NonFiniteLoss`], unless the optimizer skips or
    /// propagates what is not finite. Parameters and state are as before then.
    fn step_problem(&mut self, problem: &mut dyn Problem<T>) -> Result<f64>;

    /// One step of a model whose loss and gradients `evaluate` returns; returns the loss before it.
    ///
    /// # Errors
    /// As [`ClosureOptimizer::step_problem`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::{optim::ClosureOptimizer, prelude::*};
    /// use ndarray::array;
    ///
    /// let mut w = array![3.0f64];
    /// let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build()?;
    /// let loss = opt.step_with(&mut w, |w| ((&*w * &*w).sum(), &*w * 2.0))?;
    /// assert_eq!(loss, 9.0);
    /// assert!((w[0] - 2.4).abs() < 1e-12);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    fn step_with<M, V>(&mut self, model: &mut M, evaluate: impl FnMut(&mut M) -> V) -> Result<f64>
    where
        Self: Sized,
        M: Parameters<T>,
        V: IntoEvaluation<T, Grads: 'static>,
    {
        self.step_problem(&mut Closure { model, evaluate })
    }
}

/// One evaluation and one step: [`ClosureOptimizer::step_problem`] of an optimizer that needs no more. The
/// loss comes along with the gradients ([`with_loss`]).
///
/// # Errors
/// As [`ClosureOptimizer::step_problem`].
///
/// # Examples
/// ```
/// use eigenstep::optim::{Closure, step_once};
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![3.0f64];
/// let mut opt: Box<dyn Optimizer<f64>> = Box::new(Sgd { lr: 0.5, ..Sgd::default() }.build()?);
/// let evaluate = |w: &mut ndarray::Array1<f64>| ((&*w * &*w).sum(), &*w * 2.0);
/// let loss = step_once(&mut *opt, &mut Closure { model: &mut w, evaluate })?;
/// assert_eq!((loss, w[0]), (9.0, 0.0));
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn step_once<T: Element, O: Optimizer<T> + ?Sized>(
    opt: &mut O,
    problem: &mut dyn Problem<T>,
) -> Result<f64> {
    let (loss, grads) = problem.evaluate()?;
    opt.step(problem.parameters(), &with_loss(&*grads, loss))?;
    Ok(loss)
}

impl<M: MethodFor<T>, T: Element> ClosureOptimizer<T> for Optim<M, T> {
    fn step_problem(&mut self, problem: &mut dyn Problem<T>) -> Result<f64> {
        step_once(self, problem)
    }
}

impl<T: Element> ClosureOptimizer<T> for dyn Optimizer<T> + '_ {
    fn step_problem(&mut self, problem: &mut dyn Problem<T>) -> Result<f64> {
        step_once(self, problem)
    }
}

impl<T: Element, O: ClosureOptimizer<T> + ?Sized> ClosureOptimizer<T> for Box<O> {
    fn step_problem(&mut self, problem: &mut dyn Problem<T>) -> Result<f64> {
        (**self).step_problem(problem)
    }
}
