//! Slow weights around any optimizer.

use super::checkpoint::{self, Group, Saved};
use super::options::LookaheadOptions;
use super::slow::Slow;
use crate::error::{Error, Result};
use crate::hyper::{Hyperparameters, Range, set_option};
use crate::numeric::Element;
use crate::optim::{ClosureOptimizer, Mode, Optimizer, Problem, StepReport, step_once};
use crate::params::{Gradients, Parameters};
use crate::state::{StateBytes, StateDict};
use crate::tree::{Snapshot, TreeVec, copy};
use crate::wrappers::leaves::{select, with_names};
use crate::wrappers::nested::{self, Reader};
use std::collections::{BTreeMap, BTreeSet};

/// Slow weights that go half of the way after every few steps of any optimizer: Lookahead.
///
/// *Use it when* an optimizer makes fast progress on average but oscillates: the slow weights average over its
/// last steps, and learning rates may be larger. It also makes the inner optimizer's options matter less. *Not
/// when* memory is scarce, or the inner optimizer averages by itself: Schedule-Free methods,
/// `PrimalAveraging`.
///
/// ```text
/// p ← step of the inner optimizer
/// every k steps:
///   s ← s + α·(p − s)
///   p ← s
/// ```
/// Steps are counted by group. A parameter's slow weights begin as what it is before its first gradient. One
/// without a gradient in the `k`-th step keeps both weights until the next time. A step that the inner
/// optimizer leaves out ([`NonFinite::Skip`](crate::optim::NonFinite)) does not count, nor does one without
/// any gradient.
///
/// Slow weights are kept in the arithmetic type. With `bf16` and `f16` parameters they are averages of the exact
/// weights that the inner optimizer remembers ([`Rounding`](crate::state::Rounding)), which go on from the exact
/// slow weights: nothing is lost to rounding.
///
/// Options, by group, see [`LookaheadOptions`]: `k` = 5 as `lookahead_k`, `alpha` = 0.5 as `lookahead_alpha`,
/// `pullback_momentum` = `None`. `alpha` = 1 makes a group one of the inner optimizer alone. All other options
/// are the inner optimizer's, so schedules act through it.
///
/// [`eval`](Optimizer::eval) moves the parameters to the slow weights, and [`train`](Optimizer::train) back to
/// the fast ones, to the bit; with [`Lookahead::with_inner_eval`] both are the inner optimizer's own.
///
/// State: the inner optimizer's, and `slow`: 4 bytes per `f32`, `bf16` or `f16` parameter, 8 per `f64` one. With
/// `Pullback`, as much again for every momentum. At the evaluation point, a copy of the fast weights.
///
/// # Errors
/// Those of the inner optimizer; [`Error::EvaluationMode`] for a step at the evaluation point.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let inner = Sgd { lr: 0.5, ..Sgd::default() }.build()?;
/// let mut opt = Lookahead::with_options(inner, LookaheadOptions { k: 2, ..Default::default() })?;
/// let mut w = array![8.0f32];
/// opt.step(&mut w, &array![4.0])?;
/// assert_eq!(w, array![6.0]); // the fast weight
/// opt.step(&mut w, &array![4.0])?;
/// assert_eq!(w, array![6.0]); // half of the way from 8 to 4
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The paper's code and pytorch_optimizer hold slow weights of all parameters from the beginning, in the
/// parameters' own type, and pull back the slot `momentum_buffer` alone, so that with Adam nothing is. Their `k`
/// and `alpha` are the same for all groups.
///
/// # Source
/// M. R. Zhang, J. Lucas, G. Hinton, J. Ba, "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019.
#[derive(Clone)]
pub struct Lookahead<O, T: Element> {
    inner: O,
    own: Saved<T>,
    inner_eval: bool,
}

/// Name of the optimizer in errors and state dicts.
const NAME: &str = LookaheadOptions::NAME;

impl<O, T: Element> std::fmt::Debug for Lookahead<O, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(NAME).field("groups", &self.own.groups).finish_non_exhaustive()
    }
}

impl<O: Optimizer<T>, T: Element> Lookahead<O, T> {
    /// Around `inner`, with the default options in all groups.
    pub fn new(inner: O) -> Self {
        let groups = vec![Group::default(); inner.num_groups()];
        let own = Saved { groups, slow: Slow::default(), fast: None };
        Self { inner, own, inner_eval: false }
    }

    /// Around `inner`, with these options in all groups.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for `k` = 0, and `alpha` outside `[0, 1]`.
    pub fn with_options(inner: O, options: LookaheadOptions) -> Result<Self> {
        options.validate()?;
        let mut lookahead = Self::new(inner);
        lookahead.own.groups.iter_mut().for_each(|group| group.options = options);
        Ok(lookahead)
    }

    /// Leaves [`eval`](Optimizer::eval) and [`train`](Optimizer::train) to the inner optimizer: for those that
    /// have an evaluation point of their own.
    pub fn with_inner_eval(mut self) -> Self {
        self.inner_eval = true;
        self
    }

    /// The inner optimizer.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// The inner optimizer, to be changed: groups may be added, which begin with the options of group 0.
    pub fn inner_mut(&mut self) -> &mut O {
        &mut self.inner
    }

    /// The inner optimizer, without the slow weights.
    pub fn into_inner(self) -> O {
        self.inner
    }

    /// The slow weights of all parameters that have had a gradient.
    pub fn slow_weights(&self) -> &TreeVec<T::Compute> {
        &self.own.slow.weights
    }

    /// The options of a group, and those of group 0 for one that is new.
    fn group(&self, group: usize) -> Option<&Group> {
        let groups = &self.own.groups;
        groups.get(group).or(groups.first()).filter(|_| group < self.inner.num_groups())
    }

    /// Makes places for groups that were added to the inner optimizer.
    fn match_groups(&mut self) {
        // a group that is added in mid-run goes on with the others
        let new = self.own.groups.first().cloned();
        let new = new.unwrap_or(Group { options: LookaheadOptions::default(), steps: 0 });
        self.own.groups.resize(self.inner.num_groups(), new);
    }

    /// Counts a step in every group; returns the groups whose slow weights take one.
    fn count_step(&mut self) -> BTreeMap<usize, LookaheadOptions> {
        self.match_groups();
        let mut due = BTreeMap::new();
        for (index, group) in self.own.groups.iter_mut().enumerate() {
            group.steps += 1;
            if group.steps >= group.options.k {
                group.steps = 0;
                due.insert(index, group.options);
            }
        }
        due
    }

    /// One step of the slow weights of these groups.
    fn step_slow(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
        due: &BTreeMap<usize, LookaheadOptions>,
    ) -> Result<()> {
        let inner = &self.inner;
        let mut names: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        with_names(grads, |leaves| {
            for leaf in 0..leaves.len() {
                let (name, shape) = (leaves.name(leaf), leaves.shape(leaf));
                if let Some(group) = inner.group_of(name, shape) {
                    names.entry(group).or_default().insert(name.to_owned());
                }
            }
        })?;
        for (group, names) in &names {
            if let Some(options) = due.get(group) {
                self.own.slow.step(&mut self.inner, params, (names, options))?;
            }
        }
        Ok(())
    }
}

impl<O: Optimizer<T>, T: Element> Optimizer<T> for Lookahead<O, T> {
    fn step(&mut self, params: &mut dyn Parameters<T>, grads: &dyn Gradients<T>) -> Result<()> {
        self.check_mode()?;
        let new = self.own.slow.first_seen(&self.inner, params, grads)?;
        let skipped = self.inner.skipped_steps();
        self.inner.step(params, grads)?;
        let nothing = with_names(grads, |leaves| leaves.len() == 0)?;
        if nothing || self.inner.skipped_steps() != skipped {
            return Ok(());
        }
        // all that follows fits the trees of this step
        if let Some(new) = new {
            self.own.slow.add(&new)?;
        }
        let due = self.count_step();
        if due.is_empty() { Ok(()) } else { self.step_slow(params, grads, &due) }
    }

    fn check_step(
        &mut self,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool> {
        self.check_mode()?;
        self.own.slow.first_seen(&self.inner, params, grads)?;
        self.inner.check_step(params, grads)
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn num_groups(&self) -> usize {
        self.inner.num_groups()
    }

    fn option(&self, group: usize, name: &str) -> Option<f64> {
        let own = self.group(group)?.options.option(name);
        own.or_else(|| self.inner.option(group, name))
    }

    fn option_range(&self, group: usize, name: &str) -> Option<Range> {
        let (mut options, mut range) = (self.group(group)?.options, None);
        options.visit_options(&mut |option| {
            if option.name == name {
                range = Some(option.range);
            }
        });
        range.or_else(|| self.inner.option_range(group, name))
    }

    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        self.match_groups();
        match self.own.groups.get_mut(group) {
            Some(own) if own.options.option(name).is_some() => {
                let mut changed = own.options;
                set_option(&mut changed, name, value)?;
                own.options = changed;
                Ok(())
            }
            _ => self.inner.set_option(group, name, value).map_err(|error| match error {
                Error::UnknownOption { optimizer, name, known } => {
                    let known = format!("{known}, {}", LookaheadOptions::NAMES.join(", "));
                    Error::UnknownOption { optimizer, name, known }
                }
                other => other,
            }),
        }
    }

    fn mode(&self) -> Mode {
        match (self.inner_eval, &self.own.fast) {
            (true, _) => self.inner.mode(),
            (false, Some(_)) => Mode::Eval,
            (false, None) => Mode::Train,
        }
    }

    fn group_of(&self, name: &str, shape: &[usize]) -> Option<usize> {
        self.inner.group_of(name, shape)
    }

    fn skipped_steps(&self) -> u64 {
        self.inner.skipped_steps()
    }

    fn reads_curvature(&self) -> bool {
        self.inner.reads_curvature()
    }

    fn last_step(&self) -> StepReport {
        self.inner.last_step()
    }

    fn parameters_with_state(&self) -> Vec<String> {
        self.inner.parameters_with_state()
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.check_mode()?;
        self.inner.rename(from, to)?;
        self.own.slow.rename(from, to);
        Ok(())
    }

    fn forget(&mut self, name: &str) -> Result<()> {
        self.check_mode()?;
        let slow = self.own.slow.without(name)?;
        self.inner.forget(name)?;
        self.own.slow = slow;
        Ok(())
    }

    fn visit_slot(&mut self, slot: &str, visitor: &mut dyn FnMut(&str, &mut [T::Compute])) {
        self.inner.visit_slot(slot, visitor);
    }

    fn state_bytes(&self) -> StateBytes {
        let mut bytes = self.inner.state_bytes();
        self.own.slow.count(&mut bytes);
        if let Some(fast) = &self.own.fast {
            bytes.add("fast", fast.tree().bytes());
        }
        bytes
    }

    fn state_dict(&self) -> StateDict {
        let mut dict = nested::save(NAME, &self.inner);
        let groups = (0..self.num_groups()).filter_map(|group| self.group(group));
        checkpoint::save(groups, &self.own, &mut dict);
        dict
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        self.match_groups();
        let reader = Reader::new(NAME, state)?;
        let own = checkpoint::load(&self.own, &reader)?;
        let inner = reader.inner(self.inner.name())?;
        reader.finish()?;
        nested::load(&mut self.inner, &inner)?;
        // everything fits
        self.own = own;
        Ok(())
    }

    fn train(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        if self.inner_eval {
            return self.inner.train(params);
        }
        if let Some(fast) = &self.own.fast {
            let layout = fast.tree().layout();
            fast.restore(&mut select(params, |name, _| layout.get(name).is_some())?)?;
            self.own.fast = None;
        }
        Ok(())
    }

    fn eval(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        if self.inner_eval {
            return self.inner.eval(params);
        }
        if self.own.fast.is_none() {
            let slow = &self.own.slow.weights;
            let mut fast = select(params, |name, _| slow.layout().get(name).is_some())?;
            let names: BTreeSet<String> = fast.names().map(str::to_owned).collect();
            let snapshot = Snapshot::take(&mut fast)?;
            // parameters that have left the tree stay as they are
            let slow = &mut self.own.slow.weights;
            copy(&mut select(slow, |name, _| names.contains(name))?, &mut fast)?;
            self.own.fast = Some(snapshot);
        }
        Ok(())
    }
}

impl<O, T: Element> Lookahead<O, T> {
    fn check_mode(&self) -> Result<()> {
        match self.own.fast {
            Some(_) => Err(Error::EvaluationMode { optimizer: NAME }),
            None => Ok(()),
        }
    }
}

impl<O: Optimizer<T>, T: Element> ClosureOptimizer<T> for Lookahead<O, T> {
    fn step_problem(&mut self, problem: &mut dyn Problem<T>) -> Result<f64> {
        step_once(self, problem)
    }
}
