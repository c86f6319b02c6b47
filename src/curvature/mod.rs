//! Curvature from more than a gradient: statistics of what enters a layer and of the gradients of what
//! leaves it.
//!
//! | object | state, bytes per `f32` parameter of a square matrix | good for |
//! |---|---|---|
//! | [`LayerFactors`] | 16, in 4 bits 2.25 | K-FAC and AdaBK before any optimizer |
//!
//! These are no optimizers. They change a layer's gradient before an optimizer sees it.

// Floor 6: factors of layers are stored as those of Shampoo.

mod layer_factors;
mod layer_preconditioner;

pub use layer_factors::LayerFactors;
pub use layer_preconditioner::LayerPreconditioner;
