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
//! * [`Select`] chooses parameters by name, shape or any condition;
//! * [`RowGradient`] is a gradient of a few rows, [`Generate`] one that is computed where it is used;
//! * [`Scaled`] and [`Clamped`] are the simplest views of gradients; the module
//!   [`gradient`](crate::gradient) has all others.
//!
//! ```
//! use eigenstep::{parameters, prelude::*};
//! use ndarray::{Array1, Array2};
//!
//! struct Linear { weight: Array2<f32>, bias: Array1<f32> }
//! parameters!(Linear { weight, bias }: f32);
//! struct Model { layers: Vec<Linear>, scale: Array1<f32> }
//! parameters!(Model { layers, scale }: f32);
//!
//! let model = || Model {
//!     layers: vec![Linear { weight: Array2::ones((2, 3)), bias: Array1::ones(2) }],
//!     scale: Array1::ones(1),
//! };
//! let (mut params, grads) = (model(), model());
//! let mut opt = Sgd { lr: 0.5, ..Sgd::default() }.build()?;
//! opt.step(&mut params, &grads)?;
//! assert_eq!(params.scale[0], 0.5);
//! assert_eq!(opt.steps("layers.0.weight"), Some(1)); // the leaf's name
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! # Which way round is a matrix?
//!
//! PyTorch stores the weight of a linear layer as out × in (`y = x Wᵀ`); a program that writes `x.dot(&w)`
//! stores it as in × out. Most methods do not care: every element has its own step, and whitening treats rows and
//! columns alike. These do:
//!
//! | what | a row, an index of the first dimension, is | for a weight that is in × out |
//! |---|---|---|
//! | [`centralize`](crate::gradient::centralize) | an output: its mean is subtracted | it subtracts the means of inputs |
//! | [`AdaptiveClip`](crate::gradient::AdaptiveClip) | a unit, that is an output | units are inputs |
//! | [`LrAdjustment`](crate::second_order::LrAdjustment) of Muon, `Original` and `Spectral` | an output | √(out/in) turns into √(in/out); `MatchRmsAdamW` and `None` are the same both ways |
//! | [`mup_scales`](crate::second_order::mup_scales) | an output | the left damping is that of columns, and Muon's factors do not hold for `Original` and `Spectral` |
//! | [`LayerSpec`](crate::curvature::LayerSpec) | as you say | `linear_transposed(name, inputs, outputs)` in place of `linear(name, outputs, inputs)` |
//! | [`LayerFactors`](crate::curvature::LayerFactors) | an output | give it the transposed gradient |
//! | convolutions, everywhere | an output channel | – |
//!
//! The way out that costs nothing: hold the weight as out × in, and multiply by its transposed view. The
//! gradient is then out × in, too.
//! ```
//! use eigenstep::gradient::{centralize, materialize};
//! use ndarray::{Array2, array};
//!
//! let (x, dy) = (array![[1.0, 2.0, 3.0]], array![[0.5, -1.0]]); // one example, three inputs, two outputs
//! let weight = Array2::<f64>::ones((2, 3)); // out × in
//! let y = x.dot(&weight.t());
//! let gradient = dy.t().dot(&x); // out × in
//! assert_eq!((y.dim(), gradient.dim()), ((1, 2), (2, 3)));
//! let centred = materialize(&centralize(&gradient))?;
//! assert_eq!(centred["param"].sum_axis(ndarray::Axis(1)).sum(), 0.0); // of every output
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! # Absent gradients
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
pub(crate) use gradient::{GradientKind, GradientLeaf, generate, scale_and_clamp};
pub(crate) use manifest::{Manifest, recycle};
pub(crate) use visitor::{GradBuffers, ParamBuffers, ParamLeaf};
