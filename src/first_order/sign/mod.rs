//! Steps along the sign of the gradient or of its average.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Lion`] | 4 | large models, few bits |
//! | [`SignSgd`] | 0, with momentum 4 | gradients of which only signs count |
//! | [`Rprop`] | 8 | full batches, badly scaled problems |
//! | [`Tiger`] | 4 | least memory, few bits |

mod lion;
mod rprop;
mod sign_sgd;
mod tiger;

pub use lion::Lion;
pub use rprop::Rprop;
pub use sign_sgd::SignSgd;
pub use tiger::Tiger;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_sign {
    ($macro:ident) => {
        $macro!(Lion);
        $macro!(SignSgd);
        $macro!(Rprop);
        $macro!(Tiger);
    };
}
