//! Optimizers behind a pointer, with the methods that set them up.

use crate::config::{Config, Tested};
use eigenstep::Result;
use eigenstep::kernel::Isa;
use eigenstep::numeric::Element;
use eigenstep::optim::{Method, MethodFor, NonFinite, Optim, Optimizer};
use eigenstep::params::Select;
use eigenstep::prelude::{Precision, Rounding};
use eigenstep::quant::StatePolicy;
use std::fmt::Debug;

/// An optimizer of any method.
pub type Opt<T> = Box<dyn AnyOptim<T>>;

/// The methods of [`Optim`], whatever its type.
pub trait AnyOptim<T: Element>: Optimizer<T> + Debug {
    /// A clone.
    fn copy(&self) -> Opt<T>;
    /// [`Optim::add_group`].
    fn add_group_of(&mut self, select: Select, change: &mut dyn FnMut(&mut Config)) -> Result<()>;
    /// [`Optim::with_state_precision`].
    fn with_state_precision(self: Box<Self>, precision: Precision) -> Result<Opt<T>>;
    /// [`Optim::with_state_policy`].
    fn with_state_policy(self: Box<Self>, policy: StatePolicy) -> Result<Opt<T>>;
    /// [`Optim::with_slot_precision`].
    fn with_slot_precision(self: Box<Self>, slot: &str, precision: Precision) -> Result<Opt<T>>;
    /// [`Optim::with_rounding`].
    fn with_rounding(self: Box<Self>, rounding: Rounding) -> Result<Opt<T>>;
    /// [`Optim::with_non_finite`].
    fn with_non_finite(self: Box<Self>, policy: NonFinite) -> Opt<T>;
    /// [`Optim::with_isa`].
    fn with_isa(self: Box<Self>, isa: Isa) -> Opt<T>;
    /// [`Optim::require_all_gradients`].
    fn require_all_gradients(self: Box<Self>, require: bool) -> Opt<T>;
    /// [`Optim::with_strict_names`].
    fn with_strict_names(self: Box<Self>, strict: bool) -> Opt<T>;
    /// [`Optim::steps`].
    fn steps(&self, name: &str) -> Option<u64>;
}

impl<T: Element> dyn AnyOptim<T> {
    /// [`Optim::with_group`].
    pub fn with_group(
        mut self: Box<Self>,
        select: Select,
        change: impl FnOnce(&mut Config),
    ) -> Result<Opt<T>> {
        self.add_group(select, change)?;
        Ok(self)
    }

    /// [`Optim::add_group`].
    pub fn add_group(&mut self, select: Select, change: impl FnOnce(&mut Config)) -> Result<()> {
        let mut change = Some(change);
        self.add_group_of(select, &mut |config| {
            if let Some(change) = change.take() {
                change(config);
            }
        })
    }
}

impl<T: Element> Clone for Opt<T> {
    fn clone(&self) -> Self {
        self.copy()
    }
}

impl<M: MethodFor<T>, T: Element> AnyOptim<T> for Optim<M, T>
where
    <M as Method>::Config: Tested,
{
    fn copy(&self) -> Opt<T> {
        Box::new(self.clone())
    }
    fn add_group_of(&mut self, select: Select, change: &mut dyn FnMut(&mut Config)) -> Result<()> {
        Optim::add_group(self, select, |own| {
            let mut config = Config::from(own.clone());
            change(&mut config);
            own.clone_from(config.get().expect("a configuration of the same method"));
        })
    }
    fn with_state_precision(self: Box<Self>, precision: Precision) -> Result<Opt<T>> {
        Ok(Box::new(Optim::with_state_precision(*self, precision)?))
    }
    fn with_state_policy(self: Box<Self>, policy: StatePolicy) -> Result<Opt<T>> {
        Ok(Box::new(Optim::with_state_policy(*self, policy)?))
    }
    fn with_slot_precision(self: Box<Self>, slot: &str, precision: Precision) -> Result<Opt<T>> {
        Ok(Box::new(Optim::with_slot_precision(*self, slot, precision)?))
    }
    fn with_rounding(self: Box<Self>, rounding: Rounding) -> Result<Opt<T>> {
        Ok(Box::new(Optim::with_rounding(*self, rounding)?))
    }
    fn with_non_finite(self: Box<Self>, policy: NonFinite) -> Opt<T> {
        Box::new(Optim::with_non_finite(*self, policy))
    }
    fn with_isa(self: Box<Self>, isa: Isa) -> Opt<T> {
        Box::new(Optim::with_isa(*self, isa))
    }
    fn require_all_gradients(self: Box<Self>, require: bool) -> Opt<T> {
        Box::new(Optim::require_all_gradients(*self, require))
    }
    fn with_strict_names(self: Box<Self>, strict: bool) -> Opt<T> {
        Box::new(Optim::with_strict_names(*self, strict))
    }
    fn steps(&self, name: &str) -> Option<u64> {
        Optim::steps(self, name)
    }
}
