//! Sharpness-aware minimisation.

use super::ascent::{Ascent, Way};
use super::options::SamOptions;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::optim::{ClosureOptimizer, Optimizer, Problem};
use crate::params::{Gradients, Parameters, Select, with_loss};
use crate::state::{Record, StateBytes, StateDict};
use crate::wrappers::nested::{self, Reader, load_options, save_options};

/// Sharpness-aware minimisation around any optimizer: SAM, and its adaptive form, ASAM.
///
/// *Use it when* a model generalises badly though it fits: small data, label noise, vision transformers. The step
/// goes along the gradient from the worst point nearby, so that it ends where the loss is low all around. *Not
/// when* time is scarce: every step evaluates the model twice.
///
/// ```text
/// g ← gradient at p
/// SAM:   e ← ρ·g/(‖g‖ + 1e-12)
/// ASAM:  t ← |p| + η,  e ← ρ·t²·g/(‖t·g‖ + 1e-12)
/// g ← gradient at p + e, over the same data
/// p ← step of the inner optimizer from p, with g
/// ```
/// Norms are over all parameters that have a gradient and that the inner optimizer trains. If `e` is zero, the
/// step is the inner optimizer's with the first gradient, after one evaluation. Methods that read the loss
/// ([`SpsMax`](crate::first_order::SpsMax), ...) get that of the point at which their gradient was taken. Where the inner optimizer has
/// `maximize`, `e` is `−e`: the worst point lies there. Parameters come back from `p + e`
/// to the bit, also if the closure fails or panics. A `bf16` parameter that `e` moves by less than half a unit in
/// its last place stays where it is.
///
/// Use it through [`step_with`](ClosureOptimizer::step_with). A program that evaluates by itself calls
/// [`first_step`](Sam::first_step), evaluates, and calls [`second_step`](Sam::second_step). Rates and schedules
/// are those of the inner optimizer: `scheduler.step(sam.inner_mut())?`.
///
/// Options: see [`SamOptions`]; `rho` = 0.05, `adaptive` = false, `eta` = 0.01.
///
/// State: the inner optimizer's, and `copy`: the bytes of the parameters that have a gradient. During a step of
/// ASAM, an `f32` or `f64` for each of them.
///
/// # Errors
/// Those of the closure and of the inner optimizer, [`Error::NonFiniteLoss`] at either point among them;
/// [`Error::NonFinite`] for a gradient whose norm is not finite. Nothing has changed then. If the inner
/// optimizer skips what is not finite ([`NonFinite::Skip`](crate::optim::NonFinite)), the step is left out and
/// counted, at whichever point it was met.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let inner = Sgd { lr: 0.1, ..Sgd::default() }.build()?;
/// let mut sam = Sam::with_options(inner, SamOptions { rho: 0.5, ..SamOptions::default() })?;
/// let mut w = array![3.0f64, -4.0];
/// // (x² + y²)/2 has the gradient (x, y): the step is a tenth of (3, −4)·(1 + 0.5/5)
/// let loss = sam.step_with(&mut w, |w| (w.dot(w) / 2.0, w.clone()))?;
/// assert_eq!(loss, 12.5);
/// assert!((w[0] - 2.67).abs() < 1e-9 && (w[1] + 3.56).abs() < 1e-9);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As in davda54/sam, ASAM scales all parameters, and with `eta` = 0 the numbers are the same; there `rho` stays
/// 0.05. In the authors' code of ASAM it scales those whose name contains `weight`:
/// `sam.with_scaled(Select::name("*weight*"))`. Parameters are restored from a copy; implementations that
/// subtract `e` again drift.
///
/// # Source
/// P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
/// Generalization", ICLR 2021. J. Kwon, J. Kim, H. Park, I. K. Choi, "ASAM: Adaptive Sharpness-Aware Minimization
/// for Scale-Invariant Learning of Deep Neural Networks", ICML 2021.
#[derive(Clone, Debug)]
pub struct Sam<O, T: Element> {
    inner: O,
    options: SamOptions,
    scaled: Select,
    ascent: Ascent<T>,
    /// The first step has been taken.
    halfway: bool,
}

/// Name of the method in errors and state dicts.
const NAME: &str = SamOptions::NAME;

impl<O: Optimizer<T>, T: Element> Sam<O, T> {
    /// Around `inner`, with the default options.
    pub fn new(inner: O) -> Self {
        let (options, scaled) = (SamOptions::default(), Select::all());
        Self { inner, options, scaled, ascent: Ascent::default(), halfway: false }
    }

    /// Around `inner`, with these options.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for a negative `rho` or `eta`.
    pub fn with_options(inner: O, options: SamOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self { options, ..Self::new(inner) })
    }

    /// ASAM scales the parameters that `select` matches; the way of all others is not relative to them.
    pub fn with_scaled(mut self, select: Select) -> Self {
        self.scaled = select;
        self
    }

    /// The inner optimizer.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// The inner optimizer: for schedules, and to change its options.
    pub fn inner_mut(&mut self) -> &mut O {
        &mut self.inner
    }

    /// The options.
    pub fn options(&self) -> &SamOptions {
        &self.options
    }

    /// Changes an option of SAM itself, from the next step on: `rho`, `adaptive` (0 or 1), `eta`.
    ///
    /// # Errors
    /// [`Error::UnknownOption`], [`Error::InvalidHyperparameter`].
    pub fn set_option(&mut self, name: &str, value: f64) -> Result<()> {
        self.options.set_option(name, value)
    }

    /// Moves the parameters uphill, where the gradient is to be taken again; returns whether they have moved.
    /// They have not if the gradient is zero, or is one that the inner optimizer would leave out.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] if the second step has not been taken; those of the inner optimizer's
    /// [`check_step`](Optimizer::check_step); [`Error::NonFinite`]. The parameters have not moved then.
    pub fn first_step(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool> {
        self.refuse_halfway("Sam::first_step")?;
        if self.inner.check_step(params, grads)? {
            self.climb(params, grads)?;
        }
        self.halfway = true;
        Ok(self.ascent.is_up())
    }

    /// Brings the parameters back, and takes a step of the inner optimizer with the gradient from uphill.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] if there was no first step; those of the inner optimizer's
    /// [`step`](Optimizer::step): the parameters are back then, and nothing has changed.
    pub fn second_step(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<()> {
        if !self.halfway {
            let (what, problem) = ("Sam::second_step", "call `first_step` first");
            return Err(Error::OutOfOrder { what, problem });
        }
        self.abandon(params)?;
        self.inner.step(params, grads)
    }

    /// Brings the parameters back after a first step, without a second one; otherwise does nothing.
    ///
    /// # Errors
    /// Those of [`Snapshot::restore`](crate::tree::Snapshot::restore): a tree of other parameters.
    pub fn abandon(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        self.ascent.descend(params)?;
        self.halfway = false;
        Ok(())
    }

    fn refuse_halfway(&self, what: &'static str) -> Result<()> {
        let problem = "the second step has not been taken; call `second_step` or `abandon` first";
        let halfway = self.halfway || self.ascent.is_up();
        if halfway { Err(Error::OutOfOrder { what, problem }) } else { Ok(()) }
    }

    fn climb(&mut self, params: &mut dyn Parameters<T>, grads: &dyn Gradients<T>) -> Result<f64> {
        let SamOptions { rho, adaptive, eta } = self.options;
        let scaled = adaptive.then_some((&self.scaled, eta));
        let way = Way { rho, scaled, by_maximize: true };
        self.ascent.climb(&self.inner, way, params, grads)
    }

    /// Bytes held per state slot.
    pub fn state_bytes(&self) -> StateBytes {
        let mut bytes = self.inner.state_bytes();
        bytes.add("copy", self.ascent.bytes());
        bytes
    }

    /// Options, and the inner optimizer's state. Between a first and a second step it is that before the first
    /// one: call [`abandon`](Sam::abandon) before parameters are saved there.
    pub fn state_dict(&self) -> StateDict {
        let mut dict = nested::save(NAME, &self.inner);
        save_options(&self.options, &mut Record::new("options", &mut dict));
        dict
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key that does not fit; [`Error::OutOfOrder`] between a first and a second
    /// step. Nothing has changed then.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        self.refuse_halfway("Sam::load_state_dict")?;
        let reader = Reader::new(NAME, state)?;
        let options = load_options(&self.options, &reader.lookup("options"))?;
        let inner = reader.inner(self.inner.name())?;
        reader.finish()?;
        nested::load(&mut self.inner, &inner)?;
        self.options = options;
        Ok(())
    }
}

impl<O: Optimizer<T>, T: Element> ClosureOptimizer<T> for Sam<O, T> {
    fn step_problem(&mut self, problem: &mut dyn Problem<T>) -> Result<f64> {
        self.refuse_halfway("Sam::step_problem")?;
        let (loss, grads) = problem.evaluate()?;
        let first = with_loss(&*grads, loss);
        if self.inner.check_step(problem.parameters(), &first)? {
            self.climb(problem.parameters(), &*grads)?;
        }
        if !self.ascent.is_up() {
            self.inner.step(problem.parameters(), &first)?;
            return Ok(loss);
        }
        let (sharp_loss, sharp) = self.ascent.evaluate(problem)?;
        self.inner.step(problem.parameters(), &with_loss(&*sharp, sharp_loss))?;
        Ok(loss)
    }
}
