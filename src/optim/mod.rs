//! What steps: the type and the interface of every optimizer, and the traits that a new method implements.
//!
//! A configuration such as [`AdamW`](crate::first_order::AdamW) becomes an optimizer by `build`. All of them
//! have one type, [`Optim`], with the methods that set it up, and one interface, [`Optimizer`], with the
//! methods that run it.
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::array;
//!
//! let mut model = (array![[1.0f32, 2.0]], array![0.5f32]);
//! let mut opt = AdamW::default()
//!     .build()?
//!     .with_group(Select::ndim(..=1), |group| group.weight_decay = 0.0)?
//!     .with_state_precision(Precision::Bf16)?;
//! for step in 0..10 {
//!     opt.set_lr(0, 0.1 / (1.0 + f64::from(step)))?;
//!     let grads = model.clone(); // of ‖model‖²/2
//!     opt.step(&mut model, &grads)?;
//! }
//! assert_eq!(opt.steps("1"), Some(10));
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! | you want | take |
//! |---|---|
//! | an optimizer of any method, in a field or behind a pointer | `Box<dyn` [`Optimizer`]`<f32>>` |
//! | groups, state precision, rounding, a rule for NaN | the methods of [`Optim`] that begin with `with_` |
//! | a step that evaluates the model itself | [`ClosureOptimizer`], [`Problem`], [`step_once`] |
//! | a rule of your own: the mathematics of one element | [`Rule`] |
//! | … around any other rule | [`RuleAround`] |
//! | a method of your own that sees matrices | [`MatrixMethod`] |
//! | … that sees several parameters as one vector | [`VectorMethod`] |
//!
//! `docs/extending.md` has complete programs for the last four.
// Floor 3. Rooms use each other in one direction: method <- engine <- elementwise <- blockwise <- vectorwise.

mod blockwise;
mod elementwise;
mod engine;
mod method;
mod optimizer;
mod report;
mod vectorwise;

pub use crate::tree::{Layout, Segment};
pub(crate) use blockwise::norm_squared;
#[doc(hidden)]
pub use blockwise::{
    AnyBlock, AnyMatrix, BlockUnit, BlockedPrepared, BlockedState, EmaUnit, EmaWeights,
    ErasedBlock, ErasedMatrix, MatrixUnit,
};
pub use blockwise::{BlockState, BlockStep, Blocked, GradEma, MatrixMethod, Partition, Tile};
#[doc(hidden)]
pub use elementwise::{
    AnyRule, ElementKernel, ElementState, ElementUnit, ErasedRule, Prepared, check_inner_update,
    first_slots, kahan_add,
};
pub use elementwise::{
    Apply, DecaySchedule, Elementwise, Factoring, Pair, Rule, RuleAround, SkipFirst, Slot,
    StepOnly, WeightDecay,
};
pub(crate) use elementwise::{check_inner, updates_itself};
pub use engine::{Closure, ClosureOptimizer, IntoEvaluation, IntoLoss, Optim, Problem, step_once};
pub use method::{
    Direction, GradSlice, GradSource, GroupState, Method, MethodFor, Mode, RegularizedGrad,
    TensorStep, TensorSums,
};
#[doc(hidden)]
pub use method::{
    GradEntry, Methods, Needs, ParamInfo, PassInfo, SavedShared, SharedState, Stage, TensorMethod,
    TensorPass, TensorState,
};
pub use optimizer::{NonFinite, Optimizer};
pub use report::{StepOutcome, StepReport};
#[doc(hidden)]
pub use vectorwise::{
    AbsorbUnit, AnyMemory, AnyVector, ErasedMemory, ErasedVector, SharedVectors, VectorUnit,
    VectoredState,
};
pub use vectorwise::{ReadVector, Scope, VectorMemory, VectorMethod, VectorStep, Vectored};
