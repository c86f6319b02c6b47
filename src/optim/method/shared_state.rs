//! What an optimizer does with several tensors at once, before it updates each of them.

use super::gradient::{GradSlice, GradSource};
use crate::error::Result;
use crate::kernel::Isa;
use crate::numeric::Element;
use crate::state::{StateBytes, StateDict, Storage};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// A leaf of the parameter tree, and the group that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct ParamInfo<'l> {
    /// Path of the parameter.
    pub name: &'l str,
    /// Its shape.
    pub shape: &'l [usize],
    /// Number of its group.
    pub group: usize,
}

/// A parameter that has a gradient in this step.
#[derive(Clone, Copy, Debug)]
pub struct GradEntry<'p, T: Element> {
    /// Path of the parameter.
    pub name: &'p str,
    /// Number of its group.
    pub group: usize,
    /// The parameter, row-major.
    pub param: &'p [T],
    /// The gradient.
    pub grad: GradSlice<'p, T>,
}

/// The method of a group, by its number.
pub type Methods<'m, M> = &'m (dyn Fn(usize) -> Option<&'m M> + Sync);

/// A state dict, and the keys of it that were read.
#[derive(Clone, Copy, Debug)]
pub struct SavedShared<'d> {
    /// The dict.
    pub dict: &'d StateDict,
    /// Keys that were read.
    pub used: &'d RefCell<BTreeSet<String>>,
    /// What the keys begin with: empty, or `inner.` for the inner method of another.
    pub prefix: &'d str,
}

/// The state that several tensors share; `()` for most methods.
///
/// Only [`SharedState::check`], [`SharedState::check_state`] and [`SharedState::load`] can fail.
pub trait SharedState<M, T: Element>: Clone + Debug + Default + Send + 'static {
    /// Whether there is anything at all.
    const SOME: bool = true;

    /// Checks a new tree before anything changes.
    ///
    /// # Errors
    /// A tree that does not have the parameters that are remembered, or that the method cannot have.
    fn check(&self, methods: Methods<'_, M>, leaves: &[ParamInfo<'_>]) -> Result<()> {
        let _ = (methods, leaves);
        Ok(())
    }

    /// Whether another step can be taken.
    ///
    /// # Errors
    /// A numerical failure that has repeated too often.
    fn check_state(&self, methods: Methods<'_, M>) -> Result<()> {
        let _ = methods;
        Ok(())
    }

    /// Adds the parameters of a tree that was checked.
    fn adopt(&mut self, methods: Methods<'_, M>, leaves: &[ParamInfo<'_>], storage: &Storage) {
        let _ = (methods, leaves, storage);
    }

    /// Updates the state with the gradients of one step.
    fn absorb(&mut self, methods: Methods<'_, M>, parts: &[GradEntry<'_, T>], isa: Isa) {
        let _ = (methods, parts, isa);
    }

    /// What replaces the gradient of a parameter; `None`: the gradient stays.
    fn direction(&self, name: &str) -> Option<GradSource<'_, T>> {
        let _ = name;
        None
    }

    /// The parameter `from` is called `to` from now on; empty: it is gone.
    fn rename(&mut self, from: &str, to: &str) {
        let _ = (from, to);
    }

    /// Adds the bytes held, slot by slot.
    fn count(&self, bytes: &mut StateBytes) {
        let _ = bytes;
    }

    /// Writes everything into a state dict, under keys that begin with `prefix`.
    fn save(&self, prefix: &str, dict: &mut StateDict) {
        let _ = (prefix, dict);
    }

    /// Reads everything from a state dict.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load(methods: Methods<'_, M>, saved: SavedShared<'_>, storage: &Storage) -> Result<Self> {
        let _ = (methods, saved, storage);
        Ok(Self::default())
    }
}

impl<M, T: Element> SharedState<M, T> for () {
    const SOME: bool = false;
}
