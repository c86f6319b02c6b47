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
}
