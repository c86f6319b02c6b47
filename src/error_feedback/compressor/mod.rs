//! Compressors: they write a vector in fewer bytes.
//!
//! | compressor | keeps of a vector of `d` elements | contraction δ | variance ω | messages can be summed |
//! |---|---|---|---|---|
//! | [`Identity`] | everything | 1 | 0 | yes |
//! | [`TopK`] | the `k` largest elements | k/d | – | no |
//! | [`ScaledTopK`] | the largest elements relative to what was sent of them before | ≥ 0 | – | no |
//! | [`RandK`] | `k` elements at random positions | k/d | d/k − 1 if unbiased | yes |
//! | [`ScaledSign`] | the signs and the mean magnitude | ≥ 1/d | – | no |
//! | [`Qsgd`] | `s` equidistant levels, with stochastic rounding | 1 − ω | min(d/s², √d/s) | no |
//! | [`Natural`] | powers of two, with stochastic rounding | 7/8 | 1/8 | no |
//! | [`LowRank`] | two low-rank factors of a matrix | ≥ 0 | – | factor by factor |
//! | [`HalfPrecision`] | 16 bits of every element | 1 − 2⁻¹⁶, 1 − 2⁻²² | – | no |
//!
//! [`Compressor`] defines δ and ω. A compressor returns a [`Message`], which can be written to bytes.
//! An [`Accumulator`] adds error feedback.

mod accumulator;
mod bits;
mod decompress;
mod dense;
mod density;
mod draws;
mod half;
mod low_rank;
mod message;
mod natural;
mod power_iteration;
mod qsgd;
mod rand_k;
mod scaled_sign;
mod scaled_top_k;
mod selection;
mod sparse;
mod top_k;
mod wire;

pub use crate::numeric::random::round_at_random;
pub use accumulator::Accumulator;
pub use dense::Identity;
pub use half::HalfPrecision;
pub use low_rank::LowRank;
pub use message::Message;
pub use natural::Natural;
pub use power_iteration::power_iteration;
pub(crate) use power_iteration::{gram_schmidt, normal_factor, redraw_zero_columns};
pub use qsgd::Qsgd;
pub use rand_k::RandK;
pub use scaled_sign::ScaledSign;
pub use scaled_top_k::ScaledTopK;
pub use selection::Selection;
pub use sparse::TopK;
pub use top_k::{block_top_k, select_top_k};

use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::state::{Lookup, Record};
use std::fmt::Debug;

/// Writes a vector in fewer bytes. The error has a known bound relative to the vector:
///
/// ```text
/// E‖C(x) − x‖² ≤ (1 − δ)·‖x‖²,   0 < δ ≤ 1
/// ```
/// A compressor may have state. Its result depends on the vector, the step number and this state
/// alone, for any number of threads.
pub trait Compressor<R: Real>: Debug + Send + Sync {
    /// Compresses a vector of finite numbers. The step number `t` counts from 1.
    fn compress(&mut self, t: u64, x: &[R]) -> Message<R>;

    /// The contraction constant `δ` for vectors of `numel` elements, or a lower bound if it depends
    /// on the vector. For an unbiased compressor it is `1 − ω`. If it is negative the compressor is
    /// not a contraction.
    fn contraction(&self, numel: usize) -> f64;

    /// The bound `ω` in `E‖C(x) − x‖² ≤ ω·‖x‖²`, if the compressor is unbiased: `E C(x) = x`.
    /// `C/(1 + ω)` then has the contraction constant `1/(1 + ω)`.
    fn variance(&self, numel: usize) -> Option<f64> {
        let _ = numel;
        None
    }

    /// Checks the options, and that they fit vectors of `numel` elements.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the field.
    fn validate(&self, numel: usize) -> Result<()> {
        let _ = numel;
        Ok(())
    }

    /// Bytes of the state.
    fn state_bytes(&self) -> usize {
        0
    }

    /// Saves the state.
    fn save(&self, record: &mut Record<'_>) {
        let _ = record;
    }

    /// Loads what [`Compressor::save`] has saved. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key.
    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let _ = lookup;
        Ok(())
    }
}

impl<R: Real, C: Compressor<R> + ?Sized> Compressor<R> for Box<C> {
    fn compress(&mut self, t: u64, x: &[R]) -> Message<R> {
        (**self).compress(t, x)
    }

    fn contraction(&self, numel: usize) -> f64 {
        (**self).contraction(numel)
    }

    fn variance(&self, numel: usize) -> Option<f64> {
        (**self).variance(numel)
    }

    fn validate(&self, numel: usize) -> Result<()> {
        (**self).validate(numel)
    }

    fn state_bytes(&self) -> usize {
        (**self).state_bytes()
    }

    fn save(&self, record: &mut Record<'_>) {
        (**self).save(record);
    }

    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        (**self).load(lookup)
    }
}

/// Refuses a compressor whose residual would grow without bound.
pub(crate) fn check_contraction<R: Real>(
    optimizer: &'static str,
    compressor: &dyn Compressor<R>,
    numel: usize,
) -> Result<()> {
    let contraction = compressor.contraction(numel);
    if contraction >= 0.0 {
        return Ok(());
    }
    let found = format!("{compressor:?}, of constant {contraction:.3} for {numel} elements");
    Err(Error::invalid(optimizer, "compressor", "a contraction", found))
}
