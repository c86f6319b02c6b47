//! What one pass of the engine does, and what it measures.

use crate::kernel::sweep::Sums;

/// What one pass does to the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Takes sums. Rules write nothing; matrix methods prepare their direction.
    Measure(usize),
    /// Collects scales of the new state before it is written: rank-1 scales are maxima of whole rows.
    CollectScales,
    /// Writes parameters and state.
    Update,
    /// Moves the parameters to the other point; with the number of the move, from 1.
    Switch(Mode, u64),
}

/// The two points of a method that trains at one and evaluates at the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where gradients are taken.
    #[default]
    Train,
    /// Where the model is evaluated.
    Eval,
}

/// Sums that a measuring pass took over one tensor.
#[derive(Clone, Copy, Debug)]
pub struct TensorSums {
    /// The sums, in the order of [`Rule::measure`](crate::optim::Rule::measure).
    pub sums: Sums,
    /// Number of elements of the tensor.
    pub numel: usize,
    /// Number of dimensions of the tensor.
    pub ndim: usize,
}
