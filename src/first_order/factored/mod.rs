//! Second moments by rows and columns instead of element by element.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adafactor`] | less than 1 for large matrices, 4 for vectors | models whose state does not fit |

mod adafactor;

pub use adafactor::{Adafactor, AdafactorForm};

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_factored {
    ($macro:ident) => {
        $macro!(Adafactor);
    };
}
