//! Averages of weights.

mod averaged;
mod ema;
mod swa;

pub use averaged::{Averaged, Averaging};
pub use ema::Ema;
pub use swa::Swa;
