//! Methods that learn one task after another.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Classp`] | 4 | one task after another |

mod classp;

pub use classp::{Classp, ClasspVariant};

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_continual {
    ($macro:ident) => {
        $macro!(Classp);
    };
}
