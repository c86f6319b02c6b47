//! One step: visit, match, check, measure, update.

use super::check::{Checked, leaves_of};
use super::core::Engine;
use super::passes::{PassBuffers, Passes, TensorTask};
use super::plan::{Match, Pair, Tracked, by_name};
use crate::error::{Error, Result, check_shape};
use crate::numeric::Element;
use crate::optim::method::{
    GradEntry, GradSlice, GradSource, Mode, SharedState, Stage, TensorMethod,
};
use crate::params::{
    GradVisitor, GradientKind, GradientLeaf, Gradients, Manifest, ParamBuffers, ParamLeaf,
    ParamVisitor, Parameters, recycle,
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
        Ok(!matches!(checked?, Checked::Skip))
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
            Checked::Skip => {
                self.skipped += 1;
                return Ok(());
            }
            Checked::Nothing => return Ok(()),
            Checked::Step(matched) => matched,
        };
        // ... and from here on nothing does
        let mut flat = recycle(take(&mut self.buffers.flat));
        let mut copies = take(&mut self.buffers.param_copies);
        flatten(&mut params.leaves, &mut copies, &mut flat);
        if let Some(matched) = matched {
            self.adopt(&matched, &params.manifest, &flat);
            self.plan.params.clone_from(&params.manifest);
            self.plan.grads.clone_from(&grads.manifest);
            self.plan.curvature.clone_from(&grads.curvature_manifest);
            self.plan.stale = false;
        }
        self.execute(&mut flat, grads);
        self.buffers.flat = recycle(flat);
        write_back(&mut params.leaves, &copies);
        self.buffers.param_copies = copies;
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
        for tracked in &mut self.tracked {
            if let Some(&leaf) = leaves.get(tracked.name.as_str()) {
                tracked.group = group_of(leaf);
            }
        }
        for &(leaf, ..) in &matched.pairs {
            let (name, shape, group) = (params.name(leaf), params.shape(leaf), group_of(leaf));
            let method = self.groups.get(group).map(|group| &group.method);
            if let (Some(method), Some(data), false) =
                (method, flat.get(leaf), known.contains(name))
            {
                let state = method.init(shape, data, &self.storage);
                self.tracked.push(Tracked::new(name, shape, group, state));
            }
        }
        if M::Shared::SOME {
            let methods = |group: usize| self.groups.get(group).map(|group| &group.method);
            self.shared.adopt(&methods, &leaves_of(matched, params), &self.storage);
        }
        let place = |name: &str| leaves.get(name).copied().unwrap_or(usize::MAX);
        self.tracked.sort_by_key(|tracked| place(&tracked.name));
        let tracked: BTreeMap<&str, usize> = self
            .tracked
            .iter()
            .enumerate()
            .map(|(i, tracked)| (tracked.name.as_str(), i))
            .collect();
        let pairs = matched.pairs.iter().filter_map(|&(param, grad, curvature)| {
            let tracked = *tracked.get(params.name(param))?;
            Some(Pair { param, grad, tracked, curvature })
        });
        self.plan.pairs = pairs.collect();
    }

    /// Updates every parameter of the plan.
    fn execute(&mut self, flat: &mut [&mut [T]], grads: &GradVisitor<'_, T>) {
        copy_strided(&grads.leaves, &mut self.buffers.grad_copies);
        copy_strided(&grads.curvature, &mut self.buffers.curvature_copies);
        let mut work: Vec<TensorTask<'_, T, M::State>> = recycle(take(&mut self.buffers.work));
        let mut leaves = flat.iter_mut().enumerate();
        let mut tracked = self.tracked.iter_mut().enumerate();
        for pair in &self.plan.pairs {
            // pairs ascend in both, so that one walk over each finds them all
            let data = leaves.find(|(leaf, _)| *leaf == pair.param);
            let tracked = tracked.find(|(index, _)| *index == pair.tracked);
            let grad = grads.leaves.get(pair.grad).zip(self.buffers.grad_copies.get(pair.grad));
            let (Some((_, data)), Some((_, tracked)), Some((leaf, copy))) = (data, tracked, grad)
            else {
                continue;
            };
            tracked.t += 1;
            if let Some(group) = self.groups.get(tracked.group) {
                group.method.extend(&mut tracked.state, &tracked.shape, data, &self.storage);
            }
            let curvature = pair.curvature.and_then(|curvature| {
                let leaf = grads.curvature.get(curvature)?;
                Some(grad_slice(leaf, self.buffers.curvature_copies.get(curvature)?))
            });
            work.push(TensorTask::new(tracked, data, grad_slice(leaf, copy), curvature));
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

    /// Moves the parameters to the other point.
    pub fn switch(&mut self, to: Mode, params: &mut dyn Parameters<T>) -> Result<()> {
        if !self.has_eval_mode() || self.mode == to {
            return Ok(());
        }
        let mut visitor = ParamVisitor::new(ParamBuffers::default(), Manifest::default());
        visitor.collect(params)?;
        let leaves = by_name(&visitor.manifest)?;
        for known in &self.tracked {
            let Some(&leaf) = leaves.get(known.name.as_str()) else {
                return Err(Error::MissingParameter { name: known.name.clone() });
            };
            check_shape(&known.name, &known.shape, visitor.manifest.shape(leaf))?;
        }
        let (mut copies, mut flat) = (Vec::new(), Vec::new());
        flatten(&mut visitor.leaves, &mut copies, &mut flat);
        let mut data: Vec<_> = flat.iter_mut().map(Some).collect();
        let nothing = GradSlice::plain(GradSource::Dense(&[]));
        let mut work = Vec::new();
        for tracked in &mut self.tracked {
            let leaf = leaves.get(tracked.name.as_str());
            if let Some(data) = leaf.and_then(|&leaf| data.get_mut(leaf)?.take()) {
                work.push(TensorTask::new(tracked, data, nothing, None));
            }
        }
        let mut passes =
            Passes { storage: &self.storage, isa: self.isa, buffers: PassBuffers::default() };
        passes.run(Stage::Switch(to, self.switches + 1), &self.groups, &mut work);
        drop((work, data));
        drop(flat);
        write_back(&mut visitor.leaves, &copies);
        self.mode = to;
        self.switches += 1;
        Ok(())
    }
}

/// The leaves as row-major slices; strided ones as copies in `copies`, one place per leaf.
fn flatten<'f, T: Element>(
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
fn write_back<T: Element>(leaves: &mut [ParamLeaf<'_, T>], copies: &[Vec<T>]) {
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
    GradSlice { scale: leaf.scale, bound: leaf.bound, source }
}
