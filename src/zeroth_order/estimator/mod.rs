//! What all estimators share: the trait, the estimate, and what is kept from step to step.

mod conservative;
mod driver;
mod estimate;
mod ledger;
mod noise;
mod saved;
mod session;
mod shaping;
mod sides;
mod space;
mod traits;
mod work_split;

pub use conservative::Pick;
pub use driver::ZerothOrder;
pub use estimate::{Estimate, Report};
pub use ledger::Ledger;
pub use noise::{Noise, Philox, Place, Purpose};
pub use shaping::Shaping;
pub use sides::Sides;
pub use space::Visit;
pub use traits::Estimator;
pub use work_split::work_split;

pub(super) use conservative::pick;
pub(super) use estimate::Slices;
pub(super) use saved::{ESTIMATOR, Saved};
pub(super) use session::Session;
pub(super) use space::Space;
pub(super) use traits::Core;
