//! The one optimizer type: a method with parameter groups, state, and all that users set.

use super::core::Engine;
use super::group::group_of;
use crate::error::Result;
use crate::hyper::{Hyperparameters, Range};
use crate::kernel::Isa;
use crate::numeric::Element;
use crate::optim::method::{GroupState, MethodFor, Mode, TensorMethod};
use crate::optim::optimizer::{NonFinite, Optimizer};
use crate::optim::report::StepReport;
use crate::params::{Gradients, Parameters, Select};
use crate::quant::{Precision, StatePolicy};
use crate::state::{Rounding, StateBytes, StateDict, Storage};
use std::marker::PhantomData;

/// An optimizer: a method with parameter groups, state, and everything around the mathematics.
///
/// Configurations build it: `AdamW::default().build()?`. It owns no parameters; it keeps state per
/// parameter name, made at the first step that brings a gradient. A clone has a state of its own, and
/// goes on with the same bits.
pub struct Optim<M: MethodFor<T>, T: Element> {
    pub(super) engine: Engine<M::Engine, T>,
    method: PhantomData<M>,
}

impl<M: MethodFor<T>, T: Element> Clone for Optim<M, T> {
    fn clone(&self) -> Self {
        Self { engine: self.engine.clone(), method: PhantomData }
    }
}

impl<M: MethodFor<T>, T: Element> std::fmt::Debug for Optim<M, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.engine.fmt(f)
    }
}

impl<M: MethodFor<T>, T: Element> Optim<M, T> {
    /// An optimizer with one group that holds every parameter.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is
    /// out of range.
    pub fn new(method: M) -> Result<Self> {
        method.config().validate()?;
        let method = method.into_engine();
        Engine::check_range(&method)?;
        let engine = Engine::new(method);
        engine.check_composition()?;
        Ok(Self { engine, method: PhantomData })
    }

    /// Adds a group: parameters that `select` matches get the default options as `change` leaves
    /// them. Where several groups match, the last one counts.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is out of range. A selector that
    /// matches no parameter is an error of the next step.
    pub fn with_group(
        mut self,
        select: Select,
        change: impl FnOnce(&mut M::Config),
    ) -> Result<Self> {
        self.add_group(select, change)?;
        Ok(self)
    }

    /// As [`Optim::with_group`], also while training. Parameters that move to the new group keep their state, and
    /// the group goes on with what the group of its first parameter remembers (Schedule-Free's weights, Prodigy's
    /// estimate): a new group with the same options changes nothing.
    ///
    /// # Errors
    /// As [`Optim::with_group`]; [`Error::StateLayout`](crate::Error::StateLayout) names a parameter whose state the
    /// new options would lay out in another way. Then there is no new group.
    pub fn add_group(&mut self, select: Select, change: impl FnOnce(&mut M::Config)) -> Result<()> {
        // group 0 always exists
        let Some(mut config) = self.config(0).cloned() else {
            return Ok(());
        };
        change(&mut config);
        config.validate()?;
        let method = M::new(config).into_engine();
        Engine::check_range(&method)?;
        self.engine.add_group(select, method, M::GroupState::COMMON)
    }

    /// Stores every state slot in `precision`, for tensors large enough; see [`StatePolicy`].
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`](crate::Error::AlreadyStarted) after the first step; [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) for an
    /// impossible block size or number of bits.
    pub fn with_state_precision(self, precision: Precision) -> Result<Self> {
        let policy = StatePolicy { precision, ..self.engine.storage.state };
        self.with_state_policy(policy)
    }

    /// Stores state slots as `policy` says.
    ///
    /// # Errors
    /// As [`Optim::with_state_precision`].
    pub fn with_state_policy(mut self, policy: StatePolicy) -> Result<Self> {
        self.change_storage("the precision of the state", |storage| storage.state = policy)?;
        Ok(self)
    }

    /// Stores the slot `slot` in `precision`, whatever the others are stored in.
    ///
    /// # Errors
    /// As [`Optim::with_state_precision`]; also for a slot that the method does not have.
    pub fn with_slot_precision(mut self, slot: &str, precision: Precision) -> Result<Self> {
        self.change_storage("the precision of the state", |storage| {
            storage.slots.push((slot.to_owned(), precision));
        })?;
        Ok(self)
    }

    /// Rounds parameters as `rounding` says; of interest for `bf16` and `f16`.
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`](crate::Error::AlreadyStarted) after the first step.
    pub fn with_rounding(mut self, rounding: Rounding) -> Result<Self> {
        self.change_storage("the rounding", |storage| storage.rounding = rounding)?;
        Ok(self)
    }

    fn change_storage(
        &mut self,
        what: &'static str,
        mut change: impl FnMut(&mut Storage),
    ) -> Result<()> {
        self.engine.change_storage(what, &mut change)
    }

    /// What a step does with a gradient that is not finite.
    pub fn with_non_finite(mut self, policy: NonFinite) -> Self {
        self.engine.non_finite = policy;
        self
    }

    /// Compiles loops for `isa` instead of the widest instruction set of the processor. The bits
    /// are the same; for measurements and tests.
    pub fn with_isa(mut self, isa: Isa) -> Self {
        self.engine.isa = isa;
        self
    }

    /// Whether every parameter of the tree must have a gradient in every step. Off at first, as in PyTorch: then
    /// parameters without a gradient stay as they are, and [`last_step`](Optimizer::last_step) names them.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::prelude::*;
    /// use ndarray::{Array1, array};
    ///
    /// let mut opt = AdamW::default().build()?.require_all_gradients(true);
    /// let mut model = (array![1.0f32], array![1.0f32]);
    /// let grads = (array![1.0f32], None::<Array1<f32>>);
    /// let error = opt.step(&mut model, &grads).unwrap_err();
    /// assert!(matches!(error, eigenstep::Error::MissingGradients { names } if names == ["1"]));
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn require_all_gradients(mut self, require: bool) -> Self {
        self.engine.names.all_gradients = require;
        self.engine.plan.stale = true;
        self
    }

    /// Whether the first step after [`load_state_dict`](Optimizer::load_state_dict) must bring the parameters that
    /// the state was saved with. At first it must: a name that is missing or new is an error, because its state
    /// would be lost in silence. With `false`, state of names that are missing is kept, and new names begin anew.
    pub fn with_strict_names(mut self, strict: bool) -> Self {
        self.engine.names.lenient = !strict;
        self
    }

    /// Number of steps that [`NonFinite::Skip`] left out.
    pub fn skipped_steps(&self) -> u64 {
        self.engine.skipped
    }

    /// Number of steps that the parameter `name` has had; `None` if it never had a gradient.
    pub fn steps(&self, name: &str) -> Option<u64> {
        self.engine.steps(name)
    }

    /// The options of a group.
    pub fn config(&self, group: usize) -> Option<&M::Config> {
        self.engine.groups.get(group)?.method.config().downcast_ref()
    }

    /// What the method remembers of a group: Prodigy's `d`, Schedule-Free's `k`.
    pub fn group_state(&self, group: usize) -> Option<&M::GroupState> {
        self.engine.groups.get(group)?.method.group_state().downcast_ref()
    }

    /// Where the parameters stand, for methods that keep two points.
    pub fn mode(&self) -> Mode {
        self.engine.mode
    }
}

impl<M: MethodFor<T>, T: Element> Optimizer<T> for Optim<M, T> {
    fn mode(&self) -> Mode {
        self.engine.mode
    }

    fn step(&mut self, params: &mut dyn Parameters<T>, grads: &dyn Gradients<T>) -> Result<()> {
        self.engine.step(params, grads)
    }

    fn check_step(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool> {
        self.engine.check_step(params, grads)
    }

    fn name(&self) -> &'static str {
        M::Config::NAME
    }

    fn num_groups(&self) -> usize {
        self.engine.groups.len()
    }

    fn option(&self, group: usize, name: &str) -> Option<f64> {
        self.engine.read_option(group, name).map(|(value, _)| value)
    }

    fn option_range(&self, group: usize, name: &str) -> Option<Range> {
        self.engine.read_option(group, name).map(|(_, range)| range)
    }

    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        self.engine.set_option(group, name, value)
    }

    fn group_of(&self, name: &str, shape: &[usize]) -> Option<usize> {
        Some(group_of(&self.engine.groups, name, shape))
    }

    fn skipped_steps(&self) -> u64 {
        self.engine.skipped
    }

    fn reads_curvature(&self) -> bool {
        self.engine.groups.iter().any(|group| group.method.uses_curvature())
    }

    fn last_step(&self) -> StepReport {
        self.engine.report()
    }

    fn parameters_with_state(&self) -> Vec<String> {
        let tracked = self.engine.tracked.iter().filter(|tracked| tracked.row == 0);
        tracked.map(|tracked| tracked.name.clone()).collect()
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.engine.rename(from, to)
    }

    fn forget(&mut self, name: &str) -> Result<()> {
        self.engine.forget(name)
    }

    fn visit_slot(&mut self, slot: &str, visitor: &mut dyn FnMut(&str, &mut [T::Compute])) {
        self.engine.visit_slot(slot, visitor);
    }

    fn grow_rows(&mut self, name: &str, rows: usize) -> Result<()> {
        self.engine.grow_rows(name, rows)
    }

    fn state_bytes(&self) -> StateBytes {
        self.engine.state_bytes()
    }

    fn state_dict(&self) -> StateDict {
        self.engine.save()
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        self.engine.load(state)
    }

    fn train(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        self.engine.switch(Mode::Train, params)
    }

    fn eval(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        self.engine.switch(Mode::Eval, params)
    }
}
