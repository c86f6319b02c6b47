//! Table look-up by half bytes: each is the index of one of 16 numbers.

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
    if let Some((lanes, look_up)) = vectors(isa)
        && let Some(levels) = as_f32(levels).and_then(|levels| levels.first_chunk())
    {
        let vectors = (out.len() / lanes).min(2 * bytes.len() / lanes);
        let (first, bytes) = bytes.split_at(vectors * lanes / 2);
        let (whole, out) = out.split_at_mut(vectors * lanes);
        if let Some(whole) = as_f32_mut(whole) {
            // SAFETY: such an `Isa` exists only where the processor has these instructions.
            unsafe { look_up(first, levels, whole) };
        }
        return (bytes, out);
    }
    let _ = (isa, levels);
    (bytes, out)
}

/// Looks whole vectors up; safe where the processor has the instructions.
#[cfg(target_arch = "x86_64")]
type LookUp = unsafe fn(&[u8], &[f32; 16], &mut [f32]);

/// Elements of a vector, and what looks vectors of them up.
#[cfg(target_arch = "x86_64")]
fn vectors(isa: Isa) -> Option<(usize, LookUp)> {
    if isa.has_avx512() {
        Some((16, avx512::look_up))
    } else if isa.has_avx2() {
        Some((8, avx2::look_up))
    } else {
        None
    }
}

/// The table in one register, which the compiler does not discover by itself.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _mm_cvtsi64_si128, _mm512_cvtepu8_epi64, _mm512_loadu_ps, _mm512_or_si512,
        _mm512_permutexvar_ps, _mm512_slli_epi64, _mm512_storeu_ps,
    };

    #[target_feature(enable = "avx512f")]
    pub fn look_up(bytes: &[u8], levels: &[f32; 16], out: &mut [f32]) {
        // SAFETY: there are 16 elements, and no alignment is asked for.
        let table = unsafe { _mm512_loadu_ps(levels.as_ptr()) };
        for (out, &bytes) in out.as_chunks_mut::<16>().0.iter_mut().zip(bytes.as_chunks().0) {
            let bytes = _mm512_cvtepu8_epi64(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)));
            // only the lowest four bits of each half count as a place: those of the byte, and the next
            let places = _mm512_or_si512(bytes, _mm512_slli_epi64::<28>(bytes));
            let values = _mm512_permutexvar_ps(places, table);
            // SAFETY: there are 16 elements, and no alignment is asked for.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) };
        }
    }
}

/// The table in two registers.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        _mm_cvtsi32_si128, _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_cvtepu8_epi64,
        _mm256_loadu_ps, _mm256_or_si256, _mm256_permutevar8x32_ps, _mm256_slli_epi32,
        _mm256_slli_epi64, _mm256_storeu_ps,
    };

    #[target_feature(enable = "avx2")]
    pub fn look_up(bytes: &[u8], levels: &[f32; 16], out: &mut [f32]) {
        let (low, high) = levels.split_at(8);
        // SAFETY: there are 8 elements in each half, and no alignment is asked for.
        let (low, high) =
            unsafe { (_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())) };
        for (out, &bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks().0) {
            let bytes = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(i32::from_le_bytes(bytes)));
            // the lowest four bits of each half: those of the byte, and the next
            let places = _mm256_or_si256(bytes, _mm256_slli_epi64::<28>(bytes));
            // three of them count as a place, and the fourth, moved to the sign, says in which register
            let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(places));
            let values = _mm256_blendv_ps(
                _mm256_permutevar8x32_ps(low, places),
                _mm256_permutevar8x32_ps(high, places),
                upper,
            );
            // SAFETY: there are 8 elements, and no alignment is asked for.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) };
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
        let whole = match Isa::detect().name() {
            "avx512" | "avx2" => 600,
            _ => 0,
        };
        assert_eq!((check::<f32>(), check::<f64>()), (whole, 0));
    }
}
