//! The two points of methods that train at one and evaluate at another.

use super::core::Engine;
use super::grown::{Growth, check_rows};
use super::passes::{PassBuffers, Passes, TensorTask};
use super::plan::by_name;
use super::step::{flatten, write_back};
use super::tracked::Tracked;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::optim::method::{GradSlice, GradSource, Mode, Stage, TensorMethod};
use crate::params::{Manifest, ParamBuffers, ParamVisitor, Parameters};
use std::mem::take;

impl<M: TensorMethod<T>, T: Element> Engine<M, T> {
    /// Moves the parameters to one of the two points; those that are not in the tree stay where they are.
    pub fn switch(&mut self, to: Mode, params: &mut dyn Parameters<T>) -> Result<()> {
        if self.interrupted {
            return Err(Error::Interrupted { optimizer: self.name() });
        }
        if !self.has_eval_mode() {
            return Ok(());
        }
        let mut visitor = ParamVisitor::new(ParamBuffers::default(), Manifest::default());
        visitor.collect(params)?;
        let leaves = by_name(&visitor.manifest)?;
        let shape_of = |name: &str| leaves.get(name).map(|&leaf| visitor.manifest.shape(leaf));
        check_rows(&self.tracked, &Growth::default(), &shape_of)?;
        // a tree in which nothing is known is another model's
        let strange = |known: &Tracked<_>| !leaves.contains_key(known.name.as_str());
        if let Some(known) = self.tracked.first().filter(|_| !leaves.is_empty())
            && self.tracked.iter().all(strange)
        {
            return Err(Error::MissingParameter { name: known.name.clone() });
        }
        let (mut copies, mut flat) = (Vec::new(), Vec::new());
        flatten(&mut visitor.leaves, &mut copies, &mut flat);
        let mut data: Vec<&mut [T]> = flat.iter_mut().map(|data| &mut **data).collect();
        let nothing = GradSlice::plain(GradSource::Dense(&[]));
        let mut work = Vec::new();
        for tracked in &mut self.tracked {
            let leaf = leaves.get(tracked.name.as_str());
            let Some(data) = leaf.and_then(|&leaf| data.get_mut(leaf)) else { continue };
            let rest = take(data);
            let (own, rest) = rest.split_at_mut(tracked.numel().min(rest.len()));
            *data = rest;
            if tracked.at != to {
                tracked.at = to;
                work.push(TensorTask::new(tracked, own, nothing, None));
            }
        }
        let moved = self.mode != to || !work.is_empty();
        let mut passes =
            Passes { storage: &self.storage, isa: self.isa, buffers: PassBuffers::default() };
        passes.run(Stage::Switch(to, self.switches + 1), &self.groups, &mut work);
        drop((work, data));
        drop(flat);
        write_back(&mut visitor.leaves, &copies);
        self.mode = to;
        self.switches += u64::from(moved);
        // what was left out stands elsewhere, which a step has to notice
        self.plan.stale |= self.tracked.iter().any(|tracked| tracked.at != to);
        Ok(())
    }
}
