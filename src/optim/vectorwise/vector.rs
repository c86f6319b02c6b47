//! How a method that sees parameters as one long vector is written.

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

/// A vector's part of one step.
#[expect(missing_debug_implementations, reason = "a borrowed view that lives for one call")]
pub struct VectorStep<'a, R> {
    /// Step number of the vector, from 1.
    pub t: u64,
    /// What it consists of.
    pub layout: &'a Layout,
    /// The gradient; 0 for parameters that have none in this step.
    pub gradient: &'a dyn ReadVector<R>,
    /// Instruction set to compile loops for.
    pub isa: Isa,
}

/// What is remembered of one vector.
pub trait VectorMemory: Clone + Debug + Send + Sync + 'static {
    /// Adds the bytes held, slot by slot.
    fn count(&self, bytes: &mut StateBytes);
    /// Writes the state under the record's keys.
    fn save(&self, record: &mut Record<'_>);
    /// How often in a row a decomposition has failed, and the latest reason.
    fn failures(&self) -> Option<(u64, &'static str)> {
        None
    }
}

/// A method that sees parameters as one vector: the whole model, a group, or one tensor.
///
/// One step is, in this order:
/// ```text
/// g ← g + λp                         λ: VectorMethod::l2
/// memory ← absorb(g)
/// u = memory.direction()             computed piece by piece, where it is used
/// p, s ← inner(p, u, s)              u in place of the gradient; lr, decay, rounding are its own
/// ```
/// The vector consists of the parameters that the tree has at the first step. One that has no
/// gradient in a step counts as 0 there, and stays where it is.
pub trait VectorMethod: Hyperparameters {
    /// What is done with the direction: a rule or a matrix method, as the engine runs it.
    type Inner: Clone + Debug + Send + Sync + 'static;
    /// What is remembered of one vector; it computes the direction of the step, too.
    type Memory<R: Real>: VectorMemory + Direction<R>;

    /// What is done with the direction.
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

    /// What is remembered before the first step.
    fn init<R: Real>(&self, layout: &Layout) -> Self::Memory<R>;

    /// What a state dict says.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load<R: Real>(&self, layout: &Layout, lookup: &Lookup<'_>) -> Result<Self::Memory<R>>;

    /// Takes a gradient in, and prepares the direction. Cannot fail: what goes wrong is counted.
    fn absorb<R: Real>(&self, step: &VectorStep<'_, R>, memory: &mut Self::Memory<R>);

    /// Failures in a row of one vector that are still borne.
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
#[derive(Clone, Debug)]
pub struct Vectored<V>(pub V);

impl<V: VectorMethod> Vectored<V> {
    /// The method with these options.
    pub fn of(config: V) -> Self {
        Self(config)
    }
}
