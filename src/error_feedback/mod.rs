//! Error feedback: optimizers that compress gradients, and add what a compression drops to the next
//! gradient.
//!
//! | method | what it stores of gradients | state, bytes per `f32` parameter | what it does with the residual |
//! |---|---|---|---|
//! | [`MFac`] | the last `m`: dense, sparse or of low rank | dense 4m; sparse 6mρ + 4 at density ρ | adds it to the next gradient |
//! | [`Ggt`] | the same | the same | the same |
//! | [`MicroAdam`] | the largest elements of the last 10 | 1 | the same, from 4 bits |
//! | [`ErrorFeedback`] around another method | the last compressed gradient | 4, and the method's | the same |
//! | [`EfAdagrad`]: around [`Adagrad`](crate::first_order::Adagrad) | the same | 8 | the same |
//!
//! [`MFac`] and [`Ggt`] use the curvature of the whole model, but never form a matrix of its size.
//! They keep a window of gradients ([`GradWindow`]). [`Fisher`] and [`WindowRoot`] invert its
//! curvature matrix through the inner products of the gradients. [`Compression`] says how the window
//! is compressed, and a [`Residual`] holds what the compression drops.
//!
//! # Examples
//! M-FAC on the largest tenth of every gradient:
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::Array1;
//!
//! let mut w = Array1::<f64>::ones(20);
//! let mut opt = MFac { window: 32, damping: 0.1, ..MFac::sparse(0.1) }.build()?;
//! for _ in 0..100 {
//!     let grad = w.clone(); // of ‖w‖²/2
//!     opt.step(&mut w, &grad)?;
//! }
//! assert!(w.sum() < 20.0);
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 5.

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

/// Calls `$macro!(Type)` for every named method with error feedback around a rule: the list that the
/// common tests read.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_error_feedback {
    ($macro:ident) => {
        $macro!(EfAdagrad);
    };
}

/// Calls `$macro!(Type)` for every method over a window of gradients: the list that the common tests
/// read.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_windowed {
    ($macro:ident) => {
        $macro!(MFac);
        $macro!(Ggt);
        $macro!(MicroAdam);
    };
}
