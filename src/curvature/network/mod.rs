//! The factors of all layers of a network.

mod checkpoint;
mod config;
mod layer;
mod preconditioned;
mod preconditioner;
mod step;
mod sums;

pub use config::{NetworkFactors, StatisticScale};
pub use preconditioned::Preconditioned;
pub use preconditioner::NetworkPreconditioner;
