//! Methods that remember the gradient of the step before.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adan`] | 16 | large learning rates, vision and language |
//! | [`DiffGrad`] | 12, with `amsgrad` 16 | Adam that overshoots near a minimum |
//! | [`Mars`] | 12, with `amsgrad` 16 | noisy gradients of large models; AdamW or Lion inside |

mod adan;
mod diff_grad;
mod mars;

pub use adan::Adan;
pub use diff_grad::DiffGrad;
pub use mars::{Mars, MarsType};

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_lookback {
    ($macro:ident) => {
        $macro!(Adan);
        $macro!(DiffGrad);
        $macro!(Mars);
    };
}
