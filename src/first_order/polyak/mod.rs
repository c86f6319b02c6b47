//! Step sizes from the value of the loss, after Polyak.
//!
//! The loss comes with the gradient: `opt.step(&mut model, &with_loss(&grads, loss))`
//! ([`with_loss`](crate::gradient::with_loss)), or from the closure of
//! [`step_with`](crate::optim::ClosureOptimizer::step_with), or with an estimate of zeroth order.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`SpsMax`] | 0 | the step size from the loss: models that fit their data |
//! | [`Momo`] | 4, and 8 bytes per tensor | momentum whose learning rate the loss limits |
//! | [`MomoAdam`] | 8, and 8 bytes per tensor | Adam whose learning rate the loss limits |

mod model;
mod momo;
mod momo_adam;
mod sps_max;

pub use model::MomoGroupState;
pub use momo::Momo;
pub use momo_adam::MomoAdam;
pub use sps_max::{SpsMax, SpsMaxGroupState};

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_polyak {
    ($macro:ident) => {
        $macro!(SpsMax);
        $macro!(Momo);
        $macro!(MomoAdam);
    };
}
