//! Training from losses alone, without a backward pass, and training of weights on a grid of few bits.
//!
//! An [`Estimator`] evaluates the loss at a few perturbed parameters and makes a gradient of the
//! differences. Every optimizer of the crate takes this gradient. Its elements are computed where the
//! optimizer uses them, so that no gradient is stored.
//!
//! ```
//! use eigenstep::{prelude::*, zeroth_order::{Spsa, ZerothOrder}};
//! use ndarray::array;
//!
//! let mut w = array![1.0f32, -1.0];
//! let optimizer = Sgd { lr: 0.02, ..Sgd::default() }.build()?;
//! let mut mezo = ZerothOrder::new(Spsa::default().build::<f32>()?, optimizer);
//! for _ in 0..200 {
//!     mezo.step(&mut w, |w| w.mapv(|x| x * x).sum())?;
//! }
//! assert!(w.iter().all(|x| x.abs() < 0.1), "{w}");
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! | you have | take |
//! |---|---|
//! | a large model, and memory for its parameters and one copy | [`Spsa`] with [`Sgd`](crate::first_order::Sgd): MeZO |
//! | up to some ten thousand parameters, or a small active set | [`Coordinate`]: an estimate without variance |
//! | losses of which only the order means something | [`Spsa::evolution`] |
//! | matrices of a model to fine-tune | [`Spsa`] with [`Lozo`] or [`SubZero`] |
//! | weights on a grid of few bits | [`Quzo`]; [`IntegerQuzo`] if they are stored as integers |
//! | weights that are rounded in the forward pass, and a straight-through gradient | [`Fogzo`] |
//! | weights to prune | [`Grasp`] scores them |
//!
//! | estimator | evaluations per step | of |
//! |---|---|---|
//! | [`Spsa`] | 2q for q directions, q + 1 one-sided | slopes along directions |
//! | [`Coordinate`] | d + 1 for d coordinates, 2d two-sided | every coordinate of an active set |
//! | [`Quzo`], [`IntegerQuzo`] | 2q | slopes along directions on a grid |
//! | [`Fogzo`] | 2q and a backward pass | the part of a gradient that rounding hides |
//!
//! | type | what it is |
//! |---|---|
//! | [`Estimator`] | the trait of all estimators: a closure, a closure on several threads, or ask and tell |
//! | [`ZerothOrder`] | an estimator and an optimizer, one call per step |
//! | [`DirectionSampler`] | the directions of the probes: [`Random`], [`Sparse`], [`LayerScaled`], [`Lozo`], [`SubZero`], [`Hizoo`], [`QuantizedNormal`], [`Guided`], [`ReplayedMomentum`], [`Split`] |
//! | [`LossLog`] | the losses of a run, from which the run can be replayed |
//! | [`Format`], [`StraightThrough`] | grids of numbers with stochastic rounding, and gradients through rounding |
//!
//! Parameters that are categories or whole numbers have a module of their own,
//! `eigenstep::discrete`.

// Floor 5: uses norms and copies of gradients. Its folders, each of which uses those before it:
// `estimator`, `directions`, `spsa`, then `coordinate` and `quantized`.

mod coordinate;
mod directions;
mod estimator;
mod quantized;
mod spsa;

pub use coordinate::{ActiveSet, Coordinate, CoordinateEstimator, Grasp, Scores};
pub use directions::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions, Hizoo, HizooDirections,
    LayerScaled, LayerScales, Lozo, LozoDirections, Mask, Random, RandomDirections,
    ReplayedDirections, ReplayedMomentum, ScaledDirections, Sparse, SparseDirections, Split,
    SplitDirections, StepContext, SubZero, SubZeroDirections,
};
pub use estimator::{
    ConservativeChoice, Estimate, Estimator, FiniteDifference, FitnessShaping, LossLog, Noise,
    Philox, Purpose, Report, RngStream, ZerothOrder, work_split,
};
pub use quantized::{
    Codes, Fogzo, FogzoEstimator, Format, Fp8, Grid, Guided, GuidedDirections, IntTensor,
    IntegerFormat, IntegerQuzo, IntegerQuzoOptimizer, QuantizedDirections, QuantizedNormal, Quzo,
    QuzoOptimizer, QuzoReport, StraightThrough, UnitNoise, nearest_int, pack_int4,
    stochastic_round_int, unpack_int4,
};
pub use spsa::{Slope, Spsa, SpsaEstimator};
