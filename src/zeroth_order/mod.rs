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
//! | weights that live on a grid of few bits | [`Quzo`], or [`QuzoLattice`] in the memory of integers; with a straight-through gradient, [`Fogzo`] |
//! | categories, or integers | [`categorical`], [`GeneticSearch`] |
//!
//! | module of concern | what |
//! |---|---|
//! | [`Estimator`] | closure, threads and ask/tell: three doors to the same probes |
//! | [`Law`] | which way probes go: [`Random`], [`Sparse`], [`LayerScaled`], [`Lozo`], [`SubZero`], [`Hizoo`], [`QuantizedNormal`], [`Guided`], [`ReplayedMomentum`], [`Split`] |
//! | [`ZerothOrder`], [`Ledger`] | a pair of estimator and optimizer; a run as its losses |
//! | [`Format`], [`Ste`] | grids, rounding at random, gradients through roundings |

mod active;
pub mod categorical;
mod conservative;
mod coordinate;
mod coordinate_estimator;
mod driver;
mod estimate;
mod estimator;
mod fogzo;
mod format;
pub mod genetic;
mod grasp;
mod lattice;
mod law;
mod ledger;
mod noise;
mod quzo;
mod rays;
mod session;
mod shaping;
mod space;
mod spsa;
mod spsa_estimator;
mod straight_through;
mod work_split;

pub use active::ActiveSet;
pub use conservative::Pick;
pub use coordinate::Coordinate;
pub use coordinate_estimator::CoordinateEstimator;
pub use driver::ZerothOrder;
pub use estimate::{Estimate, Report};
pub use estimator::Estimator;
pub use fogzo::{Fogzo, FogzoEstimator};
pub use format::{
    Codes, Format, Fp8, IntegerFormat, nearest_int, pack_int4, stochastic_round_int, unpack_int4,
};
pub use genetic::GeneticSearch;
pub use grasp::{Grasp, Scores};
pub use lattice::{IntTensor, LatticeOptimizer, QuzoLattice};
pub use law::{
    Directions, Draw, Guided, GuidedDirections, Hizoo, HizooDirections, Law, LayerScaled,
    LayerScales, Lozo, LozoDirections, Mask, QuantizedDirections, QuantizedNormal, Query, Random,
    RandomDirections, ReplayedDirections, ReplayedMomentum, ScaledDirections, Slopes, Sparse,
    SparseDirections, Split, SplitDirections, SubZero, SubZeroDirections, UnitNoise,
};
pub use ledger::Ledger;
pub use noise::{Noise, Philox, Place, Purpose};
pub use quzo::{Quzo, QuzoOptimizer, QuzoReport};
pub use shaping::Shaping;
pub use space::Visit;
pub use spsa::{Sides, Slope, Spsa};
pub use spsa_estimator::SpsaEstimator;
pub use straight_through::{Grid, Ste};
pub use work_split::work_split;
