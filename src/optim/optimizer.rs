//! The interface of every optimizer.

use crate::error::{Error, Result};
use crate::hyper::Range;
use crate::numeric::Element;
use crate::optim::method::Mode;
use crate::optim::report::StepReport;
use crate::params::{Gradients, Parameters};
use crate::state::{StateBytes, StateDict};

/// The interface of every optimizer. It is object safe: `Box<dyn Optimizer<f32>>` works.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut optimizers: Vec<Box<dyn Optimizer<f64>>> =
///     vec![Box::new(Sgd::default().build()?), Box::new(AdamW::default().build()?)];
/// for opt in &mut optimizers {
///     let mut w = array![1.0];
///     opt.set_lr(0, 0.1)?;
///     opt.step(&mut w, &array![1.0])?;
///     assert!(w[0] < 1.0);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait Optimizer<T: Element>: Send {
    /// Updates the parameters that have a gradient.
    ///
    /// # Errors
    /// All errors are found before anything changes: names and shapes that do not fit, a non-finite
    /// gradient (see [`NonFinite`]), a parameter group that selects no parameter.
    fn step(&mut self, params: &mut dyn Parameters<T>, grads: &dyn Gradients<T>) -> Result<()>;

    /// Checks a step without taking it. Returns `false` if [`Optimizer::step`] with the same arguments would
    /// skip the step because of a non-finite gradient or loss ([`NonFinite::Skip`]).
    ///
    /// # Errors
    /// Those of [`Optimizer::step`].
    fn check_step(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool>;

    /// Name of the method, as in error messages and state dicts.
    fn name(&self) -> &'static str;

    /// Number of parameter groups; group 0 holds the defaults.
    fn num_groups(&self) -> usize;

    /// Value of an option of a group; `None` if there is no such group or option.
    fn option(&self, group: usize, name: &str) -> Option<f64>;

    /// Changes an option of a group, from the next step on.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`](crate::Error::UnknownGroup),
    /// [`Error::UnknownOption`](crate::Error::UnknownOption), or
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()>;

    /// The admissible values of an option of a group; `None` if they are not known. Wrappers forward this call.
    fn option_range(&self, group: usize, name: &str) -> Option<Range> {
        let _ = (group, name);
        None
    }

    /// Whether the parameters are at the training point or at the evaluation point, for methods that have two
    /// ([`train`](Self::train), [`eval`](Self::eval)). Wrappers forward this call.
    fn mode(&self) -> Mode {
        Mode::Train
    }

    /// The group that a parameter of this name and shape belongs to; `None` if it is frozen. Wrappers forward
    /// this call.
    fn group_of(&self, name: &str, shape: &[usize]) -> Option<usize> {
        let _ = (name, shape);
        Some(0)
    }

    /// Number of steps that were left out for a gradient or a loss that was not finite ([`NonFinite::Skip`]).
    /// Wrappers compare it before and after a step to learn whether the step was taken.
    fn skipped_steps(&self) -> u64 {
        0
    }

    /// Whether the steps of any group may read a curvature
    /// ([`with_curvature`](crate::gradient::with_curvature)). [`Partitioned`](crate::wrappers::Partitioned)
    /// gives curvatures to those parts alone. Wrappers forward this call.
    fn reads_curvature(&self) -> bool {
        true
    }

    /// Learning rate of a group; NaN if there is no such group.
    fn lr(&self, group: usize) -> f64 {
        self.option(group, "lr").unwrap_or(f64::NAN)
    }

    /// Changes the learning rate of a group, from the next step on.
    ///
    /// # Errors
    /// As [`Optimizer::set_option`].
    fn set_lr(&mut self, group: usize, lr: f64) -> Result<()> {
        self.set_option(group, "lr", lr)
    }

    /// Calls `visitor(name, values)` with the slot `slot` of every parameter that has it. `values` are all its
    /// numbers, row-major, and changes to them are kept. Slots in few bits are decoded, and coded again if they
    /// were changed. Slots have the names of state dicts: `exp_avg`, `momentum_buffer`; `master` and `kahan` are
    /// what [`Rounding`](crate::state::Rounding) remembers of `bf16` and `f16` parameters. Slots of blocks of
    /// a matrix, and slots with gaps, are not shown. Wrappers forward this call.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::prelude::*;
    /// use ndarray::array;
    ///
    /// let mut w = array![1.0f64, 1.0];
    /// let mut opt = Sgd { lr: 0.5, momentum: 0.5, ..Sgd::default() }.build()?;
    /// opt.step(&mut w, &array![1.0, -1.0])?;
    /// opt.visit_slot("momentum_buffer", &mut |name, momentum| {
    ///     assert_eq!((name, &*momentum), ("param", &[1.0, -1.0][..]));
    ///     momentum.fill(0.0); // begin anew
    /// });
    /// opt.step(&mut w, &array![0.0, 0.0])?;
    /// assert_eq!(w, array![0.5, 1.5]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    fn visit_slot(&mut self, slot: &str, visitor: &mut dyn FnMut(&str, &mut [T::Compute])) {
        let _ = (slot, visitor);
    }

    /// What the last step did: whether it was taken, which parameters it left alone. Wrappers forward this call.
    fn last_step(&self) -> StepReport {
        StepReport::default()
    }

    /// Paths of the parameters that it keeps state of, also of those that are not in the tree any more. Wrappers
    /// forward this call.
    fn parameters_with_state(&self) -> Vec<String> {
        Vec::new()
    }

    /// Lets the state of the parameter `from` go on as that of `to`: a layer has a new name. Wrappers forward
    /// this call.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`]: there is no state of `from`; [`Error::DuplicateName`]: there is one of `to`.
    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let _ = to;
        Err(Error::unknown_parameter(self.name(), from, []))
    }

    /// Drops the state of a parameter: it is gone, or begins anew. In a method over a vector of several
    /// parameters, what the vector remembers of it fades as its window moves on. Wrappers forward this call.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`]: there is no state of it.
    fn forget(&mut self, name: &str) -> Result<()> {
        Err(Error::unknown_parameter(self.name(), name, []))
    }

    /// Announces that the parameter `name` has `rows` rows (indices of its first dimension) from the next step
    /// on: a larger vocabulary. The state of the old rows stays as it is, to the bit, in any precision. The new
    /// rows begin like a parameter of their own: with the state and the count of steps of a first step, so that
    /// bias corrections fit, and a matrix or a mean over rows and columns of their own where the method has
    /// such. State dicts hold them as `{name}[{first row}..]`.
    ///
    /// # Errors
    /// [`Error::MissingParameter`](crate::Error::MissingParameter) if there is no state of this name;
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for fewer rows, or a parameter without rows;
    /// [`Error::CannotGrow`](crate::Error::CannotGrow) from methods that remember several parameters as one
    /// vector, and from what is around other optimizers.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::prelude::*;
    /// use ndarray::{Array2, Axis, concatenate};
    ///
    /// let mut embedding = Array2::<f32>::ones((3, 2));
    /// let mut opt = AdamW { lr: 0.1, weight_decay: 0.0, ..AdamW::default() }.build()?;
    /// opt.step(&mut embedding, &Array2::ones((3, 2)))?;
    ///
    /// // two words more
    /// embedding = concatenate![Axis(0), embedding, Array2::ones((2, 2))];
    /// opt.grow_rows("param", 5)?;
    /// opt.step(&mut embedding, &Array2::ones((5, 2)))?;
    /// // a first step of Adam is as long as the learning rate
    /// assert!((embedding[[4, 0]] - 0.9).abs() < 1e-6 && (embedding[[0, 0]] - 0.8).abs() < 1e-6);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    fn grow_rows(&mut self, name: &str, rows: usize) -> Result<()> {
        let _ = rows;
        let problem = "what is around another optimizer keeps its own copies";
        let (optimizer, name) = (self.name(), name.to_owned());
        Err(Error::CannotGrow { optimizer, name, problem })
    }

    /// Bytes held per state slot.
    fn state_bytes(&self) -> StateBytes;

    /// A copy of everything that is needed to continue bit for bit.
    fn state_dict(&self) -> StateDict;

    /// Continues from a saved state.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key that does not fit; the optimizer
    /// stays as it was.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()>;

    /// Moves the parameters to the point at which training continues. Only methods that train at one point
    /// and evaluate at another (Schedule-Free) do anything, and say in [`mode`](Self::mode) what they did.
    ///
    /// # Errors
    /// Names and shapes that do not fit the optimizer's state.
    fn train(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        let _ = params;
        Ok(())
    }

    /// Moves the parameters to the point at which the model is evaluated, or saved for use. Only methods
    /// that train at one point and evaluate at another (Schedule-Free) do anything, and say in
    /// [`mode`](Self::mode) what they did.
    ///
    /// # Errors
    /// Names and shapes that do not fit the optimizer's state.
    fn eval(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        let _ = params;
        Ok(())
    }
}

impl<T: Element, O: Optimizer<T> + ?Sized> Optimizer<T> for Box<O> {
    fn step(&mut self, params: &mut dyn Parameters<T>, grads: &dyn Gradients<T>) -> Result<()> {
        (**self).step(params, grads)
    }
    fn check_step(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool> {
        (**self).check_step(params, grads)
    }
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn num_groups(&self) -> usize {
        (**self).num_groups()
    }
    fn option(&self, group: usize, name: &str) -> Option<f64> {
        (**self).option(group, name)
    }
    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        (**self).set_option(group, name, value)
    }
    fn option_range(&self, group: usize, name: &str) -> Option<Range> {
        (**self).option_range(group, name)
    }
    fn lr(&self, group: usize) -> f64 {
        (**self).lr(group)
    }
    fn set_lr(&mut self, group: usize, lr: f64) -> Result<()> {
        (**self).set_lr(group, lr)
    }
    fn mode(&self) -> Mode {
        (**self).mode()
    }
    fn group_of(&self, name: &str, shape: &[usize]) -> Option<usize> {
        (**self).group_of(name, shape)
    }
    fn skipped_steps(&self) -> u64 {
        (**self).skipped_steps()
    }
    fn reads_curvature(&self) -> bool {
        (**self).reads_curvature()
    }
    fn visit_slot(&mut self, slot: &str, visitor: &mut dyn FnMut(&str, &mut [T::Compute])) {
        (**self).visit_slot(slot, visitor);
    }
    fn last_step(&self) -> StepReport {
        (**self).last_step()
    }
    fn parameters_with_state(&self) -> Vec<String> {
        (**self).parameters_with_state()
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        (**self).rename(from, to)
    }
    fn forget(&mut self, name: &str) -> Result<()> {
        (**self).forget(name)
    }

    fn grow_rows(&mut self, name: &str, rows: usize) -> Result<()> {
        (**self).grow_rows(name, rows)
    }
    fn state_bytes(&self) -> StateBytes {
        (**self).state_bytes()
    }
    fn state_dict(&self) -> StateDict {
        (**self).state_dict()
    }
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        (**self).load_state_dict(state)
    }
    fn train(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        (**self).train(params)
    }
    fn eval(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        (**self).eval(params)
    }
}

/// What a step does with a NaN or an infinity in a gradient, in a curvature, or in the loss.
///
/// The loss is the one that comes with the gradients: from
/// [`with_loss`](crate::gradient::with_loss), or from the closure of
/// [`step_with`](crate::optim::ClosureOptimizer::step_with), which returns it then. The policy holds for it
/// whether the method reads the loss or not, and in every optimizer and wrapper: also for the second
/// evaluation of [`Sam`](crate::wrappers::Sam) and the surrogate of [`Ignite`](crate::wrappers::Ignite).
/// Between the parts of a [`Partitioned`](crate::wrappers::Partitioned), `Error` comes before `Skip`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0];
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>()?.with_non_finite(NonFinite::Skip);
/// let loss = opt.step_with(&mut w, |w| (f64::NAN, w.clone()))?;
/// assert!(loss.is_nan() && w[0] == 1.0 && opt.skipped_steps() == 1);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum NonFinite {
    /// Returns [`Error::NonFiniteGradient`](crate::Error::NonFiniteGradient) or
    /// [`Error::NonFiniteLoss`](crate::Error::NonFiniteLoss); nothing changes.
    #[default]
    Error,
    /// Leaves parameters, state and step counts as they are, and returns `Ok`; counted by
    /// [`skipped_steps`](Optimizer::skipped_steps).
    Skip,
    /// Does not check: a NaN enters parameters and state, as in PyTorch. Saves one pass over the gradients.
    Propagate,
}
