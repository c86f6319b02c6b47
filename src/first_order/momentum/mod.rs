//! Other momenta: several averages of the gradient, shares of them, or adaptive ones.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Adai`] | 12 | flat minima: the inertia is adapted, not the step |
//! | [`AdEmaMix`] | 12 | long training of large models |
//! | [`AggMo`] | 4 for each of `betas` | long memory without oscillation |
//! | [`Pid`] | 12 | momentum that overshoots |
//! | [`QhAdam`] | 8, and 16 per tensor | Adam that weighs the newest gradient more |
//! | [`Qhm`] | 4 | momentum that weighs the newest gradient more |

mod adai;
mod ademamix;
mod aggmo;
mod pid;
mod qh_adam;
mod qhm;

pub use adai::Adai;
pub use ademamix::AdEmaMix;
pub use aggmo::AggMo;
pub use pid::Pid;
pub use qh_adam::QhAdam;
pub use qhm::Qhm;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_momentum {
    ($macro:ident) => {
        $macro!(Adai);
        $macro!(AdEmaMix);
        $macro!(AggMo);
        $macro!(Pid);
        $macro!(QhAdam);
        $macro!(Qhm);
    };
}
