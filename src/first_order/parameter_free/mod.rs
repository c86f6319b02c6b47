//! Methods that estimate their own learning rate.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Prodigy`] | 16; `8 + 8/k` with `slice_p = k` | no learning rate to tune |
//! | [`DAdaptAdam`] | 12 | the same, in fewer bytes |
//! | [`DAdaptSgd`] | 8 | SGD without a learning rate to tune |
//! | [`DAdaptAdagrad`] | 12 | Adagrad without a learning rate to tune |
//! | [`DAdaptLion`] | 8 | signs without a learning rate to tune |

pub(super) mod dadapt_adagrad;
pub(super) mod dadapt_adam;
mod dadapt_lion;
pub(super) mod dadapt_sgd;
mod distance;
pub(super) mod prodigy;

pub use dadapt_adagrad::DAdaptAdagrad;
pub use dadapt_adam::DAdaptAdam;
pub use dadapt_lion::DAdaptLion;
pub use dadapt_sgd::DAdaptSgd;
pub use prodigy::Prodigy;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_parameter_free {
    ($macro:ident) => {
        $macro!(Prodigy);
        $macro!(DAdaptAdam);
        $macro!(DAdaptSgd);
        $macro!(DAdaptAdagrad);
        $macro!(DAdaptLion);
    };
}
