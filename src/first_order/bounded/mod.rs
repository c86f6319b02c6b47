//! Adam whose steps are kept within bounds.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`AdaBound`] | 8, with `amsgrad` 12 | a fast start that ends as SGD |
//! | [`AdaMod`] | 12 | training without a warm-up |
//! | [`StableAdamW`] | 8 | losses with spikes, low precision |

pub(in crate::first_order) mod ada_bound;
mod ada_mod;
mod stable_adamw;

pub use ada_bound::AdaBound;
pub use ada_mod::AdaMod;
pub use stable_adamw::StableAdamW;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_bounded {
    ($macro:ident) => {
        $macro!(AdaBound);
        $macro!(AdaMod);
        $macro!(StableAdamW);
    };
}
