//! All that can be wrong with a step, found before anything changes.

use super::core::Engine;
use super::finite::{self, Limit};
use super::plan::{Match, match_trees};
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::optim::method::{Mode, ParamInfo, SharedState, TensorMethod};
use crate::optim::optimizer::NonFinite;
use crate::params::{GradVisitor, Manifest, ParamVisitor};
use num_traits::Float;

/// What becomes of a step in which nothing is wrong.
pub(super) enum Checked {
    /// It is taken; with a new plan if the trees have changed.
    Step(Option<Match>),
    /// It is left out, because of a gradient or a loss that is not finite.
    Skip(Error),
    /// There is no gradient at all: it is no step, for group counters neither.
    Nothing,
}

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// Checks a step.
    pub(super) fn check_leaves(
        &self,
        params: &ParamVisitor<'_, T>,
        grads: &GradVisitor<'_, T>,
    ) -> Result<Checked> {
        if self.interrupted {
            return Err(Error::Interrupted { optimizer: self.name() });
        }
        if self.mode == Mode::Eval {
            return Err(Error::EvaluationMode { optimizer: self.name() });
        }
        let same = self.plan.params == params.manifest
            && self.plan.grads == grads.manifest
            && self.plan.curvature == grads.curvature_manifest;
        let trees = (&params.manifest, &grads.manifest, &grads.curvature_manifest);
        let matched = (self.plan.stale || !same)
            .then(|| match_trees(trees, &self.groups, (&self.tracked, &self.growth)))
            .transpose()?;
        if let Some(matched) = &matched {
            self.check_names(matched, &params.manifest, &grads.manifest)?;
        }
        if let Some((first, others)) = self.groups.split_first() {
            others.iter().try_for_each(|group| group.method.check_group(&first.method))?;
        }
        let groups = &self.groups;
        let methods = |group: usize| groups.get(group).map(|group| &group.method);
        if let Some(matched) = matched.as_ref().filter(|_| M::Shared::SOME) {
            self.shared.check(&methods, &leaves_of(matched, &params.manifest))?;
        }
        self.check_inputs(matched.as_ref(), grads)?;
        if self.non_finite != NonFinite::Propagate {
            let check = || finite::check(self.isa, grads, self.largest_gradient());
            match check_loss(grads.loss).and_then(|()| check()) {
                Err(problem) if self.non_finite == NonFinite::Skip => {
                    return Ok(Checked::Skip(problem));
                }
                check => check?,
            }
        }
        for tracked in &self.tracked {
            if let Some(group) = self.groups.get(tracked.group) {
                group.method.check_state(&tracked.name, &tracked.state)?;
            }
        }
        self.shared.check_state(&methods)?;
        if grads.leaves.is_empty() {
            return Ok(Checked::Nothing);
        }
        Ok(Checked::Step(matched))
    }

    /// The largest gradient that every group takes.
    fn largest_gradient(&self) -> Limit<T::Compute> {
        let bf16 = self.storage.has_bf16();
        let limits = self.groups.iter().map(|group| group.method.largest_gradient(bf16));
        let largest = limits.fold(T::Compute::max_value(), Float::min);
        Limit { largest, optimizer: self.name() }
    }

    /// Inputs besides gradients: those that a method needs must be there, and what is there is read.
    fn check_inputs(&self, matched: Option<&Match>, grads: &GradVisitor<'_, T>) -> Result<()> {
        let reads = || self.groups.iter().any(|group| group.method.uses_curvature());
        if !grads.curvature.is_empty() && !reads() {
            return Err(Error::UnusedCurvature { optimizer: self.name() });
        }
        if !self.groups.iter().any(|group| group.method.has_needs()) {
            return Ok(());
        }
        match matched {
            Some(matched) => matched.pairs.iter().try_for_each(|&(leaf, grad, curvature)| {
                let name = grads.manifest.name(grad);
                let group = matched.groups.get(leaf).copied().unwrap_or(0);
                let t = self.steps(name).unwrap_or(0) + 1;
                self.check_needs(name, (group, t), (grads.loss.is_some(), curvature.is_some()))
            }),
            None => self.plan.pairs.iter().try_for_each(|pair| {
                let Some(tracked) = self.tracked.get(pair.tracked) else { return Ok(()) };
                let step = (tracked.group, tracked.t + 1);
                let given = (grads.loss.is_some(), pair.curvature.is_some());
                self.check_needs(&tracked.name, step, given)
            }),
        }
    }

    /// Whether step `t` of a tensor has what its method needs, of loss and curvature.
    fn check_needs(
        &self,
        name: &str,
        (group, t): (usize, u64),
        (loss, curvature): (bool, bool),
    ) -> Result<()> {
        let Some(group) = self.groups.get(group) else { return Ok(()) };
        let (needs, optimizer) = (group.method.needs(t), self.name());
        if needs.loss && !loss {
            let (input, of, help) = ("the loss", String::new(), "with_loss");
            return Err(Error::MissingInput { optimizer, input, of, help });
        }
        if needs.curvature && !curvature {
            let (of, help) = (format!(" for `{name}`"), "with_curvature");
            return Err(Error::MissingInput { optimizer, input: "a curvature", of, help });
        }
        Ok(())
    }
}

/// A loss that comes with the gradients must be finite as they must, whether a rule reads it or not: the
/// gradients of a loss that is none mean nothing.
fn check_loss(loss: Option<f64>) -> Result<()> {
    match loss.filter(|loss| !loss.is_finite()) {
        Some(loss) => Err(Error::NonFiniteLoss(loss)),
        None => Ok(()),
    }
}

/// The leaves of the tree with their groups.
pub(super) fn leaves_of<'l>(matched: &Match, params: &'l Manifest) -> Vec<ParamInfo<'l>> {
    let leaf = |leaf: usize| ParamInfo {
        name: params.name(leaf),
        shape: params.shape(leaf),
        group: matched.groups.get(leaf).copied().unwrap_or(0),
    };
    (0..params.len()).map(leaf).collect()
}
