//! Estimates along random directions.

mod config;
mod directional;
mod estimator;
mod steps;

pub use config::{Slope, Spsa};
pub use estimator::SpsaEstimator;
