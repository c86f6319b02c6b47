//! Stochastic rounding to equidistant levels.

use super::bits::pack;
use super::draws::{euclidean_norm, uniforms};
use super::{Compressor, Message};
use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::numeric::random::round_at_random;

/// QSGD: stochastic rounding to equidistant levels between 0 and the norm of the vector. The mean of
/// the result is the vector.
///
/// ```text
/// r = s·|x|/‖x‖₂,  q = ⌊r⌋ + [u < r − ⌊r⌋]              u: uniform in [0, 1)
/// C(x) = ‖x‖₂·sign(x)·q/s                               ω = min(d/s², √d/s)
/// ```
/// It takes ⌈log₂(2s + 1)⌉ bits per element, and one number. Cut long vectors into pieces of at most
/// a few times `s²` elements: the largest level is the norm of the vector, so the variance grows with
/// its length.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `levels` s | 127: one byte | – |
/// | `seed` | 0 | – |
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::{Compressor, Qsgd};
///
/// let x: Vec<f32> = (0..64).map(|i| i as f32 - 32.0).collect();
/// let message = Qsgd { levels: 7, seed: 1 }.compress(1, &x);
/// assert_eq!(message.bytes(), 64 * 4 / 8 + 4);
/// ```
///
/// # Source
/// D. Alistarh, D. Grubic, J. Li, R. Tomioka, M. Vojnovic, "QSGD: Communication-Efficient SGD via
/// Gradient Quantization and Encoding", NeurIPS 2017.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Qsgd {
    /// Number of levels `s`, from 1 to [`Qsgd::MOST_LEVELS`].
    pub levels: u32,
    /// Seed of the random numbers; it must differ between workers.
    pub seed: u64,
}
crate::config_file::named_fields!(Qsgd);

impl Default for Qsgd {
    fn default() -> Self {
        Self { levels: 127, seed: 0 }
    }
}

impl Qsgd {
    /// The largest number of levels: the precision of an `f32`.
    pub const MOST_LEVELS: u32 = (1 << 24) - 1;

    /// Bits per element.
    pub fn width(levels: u32) -> u32 {
        let codes = 2 * u64::from(levels) + 1;
        // a corrupt message may hold any number of levels
        codes.next_power_of_two().trailing_zeros().min(32)
    }

    /// Compresses with given uniform numbers. When they run out, it rounds to the nearest.
    pub fn quantize<R: Real>(
        x: &[R],
        levels: u32,
        uniforms: impl IntoIterator<Item = f64>,
    ) -> Message<R> {
        let levels = levels.clamp(1, Self::MOST_LEVELS);
        let s = f64::from(levels);
        let norm = R::of(euclidean_norm(x)).min(R::max_value());
        let stretch = |x: f64| if norm > R::zero() { x / norm.widen() * s } else { 0.0 };
        let code = |(&x, u): (&R, f64)| {
            // the norm is rounded, so an element may lie above the largest level
            let q = round_at_random(stretch(x.widen().abs()), u).min(s);
            (if x < R::zero() { s - q } else { s + q }) as u32
        };
        let uniforms = uniforms.into_iter().chain(std::iter::repeat(0.5));
        let codes = pack(x.iter().zip(uniforms).map(code), Self::width(levels));
        Message::Levels { numel: x.len(), levels, norm, codes }
    }
}

impl<R: Real> Compressor<R> for Qsgd {
    fn compress(&mut self, t: u64, x: &[R]) -> Message<R> {
        Self::quantize(x, self.levels, uniforms(self.seed, t))
    }

    /// `1 − ω`, negative for long vectors.
    fn contraction(&self, numel: usize) -> f64 {
        1.0 - Compressor::<R>::variance(self, numel).unwrap_or(0.0)
    }

    fn variance(&self, numel: usize) -> Option<f64> {
        let (numel, s) = (numel as f64, f64::from(self.levels.max(1)));
        Some((numel / (s * s)).min(numel.sqrt() / s))
    }

    fn validate(&self, _: usize) -> Result<()> {
        if (1..=Self::MOST_LEVELS).contains(&self.levels) {
            return Ok(());
        }
        Err(Error::InvalidHyperparameter {
            optimizer: "Qsgd",
            field: "levels",
            expected: format!("in 1..={}", Self::MOST_LEVELS),
            found: self.levels.to_string(),
        })
    }
}
