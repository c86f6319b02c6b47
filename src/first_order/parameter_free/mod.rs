//! Methods that estimate their own learning rate.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Prodigy`] | 16; `8 + 8/k` with `slice_p = k` | no learning rate to tune |

pub(super) mod prodigy;

pub use prodigy::Prodigy;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_parameter_free {
    ($macro:ident) => {
        $macro!(Prodigy);
    };
}
