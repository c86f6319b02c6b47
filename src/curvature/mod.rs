//! Curvature from more than a gradient: from the inputs of a layer, and the gradients of its outputs.
//!
//! | object | state, bytes per `f32` parameter of a square matrix | good for |
//! |---|---|---|
//! | [`LayerFactors`] | 16, in 4 bits 2.25 | K-FAC and AdaBK before any optimizer |
//!
//! These are no optimizers. They change a layer's gradient before an optimizer takes it:
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::{Array2, array};
//!
//! let mut w = Array2::<f64>::zeros((1, 2)); // outputs × inputs
//! let mut layer = LayerFactors::kfac().build(w.dim())?;
//! let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build()?;
//!
//! let x = array![[1.0, 2.0], [3.0, 5.0]]; // inputs, a row per sample
//! let y = x.dot(&w.t()) - 1.0; // gradients of the outputs
//! let mut grad = y.t().dot(&x) / 2.0;
//! layer.observe(&x, &y)?;
//! layer.precondition(&mut grad)?;
//! opt.step(&mut w, &grad)?;
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 6: factors of layers are stored as those of Shampoo.

mod layer_factors;
mod layer_preconditioner;

pub use layer_factors::LayerFactors;
pub use layer_preconditioner::LayerPreconditioner;
