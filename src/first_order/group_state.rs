//! Numbers that a method remembers for a whole parameter group;
//! [`Optim::group_state`](crate::optim::Optim::group_state) shows them.
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::array;
//!
//! let mut w = array![1.0f64, -1.0];
//! let mut opt = Prodigy::default().build()?;
//! for _ in 0..100 {
//!     let grad = w.clone(); // of ‖w‖²/2
//!     opt.step(&mut w, &grad)?;
//! }
//! // the learning rate that Prodigy has found
//! assert!(opt.group_state(0).is_some_and(|state| state.d > 1e-3));
//! # Ok::<(), eigenstep::Error>(())
//! ```

pub use super::averaged::primal_averaging::PrimalAveragingGroupState;
pub use super::averaged::schedule_free::ScheduleFreeGroupState;
pub use super::bounded::ada_bound::AdaBoundGroupState;
pub use super::parameter_free::dadapt_adagrad::DAdaptAdagradGroupState;
pub use super::parameter_free::dadapt_adam::DAdaptGroupState;
pub use super::parameter_free::dadapt_sgd::DAdaptSgdGroupState;
pub use super::parameter_free::prodigy::ProdigyGroupState;
pub use super::polyak::model::MomoGroupState;
pub use super::polyak::sps_max::SpsMaxGroupState;
