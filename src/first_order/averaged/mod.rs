//! Averages of the iterates in place of a learning-rate schedule.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`ScheduleFreeAdamW`] | 8 | no schedule, open-ended training |
//! | [`ScheduleFreeSgd`] | 4 | the same, where SGD with momentum does well |
//! | [`ScheduleFreeRAdam`] | 8 | the same without a warm-up |
//! | [`PrimalAveraging`] | 4 | the same, for directions that need no moments |
//! | [`Asgd`] | 4 | convex problems |

mod asgd;
mod points;
pub(super) mod primal_averaging;
pub(super) mod schedule_free;
mod schedule_free_radam;
mod schedule_free_sgd;

pub use asgd::Asgd;
pub use primal_averaging::{Averaging, PrimalAveraging};
pub use schedule_free::ScheduleFreeAdamW;
pub use schedule_free_radam::ScheduleFreeRAdam;
pub use schedule_free_sgd::ScheduleFreeSgd;

/// Calls `$macro!(Type)` for every method of this family.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_averaged {
    ($macro:ident) => {
        $macro!(ScheduleFreeAdamW);
        $macro!(ScheduleFreeSgd);
        $macro!(ScheduleFreeRAdam);
        $macro!(PrimalAveraging);
        $macro!(Asgd);
    };
}
