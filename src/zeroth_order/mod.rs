//! Floor 4: training with losses alone.
mod active;
mod conservative;
mod coordinate;
mod coordinate_estimator;
mod driver;
mod estimate;
mod estimator;
mod law;
mod ledger;
mod noise;
mod rays;
mod shaping;
mod space;
mod spsa;
mod spsa_estimator;
mod work_split;

pub use active::ActiveSet;
pub use conservative::Pick;
pub use coordinate::Coordinate;
pub use coordinate_estimator::CoordinateEstimator;
pub use driver::ZerothOrder;
pub use estimate::{Estimate, Report};
pub use estimator::{Buffers, Estimator};
pub use law::{
    Directions, Draw, Hizoo, HizooDirections, Law, LayerScaled, LayerScales, Lozo, LozoDirections,
    Mask, Query, Random, RandomDirections, ScaledDirections, Slopes, Sparse, SparseDirections,
    SubZero, SubZeroDirections,
};
pub use ledger::Ledger;
pub use noise::{Noise, Philox, Place, Purpose};
pub use shaping::Shaping;
pub use space::Visit;
pub use spsa::{Sides, Slope, Spsa};
pub use spsa_estimator::SpsaEstimator;
pub use work_split::work_split;
