//! The engine: one step of any method over a tree of parameters.

mod buffers;
mod check;
mod checkpoint;
mod closure;
mod core;
mod finite;
mod group;
mod grow;
mod grown;
mod optim;
mod passes;
mod plan;
mod step;
mod tracked;

pub use closure::{Closure, ClosureOptimizer, IntoEvaluation, IntoLoss, Problem};
pub use optim::Optim;
