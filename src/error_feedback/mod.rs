//! Floor 5: methods that keep a part of every gradient, and what they do with the rest.
//!
//! | method | values of state of an a × b matrix, a >= b | the rest of a gradient |
//! |---|---|---|
//! | [`GaLore`] | (b + 2a)·r | is lost |
//! | [`LdAdam`] | (b + 2a)·r + ab | waits in a buffer for the next step |

mod galore;
mod ldadam;
mod subspace;

pub use galore::{GaLore, GaLoreBlock};
pub use ldadam::{LdAdam, LdAdamBlock};

/// Calls `$macro!(Type)` for every method with error feedback: the list that the common tests read.
#[macro_export]
macro_rules! for_each_error_feedback {
    ($macro:ident) => {
        $macro!(GaLore);
        $macro!(LdAdam);
    };
}
