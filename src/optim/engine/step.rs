//! One step: visit, match, check, measure, update.

use super::check::{Checked, leaves_of};
use super::core::Engine;
use super::passes::{Passes, TensorTask};
use super::plan::{Match, Pair, heirs};
use super::tracked::Tracked;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::method::{GradEntry, GradSlice, GradSource, SharedState, TensorMethod};
use crate::optim::report::StepOutcome;
use crate::params::{
    GradVisitor, GradientKind, GradientLeaf, Gradients, Manifest, ParamLeaf, ParamVisitor,
    Parameters, recycle,
};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// One step; after an error nothing has changed.
    pub fn step(&mut self, params: &mut dyn Parameters<T>, grads: &dyn Gradients<T>) -> Result<()> {
        self.with_leaves(params, grads, |engine, params, grads| engine.step_leaves(params, grads))
    }

    /// Whether [`Engine::step`] would take a step; nothing changes.
    pub fn check_step(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool> {
        let checked = self
            .with_leaves(params, grads, |engine, params, grads| engine.check_leaves(params, grads));
        Ok(!matches!(checked?, Checked::Skip(_)))
    }

    /// Collects the leaves of both trees for `f`, in memory that is kept from step to step.
    fn with_leaves<O>(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
        f: impl FnOnce(&mut Self, &mut ParamVisitor<'_, T>, &GradVisitor<'_, T>) -> Result<O>,
    ) -> Result<O> {
        let (buffers, manifest) = take(&mut self.buffers.params);
        let mut param_visitor = ParamVisitor::new(buffers, manifest);
        let (buffers, manifest) = take(&mut self.buffers.grads);
        let mut grad_visitor = GradVisitor::new(buffers, manifest);
        let outcome = param_visitor
            .collect(params)
            .and_then(|()| grad_visitor.collect(grads))
            .and_then(|()| f(self, &mut param_visitor, &grad_visitor));
        self.buffers.params = param_visitor.into_buffers();
        self.buffers.grads = grad_visitor.into_buffers();
        outcome
    }

    fn step_leaves(
        &mut self,
        params: &mut ParamVisitor<'_, T>,
        grads: &GradVisitor<'_, T>,
    ) -> Result<()> {
        // whatever can fail comes first ...
        let matched = match self.check_leaves(params, grads)? {
            Checked::Skip(problem) => {
                self.skipped += 1;
                self.outcome = StepOutcome::Skipped { reason: problem.to_string() };
                return Ok(());
            }
            Checked::Nothing => {
                self.outcome = StepOutcome::NoGradients;
                return Ok(());
            }
            Checked::Step(matched) => matched,
        };
        // ... and from here on nothing does, unless code of the user panics
        self.interrupted = true;
        let mut flat = recycle(take(&mut self.buffers.flat));
        let mut copies = take(&mut self.buffers.param_copies);
        flatten(&mut params.leaves, &mut copies, &mut flat);
        if let Some(matched) = matched {
            self.adopt(&matched, &params.manifest, &flat);
            self.plan.params.clone_from(&params.manifest);
            self.plan.grads.clone_from(&grads.manifest);
            self.plan.curvature.clone_from(&grads.curvature_manifest);
            self.plan.groups = matched.groups;
            self.plan.stale = false;
            self.names.loaded = None;
        }
        self.execute(&mut flat, grads);
        self.buffers.flat = recycle(flat);
        write_back(&mut params.leaves, &copies);
        self.buffers.param_copies = copies;
        self.interrupted = false;
        self.outcome = StepOutcome::Stepped;
        self.gradient_norm = grads.norm;
        Ok(())
    }

    /// Takes over a new plan: makes the states of new parameters, and sorts all states into the
    /// order of the leaves.
    fn adopt(&mut self, matched: &Match, params: &Manifest, flat: &[&mut [T]]) {
        let group_of = |leaf: usize| matched.groups.get(leaf).copied().unwrap_or(0);
        let leaves: BTreeMap<&str, usize> =
            (0..params.len()).map(|leaf| (params.name(leaf), leaf)).collect();
        let known: BTreeSet<String> =
            self.tracked.iter().map(|tracked| tracked.name.clone()).collect();
        let mut moved = Vec::new();
        for tracked in &mut self.tracked {
            if let Some(&leaf) = leaves.get(tracked.name.as_str()) {
                moved.push((tracked.group, group_of(leaf)));
                tracked.group = group_of(leaf);
            }
        }
        self.inherit(&moved);
        for &(leaf, ..) in &matched.pairs {
            let (name, shape, group) = (params.name(leaf), params.shape(leaf), group_of(leaf));
            let method = self.groups.get(group).map(|group| &group.method);
            let Some(data) = flat.get(leaf) else { continue };
            if known.contains(name) {
                self.adopt_rows(name, group, data);
            } else if let Some(method) = method {
                let state = method.init(shape, data, &self.storage);
                self.tracked.push(Tracked::new((name, 0), shape, group, state));
            }
        }
        if M::Shared::SOME {
            let methods = |group: usize| self.groups.get(group).map(|group| &group.method);
            self.shared.adopt(&methods, &leaves_of(matched, params), &self.storage);
        }
        let place = |name: &str| leaves.get(name).copied().unwrap_or(usize::MAX);
        self.tracked.sort_by_key(|tracked| (place(&tracked.name), tracked.row));
        // pairs ascend by leaf, as the states do
        let mut pairs = matched.pairs.iter().peekable();
        self.plan.pairs.clear();
        for (number, tracked) in self.tracked.iter().enumerate() {
            let leaf = place(&tracked.name);
            while pairs.next_if(|(param, ..)| *param < leaf).is_some() {}
            if let Some(&&(param, grad, curvature)) = pairs.peek().filter(|pair| pair.0 == leaf) {
                self.plan.pairs.push(Pair { param, grad, tracked: number, curvature });
            }
        }
    }

    /// A group whose first parameters come from other groups goes on with what one of these remembers.
    fn inherit(&mut self, moved: &[(usize, usize)]) {
        for (to, from) in heirs(moved) {
            let from = self.groups.get(from).map(|group| group.method.clone());
            if let (Some(from), Some(to)) = (from, self.groups.get_mut(to)) {
                to.method.set_group_state(from.group_state());
            }
        }
    }

    /// Updates every parameter of the plan.
    fn execute(&mut self, flat: &mut [&mut [T]], grads: &GradVisitor<'_, T>) {
        copy_strided(&grads.leaves, &mut self.buffers.grad_copies);
        copy_strided(&grads.curvature, &mut self.buffers.curvature_copies);
        let mut work: Vec<TensorTask<'_, T, M::State>> = recycle(take(&mut self.buffers.work));
        let mut leaves = flat.iter_mut().enumerate();
        let mut tracked = self.tracked.iter_mut().enumerate();
        // the leaf at hand: the rows of it that are still to come, and how many elements came before
        let mut current: (usize, &mut [T], usize) = (usize::MAX, &mut [], 0);
        for pair in &self.plan.pairs {
            // pairs ascend in both, so that one walk over each finds them all
            if current.0 != pair.param {
                let Some((leaf, data)) = leaves.find(|(leaf, _)| *leaf == pair.param) else {
                    continue;
                };
                current = (leaf, data, 0);
            }
            let tracked = tracked.find(|(index, _)| *index == pair.tracked);
            let grad = grads.leaves.get(pair.grad).zip(self.buffers.grad_copies.get(pair.grad));
            let (Some((_, tracked)), Some((leaf, copy))) = (tracked, grad) else { continue };
            let (rest, start) = (take(&mut current.1), current.2);
            let (data, rest) = rest.split_at_mut(tracked.numel().min(rest.len()));
            (current.1, current.2) = (rest, start + data.len());
            tracked.t += 1;
            if let Some(group) = self.groups.get(tracked.group) {
                group.method.extend(&mut tracked.state, &tracked.shape, data, &self.storage);
            }
            let curvature = pair.curvature.and_then(|curvature| {
                let leaf = grads.curvature.get(curvature)?;
                let copy = self.buffers.curvature_copies.get(curvature)?;
                Some(grad_slice(leaf, copy).from(start))
            });
            let grad = grad_slice(leaf, copy).from(start);
            work.push(TensorTask::new(tracked, data, grad, curvature));
        }
        for group in &mut self.groups {
            group.method.begin(grads.loss);
        }
        if M::Shared::SOME {
            let mut parts: Vec<GradEntry<'_, T>> = recycle(take(&mut self.buffers.parts));
            parts.extend(work.iter().map(TensorTask::part));
            let methods = |group: usize| self.groups.get(group).map(|group| &group.method);
            self.shared.absorb(&methods, &parts, self.isa);
            self.buffers.parts = recycle(parts);
            for work in &mut work {
                if let Some(source) = self.shared.direction(work.name()) {
                    work.replace_gradient(source);
                }
            }
        }
        let mut passes = Passes {
            storage: &self.storage,
            isa: self.isa,
            buffers: take(&mut self.buffers.passes),
        };
        passes.step(&mut self.groups, &mut work);
        self.buffers.passes = passes.buffers;
        self.buffers.work = recycle(work);
    }
}

/// The leaves as row-major slices; strided ones as copies in `copies`, one place per leaf.
pub(super) fn flatten<'f, T: Element>(
    leaves: &'f mut [ParamLeaf<'_, T>],
    copies: &'f mut Vec<Vec<T>>,
    flat: &mut Vec<&'f mut [T]>,
) {
    copies.resize_with(leaves.len(), Vec::new);
    flat.extend(leaves.iter_mut().zip(copies).map(|(leaf, copy)| match leaf {
        ParamLeaf::Slice(slice) => &mut **slice,
        ParamLeaf::Strided(view) => {
            copy.clear();
            copy.extend(view.iter().copied());
            copy.as_mut_slice()
        }
    }));
}

/// Writes the copies back into the strided leaves.
pub(super) fn write_back<T: Element>(leaves: &mut [ParamLeaf<'_, T>], copies: &[Vec<T>]) {
    for (leaf, copy) in leaves.iter_mut().zip(copies) {
        if let ParamLeaf::Strided(view) = leaf {
            view.iter_mut().zip(copy).for_each(|(p, &x)| *p = x);
        }
    }
}

/// Row-major copies of the strided gradients, one place per leaf.
fn copy_strided<T: Element>(leaves: &[GradientLeaf<'_, T>], copies: &mut Vec<Vec<T>>) {
    copies.resize_with(leaves.len(), Vec::new);
    for (leaf, copy) in leaves.iter().zip(copies) {
        if let GradientKind::Strided(view) = &leaf.kind {
            copy.clear();
            copy.extend(view.iter().copied());
        }
    }
}

fn grad_slice<'g, T: Element>(leaf: &'g GradientLeaf<'_, T>, copy: &'g [T]) -> GradSlice<'g, T> {
    let source = match leaf.kind {
        GradientKind::Slice(slice) => GradSource::Dense(slice),
        GradientKind::Strided(_) => GradSource::Dense(copy),
        GradientKind::Rows(rows) => GradSource::Rows(rows),
        GradientKind::Generated(generator) => GradSource::Generated(generator),
    };
    GradSlice { scale: leaf.scale, bound: leaf.bound, start: 0, source }
}
