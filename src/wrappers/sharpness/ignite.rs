//! The norm of a gradient as a constraint or a penalty.

use super::ascent::{Ascent, Way, sign};
use super::options::IgniteOptions;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::{Element, Real};
use crate::optim::{Closure, ClosureOptimizer, IntoEvaluation, Optimizer, Problem};
use crate::params::{Gradients, Parameters, with_loss};
use crate::state::{Record, StateBytes, StateDict};
use crate::tree::{TreeVec, or_zero, zip_map3};
use crate::wrappers::leaves::{sort, sort_grads};
use crate::wrappers::nested::{self, Reader, load_options, save_options};

/// The norm of a gradient as a constraint on training, or as a penalty: IGNITE, around any optimizer.
///
/// *Use it when* a surrogate model is trained that is optimised over later, and must not be wrong in sharp peaks:
/// `h` is its mean prediction ([`step_with_surrogate`](Ignite::step_with_surrogate)). Through
/// [`step_with`](ClosureOptimizer::step_with), `h` is the loss itself: with `eta_lambda` = 0 and `rho` = 1, the
/// gradient norm penalty of weight `lambda`. *Not when* [`Sam`](super::Sam) will do: it has one option to tune.
///
/// ```text
/// g_L ← ∇L(p);  g_h ← ∇h(p);  n ← ‖g_h‖
/// g' ← ∇h(p + r·g_h/(n + 1e-12))
/// g ← g_L + λ·(ρ/r)·(g' − g_h)          the last factor over r is ∇n, by a finite difference
/// p ← step of the inner optimizer from p, with g
/// λ ← λ + η·(ρ·n − ε);  λ ← max(λ, 0) if clamp_nonneg
/// ```
/// The constraint is `ρ‖∇h‖ ≤ ε`: within a radius `ρ` the surrogate changes by no more than `ε`, to first order.
/// If `n` is zero, `g` is `g_L`. A leaf that `∇h` does not have counts as zero there. Parameters come back from uphill to
/// the bit, also if a closure fails or panics. Where the inner optimizer has `maximize`, the difference is
/// subtracted.
///
/// Options: see [`IgniteOptions`]. Every step changes `lambda`.
///
/// State: the inner optimizer's; `copy`: the bytes of the parameters; `gradient`: an `f32` or `f64` for each.
///
/// # Errors
/// Those of the closures and of the inner optimizer; [`NonFiniteLoss`](crate::Error::NonFiniteLoss) for `L` or
/// `h` at either point, unless the inner optimizer skips or propagates what is not finite
/// ([`NonFinite`](crate::optim::NonFinite)); [`NonFinite`](crate::Error::NonFinite) for a `g_h` whose norm is not
/// finite; [`UnknownLeaf`](crate::Error::UnknownLeaf) for a gradient of `h` that the loss does not have. Then
/// nothing has changed but the tree that [`Ignite::gradient`] returns.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let inner = Sgd { lr: 0.1, ..Sgd::default() }.build()?;
/// let options = IgniteOptions { lambda: 2.0, rho: 1.0, eta_lambda: 0.0, ..IgniteOptions::default() };
/// let mut opt = Ignite::with_options(inner, options)?;
/// let mut w = array![3.0f64, 4.0];
/// // the loss is 0; h = (x² + y²)/2, whose gradient (x, y) has the norm 5, and that the gradient (3, 4)/5
/// opt.step_with_surrogate(&mut w, |w| (0.0, &*w * 0.0), |w| (w.dot(w) / 2.0, w.clone()))?;
/// assert!((w[0] - 2.88).abs() < 1e-9 && (w[1] - 3.84).abs() < 1e-9);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The authors' code divides by `n` = 0, and lets λ become negative.
///
/// # Source
/// M. C. Dao, P. L. Nguyen, T. N. Truong, T. N. Hoang, "Incorporating Surrogate Gradient Norm to Improve Offline
/// Optimization Techniques", NeurIPS 2024. The penalty: Y. Zhao, H. Zhang, X. Hu, "Penalizing Gradient Norm for
/// Efficiently Improving Generalization in Deep Learning", ICML 2022.
#[derive(Clone, Debug)]
pub struct Ignite<O, T: Element> {
    inner: O,
    options: IgniteOptions,
    ascent: Ascent<T>,
    gradient: TreeVec<T::Compute>,
}

/// Name of the method in errors and state dicts.
const NAME: &str = IgniteOptions::NAME;

/// A loss, and its gradients.
type Evaluation<T> = (f64, Box<dyn Gradients<T>>);

impl<O: Optimizer<T>, T: Element> Ignite<O, T> {
    /// Around `inner`, with the default options.
    pub fn new(inner: O) -> Self {
        let (ascent, gradient) = (Ascent::default(), TreeVec::new());
        Self { inner, options: IgniteOptions::default(), ascent, gradient }
    }

    /// Around `inner`, with these options.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is out of range.
    pub fn with_options(inner: O, options: IgniteOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self { options, ..Self::new(inner) })
    }

    /// The inner optimizer.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// The inner optimizer: for schedules, and to change its options.
    pub fn inner_mut(&mut self) -> &mut O {
        &mut self.inner
    }

    /// The options; `lambda` as it is now.
    pub fn options(&self) -> &IgniteOptions {
        &self.options
    }

    /// Changes an option of IGNITE itself, from the next step on.
    ///
    /// # Errors
    /// [`UnknownOption`](crate::Error::UnknownOption),
    /// [`InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    pub fn set_option(&mut self, name: &str, value: f64) -> Result<()> {
        self.options.set_option(name, value)
    }

    /// The gradient `g` of the last step; after one that failed, what had been made of it.
    pub fn gradient(&self) -> &TreeVec<T::Compute> {
        &self.gradient
    }

    /// One step: `loss` returns the loss and its gradients, `surrogate` the mean prediction and its gradients, which is
    /// evaluated twice over the same data. Returns the loss before the step.
    ///
    /// # Errors
    /// Those of the page of [`Ignite`].
    pub fn step_with_surrogate<M, V, W>(
        &mut self,
        model: &mut M,
        loss: impl FnMut(&mut M) -> V,
        surrogate: impl FnMut(&mut M) -> W,
    ) -> Result<f64>
    where
        M: Parameters<T>,
        V: IntoEvaluation<T, Grads: 'static>,
        W: IntoEvaluation<T, Grads: 'static>,
    {
        let of_loss = Closure { model: &mut *model, evaluate: loss }.evaluate()?;
        let mut problem = Closure { model, evaluate: surrogate };
        let (h, of_surrogate) = problem.evaluate()?;
        self.step_at(&mut problem, &of_loss, (h, &*of_surrogate))
    }

    /// The step from loss and gradients at the parameters; `problem` evaluates the surrogate.
    fn step_at(
        &mut self,
        problem: &mut dyn Problem<T>,
        (loss, of_loss): &Evaluation<T>,
        (h, of_surrogate): (f64, &dyn Gradients<T>),
    ) -> Result<f64> {
        let mut out = self.leaves_out(problem, of_loss, *loss)?;
        out = out || !h.is_finite() && self.leaves_out(problem, of_loss, h)?;
        if out {
            return Ok(*loss);
        }
        let IgniteOptions { lambda, eta_lambda, rho, r, epsilon, clamp_nonneg } = self.options;
        let way = Way { rho: r, scaled: None, by_maximize: false };
        let norm = self.ascent.climb(&self.inner, way, problem.parameters(), of_surrogate)?;
        let uphill = match self.ascent.is_up() {
            true => Some(self.ascent.evaluate(problem)?),
            false => None,
        };
        if let Some((h, _)) = uphill.as_ref().filter(|(h, _)| !h.is_finite())
            && self.leaves_out(problem, of_loss, *h)?
        {
            return Ok(*loss);
        }
        self.gradient.assign(&**of_loss)?;
        if let Some((_, uphill)) = &uphill {
            self.add_difference(lambda * rho / r, &**uphill, of_surrogate)?;
        }
        let (gradient, skipped) = (self.gradient.rounded::<T>(), self.inner.skipped_steps());
        self.inner.step(problem.parameters(), &with_loss(&gradient, *loss))?;
        if self.inner.skipped_steps() == skipped {
            let changed = lambda + eta_lambda * (rho * norm - epsilon);
            self.options.lambda = if clamp_nonneg { changed.max(0.0) } else { changed };
        }
        Ok(*loss)
    }

    /// Whether the inner optimizer leaves the step out for a gradient or a loss that is not finite. Then it has
    /// counted it.
    fn leaves_out(
        &mut self,
        problem: &mut dyn Problem<T>,
        grads: &dyn Gradients<T>,
        loss: f64,
    ) -> Result<bool> {
        let grads = with_loss(grads, loss);
        let takes = self.inner.check_step(problem.parameters(), &grads)?;
        if !takes {
            self.inner.step(problem.parameters(), &grads)?;
        }
        Ok(!takes)
    }

    /// `g ← g + factor·(new − old)`; minus where the inner optimizer goes uphill itself.
    fn add_difference(
        &mut self,
        factor: f64,
        new: &dyn Gradients<T>,
        old: &dyn Gradients<T>,
    ) -> Result<()> {
        let inner = &self.inner;
        // a frozen parameter takes no step, whatever its gradient is
        let rises = |name: &str, shape: &[usize]| sign(inner, name, shape).is_some_and(|s| s < 0.0);
        let part_of = |name: &str, shape: &[usize]| Some(usize::from(rises(name, shape)));
        let gradient = sort(&mut self.gradient, 2, part_of)?;
        let (new, old) = (sort_grads(new, 2, part_of)?, sort_grads(old, 2, part_of)?);
        let mut factor = factor;
        for (mut gradient, (new, old)) in gradient.into_iter().zip(new.iter().zip(&old)) {
            let by = T::Compute::of(factor);
            let add = move |new, old, g| g + by * (new - old);
            zip_map3(or_zero(new), or_zero(old), &mut gradient, add)?;
            factor = -factor;
        }
        Ok(())
    }

    /// Bytes held per state slot.
    pub fn state_bytes(&self) -> StateBytes {
        let mut bytes = self.inner.state_bytes();
        bytes.add("copy", self.ascent.bytes());
        bytes.add("gradient", self.gradient.bytes());
        bytes
    }

    /// Options, `lambda` as it is now, and the inner optimizer's state.
    pub fn state_dict(&self) -> StateDict {
        let mut dict = nested::save(NAME, &self.inner);
        save_options(&self.options, &mut Record::new("options", &mut dict));
        dict
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key that does not fit. Nothing has changed then.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let reader = Reader::new(NAME, state)?;
        let options = load_options(&self.options, &reader.lookup("options"))?;
        let inner = reader.inner(self.inner.name())?;
        reader.finish()?;
        nested::load(&mut self.inner, &inner)?;
        self.options = options;
        Ok(())
    }
}

impl<O: Optimizer<T>, T: Element> ClosureOptimizer<T> for Ignite<O, T> {
    fn step_problem(&mut self, problem: &mut dyn Problem<T>) -> Result<f64> {
        let at = problem.evaluate()?;
        self.step_at(problem, &at, (at.0, &*at.1))
    }
}
