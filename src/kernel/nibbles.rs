//! Half bytes as places in a table of 16 numbers.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use super::cast::{as_f32, as_f32_mut};
use super::isa::Isa;
use crate::numeric::Real;

/// `out[2i] = levels[bytes[i] mod 16]`, `out[2i + 1] = levels[bytes[i]/16]` for as many as fill whole
/// vectors; the rest is returned, which may be everything.
pub(crate) fn look_up_vectors<'a, R: Real>(
    isa: Isa,
    bytes: &'a [u8],
    levels: &[R; 16],
    out: &'a mut [R],
) -> (&'a [u8], &'a mut [R]) {
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx512()
        && let Some(levels) = as_f32(levels).and_then(|levels| levels.first_chunk())
    {
        let vectors = (out.len() / LANES).min(bytes.len() / (LANES / 2));
        let (first, bytes) = bytes.split_at(vectors * LANES / 2);
        let (whole, out) = out.split_at_mut(vectors * LANES);
        if let Some(whole) = as_f32_mut(whole) {
            // SAFETY: such an `Isa` exists only where the processor has these instructions.
            unsafe { avx512::look_up(first, levels, whole) };
        }
        return (bytes, out);
    }
    let _ = (isa, levels);
    (bytes, out)
}

/// Elements of a vector.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 16;

/// The table in one register, which the compiler does not find out.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::LANES;
    use std::arch::x86_64::{
        _mm_cvtsi64_si128, _mm512_cvtepu8_epi64, _mm512_loadu_ps, _mm512_or_si512,
        _mm512_permutexvar_ps, _mm512_slli_epi64, _mm512_storeu_ps,
    };

    #[target_feature(enable = "avx512f")]
    pub fn look_up(bytes: &[u8], levels: &[f32; 16], out: &mut [f32]) {
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
    use super::look_up_vectors;
    use crate::kernel::Isa;
    use crate::numeric::Real;

    /// Returns how many were looked up at most.
    fn check<R: Real>() -> usize {
        let levels: [R; 16] = std::array::from_fn(|i| R::of(i as f64 - 7.5));
        let bytes: Vec<u8> = (0..=255).chain(3..50).collect();
        let mut most = 0;
        for isa in Isa::available() {
            for len in [0, 1, 2, 15, 16, 17, 33, 600, 606, 700] {
                let mut out = vec![R::nan(); len];
                let (later, rest) = look_up_vectors(isa, &bytes, &levels, &mut out);
                let done = len - rest.len();
                assert_eq!(later, bytes.get(done / 2..).unwrap_or_default());
                for (i, x) in out.iter().take(done).enumerate() {
                    let code = bytes.get(i / 2).map(|byte| byte >> (4 * (i % 2)) & 15);
                    let expected = code.map(|code| f64::from(code) - 7.5);
                    assert_eq!(Some(x.widen()), expected, "{i} of {len} with {}", isa.name());
                }
                assert!(out.iter().skip(done).all(|x| x.is_nan()));
                most = most.max(done);
            }
        }
        most
    }

    #[test]
    fn every_code_finds_its_level() {
        let widest = Isa::detect().name() == "avx512";
        assert_eq!((check::<f32>(), check::<f64>()), (if widest { 592 } else { 0 }, 0));
    }
}
