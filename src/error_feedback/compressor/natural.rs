//! Stochastic rounding to powers of two.

use super::bits::pack;
use super::draws::uniforms;
use super::{Compressor, Message};
use crate::numeric::Real;
use crate::numeric::random::round_at_random;

/// Natural compression: stochastic rounding to powers of two. Only the sign and the exponent of a
/// number are sent. The mean of the result is the number.
///
/// ```text
/// b = 2^⌊log₂|x|⌋,  q = 1 + [u < |x|/b − 1]             u: uniform in [0, 1)
/// C(x) = sign(x)·q·b                                    ω = 1/8
/// ```
/// It takes 9 bits per element in `f32`, 12 in `f64`. Elements below the smallest normal number are
/// rounded to it or to zero; the mean is exact there, too, but the variance is larger. Elements above
/// the largest power of two are rounded to it.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::{Compressor, Natural};
///
/// let mut y = [0.0f32; 2];
/// Natural { seed: 1 }.compress(1, &[-4.0f32, 0.75]).decompress_into(&mut y);
/// assert!(y[0] == -4.0 && (y[1] == 0.5 || y[1] == 1.0));
/// ```
///
/// # Source
/// S. Horváth, C.-Y. Ho, Ľ. Horváth, A. N. Sahu, M. Canini, P. Richtárik, "Natural Compression for
/// Distributed Deep Learning", 2019.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Natural {
    /// Seed of the random numbers; it must differ between workers.
    pub seed: u64,
}
crate::config_file::named_fields!(Natural);

/// Bits of an exponent, and its bias.
fn exponents<R: Real>() -> (u32, u32) {
    if size_of::<R>() == 4 { (8, 127) } else { (11, 1023) }
}

impl Natural {
    /// Bits per element.
    pub fn width<R: Real>() -> u32 {
        exponents::<R>().0 + 1
    }

    /// The number of a code.
    pub(super) fn value<R: Real>(code: u32) -> R {
        let (bits, bias) = exponents::<R>();
        let exponent = code & ((1 << bits) - 1);
        if exponent == 0 {
            return R::zero();
        }
        // an `f64` with the same exponent
        let power = f64::from_bits(u64::from(exponent + 1023 - bias) << 52);
        R::of(if code >> bits & 1 == 1 { -power } else { power })
    }

    /// Whether a code is valid: it stands for a finite number, and no other code stands for the same
    /// number.
    pub(super) fn is_code<R: Real>(code: u32) -> bool {
        let (bits, _) = exponents::<R>();
        let exponent = code & ((1 << bits) - 1);
        exponent < (1 << bits) - 1 && (exponent > 0 || code == 0)
    }

    /// The code of a power of two or of zero. A power that is too large gets the code of the largest.
    fn code<R: Real>(power: f64, negative: bool) -> u32 {
        let (bits, bias) = exponents::<R>();
        if power == 0.0 {
            return 0;
        }
        let largest = (1 << bits) - 2;
        let exponent = ((power.to_bits() >> 52) as u32 + bias).saturating_sub(1023).min(largest);
        u32::from(negative) << bits | exponent
    }

    /// Compresses with given uniform numbers. When they run out, it rounds to the nearest.
    pub fn quantize<R: Real>(x: &[R], uniforms: impl IntoIterator<Item = f64>) -> Message<R> {
        let smallest = R::min_positive_value().widen();
        let code = |(&x, u): (&R, f64)| {
            let size = x.widen().abs();
            // the exponent alone
            let below = f64::from_bits(size.to_bits() & 0x7ff0 << 48);
            let unit = if size < smallest { smallest } else { below };
            Self::code::<R>(round_at_random(size / unit, u) * unit, x < R::zero())
        };
        let uniforms = uniforms.into_iter().chain(std::iter::repeat(0.5));
        let codes = pack(x.iter().zip(uniforms).map(code), Self::width::<R>());
        Message::Exponents { numel: x.len(), codes }
    }
}

impl<R: Real> Compressor<R> for Natural {
    fn compress(&mut self, t: u64, x: &[R]) -> Message<R> {
        Self::quantize(x, uniforms(self.seed, t))
    }

    fn contraction(&self, _: usize) -> f64 {
        0.875
    }

    fn variance(&self, _: usize) -> Option<f64> {
        Some(0.125)
    }
}
