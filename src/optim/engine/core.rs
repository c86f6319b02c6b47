//! The engine of an optimizer: what is compiled once for each kind of methods.

use super::buffers::Buffers;
use super::group::Group;
use super::grown::Growth;
use super::name_policy::Names;
use super::plan::Plan;
use super::tracked::Tracked;
use crate::error::{Error, Result};
use crate::hyper::{self, Range};
use crate::kernel::Isa;
use crate::numeric::{Element, Real};
use crate::optim::method::{Mode, TensorMethod};
use crate::optim::optimizer::NonFinite;
use crate::optim::report::StepOutcome;
use crate::params::Select;
use crate::state::Storage;
use num_traits::Float;

/// Groups, state, and everything around the mathematics.
pub(in crate::optim) struct Engine<M: TensorMethod<T>, T: Element> {
    pub groups: Vec<Group<M>>,
    pub tracked: Vec<Tracked<M::State>>,
    pub shared: M::Shared,
    pub storage: Storage,
    pub mode: Mode,
    /// Number of moves from one point to the other: random numbers of rounding depend on it.
    pub switches: u64,
    pub plan: Plan,
    /// Rows that were announced and have no state yet.
    pub growth: Growth,
    pub non_finite: NonFinite,
    pub skipped: u64,
    pub names: Names,
    /// A panic has ended a step half way.
    pub interrupted: bool,
    /// What became of the last step.
    pub outcome: StepOutcome,
    /// Norm of the last step's gradients, if it was measured.
    pub gradient_norm: Option<f64>,
    pub isa: Isa,
    pub buffers: Buffers<M, T>,
}

impl<M: TensorMethod<T>, T: Element> Clone for Engine<M, T> {
    fn clone(&self) -> Self {
        Self {
            groups: self.groups.clone(),
            tracked: self.tracked.clone(),
            shared: self.shared.clone(),
            storage: self.storage.clone(),
            mode: self.mode,
            switches: self.switches,
            plan: self.plan.clone(),
            growth: self.growth.clone(),
            non_finite: self.non_finite,
            skipped: self.skipped,
            names: self.names.clone(),
            interrupted: self.interrupted,
            outcome: self.outcome.clone(),
            gradient_norm: self.gradient_norm,
            isa: self.isa,
            // memory for one step: nothing in it outlives a step
            buffers: Buffers::default(),
        }
    }
}

impl<M: TensorMethod<T>, T: Element> std::fmt::Debug for Engine<M, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Optim")
            .field("groups", &self.groups)
            .field("parameters", &self.tracked.len())
            .field("storage", &self.storage)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// One group that holds every parameter; the options have been checked.
    pub fn new(method: M) -> Self {
        Self {
            groups: vec![Group::new(Select::all(), method)],
            tracked: Vec::new(),
            shared: M::Shared::default(),
            storage: Storage::default(),
            mode: Mode::Train,
            switches: 0,
            plan: Plan::default(),
            growth: Growth::default(),
            non_finite: NonFinite::default(),
            skipped: 0,
            names: Names::default(),
            interrupted: false,
            outcome: StepOutcome::default(),
            gradient_norm: None,
            isa: Isa::detect(),
            buffers: Buffers::default(),
        }
    }

    /// Refuses options that are numbers in `f64`, but not in the arithmetic of the parameters.
    pub fn check_range(method: &M) -> Result<()> {
        let mut outcome = Ok(());
        method.read_options(&mut |option| {
            let value = option.value.get();
            if value.is_finite() && !T::Compute::of(value).is_finite() && outcome.is_ok() {
                let expected = format!("finite in {}", T::Compute::NAME);
                outcome = Err(Error::invalid(method.name(), option.name, expected, value));
            }
        });
        outcome
    }

    /// Refuses wrappers that would lose a part of the rule inside, and slots of one name, which would be one
    /// entry of a state dict.
    pub fn check_composition(&self) -> Result<()> {
        self.groups.first().map_or(Ok(()), |group| group.method.check_composition())?;
        let slots = self.groups.first().map_or_else(Vec::new, |group| group.method.slots());
        let twice =
            slots.iter().enumerate().find(|(k, slot)| slots.iter().take(*k).any(|s| s == *slot));
        match twice {
            Some((_, slot)) => {
                let expected = "one slot of each name among nested methods";
                Err(Error::invalid(self.name(), "inner", expected, format!("`{slot}` twice")))
            }
            None => Ok(()),
        }
    }

    /// Name of the method.
    pub fn name(&self) -> &'static str {
        self.groups.first().map_or("", |group| group.method.name())
    }

    /// Whether training and evaluation happen at different points.
    pub fn has_eval_mode(&self) -> bool {
        self.groups.first().is_some_and(|group| group.method.has_eval_mode())
    }

    /// Adds a group whose options have been checked; its method knows nothing yet, or what all groups know if
    /// that is `common`.
    ///
    /// State of parameters that move to the group must fit its options.
    pub fn add_group(&mut self, select: Select, mut method: M, common: bool) -> Result<()> {
        for known in self.tracked.iter().filter(|known| select.matches(&known.name, &known.shape)) {
            let own = self.groups.get(known.group);
            if own.is_some_and(|own| !own.method.keeps_layout(&method)) {
                let (optimizer, name) = (self.name(), known.name.clone());
                return Err(Error::StateLayout { optimizer, name });
            }
        }
        if let Some(first) = self.groups.first().filter(|_| common) {
            method.set_group_state(first.method.group_state());
        }
        self.groups.push(Group::new(select, method));
        self.plan.stale = true;
        Ok(())
    }

    /// Changes how state is stored, as long as there is none.
    pub fn change_storage(
        &mut self,
        what: &'static str,
        change: &mut dyn FnMut(&mut Storage),
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

    /// Number of steps of a parameter.
    pub fn steps(&self, name: &str) -> Option<u64> {
        self.tracked.iter().find(|tracked| tracked.name == name).map(|tracked| tracked.t)
    }

    /// Shows a slot of every parameter that has it.
    pub fn visit_slot(&mut self, slot: &str, visitor: &mut dyn FnMut(&str, &mut [T::Compute])) {
        for tracked in &mut self.tracked {
            let label = tracked.label();
            let Tracked { shape, state, .. } = tracked;
            M::visit_slot(state, slot, shape, &mut |values| visitor(&label, values));
        }
    }

    /// Value of an option, and its range.
    pub fn read_option(&self, group: usize, name: &str) -> Option<(f64, Range)> {
        let mut found = None;
        self.groups.get(group)?.method.read_options(&mut |option| {
            if option.name == name {
                found = Some((option.value.get(), option.range));
            }
        });
        found
    }

    /// Changes an option.
    pub fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        let groups = self.groups.len();
        let found = self.groups.get_mut(group).ok_or(Error::UnknownGroup { group, groups })?;
        let changed =
            found.method.changed(&mut |options| hyper::set_option(options, name, value))?;
        Self::check_range(&changed)?;
        if !self.tracked.is_empty() && !found.method.keeps_layout(&changed) {
            return Err(Error::AlreadyStarted {
                what: "an option that decides the layout of state",
            });
        }
        found.method = changed;
        Ok(())
    }
}
