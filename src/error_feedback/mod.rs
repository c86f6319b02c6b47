//! Floor 5: full-matrix preconditioners of a window of gradients, and compression whose error is fed
//! back.

mod fisher;
mod residual;
mod window;

pub use fisher::{Fisher, Normalization};
pub use residual::{Residual, ResidualFormat};
pub use window::{GradWindow, LowRankRow, RowFormat};
