//! Floor 5: training with losses alone, and parameters that live on a grid.
//!
//! An [`Estimator`] turns losses into a gradient, whose elements are computed where they are used: it
//! goes into any optimizer of the crate, and no gradient is stored.
//!
//! | you have | take |
//! |---|---|
//! | a large model, and memory for its parameters alone | [`Spsa`] with [`Sgd`](crate::first_order::Sgd): MeZO |
//! | up to some ten thousand parameters, or a small active set | [`Coordinate`]: no variance |
//! | losses that only compare well or badly | [`Spsa::evolution`] |
//! | matrices of a fine-tuned model | [`Spsa`] with [`Lozo`] or [`SubZero`] |
//! | weights that live on a grid of few bits | [`Quzo`], or [`IntegerQuzo`] in the memory of integers; with a straight-through gradient, [`Fogzo`] |
//! | categories, or integers | `discrete::categorical`, `discrete::GeneticSearch` |
//!
//! | module of concern | what |
//! |---|---|
//! | [`Estimator`] | closure, threads and ask/tell: three doors to the same probes |
//! | [`DirectionSampler`] | which way probes go: [`Random`], [`Sparse`], [`LayerScaled`], [`Lozo`], [`SubZero`], [`Hizoo`], [`QuantizedNormal`], [`Guided`], [`ReplayedMomentum`], [`Split`] |
//! | [`ZerothOrder`], [`LossLog`] | a pair of estimator and optimizer; a run as its losses |
//! | [`Format`], [`StraightThrough`] | grids, rounding at random, gradients through roundings |

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
    Philox, Purpose, Report, RngStream, VisitBuffers, ZerothOrder, work_split,
};
pub use quantized::{
    Codes, Fogzo, FogzoEstimator, Format, Fp8, Grid, Guided, GuidedDirections, IntTensor,
    IntegerFormat, IntegerQuzo, IntegerQuzoOptimizer, QuantizedDirections, QuantizedNormal, Quzo,
    QuzoOptimizer, QuzoReport, StraightThrough, UnitNoise, nearest_int, pack_int4,
    stochastic_round_int, unpack_int4,
};
pub use spsa::{Slope, Spsa, SpsaEstimator};
