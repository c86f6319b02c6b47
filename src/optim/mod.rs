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
    EmaUnit, EmaWeights, ErasedBlock, ErasedMatrix, GradEma, MatrixMethod, MatrixUnit, Partition,
    Tile,
};
pub(crate) use elementwise::check_inner;
pub use elementwise::{
    AnyRule, Apply, DecaySchedule, ElementKernel, ElementState, ElementUnit, Elementwise,
    ErasedRule, Factoring, Pair, Prepared, Rule, RuleAround, SkipFirst, Slot, StepOnly,
    WeightDecay, first_slots, kahan_add,
};
pub use engine::{Closure, ClosureOptimizer, IntoEvaluation, IntoLoss, Optim, Problem};
pub use method::{
    Direction, GradEntry, GradSlice, GradSource, GroupState, Method, MethodFor, Methods, Mode,
    Needs, ParamInfo, PassInfo, RegularizedGrad, SavedShared, SharedState, Stage, TensorMethod,
    TensorPass, TensorState, TensorStep, TensorSums,
};
pub use optimizer::{NonFinite, Optimizer};
pub use vectorwise::{
    AbsorbUnit, AnyMemory, AnyVector, ErasedMemory, ErasedVector, ReadVector, Scope, SharedVectors,
    VectorMemory, VectorMethod, VectorStep, VectorUnit, Vectored, VectoredState,
};
