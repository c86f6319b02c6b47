//! 16-bit floating-point numbers.

use crate::kernel::Isa;
use crate::numeric::Real;
use crate::quant::{decode_bf16, encode_bf16};

/// Rounds to the nearest 16-bit number, ties to even. A number that is too large becomes the largest.
///
/// ```text
/// |C(x) − x| ≤ 2⁻⁸|x|,   δ = 1 − 2⁻¹⁶        Bf16
/// |C(x) − x| ≤ 2⁻¹¹|x|,  δ = 1 − 2⁻²²        F16, if 6.1e-5 ≤ |x| ≤ 65504
/// ```
/// It takes two bytes per element. The constants hold for elements in the normal range. In `F16`,
/// elements below 3e-8 become zero.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::{Compressor, HalfPrecision};
///
/// let mut y = [0.0f32; 2];
/// HalfPrecision::F16.compress(1, &[1.0f32 / 3.0, 1e6]).decompress_into(&mut y);
/// assert_eq!(y, [0.33325195, 65504.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HalfPrecision {
    /// bfloat16: the range of `f32`, 8 bits of precision.
    #[default]
    Bf16,
    /// IEEE half precision: from 6e-8 to 65504, 11 bits of precision.
    F16,
}

impl HalfPrecision {
    /// The bits of infinity.
    pub(super) fn infinity(self) -> u16 {
        match self {
            Self::Bf16 => 0x7f80,
            Self::F16 => 0x7c00,
        }
    }

    pub(super) fn encode<R: Real>(self, x: &[R]) -> Vec<u16> {
        let mut codes = vec![0; x.len()];
        match self {
            Self::Bf16 => encode_bf16(Isa::detect(), x, &mut codes),
            Self::F16 => codes.iter_mut().zip(x).for_each(|(code, x)| *code = f16(x.widen())),
        }
        for (code, x) in codes.iter_mut().zip(x) {
            if *code & 0x7fff == self.infinity() && x.is_finite() {
                *code -= 1;
            }
        }
        codes
    }

    pub(super) fn decode<R: Real>(self, codes: &[u16], out: &mut [R]) {
        let len = codes.len().min(out.len());
        let (codes, _) = codes.split_at(len);
        let (out, _) = out.split_at_mut(len);
        match self {
            Self::Bf16 => decode_bf16(Isa::detect(), codes, out),
            Self::F16 => {
                out.iter_mut().zip(codes).for_each(|(x, &code)| *x = R::of(f16_value(code)));
            }
        }
    }
}

/// `2^exponent`, which must be a normal number.
pub(super) fn power(exponent: i64) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// The nearest IEEE half-precision number; infinity from 65520 on.
fn f16(x: f64) -> u16 {
    let sign = u16::from(x.is_sign_negative()) << 15;
    let size = x.abs();
    if size >= 65520.0 || size.is_nan() {
        return sign | 0x7c00;
    }
    // subnormal numbers all have the spacing of the smallest normal ones
    let exponent = ((size.to_bits() >> 52) as i64 - 1023).max(-14);
    let steps = (size * power(10 - exponent)).round_ties_even();
    // from 1024 steps on, the sum carries into the exponent
    sign | ((((exponent + 14) as u16) << 10) + steps as u16)
}

fn f16_value(code: u16) -> f64 {
    let (exponent, fraction) = (i64::from(code >> 10 & 31), f64::from(code & 1023));
    let size = match exponent {
        0 => fraction * power(-24),
        31 if fraction > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (1024.0 + fraction) * power(exponent - 25),
    };
    if code >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back_and_neighbours_round() {
        for code in 0..0x7c00 {
            let x = f16_value(code);
            assert_eq!(f16(x), code);
            assert_eq!(f16(-x), code | 0x8000);
            let middle = (x + f16_value(code + 1)) / 2.0;
            if code < 0x7bff {
                assert_eq!(f16(middle), code + (code & 1));
                assert_eq!(f16(middle * (1.0 + 1e-12)), code + 1);
                assert_eq!(f16(middle * (1.0 - 1e-12)), code);
            }
        }
        assert_eq!(f16(65519.9), 0x7bff);
        assert_eq!(f16(65520.0), 0x7c00);
    }
}
