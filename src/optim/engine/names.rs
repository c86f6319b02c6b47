//! Names of parameters: those that state was saved with, those that are gone or called otherwise.

use super::core::Engine;
use super::name_policy::check_points;
use super::plan::Match;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::optim::method::{Mode, SharedState, TensorMethod};
use crate::optim::report::StepReport;
use crate::params::Manifest;

/// Key of the names without state in a state dict.
pub(super) const WITHOUT_STATE: &str = "parameters.without_state";

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// Checks the names of a new plan, and that what has them stands where training goes on.
    pub(super) fn check_names(
        &self,
        matched: &Match,
        params: &Manifest,
        grads: &Manifest,
    ) -> Result<()> {
        self.names.check_gradients(matched, params)?;
        let known: Vec<&str> = self.tracked.iter().map(|known| known.name.as_str()).collect();
        self.names.check_loaded(self.name(), &known, (params, grads))?;
        let elsewhere = self.tracked.iter().filter(|known| known.at == Mode::Eval);
        let elsewhere: Vec<&str> = elsewhere.map(|known| known.name.as_str()).collect();
        check_points(self.name(), &elsewhere, grads)
    }

    /// Names that were in the tree of the last step, and never had a gradient.
    pub(super) fn without_state(&self) -> Vec<&str> {
        let known: Vec<&str> = self.tracked.iter().map(|known| known.name.as_str()).collect();
        self.names.without_state(&known, &self.plan.params)
    }

    /// What the last step did.
    pub fn report(&self) -> StepReport {
        self.plan.report(&self.outcome, self.gradient_norm, self.groups.len())
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
        self.growth.rename(from, to);
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
        self.growth.withdraw(name);
        // the first tree after loading may have it: it begins anew then
        if let Some(without_state) = &mut self.names.loaded {
            without_state.insert(name.to_owned());
        }
        // a vector of several tensors keeps its length: the part has no gradient any more, and no name
        self.shared.rename(name, "");
        self.plan.stale = true;
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        let known = self.tracked.iter().map(|known| known.name.as_str());
        Error::unknown_parameter(self.name(), name, known)
    }
}
