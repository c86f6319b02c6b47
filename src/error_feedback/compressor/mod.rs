//! Compressors: what is kept of a vector, and how it is written down.

mod low_rank;
mod message;
mod sparse;
mod top_k;

#[allow(unused_imports, reason = "for exchanges, which follow")]
pub(crate) use low_rank::gram_schmidt;
pub use low_rank::power_iteration;
pub use message::Message;
pub use sparse::{Identity, TopK};
pub use top_k::Selection;

use crate::numeric::Real;
use std::fmt::Debug;

/// Writes a vector down in fewer bytes, with an error that is a known part of it.
///
/// ```text
/// E‖C(x) − x‖² ≤ (1 − δ)·‖x‖²,   0 < δ ≤ 1
/// ```
/// A compressor may remember something from one vector to the next; what it makes of a vector depends
/// on nothing else, whatever the number of threads.
pub trait Compressor<R: Real>: Debug + Send + Sync {
    /// The message for a vector of finite numbers; step number `t` counts from 1.
    fn compress(&mut self, t: u64, x: &[R]) -> Message<R>;

    /// The contraction constant `δ` for vectors of `numel` elements: a lower bound where it depends on
    /// the vector.
    fn contraction(&self, numel: usize) -> f64;
}
