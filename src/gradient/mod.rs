//! What happens to gradients between the backward pass and the update: clipping, accumulation, loss
//! scaling, centralisation, noise, projections.
//!
//! Most of it are views: they borrow gradients, change nothing, and are gradients themselves, so that
//! they nest in any order. Clipping, unscaling and averaging cost no pass over memory: they are factors
//! that travel with the gradients into the update kernel. Other views compute their elements there. An
//! absent gradient stays absent, and a loss or a curvature that came with the gradients comes along,
//! unchanged; an [`Accumulator`] sums gradients only. Methods that compare the loss with the gradient (`SpsMax`, `Momo`, `MomoAdam`) must get
//! gradients that are not rescaled: do not clip by norm before `SpsMax`; a [`GradScaler`] is right for all of
//! them, if [`with_loss`] brings the unscaled loss.
//!
//! ```
//! use eigenstep::{gradient::{Accumulator, centralize, clip_grad_norm}, prelude::*};
//! use ndarray::array;
//!
//! let mut w = array![[0.0f64, 0.0]];
//! let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
//! let mut accumulator = Accumulator::new();
//! accumulator.add(&array![[6.0, 2.0]])?;
//! accumulator.add(&array![[8.0, 0.0]])?;
//! // the mean (7, 1), centralised (3, −3), clipped to norm 1
//! opt.step(&mut w, &clip_grad_norm(&centralize(&accumulator.mean()), 1.0))?;
//! assert!((w[[0, 0]] + 0.5f64.sqrt()).abs() < 1e-6);
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! | function or type | what it does | in PyTorch | reads the gradients | writes them |
//! |---|---|---|---|---|
//! | [`clip_grad_norm`], [`ClipNorm`] | limits their common norm | `clip_grad_norm_` | once | no |
//! | [`total_norm`], [`clip_with_norm`] | the same in two steps | `get_total_norm`, `clip_grads_with_norm_` | once, – | no |
//! | [`clip_grad_value`] | limits every element | `clip_grad_value_` | no | no |
//! | [`clip_grad_rms`] | limits the root mean square of every tensor | – | once | no |
//! | [`AdaptiveClip`] | limits every unit relative to its weights | – | once | as you choose |
//! | [`normalize`], [`Normalize`] | divides by the norm, per tensor or in all | – | once | no |
//! | [`centralize`], [`Centralize`] | subtracts the mean of every row ([which way round](crate::params#which-way-round-is-a-matrix)) | – | once | no |
//! | [`ortho_grad`] | takes out what points along the weights | – | three times | no |
//! | [`project_conflicting`], [`PcGrad`] | one gradient of several tasks: PCGrad | – | twice | no |
//! | [`project_out`], [`ProjectOut`] | takes out what changes other losses | – | 2k + 3 times for k losses | no |
//! | [`sign`], [`SignMask`] | signs, and elements whose signs agree with others | – | once | no |
//! | [`GradientNoise`] | adds noise that fades | – | once | no |
//! | [`Accumulator`] | adds up micro-batches | repeated `backward()` | once | its own buffers |
//! | [`GradScaler`] | scales the loss for half precision | `torch.amp.GradScaler` | once | no |
//! | [`AutoClip`], [`ZClip`] with [`HistoryClip`] | limits their norm by earlier ones | – | once | no |
//! | [`PrivateGradients`] | clips every example, adds noise: DP-SGD | – | once | its own buffers |
//! | [`NormGuard`] | skips steps that are out of proportion | – | once | no |
//! | [`with_curvature`], [`with_loss`] | brings other inputs of a step | – | no | no |
//! | [`materialize`] | copies what a view shows | – | once | a copy |

pub use crate::params::{WithCurvature, WithLoss, with_curvature, with_loss};
// Floor 4.

mod accumulate;
mod agc;
mod auto_clip;
mod blocks;
mod centralize;
mod clip;
mod combine;
mod guard;
mod history_clip;
mod noise;
mod norm;
mod normalize;
mod ortho;
mod pcgrad;
mod private;
mod project;
mod scaler;
mod sign;
mod source;
mod sums;
mod transformed;
mod weights;
mod z_clip;

pub use accumulate::{Accumulator, materialize};
pub use agc::AdaptiveClip;
pub use auto_clip::AutoClip;
pub use centralize::{Centralize, centralize};
pub use clip::{ClipNorm, Clipped, clip_grad_norm, clip_grad_value, clip_with_norm};
pub use guard::{NormGuard, NormLimit};
pub use history_clip::{HistoryClip, NormBound, NormMemory};
pub use noise::GradientNoise;
pub use norm::total_norm;
pub use normalize::{GradSize, Normalize, TreeScope, clip_grad_rms, normalize};
pub use ortho::ortho_grad;
pub use pcgrad::{Combined, PcGrad, Reduction, project_conflicting};
pub use private::{DpSgd, PrivateGradients, PrivateMean};
pub use project::{ProjectOut, project_out};
pub use scaler::{GradScaler, LossScaling, Unscaled};
pub use sign::{SignMask, sign};
pub use transformed::Transformed;
pub use z_clip::{OutlierLimit, ZClip};
