//! Estimates along random directions.

mod config;
mod estimator;
mod rays;
mod steps;

pub use config::{Slope, Spsa};
pub use estimator::SpsaEstimator;
