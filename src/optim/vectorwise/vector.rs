//! The trait for methods that see all parameters as one long vector.

use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::kernel::Isa;
use crate::kernel::huge_pages::Buffer;
use crate::numeric::{Element, Real};
use crate::optim::engine::Optim;
use crate::optim::method::{Direction, MethodFor, RegularizedGrad};
use crate::state::{Lookup, Record, StateBytes};
use crate::tree::Layout;
use std::fmt::Debug;

/// Which parameters form one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Scope {
    /// All parameters of all groups. The options of the vector are those of group 0, learning rate
    /// and decay are each group's own.
    Model,
    /// The parameters of each group.
    #[default]
    Group,
    /// Each parameter on its own.
    Tensor,
}

/// A vector that can be read piece by piece, by several threads.
pub trait ReadVector<R>: Sync {
    /// Writes the elements `offset .. offset + out.len()`.
    fn load(&self, offset: usize, out: &mut [R]);
}

impl<T: Element> ReadVector<T::Compute> for RegularizedGrad<'_, T> {
    fn load(&self, offset: usize, out: &mut [T::Compute]) {
        RegularizedGrad::load(self, offset, out);
    }
}

impl<R: Copy + Sync> ReadVector<R> for [R] {
    fn load(&self, offset: usize, out: &mut [R]) {
        for (to, from) in out.iter_mut().zip(self.get(offset..).unwrap_or_default()) {
            *to = *from;
        }
    }
}

impl<R: Copy + Sync> ReadVector<R> for Vec<R> {
    fn load(&self, offset: usize, out: &mut [R]) {
        self.as_slice().load(offset, out);
    }
}

impl<R: Copy + Sync> ReadVector<R> for Buffer<R> {
    fn load(&self, offset: usize, out: &mut [R]) {
        (**self).load(offset, out);
    }
}

/// One vector in one step.
#[expect(missing_debug_implementations, reason = "a borrowed view that lives for one call")]
pub struct VectorStep<'a, R> {
    /// Step number of the vector, from 1.
    pub t: u64,
    /// The parameters in it.
    pub layout: &'a Layout,
    /// The gradient; 0 for parameters that have none in this step.
    pub gradient: &'a dyn ReadVector<R>,
    /// Instruction set to compile loops for.
    pub isa: Isa,
}

/// The state of one vector.
pub trait VectorMemory: Clone + Debug + Send + Sync + 'static {
    /// Adds the bytes held, slot by slot.
    fn count(&self, bytes: &mut StateBytes);
    /// Writes the state under the record's keys.
    fn save(&self, record: &mut Record<'_>);
    /// Number of consecutive failed decompositions, and the reason of the last one.
    fn failures(&self) -> Option<(u64, &'static str)> {
        None
    }
}

/// A method that sees parameters as one vector: the whole model, a group, or one tensor.
///
/// A step computes, in this order:
/// ```text
/// g ← g + λp                         λ: VectorMethod::l2
/// memory ← absorb(g)
/// u = memory.direction()             computed piece by piece, where it is used
/// p, s ← inner(p, u, s)              u instead of the gradient; with its own lr, decay and rounding
/// ```
/// The vector consists of the parameters that the tree has at the first step. A parameter without a
/// gradient, or one that is left out of the tree, has a gradient of 0 in the vector, and does not move.
/// Parameters that join the tree later form a vector of their own. A parameter that moves to a new group
/// stays in its vector, whose options are those of the group of its first parameter.
pub trait VectorMethod: Hyperparameters {
    /// The inner optimizer: a rule or another method, as the engine runs it.
    type Inner: Clone + Debug + Send + Sync + 'static;
    /// The state of one vector; it also computes the direction of the step.
    type Memory<R: Real>: VectorMemory + Direction<R>;

    /// The inner optimizer, which sees the direction instead of the gradient.
    fn inner(&self) -> Self::Inner;

    /// Which parameters form one vector.
    fn scope(&self) -> Scope;

    /// Weight `λ` of the parameter in the gradient, before anything else: L2 regularisation.
    fn l2(&self) -> f64 {
        0.0
    }

    /// Whether memory made under these options fits `changed` ones.
    fn keeps_layout(&self, changed: &Self) -> bool;

    /// Checks a vector before its first step.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter): an option that this
    /// vector cannot have.
    fn check_layout(&self, layout: &Layout) -> Result<()> {
        let _ = layout;
        Ok(())
    }

    /// The state before the first step.
    fn init<R: Real>(&self, layout: &Layout) -> Self::Memory<R>;

    /// The state in a state dict.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load<R: Real>(&self, layout: &Layout, lookup: &Lookup<'_>) -> Result<Self::Memory<R>>;

    /// Updates the state with a gradient, and prepares the direction. Cannot fail: failures are counted.
    fn absorb<R: Real>(&self, step: &VectorStep<'_, R>, memory: &mut Self::Memory<R>);

    /// Number of consecutive failures of one vector that are tolerated.
    fn tolerated_failures(&self) -> u64 {
        3
    }

    /// An optimizer of this method, for parameters of element type `T`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is
    /// out of range or contradicts another.
    fn build<T: Element>(self) -> Result<Optim<Vectored<Self>, T>>
    where
        Self::Inner: MethodFor<T>,
    {
        Optim::new(Vectored::of(self))
    }
}

/// A vector method with its options, run by the engine.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Vectored<V>(pub V);

impl<V: VectorMethod> Vectored<V> {
    /// The method with these options.
    pub fn of(config: V) -> Self {
        Self(config)
    }
}
