//! Optimizers and the engine that runs them; the traits that a new method implements.
//!
//! A user meets [`Optimizer`] and [`Optim`]. A new method implements [`Rule`] (the mathematics of one
//! element), [`MatrixMethod`] (of one matrix) or [`VectorMethod`] (of all parameters as one vector).
// Floor 3. Rooms use each other in one direction: method <- engine <- elementwise <- blockwise <- vectorwise.

mod blockwise;
mod elementwise;
mod engine;
mod method;
mod optimizer;
mod vectorwise;

pub use crate::tree::{Layout, Segment};
pub(crate) use blockwise::norm_squared;
pub use blockwise::{
    AnyBlock, AnyMatrix, BlockState, BlockStep, BlockUnit, Blocked, BlockedPrepared, BlockedState,
    ErasedBlock, ErasedMatrix, Filter, FilterUnit, FilterWeights, MatrixMethod, MatrixUnit,
    Partition, Tile,
};
pub(crate) use elementwise::check_embedded;
pub use elementwise::{
    AnyRule, Applied, Apply, DecaySchedule, Delayed, ElementKernel, ElementState, ElementUnit,
    Elementwise, ErasedRule, Prepared, Rule, Slot, WeightDecay, kahan_add,
};
pub use engine::{Closure, ClosureOptimizer, IntoEvaluation, IntoLoss, Optim, Problem};
pub use method::{
    Configured, Decayed, Direction, GradSlice, GradSource, Job, Joint, Leaf, Measured, MethodFor,
    Methods, Mode, Part, SavedJoint, Scalars, Stage, TensorMethod, TensorState,
};
pub use optimizer::{NonFinite, Optimizer};
pub use vectorwise::{
    AbsorbUnit, AnyMemory, AnyVector, ErasedMemory, ErasedVector, JointVectors, ReadVector, Scope,
    VectorMemory, VectorMethod, VectorStep, VectorUnit, Vectored, VectoredState,
};
