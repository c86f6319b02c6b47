//! Signs packed as bits.

#![allow(unsafe_code)]

use super::isa::{Isa, Kernel};
use crate::numeric::Real;

/// `out[i]` is 1 where bit `i mod 32` of word `i/32` is set, and −1 where it is not; every word gives 32
/// elements.
pub(crate) fn expand<R: Real>(isa: Isa, words: &[u32], out: &mut [R]) {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512()
        && let Some(out) = super::cast::as_f32_mut(out)
    {
        // SAFETY: such an `Isa` exists only where the processor has these instructions.
        unsafe { avx512::expand(words, out) };
        return;
    }
    isa.run(Expand { words, out });
}

struct Expand<'a, R> {
    words: &'a [u32],
    out: &'a mut [R],
}

impl<R: Real> Kernel for Expand<'_, R> {
    type Output = ();
    // a loop over a number of words that is not known: then the compiler puts the bits of one word into
    // the lanes of a vector, and not four words
    #[inline(always)]
    fn run(self) {
        let (out, _) = self.out.as_chunks_mut::<32>();
        for (out, &word) in out.iter_mut().zip(self.words) {
            for (bit, x) in (0..32).zip(out) {
                *x = if word >> bit & 1 == 1 { R::one() } else { -R::one() };
            }
        }
    }
}

/// The bits of a word are masks here, which the compiler does not discover by itself.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{_mm512_mask_blend_ps, _mm512_set1_ps, _mm512_storeu_ps};

    #[target_feature(enable = "avx512f")]
    pub fn expand(words: &[u32], out: &mut [f32]) {
        let (minus, plus) = (_mm512_set1_ps(-1.0), _mm512_set1_ps(1.0));
        let (out, _) = out.as_chunks_mut::<16>();
        let halves = words.iter().flat_map(|&word| [word as u16, (word >> 16) as u16]);
        for (out, bits) in out.iter_mut().zip(halves) {
            // SAFETY: there are 16 elements, and no alignment is asked for.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mask_blend_ps(bits, minus, plus)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::expand;
    use crate::kernel::Isa;
    use crate::numeric::Real;

    #[test]
    fn every_bit_is_a_sign() {
        fn check<R: Real>() {
            let words = [0, u32::MAX, 1, 0x8000_0000, 0xdead_beef, 0x1234_5678, 0x0f0f_3355];
            for isa in Isa::available() {
                let mut out = [R::zero(); 32 * 7 + 5];
                expand(isa, &words, &mut out);
                for (i, &x) in out.iter().enumerate() {
                    let bit = words.get(i / 32).map(|word| word >> (i % 32) & 1);
                    let expected = bit.map_or(0.0, |bit| 2.0 * f64::from(bit) - 1.0);
                    assert_eq!(x.widen(), expected, "{i} with {}", isa.name());
                }
            }
        }
        check::<f32>();
        check::<f64>();
    }
}
