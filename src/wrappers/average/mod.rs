//! Averages of weights.

mod averaged;
mod ema;
mod swa;

pub use averaged::{Averaged, WeightAverage};
pub use ema::Ema;
pub use swa::Swa;
