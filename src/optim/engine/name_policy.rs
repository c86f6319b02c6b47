//! What a step asks of the names of its trees.

use super::plan::Match;
use crate::error::{Error, Result};
use crate::params::Manifest;
use std::collections::BTreeSet;

/// What names are asked for.
#[derive(Clone, Debug, Default)]
pub(in crate::optim) struct Names {
    /// Every parameter must have a gradient.
    pub all_gradients: bool,
    /// Names need not be those of the saved state.
    pub lenient: bool,
    /// State was loaded and has not met a tree; the names that had no state when it was saved.
    pub loaded: Option<BTreeSet<String>>,
}

impl Names {
    /// Every parameter must have a gradient, if that is asked for.
    pub(super) fn check_gradients(&self, matched: &Match, params: &Manifest) -> Result<()> {
        if !self.all_gradients {
            return Ok(());
        }
        let with: BTreeSet<usize> = matched.pairs.iter().map(|&(param, ..)| param).collect();
        let without = (0..params.len()).filter(|leaf| !with.contains(leaf));
        let names: Vec<String> = without.map(|leaf| params.name(leaf).to_owned()).collect();
        if names.is_empty() { Ok(()) } else { Err(Error::MissingGradients { names }) }
    }

    /// The first tree after loading must have the names of the state, `known`, and no new ones, unless that is
    /// accepted.
    pub(super) fn check_loaded(
        &self,
        optimizer: &'static str,
        known: &[&str],
        (params, grads): (&Manifest, &Manifest),
    ) -> Result<()> {
        let Some(without_state) = self.loaded.as_ref().filter(|_| !self.lenient) else {
            return Ok(());
        };
        let leaves: BTreeSet<&str> = (0..params.len()).map(|leaf| params.name(leaf)).collect();
        let known: BTreeSet<&str> = known.iter().copied().collect();
        let missing = known.difference(&leaves).map(|name| (*name).to_owned());
        let new = (0..grads.len()).map(|leaf| grads.name(leaf));
        let new = new.filter(|name| !known.contains(name) && !without_state.contains(*name));
        let (missing, new): (Vec<_>, Vec<_>) =
            (missing.collect(), new.map(str::to_owned).collect());
        if missing.is_empty() && new.is_empty() {
            return Ok(());
        }
        Err(Error::UnmatchedState { optimizer, missing, new })
    }

    /// Names of the last tree, or of the state that was loaded, that have no state: all but `known`.
    pub(super) fn without_state<'n>(
        &'n self,
        known: &[&str],
        params: &'n Manifest,
    ) -> Vec<&'n str> {
        if let Some(loaded) = &self.loaded {
            return loaded.iter().map(String::as_str).collect();
        }
        let known: BTreeSet<&str> = known.iter().copied().collect();
        let names = (0..params.len()).map(|leaf| params.name(leaf));
        names.filter(|name| !known.contains(name)).collect()
    }
}

/// No parameter with a gradient may stand at the evaluation point, where those of `elsewhere` do.
pub(super) fn check_points(
    optimizer: &'static str,
    elsewhere: &[&str],
    grads: &Manifest,
) -> Result<()> {
    if elsewhere.is_empty() {
        return Ok(());
    }
    let elsewhere: BTreeSet<&str> = elsewhere.iter().copied().collect();
    let mut names = (0..grads.len()).map(|leaf| grads.name(leaf));
    match names.find(|name| elsewhere.contains(name)) {
        Some(name) => Err(Error::LeftAtEvaluation { optimizer, name: name.to_owned() }),
        None => Ok(()),
    }
}
