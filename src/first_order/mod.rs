//! Floor 4: first-order methods, one file each.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Sgd`] | 0, with momentum 4 | well-conditioned problems, least memory |
//! | [`Adam`] | 8 | reproducing results made with it |
//! | [`AdamW`] | 8 | nearly everything |
//! | [`Adagrad`] | 4 | sparse gradients |
//! | [`RmsProp`] | 4 to 12 | recurrent networks, reinforcement learning |
//! | [`Lion`] | 4 | large models, few bits |
//! | [`SignSgd`] | 0, with momentum 4 | gradients of which only signs count |
//! | [`Lamb`] | 8 | very large batches |
//! | [`Prodigy`] | 16 | no learning rate to tune |
//! | [`ScheduleFreeAdamW`] | 8 | no schedule, open-ended training |
//! | [`PrimalAveraging`] | 4 | the same for directions that need no moments |
//! | [`Classp`] | 4 | one task after another |
//!
//! [`Projected`] keeps the parameters of any of them within bounds.

mod adagrad;
mod adam;
mod adamw;
mod classp;
mod lamb;
mod lion;
mod moments;
mod primal_averaging;
mod prodigy;
mod projected;
mod rmsprop;
mod schedule_free;
mod sgd;
mod sign_sgd;

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adamw::AdamW;
pub use classp::{Classp, ClasspVariant};
pub use lamb::Lamb;
pub use lion::Lion;
pub use primal_averaging::{Averaging, PrimalAveraging, PrimalAveragingScalars};
pub use prodigy::{Prodigy, ProdigyScalars};
pub use projected::{Projected, ProjectedCoefficients};
pub use rmsprop::RmsProp;
pub use schedule_free::{ScheduleFreeAdamW, ScheduleFreeScalars};
pub use sgd::Sgd;
pub use sign_sgd::SignSgd;

/// Calls `$macro!(Type)` for every first-order method: the list that the common tests read.
#[macro_export]
macro_rules! for_each_first_order {
    ($macro:ident) => {
        $macro!(Sgd);
        $macro!(Adam);
        $macro!(AdamW);
        $macro!(Adagrad);
        $macro!(RmsProp);
        $macro!(Lion);
        $macro!(SignSgd);
        $macro!(Lamb);
        $macro!(Prodigy);
        $macro!(ScheduleFreeAdamW);
        $macro!(PrimalAveraging);
        $macro!(Classp);
    };
}
