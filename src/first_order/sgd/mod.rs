//! Gradient descent, with or without momentum.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Sgd`] | 0, with momentum 4 | well-conditioned problems, least memory |

mod sgd;

pub use sgd::Sgd;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_sgd {
    ($macro:ident) => {
        $macro!(Sgd);
    };
}
