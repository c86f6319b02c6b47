//! Learning rates, and other options, that change during training.
//!
//! A [`Schedule`] is a function: from the step number, the base rate and the current rate of a group it
//! computes the next rate. It remembers nothing. An [`LrScheduler`] counts the steps, keeps the base rates
//! and writes the rates into the optimizer. Call `optimizer.step()` first, then `scheduler.step()`.
//! An [`OptionScheduler`] does the same for any other option, by its name.
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::array;
//!
//! let mut w = array![1.0f32];
//! let mut opt = AdamW { lr: 0.01, ..AdamW::default() }.build()?;
//! let schedule = WarmupCosine { warmup: 10, total: 100, ..WarmupCosine::default() };
//! let mut scheduler = LrScheduler::new(schedule, &mut opt)?;
//! for _ in 0..100 {
//!     let grad = w.clone(); // of ‖w‖²/2
//!     opt.step(&mut w, &grad)?;
//!     scheduler.step(&mut opt)?;
//! }
//! assert!(opt.lr(0) < 1e-9);
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! *Chainable* schedules compute the next rate from the current one, as in PyTorch, so that they can be
//! combined with other schedulers and with rates changed by hand. *Closed* ones compute it from the base
//! rate and undo such changes. A chainable schedule agrees with its closed form up to rounding.
//!
//! | schedule | in PyTorch | form |
//! |---|---|---|
//! | [`Constant`], [`Linear`], [`Polynomial`] | `ConstantLR`, `LinearLR`, `PolynomialLR` | chainable |
//! | [`Step`], [`MultiStep`], [`Exponential`] | `StepLR`, `MultiStepLR`, `ExponentialLR` | chainable |
//! | [`CosineAnnealing`] | `CosineAnnealingLR` | chainable |
//! | [`CosineRestarts`] | `CosineAnnealingWarmRestarts` | closed |
//! | [`Cyclic`], [`OneCycle`] | `CyclicLR`, `OneCycleLR` | closed, with momentum |
//! | [`Lambda`], [`Multiplicative`] | `LambdaLR`, `MultiplicativeLR` | closed, chainable |
//! | [`Sequential`], [`Chained`], [`Groupwise`] | `SequentialLR`, `ChainedScheduler`, – | of their parts |
//! | [`SwaLr`] | `SWALR` | chainable |
//! | [`ReduceOnPlateau`] with [`PlateauScheduler`] | `ReduceLROnPlateau` | from a metric |
//! | [`Wsd`], [`WarmupCosine`], [`WarmupLinear`] | – | closed |
//! | [`WarmupCosineRestarts`], [`WarmupPolynomial`] | –; as transformers' | closed |
//! | [`CosineCycles`], [`Noisy`] | –; as timm's | closed |
//! | [`Piecewise`] | –; as optax's | closed |
//! | [`InverseSqrt`], [`Noam`], [`Rex`] | – | closed |
//!
//! [`LayerwiseLr`] is no schedule in time: it gives every layer its own rate, lower ones at the input.

// Floor 4.

#[macro_use]
mod rate;

mod anneal;
mod constant;
mod cosine;
mod cycles;
mod cyclic;
mod decay;
mod lambda;
mod layerwise;
mod noisy;
mod one_cycle;
mod option;
mod per_group;
mod piecewise;
mod plateau;
mod scheduler;
mod sequential;
mod step;
mod swa;
mod warmup;
mod warmup_polynomial;
mod warmup_restarts;

pub use anneal::Anneal;
pub use constant::{Constant, Linear, Polynomial};
pub use cosine::{CosineAnnealing, CosineRestarts};
pub use cycles::CosineCycles;
pub use cyclic::{Cyclic, CyclicMode};
pub use decay::{InverseSqrt, Noam, Rex};
pub use lambda::{Lambda, Multiplicative};
pub use layerwise::LayerwiseLr;
pub use noisy::{Noisy, RateNoise};
pub use one_cycle::OneCycle;
pub use option::OptionScheduler;
pub use per_group::PerGroup;
pub use piecewise::{Interpolation, Piecewise};
pub use plateau::{PlateauMode, PlateauScheduler, ReduceOnPlateau, ThresholdMode};
pub use rate::{At, Schedule};
pub use scheduler::{LrScheduler, curve};
pub use sequential::{Chained, Groupwise, Sequential};
pub use step::{Exponential, MultiStep, Step};
pub use swa::SwaLr;
pub use warmup::{Cooldown, WarmupCosine, WarmupLinear, Wsd};
pub use warmup_polynomial::WarmupPolynomial;
pub use warmup_restarts::WarmupCosineRestarts;
