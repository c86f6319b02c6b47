//! Slow weights that follow the fast ones of an inner optimizer.

mod checkpoint;
mod optimizer;
mod options;
mod slow;

pub use optimizer::Lookahead;
pub use options::{LookaheadOptions, PullbackMomentum};
