//! Slots of 16 bits: the upper half of an `f32`.

use super::tile::{narrow, widen};
use crate::kernel::isa::{Isa, Kernel};
use crate::numeric::Real;

/// `out[i] = codes[i]` as a number; exact.
pub fn decode_bf16<R: Real>(isa: Isa, codes: &[u16], out: &mut [R]) {
    isa.run(Decode { codes, out });
}

/// Rounds to the nearest bf16, ties to even; magnitudes beyond the largest become infinite, a NaN
/// stays a NaN. `f64` is rounded to `f32` first.
pub fn encode_bf16<R: Real>(isa: Isa, x: &[R], codes: &mut [u16]) {
    isa.run(Encode { x, codes });
}

/// One code as a number; exact.
#[inline(always)]
pub(crate) fn bf16_value<R: Real>(code: u16) -> R {
    widen(f32::from_bits(u32::from(code) << 16))
}

struct Decode<'a, R> {
    codes: &'a [u16],
    out: &'a mut [R],
}

impl<R: Real> Kernel for Decode<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (out, code) in self.out.iter_mut().zip(self.codes) {
            *out = bf16_value(*code);
        }
    }
}

struct Encode<'a, R> {
    x: &'a [R],
    codes: &'a mut [u16],
}

impl<R: Real> Kernel for Encode<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (code, x) in self.codes.iter_mut().zip(self.x) {
            let bits = narrow(*x).to_bits();
            let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
            let nan = bits & 0x7fff_ffff > 0x7f80_0000;
            *code = (if nan { bits >> 16 & 0x8000 | 0x7fc0 } else { rounded }) as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(x: f32) -> f32 {
        let (mut code, mut out) = ([0], [0.0]);
        encode_bf16(Isa::detect(), &[x], &mut code);
        decode_bf16(Isa::detect(), &code, &mut out);
        out[0]
    }

    #[test]
    fn rounds_to_nearest_even() {
        assert_eq!(round_trip(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(round_trip(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(round_trip((1.0 + 1.0 / 256.0_f32).next_up()), 1.0 + 2.0 / 256.0);
        assert_eq!(round_trip(-0.0).to_bits(), (-0.0_f32).to_bits());
    }

    #[test]
    fn keeps_what_is_not_finite() {
        assert_eq!(round_trip(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert_eq!(round_trip(f32::MAX), f32::INFINITY);
        assert!(round_trip(f32::NAN).is_nan());
        assert!(round_trip(f32::from_bits(0x7f80_0001)).is_nan());
    }
}
