//! Floor 5: methods that see a weight as a matrix.
//!
//! | method | state, bytes per `f32` parameter of a square matrix | good for |
//! |---|---|---|
//! | [`Muon`] | 4, in 8 bits 1 | hidden matrices of networks, large learning rates |
//! | [`Shampoo`] | 16, in 4 bits 2.25, and the base's | fewer, better steps; any base rule behind it |
//! | [`Soap`] | 16, in 4 bits 1.1, and the inner rule's 8 | the same, with a basis that may grow old |
//!
//! All of them run through one engine, [`Blocked`](crate::optim::Blocked): it cuts tensors into
//! blocks, copies them in and out, grafts, and hands the direction to an element-wise rule, so that
//! groups, schedules, state precision, threads and checkpoints are those of every other method.
//!
//! K-FAC and AdaBK, which see a layer's inputs and output gradients, are in
//! [`curvature`](crate::curvature).

mod descent;
pub mod factor;
mod graft;
mod muon;
mod mup;
mod per_axis;
mod polar;
mod reshape;
mod shampoo;
pub mod soap;
mod steepest;

pub use descent::Descent;
pub use graft::{Graft, GraftMoment};
pub use muon::Muon;
pub use mup::{LayerRole, UpdateKind, WidthScales, mup_scales};
pub use polar::{LrAdjustment, Orthogonalization, PolarBlock};
pub use reshape::Reshape;
pub use shampoo::{
    Combination, Exponent, Exponents, GraftScope, Pipeline, Shampoo, ShampooBlock, Statistic,
};
pub use soap::Soap;
pub use steepest::{Norm, SteepestDescent};

/// Calls `$macro!(Type)` for every matrix method: the list that the common tests read.
#[macro_export]
macro_rules! for_each_second_order {
    ($macro:ident) => {
        $macro!(Muon);
        $macro!(Shampoo);
        $macro!(Soap);
        $macro!(SteepestDescent);
    };
}
