//! State dicts of the factors of a network.

use super::config::NetworkFactors;
use super::preconditioner::NetworkPreconditioner;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::state::{Lookup, Record, Scalar, StateDict, load_options, problem, save_options};
use std::cell::RefCell;

/// Where the options of the whole network stand, and counts.
const NETWORK: &str = "network";

impl<T: Element> NetworkPreconditioner<T> {
    /// A copy of everything needed to go on bit for bit.
    ///
    /// | key | what |
    /// |---|---|
    /// | `layers.{weight}.factor0.…`, `.factor1.…` | the factors L and R of a layer |
    /// | `layers.{weight}.updates`, `.failures` | how often they took statistics, failures since the last good refresh |
    /// | `layers.{weight}.refreshed`, `.moments` | with eigenpairs: whether there are any; S |
    /// | `groups.{i}.select`, `groups.{i}.{option}` | selector and options of a group |
    /// | `network.steps`, `network.rejected_updates`, `network.kl_clip`, `network.lr` | counts and options of the whole |
    ///
    /// Statistics of a step that has begun are not part of it: save between steps.
    pub fn state_dict(&self) -> StateDict {
        let mut dict = StateDict::new(NetworkFactors::NAME);
        let mut network = Record::new(NETWORK, &mut dict);
        network.count("steps", self.steps);
        network.count("rejected_updates", self.rejected);
        save_options(&mut self.options.clone(), &mut network);
        for (index, group) in self.groups.iter().enumerate() {
            let mut record = Record::new(format!("groups.{index}"), &mut dict);
            record.scalar("select", Scalar::Text(group.select.label().to_owned()));
            save_options(&mut group.options.clone(), &mut record);
        }
        for layer in &self.layers {
            let mut record = Record::new(format!("layers.{}", layer.spec.weight()), &mut dict);
            layer.state.save(&mut record);
        }
        dict
    }

    /// Continues from the saved state of a network with the same layers, groups and storage. The options
    /// of the dict replace the own ones.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the first key that does not fit; nothing has
    /// changed then.
    pub fn load_state_dict(&mut self, dict: &StateDict) -> Result<()> {
        dict.check_header(NetworkFactors::NAME)?;
        let used = RefCell::default();
        let network = Lookup::new(NETWORK, dict, &used);
        let (steps, rejected) = (network.count("steps")?, network.count("rejected_updates")?);
        let mut options = self.options.clone();
        load_options(&mut options, &network)?;
        let mut groups = self.groups.clone();
        for (index, group) in groups.iter_mut().enumerate() {
            let lookup = Lookup::new(format!("groups.{index}"), dict, &used);
            load_options(&mut group.options, &lookup)?;
            let (expected, found) = (group.select.label(), lookup.scalar("select"));
            let found = found.and_then(Scalar::as_text);
            if found != Some(expected) {
                let found = found.unwrap_or("nothing");
                let text = format!("expected the selector `{expected}`, found `{found}`");
                return Err(lookup.problem("select", text));
            }
        }
        let mut layers = Vec::new();
        for layer in &self.layers {
            let lookup = Lookup::new(format!("layers.{}", layer.spec.weight()), dict, &used);
            if let Some(group) = groups.get(layer.group) {
                layers.push(layer.loaded(&group.options, &lookup)?);
            }
        }
        let mut keys = dict.scalars.keys().chain(dict.tensors.keys());
        if let Some(key) = keys.find(|&key| !used.borrow().contains(key)) {
            return Err(problem(key, "unknown key: there is no such layer, group or option here"));
        }
        // everything fits
        (self.options, self.groups, self.layers) = (options, groups, layers);
        (self.steps, self.rejected) = (steps, rejected);
        (self.reduction, self.kl_scale) = (None, 1.0);
        Ok(())
    }
}
