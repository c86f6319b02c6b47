//! Floor 5: methods that keep a part of every gradient, and what they do with the rest.
//!
//! | method | keeps of a gradient | state, bytes per `f32` parameter | the rest |
//! |---|---|---|---|
//! | [`MFac`] | all, the largest elements, or thin factors; the last `m` | 4m; 6mρ + 4 at density ρ | waits for the next step |
//! | [`Ggt`] | the same | the same | the same |
//! | [`MicroAdam`] | the largest elements of blocks, 10 times | 1 | waits in 4 bits |
//!
//! A window of gradients ([`GradWindow`]) is a curvature matrix of the size of the model that is never
//! formed: [`Fisher`] and [`WindowRoot`] invert it through the products of its gradients with each
//! other. [`Compression`] makes it small, and feeds back what it leaves out ([`Residual`]).

mod compressed_window;
mod compression;
pub mod compressor;
mod compressor_config;
mod feedback;
mod fisher;
mod ggt;
mod memory;
mod mfac;
mod microadam;
mod momentum;
mod residual;
mod root;
mod window;
mod window_method;

pub use compression::{Compression, LowRankConfig, SparseConfig};
pub use compressor::{Selection, power_iteration};
pub use compressor_config::CompressorConfig;
pub use feedback::{EfAdagrad, ErrorFeedback, FeedbackMemory};
pub use fisher::{Fisher, Normalization};
pub use ggt::{Ggt, GgtForm};
pub use memory::{WindowMemory, WindowOptions};
pub use mfac::MFac;
pub use microadam::{Horizon, MicroAdam, MicroAdamMemory};
pub use momentum::{Momentum, MomentumCoefficients, Shrinkage};
pub use residual::{Residual, ResidualFormat};
pub use root::WindowRoot;
pub use window::{GradWindow, LowRankRow, RowFormat};
pub use window_method::WindowMethod;

/// Calls `$macro!(Type)` for every method that sees parameters as one vector: the list that the common
/// tests read.
#[macro_export]
macro_rules! for_each_windowed {
    ($macro:ident) => {
        $macro!(MFac);
        $macro!(Ggt);
        $macro!(MicroAdam);
    };
}
