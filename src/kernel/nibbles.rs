//! Half bytes as places in a table of 16 numbers.

#![allow(unsafe_code)]

use super::isa::{Isa, Kernel};
use crate::numeric::Real;

/// `out[2i] = levels[bytes[i] mod 16]`, `out[2i + 1] = levels[bytes[i]/16]`.
pub(crate) fn look_up<R: Real>(isa: Isa, bytes: &[u8], levels: &[R; 16], out: &mut [R]) {
    #[cfg(target_arch = "x86_64")]
    let (bytes, out) = match isa.has_avx512() {
        true => avx512::whole_vectors(bytes, levels, out),
        false => (bytes, out),
    };
    isa.run(LookUp { bytes, levels, out });
}

struct LookUp<'a, R> {
    bytes: &'a [u8],
    levels: &'a [R; 16],
    out: &'a mut [R],
}

impl<R: Real> Kernel for LookUp<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { bytes, levels, out } = self;
        for (pair, &byte) in out.chunks_mut(2).zip(bytes) {
            for (x, code) in pair.iter_mut().zip([byte % 16, byte / 16]) {
                *x = levels[usize::from(code)];
            }
        }
    }
}

/// The table in one register, which the compiler does not find out.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use crate::kernel::cast::{as_f32, as_f32_mut};
    use std::arch::x86_64::{
        _mm_cvtsi64_si128, _mm512_cvtepu8_epi64, _mm512_loadu_ps, _mm512_or_si512,
        _mm512_permutexvar_ps, _mm512_slli_epi64, _mm512_storeu_ps,
    };

    const LANES: usize = 16;

    /// Looks up what fills whole vectors of `f32`, and returns the rest. Only where the processor has
    /// AVX-512.
    pub fn whole_vectors<'a, R: 'static>(
        bytes: &'a [u8],
        levels: &[R; 16],
        out: &'a mut [R],
    ) -> (&'a [u8], &'a mut [R]) {
        let vectors = (out.len() / LANES).min(bytes.len() / (LANES / 2));
        let Some(levels) = as_f32(levels).and_then(|levels| levels.first_chunk()) else {
            return (bytes, out);
        };
        let (first, bytes) = bytes.split_at(vectors * LANES / 2);
        let (whole, out) = out.split_at_mut(vectors * LANES);
        if let Some(whole) = as_f32_mut(whole) {
            // SAFETY: the caller has asked the processor.
            unsafe { look_up(first, levels, whole) };
        }
        (bytes, out)
    }

    #[target_feature(enable = "avx512f")]
    fn look_up(bytes: &[u8], levels: &[f32; 16], out: &mut [f32]) {
        // SAFETY: there are 16 elements, and no alignment is asked for.
        let table = unsafe { _mm512_loadu_ps(levels.as_ptr()) };
        for (out, &bytes) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.as_chunks().0) {
            let bytes = _mm512_cvtepu8_epi64(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
            // only the lowest four bits of each half count as a place: those of the byte, and the next
            let places = _mm512_or_si512(bytes, _mm512_slli_epi64::<28>(bytes));
            let values = _mm512_permutexvar_ps(places, table);
            // SAFETY: there are 16 elements, and no alignment is asked for.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::look_up;
    use crate::kernel::Isa;
    use crate::numeric::Real;

    fn check<R: Real>() {
        let levels: [R; 16] = std::array::from_fn(|i| R::of(i as f64 - 7.5));
        let bytes: Vec<u8> = (0..=255).chain(3..50).collect();
        for isa in Isa::available() {
            for len in [0, 1, 2, 15, 16, 17, 33, 600, 606] {
                let mut out = vec![R::nan(); len];
                look_up(isa, &bytes, &levels, &mut out);
                for (i, x) in out.iter().enumerate() {
                    let code = bytes.get(i / 2).map(|byte| byte >> (4 * (i % 2)) & 15);
                    let expected = code.map(|code| f64::from(code) - 7.5);
                    assert_eq!(Some(x.widen()), expected, "{i} of {len} with {}", isa.name());
                }
            }
        }
    }

    #[test]
    fn every_code_finds_its_level() {
        check::<f32>();
        check::<f64>();
    }
}
