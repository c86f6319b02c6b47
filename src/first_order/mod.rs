//! First-order methods: update rules that need a gradient and their own state, element by element.
//!
//! | method | state, bytes per `f32` parameter | good for |
//! |---|---|---|
//! | [`Sgd`] | 0, with momentum 4 | well-conditioned problems, least memory |
//! | [`Adam`] | 8 | reproducing results made with it |
//! | [`AdamW`] | 8 | nearly everything |
//! | [`NAdam`] | 8, and 8 per tensor | Adam with Nesterov's momentum |
//! | [`RAdam`] | 8 | Adam without a warm-up |
//! | [`Adamax`] | 8 | sparse gradients, outliers |
//! | [`SparseAdam`] | 8 | large embeddings with gradients of few rows |
//! | [`Fromage`] | 0, and 8 per tensor | one learning rate for all layers |
//! | [`NovoGrad`] | 4, and 8 per tensor | gradients of very different size from layer to layer |
//! | [`AdaBelief`] | 8; with `amsgrad` 12 | noisy training: steps as large as the gradient is predictable |
//! | [`Yogi`] | 8 | gradients that are rare and large |
//! | [`Adopt`] | 8 | convergence with any β₂ |
//! | [`LaProp`] | 8, and 8 per tensor; with `amsgrad` 4 more | a large β₁ or a small β₂ |
//! | [`AdaBound`] | 8; with `amsgrad` 12 | a fast start that ends as SGD |
//! | [`AdaMod`] | 12 | training without a warm-up |
//! | [`StableAdamW`] | 8 | losses with spikes, low precision |
//! | [`AdEmaMix`] | 12 | long training of large models |
//! | [`QhAdam`] | 8, and 16 per tensor | Adam that weighs the newest gradient more |
//! | [`Qhm`] | 4 | momentum that weighs the newest gradient more |
//! | [`AggMo`] | 4 for each of `betas`: 12 | long memory without oscillation |
//! | [`Adai`] | 12 | flat minima: the inertia is adapted, not the step |
//! | [`Pid`] | 12; with `derivative = 0` 4 | momentum that overshoots |
//! | [`Adan`] | 16 | large learning rates, vision and language |
//! | [`Mars`] | 12; with `amsgrad` 16 | noisy gradients of large models; AdamW or Lion inside |
//! | [`DiffGrad`] | 12; with `amsgrad` 16 | Adam that overshoots near a minimum |
//! | [`Adagrad`] | 4 | sparse gradients |
//! | [`Adadelta`] | 8 | no learning rate, parameters in units of their own |
//! | [`MadGrad`] | 12; without momentum 8 | vision, sparse gradients: generalises as SGD does |
//! | [`RmsProp`] | 4 to 12 | recurrent networks, reinforcement learning |
//! | [`RmsPropTf`] | 4 to 12 | results of TensorFlow's RMSprop |
//! | [`Ftrl`] | 8 | linear models with very many features |
//! | [`Lion`] | 4 | large models, few bits |
//! | [`SignSgd`] | 0, with momentum 4 | gradients of which only signs count |
//! | [`Rprop`] | 8 | full batches, badly scaled problems |
//! | [`Tiger`] | 4 | least memory, few bits |
//! | [`Amos`] | 0, with momentum 4; 24 per tensor | pre-training without a schedule or decay to tune |
//! | [`Lamb`] | 8 | very large batches |
//! | [`Lars`] | 4 | very large batches, convolutional networks |
//! | [`Prodigy`] | 16 | no learning rate to tune |
//! | [`DAdaptAdam`] | 12 | the same, in fewer bytes |
//! | [`DAdaptSgd`] | 8 | SGD without a learning rate to tune |
//! | [`DAdaptAdagrad`] | 12 | Adagrad without a learning rate to tune |
//! | [`DAdaptLion`] | 8 | signs without a learning rate to tune |
//! | [`Adafactor`] | less than 1 for large matrices | models whose state does not fit |
//! | [`Came`] | little more than 4 for large matrices | the same, with momentum and a confidence |
//! | [`ScheduleFreeAdamW`] | 8 | no schedule, open-ended training |
//! | [`ScheduleFreeSgd`] | 4 | the same, where SGD with momentum does well |
//! | [`ScheduleFreeRAdam`] | 8 | the same without a warm-up |
//! | [`PrimalAveraging`] | 4 | the same, for directions that need no moments |
//! | [`Asgd`] | 4 | convex problems |
//! | [`Classp`] | 4 | one task after another |
//! | [`SpsMax`] | 0 | the step size from the loss: models that fit their data |
//! | [`Momo`] | 4, and 8 per tensor | momentum whose learning rate the loss limits |
//! | [`MomoAdam`] | 8, and 8 per tensor | Adam whose learning rate the loss limits |
//! | [`AdaHessian`] | 8, and 8 per tensor | badly scaled problems with exact curvature at hand |
//! | [`Sophia`] | 8 | language models |
//! | [`Sgld`] | 0; preconditioned 4 | samples from a posterior instead of its maximum |
//!
//! [`Cautious`], [`Grams`], [`GrokFast`] and [`WithDecay`] change the steps of any of them.
//! [`constrained::Projected`](crate::constrained::Projected) keeps the parameters of any of them within
//! bounds.
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::array;
//!
//! let mut w = array![1.0f32, -2.0];
//! let mut opt = AdamW { lr: 0.01, ..AdamW::default() }.build()?;
//! for _ in 0..1000 {
//!     let grad = w.clone(); // of ‖w‖²/2
//!     opt.step(&mut w, &grad)?;
//! }
//! assert!(w.iter().all(|w| w.abs() < 0.01));
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 4. One folder per family; its `mod.rs` lists the family's methods.

#![allow(clippy::module_inception)] // a family is named after its first method

mod adagrad;
mod adam;
mod arithmetic;
mod around;
mod averaged;
mod bounded;
mod continual;
mod curvature_scaled;
mod factored;
pub mod group_state;
mod langevin;
mod layerwise;
mod lookback;
mod momentum;
mod normalized;
mod parameter_free;
mod polyak;
mod rectification;
mod second_moment;
mod sgd;
mod sign;

pub use adagrad::*;
pub use adam::*;
pub use around::*;
pub use averaged::*;
pub use bounded::*;
pub use continual::*;
pub use curvature_scaled::*;
pub use factored::*;
pub use langevin::*;
pub use layerwise::*;
pub use lookback::*;
pub use momentum::*;
pub use normalized::*;
pub use parameter_free::*;
pub use polyak::*;
pub use second_moment::*;
pub use sgd::*;
pub use sign::*;

/// Calls `$macro!(Type)` for every first-order method: the list that the common tests read.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_first_order {
    ($macro:ident) => {
        $crate::for_each_sgd!($macro);
        $crate::for_each_adam!($macro);
        $crate::for_each_second_moment!($macro);
        $crate::for_each_normalized!($macro);
        $crate::for_each_bounded!($macro);
        $crate::for_each_momentum!($macro);
        $crate::for_each_lookback!($macro);
        $crate::for_each_adagrad!($macro);
        $crate::for_each_sign!($macro);
        $crate::for_each_layerwise!($macro);
        $crate::for_each_factored!($macro);
        $crate::for_each_parameter_free!($macro);
        $crate::for_each_averaged!($macro);
        $crate::for_each_continual!($macro);
        $crate::for_each_polyak!($macro);
        $crate::for_each_curvature_scaled!($macro);
        $crate::for_each_langevin!($macro);
    };
}
