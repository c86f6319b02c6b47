//! Steps with noise, whose iterates are samples.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Sgld`] | 0; preconditioned 4 | samples from a posterior instead of its maximum |

mod sgld;

pub use sgld::Sgld;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_langevin {
    ($macro:ident) => {
        $macro!(Sgld);
    };
}
