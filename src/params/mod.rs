//! Trees of named parameters and gradients, as your program holds them.
//!
//! A model is a tree; its leaves are arrays; a leaf's name is the path to it, joined by dots:
//! `fc1.weight`, `layers.0.bias`. Gradients are a tree of the same paths. The optimizer borrows both
//! for the time of one step and owns neither.
//!
//! * [`Parameters`] and [`Gradients`] are implemented for arrays of any dimension, and for `Option`,
//!   `Vec`, arrays, slices, tuples, `Box`, references and `BTreeMap<String, _>` of trees;
//! * [`parameters!`](crate::parameters) implements both for a struct from its field names;
//! * [`FlatMut`] and [`Flat`] make leaves of plain slices, from whatever library they come.
//!
//! An absent gradient (`None`, or a field left out) is PyTorch's `grad is None`: the parameter is
//! skipped, without weight decay and without a step count. A gradient of zeros is not the same.

// Floor 1.

mod edits;
mod gradient;
mod impls;
mod inputs;
mod macros;
mod manifest;
mod select;
mod views;
mod visitor;

pub use gradient::{Generate, RowGradient};
pub use impls::{Flat, FlatMut};
pub use inputs::{WithCurvature, WithLoss, with_curvature, with_loss};
pub use select::Select;
pub use views::{Clamped, Scaled};
pub use visitor::{GradVisitor, Gradients, ParamVisitor, Parameters};

pub(crate) use edits::{Elements, LeafEdit};
pub(crate) use gradient::{GradientKind, GradientLeaf};
pub(crate) use manifest::{Manifest, recycle};
pub(crate) use visitor::{GradBuffers, ParamBuffers, ParamLeaf};
