//! Every optimizer behind pointers, and compiled once.
//!
//! Optimizers are generic. A promise that were generic, too, would be compiled anew for each of them: it takes a
//! [`Subject`] instead, one of [`named`], whose optimizers are behind pointers.
//!
//! Test programs would still compile every rule anew, each for itself. Debug builds link against instances of the
//! crates below instead, if these have them; here they are, in [`generic`]. Release builds share no instances, so
//! there a program compiles those that it uses, and this crate none. A program that needs nothing else names it:
//! `use eigenstep_instances as _;`.

mod compositions;
mod config;
#[cfg(debug_assertions)]
pub mod generic;
#[path = "../../support/inputs.rs"]
mod inputs;
mod optimizer;
mod subjects;

pub use config::{Config, Subject, Tested};
pub use inputs::Inputs;
pub use optimizer::{AnyOptim, Opt};
pub use subjects::named;
