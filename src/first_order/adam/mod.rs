//! Moving averages of the gradient and of its square.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adam`] | 8, with `amsgrad` 12 | reproducing results made with it |
//! | [`AdamW`] | 8, with `amsgrad` 12 | nearly everything |
//! | [`NAdam`] | 8, and 8 per tensor | Adam with Nesterov's momentum |
//! | [`RAdam`] | 8 | Adam without a warm-up |
//! | [`Adamax`] | 8 | sparse gradients, outliers |
//! | [`SparseAdam`] | 8 | large embeddings with gradients of few rows |

mod adam;
mod adamax;
mod adamw;
mod coefficients;
mod nadam;
mod radam;
mod sparse_adam;

pub use adam::Adam;
pub use adamax::Adamax;
pub use adamw::AdamW;
pub use nadam::NAdam;
pub use radam::RAdam;
pub use sparse_adam::SparseAdam;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_adam {
    ($macro:ident) => {
        $macro!(Adam);
        $macro!(AdamW);
        $macro!(NAdam);
        $macro!(RAdam);
        $macro!(Adamax);
        $macro!(SparseAdam);
    };
}
