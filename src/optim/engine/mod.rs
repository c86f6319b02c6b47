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
mod name_policy;
mod names;
mod optim;
mod passes;
mod plan;
mod step;
mod switch;
mod tracked;

pub use closure::{Closure, ClosureOptimizer, IntoEvaluation, IntoLoss, Problem, step_once};
pub use optim::Optim;
