//! What all estimators share: the trait, the estimate, random numbers, and the state that is kept from
//! step to step.

mod backup;
mod conservative;
mod driver;
mod estimate;
mod finite_difference;
mod loss_log;
mod noise;
mod saved;
mod shaping;
mod snapshot;
mod state;
mod traits;
mod work_split;

pub use conservative::ConservativeChoice;
pub use driver::ZerothOrder;
pub use estimate::{Estimate, Report};
pub use finite_difference::FiniteDifference;
pub use loss_log::LossLog;
pub use noise::{Noise, Philox, Purpose, RngStream};
pub use shaping::FitnessShaping;
pub use traits::Estimator;
pub use work_split::work_split;

pub(super) use backup::Backup;
pub(super) use conservative::choose;
pub(super) use estimate::Slices;
pub(super) use noise::Cleared;
pub(super) use saved::{ESTIMATOR, OPTIONS, Saved};
pub(super) use snapshot::ParamSnapshot;
pub(super) use state::{EstimatorState, Stage};
pub(super) use traits::Core;
