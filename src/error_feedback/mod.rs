//! Floor 5: full-matrix preconditioners of a window of gradients, and compression whose error is fed
//! back.

pub mod compressor;
mod fisher;
mod ggt;
mod intake;
mod memory;
mod mfac;
mod microadam;
mod momentum;
mod residual;
mod root;
mod window;

pub use compressor::{Selection, power_iteration};
pub use fisher::{Fisher, Normalization};
pub use ggt::{Ggt, GgtForm};
pub use intake::{Compression, LowRankness, Sparsity};
pub use memory::WindowMemory;
pub use mfac::MFac;
pub use microadam::{Horizon, MicroAdam, MicroAdamMemory};
pub use momentum::{Momentum, MomentumCoefficients, Shrinkage};
pub use residual::{Residual, ResidualFormat};
pub use root::WindowRoot;
pub use window::{GradWindow, LowRankRow, RowFormat};

/// Calls `$macro!(Type)` for every method over a window of gradients: the list that the common tests
/// read.
#[macro_export]
macro_rules! for_each_windowed {
    ($macro:ident) => {
        $macro!(MFac);
        $macro!(Ggt);
        $macro!(MicroAdam);
    };
}
