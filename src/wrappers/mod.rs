//! Optimizers around optimizers, and averages of weights.
//!
//! | wrapper | what it does | state of its own, bytes per `f32` parameter |
//! |---|---|---|
//! | [`Partitioned`] | different methods for different parameters, behind one optimizer | 0 |
//! | [`Lookahead`] | slow weights that follow those of any optimizer | 4 |
//! | [`Sam`] | steps along the gradient from the worst point nearby: SAM, ASAM | 4, two evaluations per step |
//! | [`Ignite`] | a constraint on the norm of a gradient, or a penalty of it | 8, two or three evaluations per step |
//! | [`Ema`], [`Swa`] | an average of weights, kept by [`Averaged`] beside any optimizer | 4 |
//!
//! They take any [`Optimizer`](crate::optim::Optimizer), also a `Box<dyn Optimizer<T>>`, and most of them
//! each other. [`Partitioned`] and [`Lookahead`] are optimizers themselves; [`Sam`] and [`Ignite`] evaluate the model
//! more than once per step, and are [`ClosureOptimizer`](crate::optim::ClosureOptimizer)s. All of them keep the
//! promises of the inner optimizer: a step succeeds or changes nothing, and a checkpoint continues bit for bit.
//!
//! SAM around Lookahead around AdamW, with an average of the weights:
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::array;
//!
//! let mut w = array![1.0f64, -2.0];
//! let adamw = AdamW { lr: 0.05, ..AdamW::default() }.build()?;
//! let mut sam = Sam::new(Lookahead::new(adamw));
//! let mut ema = Ema { decay: 0.99, warmup: true, ..Ema::default() }.build()?;
//! for _ in 0..300 {
//!     sam.step_with(&mut w, |w| ((&*w * &*w).sum(), &*w * 2.0))?;
//!     ema.update(&mut w)?;
//! }
//! ema.swap(&mut w)?; // evaluate or save the model here
//! assert!(w.iter().all(|x| x.abs() < 0.1));
//! ema.restore(&mut w)?; // and go on
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
mod sharpness;

pub use average::{Averaged, Ema, Swa, WeightAverage};
pub use lookahead::{Lookahead, LookaheadOptions, PullbackMomentum};
pub use partitioned::Partitioned;
pub use sharpness::{Ignite, IgniteOptions, Sam, SamOptions};
