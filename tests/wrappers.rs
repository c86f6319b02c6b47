//! Optimizers around optimizers, and averages of weights: exact limits, nothing lost in an error, and the same
//! bits after a checkpoint, with any number of threads and in any memory order.
// a test that fails says so by panicking; the helpers serve other tests too
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "common/model.rs"]
mod model;
#[path = "support/threads.rs"]
mod threads;

#[path = "wrappers/averages.rs"]
mod averages;
#[path = "wrappers/inner.rs"]
mod inner;
#[path = "wrappers/layouts.rs"]
mod layouts;
#[path = "wrappers/lookahead.rs"]
mod lookahead;
#[path = "wrappers/not_finite.rs"]
mod not_finite;
#[path = "wrappers/sharpness.rs"]
mod sharpness;
#[path = "wrappers/slots.rs"]
mod slots;
