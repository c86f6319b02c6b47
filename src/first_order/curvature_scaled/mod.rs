//! Steps divided by a curvature that comes with the gradient.
//!
//! The curvature is a second tree of the names and shapes of the gradients:
//! `opt.step(&mut model, &with_curvature(&grads, &curvature))`
//! ([`with_curvature`](crate::gradient::with_curvature)).
//!
//! | method | state, bytes per `f32` parameter | the curvature is | good for |
//! |---|---|---|---|
//! | [`AdaHessian`] | 8, and 8 bytes per tensor | `Hz` for a random sign vector `z` | Hessian-vector products at hand |
//! | [`Sophia`] | 8 | gradients at labels that the model draws, or `z ⊙ Hz` | language models, a curvature every ten steps |

mod ada_hessian;
mod sophia;

pub use ada_hessian::AdaHessian;
pub use sophia::{Sophia, SophiaEstimator};

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_curvature_scaled {
    ($macro:ident) => {
        $macro!(AdaHessian);
        $macro!(Sophia);
    };
}
