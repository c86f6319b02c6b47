//! Gradients of logits through samples of a categorical variable: ReinMax, straight-through,
//! Gumbel-softmax.
//!
//! With `π = softmax(θ)`, the one-hot sample `D`, the gradient `g = ∂f/∂D` there, and
//! `J(p)g = p⊙g − p·(pᵀg)`:
//!
//! | function | gradient of θ | unbiased for |
//! |---|---|---|
//! | [`exact_gradient`] | `Σᵢ f(eᵢ)·πᵢ(eᵢ − π)` | every f; needs f at every category |
//! | [`straight_through`] | `J(π_τ)g/τ`, `π_τ = softmax(θ/τ)` | linear f, at τ = 1 |
//! | [`GumbelSoftmax::gradient`] | `J(y)g/τ`, `y = softmax((θ + G)/τ)` | none; the bias falls with τ |
//! | [`reinmax`] | `2·J((π_τ + D)/2)g − J(π)g/2` | quadratic f, at τ = 1 |
//!
//! The last axis of every array is that of the K categories. All axes before it are a batch: an array of
//! samples has the shape of the logits without the last axis. Everything is computed in `f64`. A category
//! with the logit −∞ is never drawn. A row of logits with NaN or +∞ gives NaN.
//!
//! # Examples
//! ```
//! use eigenstep::discrete::categorical;
//! use ndarray::{array, aview1};
//!
//! // minimise E f(D) with f(D) = |D − t|², with one sample per step
//! let target = array![[0.1f64, 0.7, 0.2]];
//! let mut logits = array![[0.0f64, 0.0, 0.0]];
//! for step in 0..300 {
//!     let u = (step as f64 * 0.618).fract();
//!     let sample = categorical::sample(logits.view(), aview1(&[u]))?;
//!     let mut upstream = &target * -2.0;
//!     upstream[[0, sample[0]]] += 2.0;
//!     let grad = categorical::reinmax(logits.view(), sample.view(), upstream.view(), None, 1.0)?;
//!     logits.scaled_add(-0.1, &grad);
//! }
//! assert!(categorical::softmax(logits.view(), 1.0)?[[0, 1]] > 0.9);
//! # Ok::<(), eigenstep::Error>(())
//! ```

mod batch;
mod gradients;
mod gumbel;
mod sample;

pub use gradients::{exact_gradient, reinmax, score, straight_through};
pub use gumbel::{GumbelSoftmax, gumbel, gumbel_softmax};
pub use sample::{sample, sample_index, softmax};
