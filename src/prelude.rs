//! The names of an ordinary program.

pub use crate::constrained::Projected;
pub use crate::curvature::LayerFactors;
pub use crate::error::{Error, Result};
pub use crate::error_feedback::{EfAdagrad, ErrorFeedback, Ggt, MFac, MicroAdam};
pub use crate::first_order::*;
pub use crate::gradient::{clip_grad_norm, clip_grad_value};
pub use crate::low_rank::{GaLore, LdAdam};
pub use crate::numeric::Real;
pub use crate::optim::{
    ClosureOptimizer, MatrixMethod, NonFinite, Optim, Optimizer, Rule, Slot, VectorMethod,
    WeightDecay,
};
pub use crate::params::{Gradients, Parameters, Select};
pub use crate::quant::Precision;
pub use crate::schedule::{CosineAnnealing, LrScheduler, OneCycle, WarmupCosine};
pub use crate::second_order::factor::FactorStorage;
pub use crate::second_order::{Muon, Shampoo, Soap, SteepestDescent};
pub use crate::state::{Rounding, StateDict};
pub use crate::wrappers::{
    Averaged, Averaging, Ema, Ignite, IgniteOptions, Lookahead, LookaheadOptions, Partitioned,
    PullbackMomentum, Sam, SamOptions, Swa,
};
