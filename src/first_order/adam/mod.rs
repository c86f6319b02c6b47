//! Moving averages of the gradient and of its square.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adam`] | 8, with `amsgrad` 12 | reproducing results made with it |
//! | [`AdamW`] | 8, with `amsgrad` 12 | nearly everything |
//! | [`NAdam`] | 8, and 8 bytes per tensor | Adam with Nesterov's momentum |

mod adam;
mod adamw;
mod coefficients;
mod nadam;

pub use adam::Adam;
pub use adamw::AdamW;
pub use nadam::NAdam;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_adam {
    ($macro:ident) => {
        $macro!(Adam);
        $macro!(AdamW);
        $macro!(NAdam);
    };
}
