//! Estimates one coordinate at a time, and the choice of coordinates.

mod active;
mod config;
mod estimator;
mod frozen;
mod grasp;

pub use active::ActiveSet;
pub use config::Coordinate;
pub use estimator::CoordinateEstimator;
pub use grasp::{Grasp, Scores};
