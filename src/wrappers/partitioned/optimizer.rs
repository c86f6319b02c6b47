//! Different methods for different parameters.

use super::checkpoint;
use super::part::Part;
use crate::error::{Error, Result};
use crate::hyper::Range;
use crate::numeric::Element;
use crate::optim::{
    ClosureOptimizer, Mode, Optimizer, Problem, StepOutcome, StepReport, step_once,
};
use crate::params::{
    GradBuffers, GradVisitor, Gradients, Manifest, ParamBuffers, ParamVisitor, Parameters, Select,
};
use crate::state::{StateBytes, StateDict};
use crate::tree::Snapshot;
use crate::wrappers::leaves::{PartGrads, PartParams, split_grads, split_params};
use std::collections::BTreeMap;

/// Different methods for different parameters of one model, behind one optimizer.
///
/// *Use it when* matrices are to be trained by one method and everything else by another: Muon and AdamW,
/// Shampoo and Lion, or nothing at all for a frozen part. *Not when* only options differ: those are the
/// parameter groups of one method ([`with_group`](crate::optim::Optim::with_group)).
///
/// A parameter belongs to the last part whose selector matches; all others to the first. A step checks
/// all parts before the first of them changes anything: it succeeds for all, or changes nothing. Frozen
/// parameters stay as they are, and their gradients are not looked at.
///
/// *Groups* are those of all parts, one after the other: schedulers, [`option`](Optimizer::option) and
/// [`set_option`](Optimizer::set_option) count them through. One *state dict* holds all parts; loading
/// checks all of it first. If a part leaves a step out for a gradient or a loss that is not finite
/// ([`NonFinite::Skip`](crate::optim::NonFinite)), all of them do.
///
/// *Sums* that a method takes over tensors are those over the tensors of its part: norms of gradients, the
/// estimates of `Prodigy`, and what [`SpsMax`](crate::first_order::SpsMax),
/// [`Momo`](crate::first_order::Momo) and [`MomoAdam`](crate::first_order::MomoAdam) compare with the loss.
/// Every part gets the whole loss. Two parts that read it each make a step that closes the whole gap to
/// `lower_bound`, and together go too far: use *one* such part, with groups for different options, or give
/// each a small `lr`. A view such as
/// [`clip_grad_norm`](crate::gradient::clip_grad_norm) around the gradients sees all of them, those of frozen
/// parts included.
///
/// *Curvatures* go to the parts whose method reads them; those of frozen parameters and of all other parts
/// are dropped. If no part reads any, a curvature is refused as by a single method.
///
/// State: that of the parts. Gradients are read once for the check of all parts, as in one optimizer.
///
/// # Errors
/// `step` returns those of the parts, and [`Error::EmptyPart`] for a part that is left with no parameter: a
/// selector that matches nothing, or one whose parameters later parts take. In [`Error::EmptyGroup`] a group
/// of a part has its number among the groups of all parts; it selects from its part's parameters alone.
///
/// # Examples
/// ```
/// use eigenstep::{parameters, prelude::*};
/// use ndarray::{Array1, Array2};
///
/// struct Net { embedding: Array2<f64>, hidden: Array2<f64>, bias: Array1<f64> }
/// parameters!(Net { embedding, hidden, bias }: f64);
/// let ones = || Net { embedding: Array2::ones((5, 3)), hidden: Array2::ones((3, 3)), bias: Array1::ones(3) };
///
/// let mut net = ones();
/// let mut opt = Partitioned::new(AdamW { lr: 0.1, ..AdamW::default() }.build()?)
///     .with(Select::name("hidden"), Muon { lr: 0.02, ..Muon::default() }.build()?)
///     .frozen(Select::name("embedding"));
/// opt.step(&mut net, &ones())?;
/// assert_eq!(net.embedding, Array2::<f64>::ones((5, 3)));
/// assert!(net.hidden[[0, 0]] < 1.0 && net.bias[0] < 1.0);
/// assert_eq!((opt.lr(0), opt.lr(1)), (0.1, 0.02));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// optax has `multi_transform` with labels in place of selectors. PyTorch has nothing of the kind:
/// programs keep a list of optimizers there, and if the second one fails, the first has already stepped.
pub struct Partitioned<T: Element> {
    parts: Vec<Part<T>>,
    plan: Plan,
    skipped: u64,
    /// The last step was left out.
    left_out: bool,
}

/// Parts of the parameters of the last tree.
#[derive(Debug, Default)]
struct Plan {
    params: Manifest,
    /// Part of every leaf.
    parts: Vec<usize>,
    /// The same by name.
    by_name: BTreeMap<String, usize>,
}

impl<T: Element> std::fmt::Debug for Partitioned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = self.parts.iter().map(|part| {
            (part.select.label(), part.optimizer.as_ref().map_or("frozen", |part| part.name()))
        });
        f.debug_map().entries(parts).finish()
    }
}

impl<T: Element> Partitioned<T> {
    /// One part that holds every parameter.
    pub fn new(optimizer: impl Optimizer<T> + 'static) -> Self {
        let optimizer: Box<dyn Optimizer<T>> = Box::new(optimizer);
        let part = Part { select: Select::all(), optimizer: Some(optimizer), seen: false };
        Self { parts: vec![part], plan: Plan::default(), skipped: 0, left_out: false }
    }

    /// Parameters that `select` matches get `optimizer`.
    pub fn with(self, select: Select, optimizer: impl Optimizer<T> + 'static) -> Self {
        self.push(select, Some(Box::new(optimizer)))
    }

    /// Parameters that `select` matches stay as they are.
    pub fn frozen(self, select: Select) -> Self {
        self.push(select, None)
    }

    fn push(mut self, select: Select, optimizer: Option<Box<dyn Optimizer<T>>>) -> Self {
        self.parts.push(Part { select, optimizer, seen: false });
        self.plan = Plan::default();
        self
    }

    /// Number of parts, frozen ones among them; part 0 holds what no selector matches.
    pub fn num_parts(&self) -> usize {
        self.parts.len()
    }

    /// The optimizer of a part; `None` if it is frozen, or there is no such part.
    pub fn part(&self, part: usize) -> Option<&dyn Optimizer<T>> {
        self.parts.get(part)?.optimizer.as_deref()
    }

    /// Number of steps that were left out for a gradient or a loss that was not finite.
    pub fn skipped_steps(&self) -> u64 {
        self.skipped
    }

    /// The optimizer that keeps state of a parameter.
    fn with_state(&mut self, name: &str) -> Result<&mut dyn Optimizer<T>> {
        let known = self.parameters_with_state();
        let keeps = |part: &&mut Part<T>| {
            let names = part.optimizer.as_ref().map(|part| part.parameters_with_state());
            names.is_some_and(|names| names.iter().any(|known| known == name))
        };
        match self.parts.iter_mut().find(keeps).and_then(|part| part.optimizer.as_mut()) {
            Some(optimizer) => Ok(&mut **optimizer),
            None => {
                let optimizer = checkpoint::NAME;
                Err(Error::UnknownParameter { optimizer, name: name.to_owned(), known })
            }
        }
    }

    /// The part that a parameter of this name and shape belongs to.
    fn part_of(&self, name: &str, shape: &[usize]) -> usize {
        self.parts.iter().rposition(|part| part.select.matches(name, shape)).unwrap_or(0)
    }

    /// The part that owns group `group`, and the group's number there.
    fn group(&self, mut group: usize) -> Option<(usize, usize)> {
        for (index, part) in self.parts.iter().enumerate() {
            match group.checked_sub(part.num_groups()) {
                Some(rest) => group = rest,
                None => return Some((index, group)),
            }
        }
        None
    }

    /// The parts of a tree of parameters.
    fn plan(&self, params: &Manifest) -> Result<Plan> {
        let (mut parts, mut by_name) = (Vec::new(), BTreeMap::new());
        for leaf in 0..params.len() {
            let (name, shape) = (params.name(leaf), params.shape(leaf));
            let part = self.part_of(name, shape);
            parts.push(part);
            if by_name.insert(name.to_owned(), part).is_some() {
                return Err(Error::DuplicateName { name: name.to_owned() });
            }
        }
        for (index, part) in self.parts.iter().enumerate() {
            // an empty model has nothing for the first part either
            let needed = index > 0 || params.len() > 0;
            if needed && !parts.contains(&index) && !part.may_be_empty() {
                let first = "what no other part selects";
                let select = if index == 0 { first } else { part.select.label() }.to_owned();
                return Err(Error::EmptyPart { part: index, select });
            }
        }
        Ok(Plan { params: params.clone(), parts, by_name })
    }

    /// The parameters of every part.
    fn split<'p>(&mut self, params: &'p mut dyn Parameters<T>) -> Result<Vec<PartParams<'p, T>>> {
        let mut visitor = ParamVisitor::new(ParamBuffers::default(), Manifest::default());
        visitor.collect(params)?;
        if visitor.manifest != self.plan.params || self.plan.parts.is_empty() {
            self.plan = self.plan(&visitor.manifest)?;
            for &part in &self.plan.parts {
                if let Some(part) = self.parts.get_mut(part) {
                    part.seen = true;
                }
            }
        }
        Ok(split_params(visitor, self.parts.len(), |leaf| self.plan.parts.get(leaf).copied()))
    }

    /// The gradients of every part of the tree that was split last.
    fn split_grads<'g>(&self, grads: &'g dyn Gradients<T>) -> Result<Vec<PartGrads<'g, T>>> {
        let mut visitor = GradVisitor::new(GradBuffers::default(), Manifest::default());
        visitor.collect(grads)?;
        for leaf in 0..visitor.manifest.len() {
            let name = visitor.manifest.name(leaf);
            if !self.plan.by_name.contains_key(name) {
                let names = self.plan.by_name.keys().map(String::as_str);
                return Err(Error::unknown_gradient(name, names));
            }
        }
        for leaf in 0..visitor.curvature_manifest.len() {
            let name = visitor.curvature_manifest.name(leaf);
            if !self.plan.by_name.contains_key(name) {
                return Err(Error::CurvatureWithoutGradient { name: name.to_owned() });
            }
        }
        let part_of = |name: &str| self.plan.by_name.get(name).copied();
        let mut split = split_grads(visitor, self.parts.len(), part_of);
        // a program that has the curvature of every leaf need not sort it; if no part reads any, that is said
        if self.reads_curvature() {
            for (part, grads) in self.parts.iter().zip(&mut split) {
                if !part.optimizer.as_ref().is_some_and(|optimizer| optimizer.reads_curvature()) {
                    grads.drop_curvature();
                }
            }
        }
        Ok(split)
    }

    /// Whether every part would take the step.
    fn check_parts(
        &mut self,
        params: &mut [PartParams<'_, T>],
        grads: &[PartGrads<'_, T>],
    ) -> Result<bool> {
        let (mut takes, mut before) = (true, 0);
        for ((part, params), grads) in self.parts.iter_mut().zip(params).zip(grads) {
            let groups = part.num_groups();
            if let Some(optimizer) = &mut part.optimizer {
                let checked = optimizer.check_step(params, grads);
                takes &= checked.map_err(|error| counted_through(error, before))?;
            }
            before += groups;
        }
        Ok(takes)
    }

    /// Moves the parameters of all parts to one of their two points, or of none.
    fn switch(
        &mut self,
        params: &mut dyn Parameters<T>,
        to: impl Fn(&mut dyn Optimizer<T>, &mut dyn Parameters<T>) -> Result<()>,
        back: impl Fn(&mut dyn Optimizer<T>, &mut dyn Parameters<T>) -> Result<()>,
    ) -> Result<()> {
        let before = Snapshot::take(params)?;
        let mut split = self.split(params)?;
        let mut parts = self.parts.iter_mut().zip(&mut split);
        let mut moved = Vec::new();
        let outcome = parts.try_for_each(|(part, params)| {
            let Some(optimizer) = &mut part.optimizer else { return Ok(()) };
            let before = optimizer.mode();
            to(&mut **optimizer, params)?;
            // one that stood there already is not to be moved away
            if optimizer.mode() != before {
                moved.push((optimizer, params));
            }
            Ok(())
        });
        if outcome.is_err() {
            for (optimizer, params) in moved {
                // what has been moved can be moved back; the snapshot makes it exact
                let _ = back(&mut **optimizer, params);
            }
            drop(split);
            before.restore(params)?;
        }
        outcome
    }
}

/// The error of a part, with the number that its group has among those of all parts.
fn counted_through(error: Error, before: usize) -> Error {
    match error {
        Error::EmptyGroup { group, select, parameters } => {
            Error::EmptyGroup { group: before + group, select, parameters }
        }
        other => other,
    }
}

impl<T: Element> Optimizer<T> for Partitioned<T> {
    fn step(&mut self, params: &mut dyn Parameters<T>, grads: &dyn Gradients<T>) -> Result<()> {
        let mut params = self.split(params)?;
        let mut grads = self.split_grads(grads)?;
        if !self.check_parts(&mut params, &grads)? {
            self.skipped += 1;
            self.left_out = true;
            return Ok(());
        }
        self.left_out = false;
        for ((part, params), grads) in self.parts.iter_mut().zip(&mut params).zip(&mut grads) {
            if let Some(optimizer) = &mut part.optimizer {
                grads.finite = true;
                optimizer.step(params, grads)?;
            }
        }
        Ok(())
    }

    fn check_step(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool> {
        let mut params = self.split(params)?;
        let grads = self.split_grads(grads)?;
        self.check_parts(&mut params, &grads)
    }

    fn name(&self) -> &'static str {
        checkpoint::NAME
    }

    fn num_groups(&self) -> usize {
        self.parts.iter().map(Part::num_groups).sum()
    }

    fn option(&self, group: usize, name: &str) -> Option<f64> {
        let (part, group) = self.group(group)?;
        self.part(part)?.option(group, name)
    }

    fn option_range(&self, group: usize, name: &str) -> Option<Range> {
        let (part, group) = self.group(group)?;
        self.part(part)?.option_range(group, name)
    }

    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        let groups = self.num_groups();
        let found = self
            .group(group)
            .and_then(|(part, local)| Some((self.parts.get_mut(part)?.optimizer.as_mut()?, local)));
        let (optimizer, local) = found.ok_or(Error::UnknownGroup { group, groups })?;
        optimizer.set_option(local, name, value)
    }

    fn group_of(&self, name: &str, shape: &[usize]) -> Option<usize> {
        let own = self.part_of(name, shape);
        let before: usize = self.parts.iter().take(own).map(Part::num_groups).sum();
        Some(before + self.part(own)?.group_of(name, shape)?)
    }

    fn skipped_steps(&self) -> u64 {
        self.skipped
    }

    fn reads_curvature(&self) -> bool {
        let mut parts = self.parts.iter().filter_map(|part| part.optimizer.as_ref());
        parts.any(|part| part.reads_curvature())
    }

    /// `Eval` if any part stands there.
    fn mode(&self) -> Mode {
        let mut parts = self.parts.iter().filter_map(|part| part.optimizer.as_ref());
        if parts.any(|part| part.mode() == Mode::Eval) { Mode::Eval } else { Mode::Train }
    }

    fn last_step(&self) -> StepReport {
        if self.left_out {
            let reason = "a gradient or a loss of one part is not finite".to_owned();
            return StepReport {
                outcome: StepOutcome::Skipped { reason },
                ..StepReport::default()
            };
        }
        let (mut report, mut group) = (StepReport::default(), 0);
        for part in &self.parts {
            if let Some(optimizer) = &part.optimizer {
                report.join(optimizer.last_step(), group);
            }
            group += part.num_groups();
        }
        report
    }

    fn parameters_with_state(&self) -> Vec<String> {
        let parts = self.parts.iter().filter_map(|part| part.optimizer.as_ref());
        parts.flat_map(|part| part.parameters_with_state()).collect()
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        if from != to && self.parameters_with_state().iter().any(|name| name == to) {
            return Err(Error::DuplicateName { name: to.to_owned() });
        }
        self.with_state(from)?.rename(from, to)
    }

    fn forget(&mut self, name: &str) -> Result<()> {
        self.with_state(name)?.forget(name)
    }

    fn visit_slot(&mut self, slot: &str, visitor: &mut dyn FnMut(&str, &mut [T::Compute])) {
        for part in self.parts.iter_mut().filter_map(|part| part.optimizer.as_mut()) {
            part.visit_slot(slot, visitor);
        }
    }

    fn grow_rows(&mut self, name: &str, rows: usize) -> Result<()> {
        let unknown = Err(Error::MissingParameter { name: name.to_owned() });
        let parts = self.parts.iter_mut().filter_map(|part| part.optimizer.as_mut());
        let mut answers = parts.map(|part| part.grow_rows(name, rows));
        let known = answers.find(|answer| !matches!(answer, Err(Error::MissingParameter { .. })));
        known.unwrap_or(unknown)
    }

    fn state_bytes(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        for part in self.parts.iter().filter_map(|part| part.optimizer.as_ref()) {
            let own = part.state_bytes();
            own.slots().for_each(|(name, held)| bytes.add(name, held));
            bytes.add_parameters(own.parameters());
        }
        bytes
    }

    fn state_dict(&self) -> StateDict {
        checkpoint::save(&self.parts)
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        checkpoint::load(&mut self.parts, state)
    }

    fn train(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        self.switch(params, |part, params| part.train(params), |part, params| part.eval(params))
    }

    fn eval(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        self.switch(params, |part, params| part.eval(params), |part, params| part.train(params))
    }
}

impl<T: Element> ClosureOptimizer<T> for Partitioned<T> {
    fn step_problem(&mut self, problem: &mut dyn Problem<T>) -> Result<f64> {
        step_once(self, problem)
    }
}
