//! Element-wise rules, and what makes a method of them.

mod adaptor;
mod applied;
mod decay;
mod inner;
mod prepared;
mod rule;
mod unit;

pub use adaptor::ElementState;
pub(in crate::optim) use adaptor::split;
pub use applied::{Applied, Delayed};
pub use decay::DecaySchedule;
pub(crate) use inner::check_embedded;
pub use prepared::Prepared;
pub use rule::{Apply, Elementwise, Rule, Slot, WeightDecay};
pub use unit::{ElementUnit, kahan_add};
