//! Curvature from more than a gradient: from the inputs of a layer, and the gradients of its outputs.
//!
//! | object | state, bytes per `f32` parameter of a square matrix | good for |
//! |---|---|---|
//! | [`NetworkFactors`] | 16 and 4 for a scratch buffer, in 4 bits 2.25 and 4 | K-FAC, AdaBK and EKFAC for all layers of a network, convolutions among them, before any optimizer |
//! | [`LayerFactors`] | 16, in 4 bits 2.25 | the same for one weight matrix; the options of both |
//!
//! These are no optimizers. They change gradients before an optimizer takes them:
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::{Array2, array};
//!
//! let mut w = Array2::<f64>::zeros((1, 2)); // outputs × inputs
//! let layer = LayerFactors { update_factors_every: 1, update_roots_every: 1, ..LayerFactors::kfac() };
//! let mut kfac = NetworkFactors::new(layer).build()?.with_layer(LayerSpec::linear("param", 1, 2))?;
//! let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build()?;
//!
//! let x = array![[1.0, 2.0], [3.0, 5.0]]; // inputs, a row per sample
//! let y = x.dot(&w.t()) - 1.0; // gradients of the outputs, for a summed loss
//! kfac.observe(&LayerStats::new("param", &x, &y, LossReduction::Sum))?;
//! opt.step(&mut w, &kfac.precondition(&y.t().dot(&x))?)?;
//! # assert!(w.iter().all(|w| *w != 0.0));
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! A program says what its layers are with [`LayerSpec`], and shows what they saw with [`LayerStats`];
//! [`unfold`] makes rows of the images that a convolution sees. [`KroneckerInverse`] lists the ways to damp
//! and invert.

// Floor 6: factors of layers are stored as those of Shampoo.

mod conv;
mod kronecker_inverse;
mod layer_factors;
mod layer_preconditioner;
mod layer_rows;
mod layer_spec;
mod layer_state;
mod layer_stats;
mod network;

pub use conv::{Conv2d, image_rows, unfold};
pub use kronecker_inverse::KroneckerInverse;
pub use layer_factors::LayerFactors;
pub use layer_preconditioner::LayerPreconditioner;
pub use layer_spec::{LayerSpec, WeightSharing};
pub use layer_stats::{LayerStats, LossReduction};
pub use network::{NetworkFactors, NetworkPreconditioner, Preconditioned, StatisticScale};
