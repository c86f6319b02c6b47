//! Names of parameters: those that state was saved with, those that are gone or called otherwise.

use super::core::Engine;
use super::plan::Match;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::optim::method::{SharedState, TensorMethod};
use crate::optim::optimizer::unknown_parameter;
use crate::optim::report::{StepOutcome, StepReport};
use crate::params::Manifest;
use std::collections::BTreeSet;

/// Key of the names without state in a state dict.
pub(super) const WITHOUT_STATE: &str = "parameters.without_state";

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// Checks the names of a new plan.
    pub(super) fn check_names(
        &self,
        matched: &Match,
        params: &Manifest,
        grads: &Manifest,
    ) -> Result<()> {
        self.names.check_gradients(matched, params)?;
        let Some(without_state) = self.names.loaded.as_ref().filter(|_| !self.names.lenient) else {
            return Ok(());
        };
        let leaves: BTreeSet<&str> = (0..params.len()).map(|leaf| params.name(leaf)).collect();
        let known: BTreeSet<&str> = self.tracked.iter().map(|known| known.name.as_str()).collect();
        let missing = known.difference(&leaves).map(|name| (*name).to_owned());
        let new = (0..grads.len()).map(|leaf| grads.name(leaf));
        let new = new.filter(|name| !known.contains(name) && !without_state.contains(*name));
        let (missing, new): (Vec<_>, Vec<_>) =
            (missing.collect(), new.map(str::to_owned).collect());
        if missing.is_empty() && new.is_empty() {
            return Ok(());
        }
        Err(Error::UnmatchedState { optimizer: self.name(), missing, new })
    }

    /// Names that were in the tree of the last step, and never had a gradient.
    pub(super) fn without_state(&self) -> Vec<&str> {
        if let Some(loaded) = &self.names.loaded {
            return loaded.iter().map(String::as_str).collect();
        }
        let known: BTreeSet<&str> = self.tracked.iter().map(|known| known.name.as_str()).collect();
        let params = &self.plan.params;
        let names = (0..params.len()).map(|leaf| params.name(leaf));
        names.filter(|name| !known.contains(name)).collect()
    }

    /// What the last step did.
    pub fn report(&self) -> StepReport {
        let mut report = StepReport { outcome: self.outcome.clone(), ..StepReport::default() };
        if report.outcome != StepOutcome::Stepped {
            return report;
        }
        let with: BTreeSet<usize> = self.plan.pairs.iter().map(|pair| pair.param).collect();
        let params = &self.plan.params;
        let without = (0..params.len()).filter(|leaf| !with.contains(leaf));
        report.updated = with.len();
        report.without_gradient = without.map(|leaf| params.name(leaf).to_owned()).collect();
        let used: BTreeSet<usize> = self.plan.groups.iter().copied().collect();
        report.idle_groups = (0..self.groups.len()).filter(|group| !used.contains(group)).collect();
        report.gradient_norm = self.gradient_norm;
        report
    }

    /// State of `from` goes on as that of `to`.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        if from != to && self.tracked.iter().any(|known| known.name == to) {
            return Err(Error::DuplicateName { name: to.to_owned() });
        }
        if !self.tracked.iter().any(|known| known.name == from) {
            return Err(self.unknown(from));
        }
        for known in self.tracked.iter_mut().filter(|known| known.name == from) {
            known.rename(to);
        }
        if let Some(rows) = self.growth.remove(from) {
            self.growth.insert(to.to_owned(), rows);
        }
        self.shared.rename(from, to);
        self.plan.stale = true;
        Ok(())
    }

    /// Drops the state of a parameter.
    pub fn forget(&mut self, name: &str) -> Result<()> {
        if !self.tracked.iter().any(|known| known.name == name) {
            return Err(self.unknown(name));
        }
        self.tracked.retain(|known| known.name != name);
        self.growth.remove(name);
        // a vector of several tensors keeps its length: the part has no gradient any more, and no name
        self.shared.rename(name, "");
        self.plan.stale = true;
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        unknown_parameter(self.name(), name, self.tracked.iter().map(|known| known.name.as_str()))
    }
}
