//! Gradients that are divided by their size first, and averaged then.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adopt`] | 8 | convergence with any β₂ |
//! | [`LaProp`] | 8, with `amsgrad` 12, and 8 per tensor | a large β₁ or a small β₂ |

mod adopt;
mod laprop;

pub use adopt::Adopt;
pub use laprop::LaProp;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_normalized {
    ($macro:ident) => {
        $macro!(Adopt);
        $macro!(LaProp);
    };
}
