//! The engine of an optimizer: what is compiled once for each kind of methods.

use super::buffers::Buffers;
use super::group::Group;
use super::plan::{Plan, Tracked};
use crate::error::{Error, Result};
use crate::hyper::{self, Range};
use crate::kernel::Isa;
use crate::numeric::Element;
use crate::optim::method::{Mode, TensorMethod};
use crate::optim::optimizer::NonFinite;
use crate::params::Select;
use crate::state::Storage;

/// Groups, state, and everything around the mathematics.
pub(in crate::optim) struct Engine<M: TensorMethod<T>, T: Element> {
    pub groups: Vec<Group<M>>,
    pub tracked: Vec<Tracked<M::State>>,
    pub shared: M::Shared,
    pub storage: Storage,
    pub mode: Mode,
    pub plan: Plan,
    pub non_finite: NonFinite,
    pub skipped: u64,
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
            plan: self.plan.clone(),
            non_finite: self.non_finite,
            skipped: self.skipped,
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
            plan: Plan::default(),
            non_finite: NonFinite::default(),
            skipped: 0,
            isa: Isa::detect(),
            buffers: Buffers::default(),
        }
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

    /// Adds a group whose options have been checked.
    pub fn add_group(&mut self, select: Select, method: M) {
        self.groups.push(Group::new(select, method));
        self.plan.stale = true;
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
        for Tracked { name, shape, state, .. } in &mut self.tracked {
            M::visit_slot(state, slot, shape, &mut |values| visitor(name, values));
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
        if !self.tracked.is_empty() && !found.method.keeps_layout(&changed) {
            return Err(Error::AlreadyStarted {
                what: "an option that decides the layout of state",
            });
        }
        found.method = changed;
        Ok(())
    }
}
