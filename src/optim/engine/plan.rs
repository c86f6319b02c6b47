//! Which gradient belongs to which parameter and which state: worked out when the trees change, kept
//! while they stay the same.

use super::group::{Group, check_groups, group_of};
use super::grown::{Growth, check_rows};
use super::tracked::Tracked;
use crate::error::{Error, Result, check_shape};
use crate::optim::report::{StepOutcome, StepReport};
use crate::params::Manifest;
use std::collections::{BTreeMap, BTreeSet};

/// A parameter leaf, its gradient leaf and its state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::optim) struct Pair {
    pub param: usize,
    pub grad: usize,
    pub tracked: usize,
    pub curvature: Option<usize>,
}

/// The trees of the last step, and how they were matched.
#[derive(Clone, Debug, Default)]
pub(in crate::optim) struct Plan {
    pub params: Manifest,
    pub grads: Manifest,
    pub curvature: Manifest,
    /// In the order of the parameter leaves.
    pub pairs: Vec<Pair>,
    /// Group of every parameter leaf.
    pub groups: Vec<usize>,
    /// The groups have changed since.
    pub stale: bool,
}

impl Plan {
    /// What a step of this plan did, which ended with `outcome`.
    pub fn report(&self, outcome: &StepOutcome, norm: Option<f64>, groups: usize) -> StepReport {
        let mut report = StepReport { outcome: outcome.clone(), ..StepReport::default() };
        if report.outcome != StepOutcome::Stepped {
            return report;
        }
        let with: BTreeSet<usize> = self.pairs.iter().map(|pair| pair.param).collect();
        let without = (0..self.params.len()).filter(|leaf| !with.contains(leaf));
        let used: BTreeSet<usize> = self.groups.iter().copied().collect();
        report.updated = with.len();
        report.without_gradient = without.map(|leaf| self.params.name(leaf).to_owned()).collect();
        report.idle_groups = (0..groups).filter(|group| !used.contains(group)).collect();
        report.gradient_norm = norm;
        report
    }
}

/// Which groups go on with what another one remembers: those whose first parameters come from other groups, with
/// the group of the first one. `moved` has the old and the new group of every parameter.
pub(in crate::optim) fn heirs(moved: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let occupied: BTreeSet<usize> = moved.iter().map(|&(from, _)| from).collect();
    let mut heirs = BTreeMap::new();
    for &(from, to) in moved.iter().filter(|(_, to)| !occupied.contains(to)) {
        heirs.entry(to).or_insert(from);
    }
    heirs.into_iter().collect()
}

/// A plan for new trees, made without changing anything.
#[derive(Debug)]
pub(in crate::optim) struct Match {
    /// Parameter leaf, gradient leaf and curvature leaf.
    pub pairs: Vec<(usize, usize, Option<usize>)>,
    /// Group of every parameter leaf.
    pub groups: Vec<usize>,
}

/// Leaves by name.
pub(in crate::optim) fn by_name(manifest: &Manifest) -> Result<BTreeMap<&str, usize>> {
    let mut leaves = BTreeMap::new();
    for leaf in 0..manifest.len() {
        let name = manifest.name(leaf);
        if leaves.insert(name, leaf).is_some() {
            return Err(Error::DuplicateName { name: name.to_owned() });
        }
    }
    Ok(leaves)
}

/// Matches gradients to parameters by name, and checks names, shapes and groups.
pub(in crate::optim) fn match_trees<M, S>(
    (params, grads, curvature): (&Manifest, &Manifest, &Manifest),
    groups: &[Group<M>],
    (tracked, growth): (&[Tracked<S>], &Growth),
) -> Result<Match> {
    let param_leaves = by_name(params)?;
    let grad_leaves = by_name(grads)?;
    let curvature_leaves = by_name(curvature)?;
    for (&name, &leaf) in &curvature_leaves {
        let Some(&grad) = grad_leaves.get(name) else {
            return Err(Error::CurvatureWithoutGradient { name: name.to_owned() });
        };
        check_shape(name, grads.shape(grad), curvature.shape(leaf))?;
    }
    let mut pairs = Vec::with_capacity(grads.len());
    for grad in 0..grads.len() {
        let name = grads.name(grad);
        let Some(&param) = param_leaves.get(name) else {
            return Err(Error::unknown_gradient(name, param_leaves.keys().copied()));
        };
        check_shape(name, params.shape(param), grads.shape(grad))?;
        pairs.push((param, grad, curvature_leaves.get(name).copied()));
    }
    pairs.sort_unstable();
    let shape_of = |name: &str| param_leaves.get(name).map(|&leaf| params.shape(leaf));
    check_rows(tracked, growth, &shape_of)?;
    check_groups(groups, params, tracked)?;
    let groups = (0..params.len())
        .map(|leaf| group_of(groups, params.name(leaf), params.shape(leaf)))
        .collect();
    Ok(Match { pairs, groups })
}
