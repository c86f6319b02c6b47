//! The one optimizer type: groups, checks, step counts, threads, state dict.

use super::buffers::Buffers;
use super::group::Group;
use super::plan::{Plan, Tracked};
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::kernel::Isa;
use crate::numeric::Element;
use crate::optim::method::{Mode, TensorMethod};
use crate::optim::optimizer::NonFinite;
use crate::params::Select;
use crate::quant::{Precision, StatePolicy};
use crate::state::{Rounding, Storage};

/// An optimizer: a method with parameter groups, state, and everything around the mathematics.
///
/// Configurations build it: `AdamW::default().build()?`. It owns no parameters; it keeps state per
/// parameter name, made at the first step that brings a gradient.
pub struct Optim<M: TensorMethod<T>, T: Element> {
    pub(in crate::optim) groups: Vec<Group<M, T>>,
    pub(in crate::optim) tracked: Vec<Tracked<M::State>>,
    pub(in crate::optim) joint: M::Joint,
    pub(in crate::optim) storage: Storage,
    pub(in crate::optim) mode: Mode,
    pub(in crate::optim) plan: Plan,
    pub(in crate::optim) non_finite: NonFinite,
    pub(in crate::optim) skipped: u64,
    pub(in crate::optim) isa: Isa,
    pub(in crate::optim) buffers: Buffers<M, T>,
}

impl<M: TensorMethod<T>, T: Element> std::fmt::Debug for Optim<M, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Optim")
            .field("groups", &self.groups)
            .field("parameters", &self.tracked.len())
            .field("storage", &self.storage)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl<M: TensorMethod<T>, T: Element> Optim<M, T> {
    /// An optimizer with one group that holds every parameter.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range.
    pub fn new(method: M) -> Result<Self> {
        method.config().validate()?;
        Ok(Self {
            groups: vec![Group::new(Select::all(), method)],
            tracked: Vec::new(),
            joint: M::Joint::default(),
            storage: Storage::default(),
            mode: Mode::Train,
            plan: Plan::default(),
            non_finite: NonFinite::default(),
            skipped: 0,
            isa: Isa::detect(),
            buffers: Buffers::default(),
        })
    }

    /// Adds a group: parameters that `select` matches get the default options as `change` leaves
    /// them. Where several groups match, the last one counts.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range. A selector that
    /// matches no parameter is an error of the next step.
    pub fn with_group(
        mut self,
        select: Select,
        change: impl FnOnce(&mut M::Config),
    ) -> Result<Self> {
        self.add_group(select, change)?;
        Ok(self)
    }

    /// As [`Optim::with_group`], also while training. Parameters that move to the new group keep
    /// their state.
    ///
    /// # Errors
    /// As [`Optim::with_group`]; then there is no new group.
    pub fn add_group(&mut self, select: Select, change: impl FnOnce(&mut M::Config)) -> Result<()> {
        // group 0 always exists
        let Some(mut config) = self.config(0).cloned() else {
            return Ok(());
        };
        change(&mut config);
        config.validate()?;
        self.groups.push(Group::new(select, M::new(config)));
        self.plan.stale = true;
        Ok(())
    }

    /// Stores every state slot in `precision`, for tensors large enough; see [`StatePolicy`].
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`] after the first step; [`Error::InvalidHyperparameter`] for an
    /// impossible block size or number of bits.
    pub fn with_state_precision(self, precision: Precision) -> Result<Self> {
        let policy = StatePolicy { precision, ..self.storage.state };
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
        let entry = (slot.to_owned(), precision);
        self.change_storage("the precision of the state", |storage| storage.slots.push(entry))?;
        Ok(self)
    }

    /// Rounds parameters as `rounding` says; of interest for `bf16` and `f16`.
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`] after the first step.
    pub fn with_rounding(mut self, rounding: Rounding) -> Result<Self> {
        self.change_storage("the rounding", |storage| storage.rounding = rounding)?;
        Ok(self)
    }

    fn change_storage(
        &mut self,
        what: &'static str,
        change: impl FnOnce(&mut Storage),
    ) -> Result<()> {
        if !self.tracked.is_empty() {
            return Err(Error::AlreadyStarted { what });
        }
        let mut storage = self.storage.clone();
        change(&mut storage);
        if let Some(group) = self.groups.first() {
            group.method.check_storage(&storage)?;
        }
        self.storage = storage;
        Ok(())
    }

    /// What a step does with a gradient that is not finite.
    pub fn with_non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    /// Compiles loops for `isa` instead of the widest instruction set of the processor. The bits
    /// are the same; for measurements and tests.
    pub fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// Number of steps that [`NonFinite::Skip`] left out.
    pub fn skipped_steps(&self) -> u64 {
        self.skipped
    }

    /// Number of steps that the parameter `name` has had; `None` if it never had a gradient.
    pub fn steps(&self, name: &str) -> Option<u64> {
        self.tracked.iter().find(|tracked| tracked.name == name).map(|tracked| tracked.t)
    }

    /// The options of a group.
    pub fn config(&self, group: usize) -> Option<&M::Config> {
        self.groups.get(group).map(|group| group.method.config())
    }

    /// What the method remembers of a group: Prodigy's `d`, Schedule-Free's `k`.
    pub fn scalars(&self, group: usize) -> Option<&M::Scalars> {
        self.groups.get(group).map(|group| &group.scalars)
    }

    /// Where the parameters stand, for methods that keep two points.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}
