//! Methods that treat a weight as a matrix.
//!
//! | method | state, bytes per `f32` parameter of a square matrix | good for |
//! |---|---|---|
//! | [`Muon`] | 4, in 8 bits 1 | hidden matrices of networks, large learning rates |
//! | [`Shampoo`] | 16, in 4 bits 2.25; the inner rule's | fewer, better steps, with any rule inside |
//! | [`Soap`] | 16, in 4 bits 1.1; the inner rule's, 8 for AdamW | the same, and tolerates a stale eigenbasis |
//! | [`Scion`] | 4; without an average 0 | whole networks, a norm for every layer |
//! | [`SteepestDescent`] | 4 with an average; the inner rule's | Muon's step, or signs, with a rule of your own |
//!
//! All of them run through one engine, [`Blocked`](crate::optim::Blocked). It cuts tensors into blocks,
//! copies them in and out, grafts, and hands the direction to an element-wise rule: the *inner rule*,
//! the field `inner`. Groups, schedules, state precision, threads and checkpoints work as for every other
//! method.
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::Array2;
//!
//! let mut w = Array2::<f32>::ones((64, 32));
//! let mut opt = Shampoo { update_roots_every: 10, ..Shampoo::with_inner(Lion::default()) }.build()?;
//! let grad = w.clone(); // of ‖w‖²/2
//! opt.step(&mut w, &grad)?;
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! K-FAC and AdaBK, which see a layer's inputs and output gradients, are in
//! [`curvature`](crate::curvature).

// Floor 5.

mod descent;
pub mod factor;
mod graft;
mod muon;
mod mup;
mod per_axis;
mod polar;
mod reshape;
mod scion;
mod shampoo;
pub mod soap;
mod steepest;

pub use descent::Descent;
pub use graft::{Graft, GraftMoment};
pub use muon::Muon;
pub use mup::{LayerRole, UpdateKind, WidthScales, mup_scales};
pub use polar::{LrAdjustment, Orthogonalization, PolarBlock};
pub use reshape::Reshape;
pub use scion::{Scion, ScionNorm};
pub use shampoo::{
    Combination, Exponent, Exponents, GraftScope, Pipeline, Shampoo, ShampooBlock, Statistic,
};
pub use soap::Soap;
pub use steepest::{Norm, SteepestDescent};

/// Calls `$macro!(Type)` for every matrix method: the list that the common tests read.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_second_order {
    ($macro:ident) => {
        $macro!(Muon);
        $macro!(Shampoo);
        $macro!(Soap);
        $macro!(Scion);
        $macro!(SteepestDescent);
    };
}
