//! Adam with another second moment.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`AdaBelief`] | 8, with `amsgrad` 12 | noisy training: steps as large as the gradient is predictable |
//! | [`Yogi`] | 8 | gradients that are rare and large |

mod ada_belief;
mod yogi;

pub use ada_belief::AdaBelief;
pub use yogi::Yogi;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_second_moment {
    ($macro:ident) => {
        $macro!(AdaBelief);
        $macro!(Yogi);
    };
}
