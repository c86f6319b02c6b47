//! What happens to gradients between the backward pass and the update: clipping, accumulation, loss
//! scaling.
//!
//! Most of it costs no pass over memory: clipping, unscaling and averaging are factors that travel
//! with the gradients into the update kernel. Views nest in any order:
//! `clip_grad_norm(&accumulator.mean(), 1.0)`.
//!
//! | function or type | in PyTorch | reads the gradients | writes them |
//! |---|---|---|---|
//! | [`clip_grad_norm`], [`ClipNorm`] | `clip_grad_norm_` | once | no |
//! | [`total_norm`], [`clip_with_norm`] | `get_total_norm`, `clip_grads_with_norm_` | once, – | no |
//! | [`clip_grad_value`] | `clip_grad_value_` | no | no |
//! | [`AdaptiveClip`] | – | once | once |
//! | [`Accumulator`] | repeated `backward()` | once | its own buffers |
//! | [`GradScaler`] | `torch.amp.GradScaler` | once | no |
//! | [`NormGuard`] | – | once | no |
//! | [`with_curvature`], [`with_loss`] | – | no | no |
//! | [`materialize`] | – | once | a copy |

pub use crate::params::{WithCurvature, WithLoss, with_curvature, with_loss};
// Floor 4.

mod accumulate;
mod agc;
mod blocks;
mod clip;
mod guard;
mod norm;
mod scaler;

pub use accumulate::{Accumulator, materialize};
pub use agc::AdaptiveClip;
pub(crate) use blocks::{collect, copy_leaf};
pub use clip::{ClipNorm, Clipped, clip_grad_norm, clip_grad_value, clip_with_norm};
pub use guard::{NormGuard, NormLimit};
pub use norm::total_norm;
pub use scaler::{GradScaler, LossScaling, Unscaled};
