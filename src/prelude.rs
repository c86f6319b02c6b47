//! The names of an ordinary program: `use eigenstep::prelude::*`.
//!
//! | what | names |
//! |---|---|
//! | every optimizer | its configuration, such as [`AdamW`] or [`Shampoo`] |
//! | options of first-order rules and wrappers | the types that they name: [`MaskScale`], [`DecayForm`], [`PullbackMomentum`] |
//! | [`parameters!`](crate::parameters), [`Parameters`], [`Gradients`], [`Select`] | a model, its gradients, a part of it |
//! | [`Optimizer`], [`ClosureOptimizer`], [`Optim`] | what steps |
//! | [`clip_grad_norm`], [`Accumulator`], [`GradScaler`], ... | what happens to gradients before |
//! | [`LrScheduler`], [`WarmupCosine`], ... | learning rates that change; the most used schedules |
//! | [`Estimator`], [`Spsa`], [`Coordinate`], [`ZerothOrder`] | gradients from losses |
//! | [`Precision`], [`Rounding`], [`StateDict`] | bits of the state, small steps in 16 bits, checkpoints |
//! | [`Rule`], [`MatrixMethod`], [`VectorMethod`] | the traits with `build`, for methods of your own, too |
//!
//! Everything else is in its module: what options of matrix methods name
//! ([`second_order`](crate::second_order): `Graft`, `LrAdjustment`, ...; [`linalg`](crate::linalg): `Damping`),
//! of compression ([`error_feedback`](crate::error_feedback)) and of factors
//! ([`curvature`](crate::curvature): `KroneckerInverse`); all other schedules ([`schedule`](crate::schedule)), views
//! of gradients ([`gradient`](crate::gradient): `materialize`, `PcGrad`, ...) and estimators
//! ([`zeroth_order`](crate::zeroth_order)).
//!
//! # Examples
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::{Array1, Array2};
//!
//! struct Layer { weight: Array2<f32>, bias: Array1<f32> }
//! parameters!(Layer { weight, bias }: f32);
//!
//! let mut layer = Layer { weight: Array2::ones((4, 3)), bias: Array1::zeros(4) };
//! let grads = Layer { weight: Array2::ones((4, 3)), bias: Array1::ones(4) };
//! let mut opt = AdamW { lr: 0.1, ..AdamW::default() }.build()?;
//! opt.step(&mut layer, &clip_grad_norm(&grads, 1.0))?;
//! assert!((layer.bias[0] + 0.1).abs() < 1e-6);
//! # Ok::<(), eigenstep::Error>(())
//! ```

pub use crate::constrained::*;
pub use crate::curvature::{LayerFactors, LayerSpec, LayerStats, LossReduction, NetworkFactors};
pub use crate::error::{Error, Result};
pub use crate::error_feedback::{EfAdagrad, ErrorFeedback, Ggt, MFac, MicroAdam};
pub use crate::first_order::*;
pub use crate::gradient::{
    Accumulator, AdaptiveClip, ClipNorm, GradScaler, NormGuard, centralize, clip_grad_norm,
    clip_grad_value, with_curvature, with_loss,
};
pub use crate::low_rank::{Apollo, GaLore, LdAdam};
pub use crate::numeric::Real;
pub use crate::optim::{
    ClosureOptimizer, MatrixMethod, NonFinite, Optim, Optimizer, Rule, Slot, StepOutcome,
    StepReport, VectorMethod, WeightDecay,
};
pub use crate::parameters;
pub use crate::params::{Flat, FlatMut, Gradients, Parameters, RowGradient, Select};
pub use crate::quant::Precision;
pub use crate::schedule::{
    CosineAnnealing, CosineRestarts, LrScheduler, OneCycle, OptionScheduler, PlateauScheduler,
    ReduceOnPlateau, WarmupCosine, WarmupCosineRestarts, WarmupLinear, WarmupPolynomial, Wsd,
};
pub use crate::second_order::factor::FactorStorage;
pub use crate::second_order::{Muon, Scion, Shampoo, Soap, SteepestDescent};
pub use crate::state::{Rounding, StateDict};
pub use crate::wrappers::*;
pub use crate::zeroth_order::{Coordinate, Estimator, Spsa, ZerothOrder};
