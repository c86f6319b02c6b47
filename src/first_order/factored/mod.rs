//! Second moments by rows and columns instead of element by element.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adafactor`] | less than 1 for large matrices, 4 for vectors | models whose state does not fit |
//! | [`Came`] | little more than 4 for large matrices | the same, with momentum and a confidence |

mod adafactor;
mod came;

pub use adafactor::{Adafactor, AdafactorForm};
pub use came::Came;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_factored {
    ($macro:ident) => {
        $macro!(Adafactor);
        $macro!(Came);
    };
}
