//! Compressors: what is kept of a vector, and how it is written down.
//!
//! | compressor | keeps | δ, of vectors of `d` elements | ω | messages can be summed |
//! |---|---|---|---|---|
//! | [`Identity`] | everything | 1 | 0 | yes |
//! | [`TopK`] | the largest elements | k/d | – | no |
//! | [`ScaledTopK`] | the largest elements beside what was sent of them before | 0 and more | – | no |
//! | [`RandK`] | elements at random places | k/d | d/k − 1 if unbiased | yes |
//! | [`ScaledSign`] | signs, and the mean magnitude | 1/d and more | – | no |
//! | [`Qsgd`] | levels, rounded at random | 1 − ω | min(d/s², √d/s) | no |
//! | [`Natural`] | powers of two, rounded at random | 7/8 | 1/8 | no |
//! | [`LowRank`] | two thin factors of a matrix | 0 and more | – | factor by factor |
//! | [`HalfPrecision`] | 16 bits | 1 − 2⁻¹⁶, 1 − 2⁻²² | – | no |
//!
//! A [`Message`] has the bytes, an [`Accumulator`] feeds back what they leave out.

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

/// Writes a vector down in fewer bytes, with an error that is a known part of it.
///
/// ```text
/// E‖C(x) − x‖² ≤ (1 − δ)·‖x‖²,   0 < δ ≤ 1
/// ```
/// A compressor may remember something from one vector to the next; what it makes of a vector depends
/// on nothing else, whatever the number of threads.
pub trait Compressor<R: Real>: Debug + Send + Sync {
    /// The message for a vector of finite numbers; step number `t` counts from 1.
    fn compress(&mut self, t: u64, x: &[R]) -> Message<R>;

    /// The contraction constant `δ` for vectors of `numel` elements: a lower bound where it depends on
    /// the vector. Of an unbiased compressor it is `1 − ω`; below zero it is no contraction.
    fn contraction(&self, numel: usize) -> f64;

    /// If the compressor is unbiased, `E C(x) = x`, the bound `ω` of `E‖C(x) − x‖² ≤ ω·‖x‖²`; then
    /// `C/(1 + ω)` has the contraction constant `1/(1 + ω)`.
    fn variance(&self, numel: usize) -> Option<f64> {
        let _ = numel;
        None
    }

    /// Checks the options, and that they suit vectors of `numel` elements.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the field.
    fn validate(&self, numel: usize) -> Result<()> {
        let _ = numel;
        Ok(())
    }

    /// Bytes of what is remembered from one vector to the next.
    fn state_bytes(&self) -> usize {
        0
    }

    /// Writes what is remembered from one vector to the next.
    fn save(&self, record: &mut Record<'_>) {
        let _ = record;
    }

    /// Reads what [`Compressor::save`] has written; with an error nothing has changed.
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

/// Refuses a compressor under which a residual grows without bound.
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
