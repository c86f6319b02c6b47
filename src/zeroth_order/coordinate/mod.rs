//! Estimates one coordinate at a time, and which coordinates they are made for.

mod active;
mod config;
mod estimator;
mod frozen;
mod grasp;

pub use active::ActiveSet;
pub use config::Coordinate;
pub use estimator::CoordinateEstimator;
pub use grasp::{Grasp, Scores};
