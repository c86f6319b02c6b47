//! Optimizers around optimizers, and averages of weights.
//!
//! | type | what it does | state of its own, bytes per `f32` parameter |
//! |---|---|---|
//! | [`Partitioned`] | different methods for different parameters, behind one optimizer | 0 |
//! | [`Lookahead`] | slow weights that follow those of any optimizer | 4 |
//! | [`Averaged`] with [`Ema`] or [`Swa`] | an average of weights, beside any optimizer | 4 |
//!
//! They are around any [`Optimizer`](crate::optim::Optimizer), `Box<dyn Optimizer<T>>` among them, and around each
//! other. [`Partitioned`] and [`Lookahead`] are optimizers themselves; all of them keep the
//! promises of the inner optimizer: a step succeeds or changes nothing, and a checkpoint continues bit for bit.
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::array;
//!
//! let mut w = array![1.0f64, -2.0];
//! let mut opt = Lookahead::new(AdamW { lr: 0.05, ..AdamW::default() }.build()?);
//! for _ in 0..300 {
//!     let gradient = &w * 2.0;
//!     opt.step(&mut w, &gradient)?;
//! }
//! assert!(w.iter().all(|x| x.abs() < 0.1));
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 7. Files use each other in this order: leaves, mix, exact, nested; the folders of the methods.

mod average;
mod exact;
mod leaves;
mod lookahead;
mod mix;
mod nested;
mod partitioned;

pub use average::{Averaged, Averaging, Ema, Swa};
pub use lookahead::{Lookahead, LookaheadOptions, PullbackMomentum};
pub use partitioned::Partitioned;
