//! The directions along which parameters are perturbed, and of which an estimate is the weighted sum.

mod hizoo;
mod low_rank;
mod random;
mod replayed;
mod sampler;
mod scaled;
mod sparse;
mod split;
mod subspace;
mod thin;

pub use hizoo::{Hizoo, HizooDirections};
pub use low_rank::{Lozo, LozoDirections};
pub use random::{Random, RandomDirections};
pub use replayed::{ReplayedDirections, ReplayedMomentum};
pub use sampler::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions, StepContext,
};
pub use scaled::{LayerScaled, LayerScales, ScaledDirections};
pub use sparse::{Mask, Sparse, SparseDirections};
pub use split::{Split, SplitDirections};
pub use subspace::{SubZero, SubZeroDirections};

pub(super) use sampler::check_names;
