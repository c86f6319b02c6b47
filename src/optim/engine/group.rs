//! Parameter groups: a selector and a complete configuration each.

use super::tracked::Tracked;
use crate::error::{Error, Result};
use crate::params::{Manifest, Select};

/// A group of parameters, and its method: options, and what is remembered of the group.
#[derive(Clone, Debug)]
pub(in crate::optim) struct Group<M> {
    pub select: Select,
    pub method: M,
}

impl<M> Group<M> {
    pub fn new(select: Select, method: M) -> Self {
        Self { select, method }
    }
}

/// The group of a parameter: the last one whose selector matches.
pub(in crate::optim) fn group_of<M>(groups: &[Group<M>], name: &str, shape: &[usize]) -> usize {
    groups.iter().rposition(|group| group.select.matches(name, shape)).unwrap_or(0)
}

/// Every group but the default one must select something, of the tree or of what was in a tree before.
pub(in crate::optim) fn check_groups<M, S>(
    groups: &[Group<M>],
    params: &Manifest,
    tracked: &[Tracked<S>],
) -> Result<()> {
    for (index, group) in groups.iter().enumerate().skip(1) {
        let mut leaves = 0..params.len();
        let known = |known: &Tracked<S>| group.select.matches(&known.name, &known.shape);
        if !group.select.is_optional()
            && !leaves.any(|leaf| group.select.matches(params.name(leaf), params.shape(leaf)))
            && !tracked.iter().any(known)
        {
            let names = (0..params.len()).map(|leaf| params.name(leaf));
            return Err(Error::empty_group(index, group.select.label(), names));
        }
    }
    Ok(())
}
