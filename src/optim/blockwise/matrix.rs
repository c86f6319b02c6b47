//! The trait for methods that see matrices: the mathematics of one block.

use super::partition::Partition;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::{Element, Real};
use crate::optim::elementwise::Rule;
use crate::optim::engine::Optim;
use crate::state::{Lookup, Record, StateBytes, Storage};
use ndarray::{ArrayViewD, ArrayViewMutD};
use std::fmt::Debug;

/// An exponential moving average of the gradients, which is preconditioned instead of the gradient.
///
/// ```text
/// ḡ = (β₃·m + (1 − β₃)·g)/(1 − β₃·β₁ᵗ⁻¹)       without correction: the numerator
/// m ← β₁·m + (1 − β₁)·g
/// ```
/// With `β₃ = β₁` it is the plain moving average, with `β₃ = β₁²` that of Nesterov momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradEma {
    /// Name of the slot, as in state dicts.
    pub slot: &'static str,
    /// Decay rate `β₁` of the average.
    pub beta: f64,
    /// Weight `β₃` of the old average in the result.
    pub weight: f64,
    /// Whether the bias of the start at zero is corrected.
    pub bias_correction: bool,
}

/// The state of one block.
pub trait BlockState: Clone + Debug + Send + 'static {
    /// Adds the bytes held, slot by slot.
    fn count(&self, bytes: &mut StateBytes);
    /// Writes the state under the record's keys.
    fn save(&self, record: &mut Record<'_>);
    /// Number of consecutive failed decompositions, and the reason of the last one.
    fn failures(&self) -> Option<(u64, &'static str)> {
        None
    }
}

/// One block in one step.
#[derive(Clone, Debug)]
pub struct BlockStep<'a, R> {
    /// Step number of the tensor, from 1.
    pub t: u64,
    /// The gradient `G` of the block, row-major.
    pub gradient: ArrayViewD<'a, R>,
    /// `‖G‖` of the whole tensor.
    pub gradient_norm: f64,
    /// The block of the parameter, row-major, if [`MatrixMethod::reads_param`].
    pub param: Option<ArrayViewD<'a, R>>,
}

/// A method that sees a tensor as blocks: matrices, or arrays of any number of dimensions.
///
/// A step of a tensor that [`MatrixMethod::partition`] cuts into blocks computes, in this order:
/// ```text
/// G ← g + λp                         λ: MatrixMethod::l2
/// Ḡ ← ema(G)                         if MatrixMethod::grad_ema; else G
/// D, n² ← precondition(G, Ḡ)         block by block
/// D ← D·√(Σn²)/(‖D‖ + 1e-12)         if MatrixMethod::grafts; norms over the whole tensor
/// p, s ← rule(p, D, s)               element by element, with the rule's lr, decay and rounding
/// ```
/// All other tensors are updated by `p, s ← fallback(p, g, s)`. The engine copies blocks in and out: a
/// method sees row-major arrays, no threads and no memory layouts.
pub trait MatrixMethod: Hyperparameters {
    /// The rule that makes a step of the direction.
    type Rule: Rule;
    /// The rule of tensors that are not cut into blocks.
    type Fallback: Rule<GroupState = <Self::Rule as Rule>::GroupState>;
    /// The state of one block.
    type Block<R: Real>: BlockState;

    /// The rule of tensors that are cut into blocks.
    fn rule(&self) -> Self::Rule;

    /// The rule of all other tensors.
    fn fallback(&self) -> Self::Fallback;

    /// How a tensor of this shape is cut into blocks, none of them empty; `None`: the fallback updates it.
    fn partition(&self, shape: &[usize]) -> Option<Partition>;

    /// Slots of a block's state, which [`Storage`] may give a precision by name.
    fn block_slots(&self) -> &[&'static str] {
        &[]
    }

    /// The average of gradients that is preconditioned instead of the gradient.
    fn grad_ema(&self) -> Option<GradEma> {
        None
    }

    /// Whether [`MatrixMethod::precondition`] reads the parameter; then the engine copies its blocks, too.
    fn reads_param(&self) -> bool {
        false
    }

    /// Weight `λ` of the parameter in the gradient, before anything else: L2 regularisation.
    fn l2(&self) -> f64 {
        0.0
    }

    /// Whether the direction of a whole tensor gets the length that the blocks ask for at step `t`.
    fn grafts(&self, t: u64) -> bool {
        let _ = t;
        false
    }

    /// Factor on the learning rate of a tensor of this shape.
    fn lr_factor(&self, shape: &[usize]) -> f64 {
        let _ = shape;
        1.0
    }

    /// Whether state made under these options fits `changed` ones.
    fn keeps_layout(&self, changed: &Self) -> bool;

    /// The state of a block of this shape before its first step; `storage` says how slots are held.
    fn init<R: Real>(&self, shape: &[usize], storage: &Storage) -> Self::Block<R>;

    /// The state of a block of this shape from a state dict.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    fn load<R: Real>(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<Self::Block<R>>;

    /// Adds the slots that an option switched on after the first step.
    fn extend<R: Real>(&self, block: &mut Self::Block<R>, shape: &[usize], storage: &Storage) {
        let _ = (block, shape, storage);
    }

    /// Updates the statistics with the gradient, and replaces `direction`, which holds the averaged
    /// gradient, by the preconditioned direction. Returns the square of the length that the direction
    /// should have, which is used if [`MatrixMethod::grafts`]. Cannot fail: if a decomposition does not
    /// converge, the last good root stays in use, and the failure is counted.
    fn precondition<R: Real>(
        &self,
        step: &BlockStep<'_, R>,
        block: &mut Self::Block<R>,
        direction: ArrayViewMutD<'_, R>,
    ) -> f64;

    /// Approximate number of operations of [`MatrixMethod::precondition`] at step `t`. Threads begin with
    /// the most expensive blocks.
    fn cost(&self, t: u64, shape: &[usize]) -> f64 {
        let _ = t;
        let (numel, dims) = (shape.iter().product::<usize>(), shape.iter().sum::<usize>());
        2.0 * numel as f64 * dims as f64
    }

    /// Number of consecutive failures of one block that are tolerated.
    fn tolerated_failures(&self) -> u64 {
        3
    }

    /// An optimizer of this method, for parameters of element type `T`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is
    /// out of range or contradicts another.
    fn build<T: Element>(self) -> Result<Optim<Blocked<Self>, T>> {
        Optim::new(Blocked(self))
    }
}

/// A matrix method with its options, run by the engine.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Blocked<C>(pub C);
