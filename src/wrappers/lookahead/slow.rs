//! The slow weights, and one step of theirs.

use super::options::{LookaheadOptions, PullbackMomentum};
use crate::error::{Result, check_shape};
use crate::numeric::{Element, Real};
use crate::optim::Optimizer;
use crate::params::{Gradients, Manifest, Parameters};
use crate::state::StateBytes;
use crate::tree::{TreeVec, between, copy, lerp, visit};
use crate::wrappers::exact::{exact, set_exact};
use crate::wrappers::leaves::{select, with_names};
use crate::wrappers::mix::joined;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

/// Slots that hold a momentum.
pub(super) const MOMENTA: [&str; 3] = ["momentum_buffer", "exp_avg", "momentum"];

/// Slow weights of the parameters that have had a gradient.
#[derive(Clone, Debug, Default)]
pub(super) struct Slow<R: Real> {
    pub weights: TreeVec<R>,
    /// Slow momenta, by parameter and slot.
    pub momenta: BTreeMap<(String, &'static str), Vec<R>>,
    /// The trees that fitted last.
    seen: (Manifest, Manifest),
}

impl<R: Real> Slow<R> {
    /// These slow weights, before they have met any tree.
    pub fn new(weights: TreeVec<R>, momenta: BTreeMap<(String, &'static str), Vec<R>>) -> Self {
        Self { weights, momenta, seen: Default::default() }
    }

    /// The slow weight of `from` is that of `to` from now on.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.weights.rename(from, to);
        let momenta = take(&mut self.momenta).into_iter();
        let named = |((name, slot), momentum): ((String, _), _)| {
            ((if name == from { to.to_owned() } else { name }, slot), momentum)
        };
        self.momenta = momenta.map(named).collect();
        self.seen = Default::default();
    }

    /// The same without the slow weight of a parameter.
    pub fn without(&mut self, name: &str) -> Result<Self> {
        let mut weights = self.weights.clone();
        let weights = TreeVec::of(&mut select(&mut weights, |other, _| other != name)?)?;
        let momenta = self.momenta.iter().filter(|((other, _), _)| other != name);
        let momenta = momenta.map(|(key, momentum)| (key.clone(), momentum.clone())).collect();
        Ok(Self::new(weights, momenta))
    }

    /// Bytes held.
    pub fn count(&self, bytes: &mut StateBytes) {
        bytes.add("slow", self.weights.bytes());
        let momenta = self.momenta.values().map(|momentum| size_of_val(momentum.as_slice()));
        if let held @ 1.. = momenta.sum() {
            bytes.add("slow_momentum", held);
        }
    }

    /// Checks shapes, and copies the weights that have a gradient for the first time.
    pub fn first_seen<T, O>(
        &mut self,
        inner: &O,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<Option<TreeVec<R>>>
    where
        T: Element<Compute = R>,
        O: Optimizer<T> + ?Sized,
    {
        let layout = self.weights.layout();
        let (seen_params, seen_grads) = &mut self.seen;
        visit(params, &mut |leaves, _| {
            if *leaves != *seen_params {
                for leaf in 0..leaves.len() {
                    if let Some(segment) = layout.get(leaves.name(leaf)) {
                        check_shape(&segment.name, &segment.shape, leaves.shape(leaf))?;
                    }
                }
                seen_params.clone_from(leaves);
            }
            Ok(())
        })?;
        let new = with_names(grads, |leaves| {
            let mut new = BTreeSet::new();
            if *leaves != *seen_grads {
                let trained = (0..leaves.len()).map(|leaf| (leaves.name(leaf), leaves.shape(leaf)));
                let trained = trained.filter(|(name, shape)| inner.group_of(name, shape).is_some());
                let unknown = trained.filter(|(name, _)| layout.get(name).is_none());
                new.extend(unknown.map(|(name, _)| name.to_owned()));
                if new.is_empty() {
                    seen_grads.clone_from(leaves);
                }
            }
            new
        })?;
        if new.is_empty() {
            return Ok(None);
        }
        TreeVec::of(&mut select(params, |name, _| new.contains(name))?).map(Some)
    }

    /// Takes over what [`Slow::first_seen`] has copied.
    pub fn add(&mut self, new: &TreeVec<R>) -> Result<()> {
        self.weights = joined(&self.weights, new)?;
        Ok(())
    }

    /// Slow weights of these names go towards the fast ones, which go on from there.
    pub fn step<T, O>(
        &mut self,
        inner: &mut O,
        params: &mut dyn Parameters<T>,
        (names, options): (&BTreeSet<String>, &LookaheadOptions),
    ) -> Result<()>
    where
        T: Element<Compute = R>,
        O: Optimizer<T> + ?Sized,
    {
        let alpha = options.alpha;
        let chosen = |name: &str| names.contains(name);
        let mut fast = select(params, |name, _| chosen(name))?;
        let exact = exact(inner, &mut fast)?;
        let mut slow = select(&mut self.weights, |name, _| chosen(name))?;
        match &exact {
            Some(exact) => lerp(alpha, exact, &mut slow)?,
            None => lerp(alpha, &mut fast, &mut slow)?,
        }
        if alpha < 1.0 {
            copy(&mut slow, &mut fast)?;
            if exact.is_some() {
                set_exact(inner, &self.weights, chosen);
            }
        }
        self.pull_momentum_back(inner, chosen, options);
        Ok(())
    }

    fn pull_momentum_back<T, O>(
        &mut self,
        inner: &mut O,
        chosen: impl Fn(&str) -> bool,
        options: &LookaheadOptions,
    ) where
        T: Element<Compute = R>,
        O: Optimizer<T> + ?Sized,
    {
        let between = between(options.alpha);
        for slot in MOMENTA {
            let mut visit = |name: &str, momentum: &mut [R]| match options.pullback_momentum {
                _ if !chosen(name) => {}
                PullbackMomentum::None => {}
                PullbackMomentum::Reset => momentum.fill(R::zero()),
                PullbackMomentum::Pullback => {
                    let slow = self.momenta.entry((name.to_owned(), slot)).or_default();
                    slow.resize(momentum.len(), R::zero());
                    for (fast, slow) in momentum.iter_mut().zip(slow) {
                        *fast = between(*fast, *slow);
                        *slow = *fast;
                    }
                }
            };
            if options.pullback_momentum != PullbackMomentum::None {
                inner.visit_slot(slot, &mut visit);
            }
        }
    }
}
