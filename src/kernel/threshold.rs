//! The elements that reach a threshold: their indices, without a branch per element.

#![allow(unsafe_code)]

use super::isa::{Isa, Kernel};
use crate::numeric::Real;
use num_traits::PrimInt;

/// Elements that are compared before the places of those that reach the threshold are listed.
const PIECE: usize = 4096;
/// Elements to a word of the bits that say which.
const WORD: usize = 64;
/// Places that are written for every word, however few of them count: of a word that has so many or
/// fewer, listing takes no decision.
const AT_ONCE: usize = 4;

/// Elements that reach a threshold, in ascending order of their places.
#[derive(Debug)]
pub(crate) struct Reaching<B> {
    /// Where places are written; more than count.
    places: Vec<u32>,
    magnitudes: Vec<B>,
}

impl<B: PrimInt> Reaching<B> {
    pub fn new() -> Self {
        Self { places: Vec::new(), magnitudes: Vec::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.magnitudes.len()
    }

    /// Their places, modulo `2^32`.
    pub fn places(&self) -> &[u32] {
        &self.places[..self.magnitudes.len()]
    }

    /// [`Real::magnitude_bits`] of them.
    pub fn magnitudes(&self) -> &[B] {
        &self.magnitudes
    }

    /// Lists the elements of at least this magnitude, which is not zero; `false` if they are more than
    /// `limit`, and then only the first ones are listed.
    pub fn list<R: Real<Bits = B>>(
        &mut self,
        isa: Isa,
        values: &[R],
        threshold: B,
        limit: usize,
    ) -> bool {
        let Self { places, magnitudes } = self;
        let mut masks = [0; PIECE / WORD];
        let mut base = 0u32;
        magnitudes.clear();
        for piece in values.chunks(PIECE) {
            let masks = &mut masks[..piece.len().div_ceil(WORD)];
            compare(isa, piece, threshold, masks);
            // as many as there can be, and those of a word that do not count
            let listed = magnitudes.len();
            places.resize(places.len().max(listed + piece.len() + WORD), 0);
            let new = isa.run(List { masks, base, places: &mut places[listed..] });
            // now, while the piece is in the cache
            let place = |&place: &u32| piece[place.wrapping_sub(base) as usize].magnitude_bits();
            magnitudes.extend(places[listed..listed + new].iter().map(place));
            if magnitudes.len() > limit {
                return false;
            }
            base = base.wrapping_add(PIECE as u32);
        }
        true
    }
}

/// Bit `i mod 64` of word `i/64` says whether element `i` reaches the threshold.
fn compare<R: Real>(isa: Isa, values: &[R], threshold: R::Bits, masks: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(values), Some(threshold)) = (super::cast::as_f32(values), x86::as_u32(threshold)) {
        if isa.has_avx512() {
            // SAFETY: such an `Isa` exists only where the processor has these instructions.
            return unsafe { x86::compare_avx512(values, threshold, masks) };
        }
        if isa != Isa::portable() {
            // SAFETY: as above; all others of this processor have AVX2.
            return unsafe { x86::compare_avx2(values, threshold, masks) };
        }
    }
    isa.run(Compare { values, threshold, masks });
}

struct Compare<'a, R: Real> {
    values: &'a [R],
    threshold: R::Bits,
    masks: &'a mut [u64],
}

impl<R: Real> Kernel for Compare<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (mask, values) in self.masks.iter_mut().zip(self.values.chunks(WORD)) {
            // a byte per element, then the lowest bits of eight bytes moved together
            let mut bytes = [0u8; WORD];
            for (byte, x) in bytes.iter_mut().zip(values) {
                *byte = u8::from(x.magnitude_bits() >= self.threshold);
            }
            *mask = 0;
            for (bits, eight) in (0..).step_by(8).zip(bytes.as_chunks::<8>().0) {
                let gathered = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
                *mask |= gathered << bits;
            }
        }
    }
}

/// The places of the bits that are set; there is room for a word more.
struct List<'a> {
    masks: &'a [u64],
    base: u32,
    places: &'a mut [u32],
}

impl Kernel for List<'_> {
    type Output = usize;

    #[inline(always)]
    fn run(self) -> usize {
        let Self { masks, mut base, places } = self;
        let mut count = 0;
        for &mask in masks {
            let mut set = mask;
            let mut next = count;
            count += mask.count_ones() as usize;
            loop {
                // of a word without a bit left this is a place that does not count
                for place in &mut places[next..next + AT_ONCE] {
                    *place = base.wrapping_add(set.trailing_zeros());
                    set &= set.wrapping_sub(1);
                }
                next += AT_ONCE;
                if set == 0 {
                    break;
                }
            }
            base = base.wrapping_add(WORD as u32);
        }
        count
    }
}

/// Comparisons whose results are bits, which the compiler does not discover by itself.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::WORD;
    use std::any::Any;
    use std::arch::x86_64::{
        _mm256_and_si256, _mm256_castsi256_ps, _mm256_cmpgt_epi32, _mm256_loadu_si256,
        _mm256_movemask_ps, _mm256_set1_epi32, _mm512_and_si512, _mm512_cmpge_epu32_mask,
        _mm512_loadu_si512, _mm512_set1_epi32,
    };

    /// Bits of a magnitude.
    const MAGNITUDE: i32 = i32::MAX;

    /// The same number, if it is a `u32`.
    pub fn as_u32<B: Any>(bits: B) -> Option<u32> {
        (&bits as &dyn Any).downcast_ref().copied()
    }

    #[target_feature(enable = "avx512f")]
    pub fn compare_avx512(values: &[f32], threshold: u32, masks: &mut [u64]) {
        let (magnitude, threshold) =
            (_mm512_set1_epi32(MAGNITUDE), _mm512_set1_epi32(threshold.cast_signed()));
        each_word(values, masks, |sixteen| {
            // SAFETY: there are 16 elements, and no alignment is asked for.
            let bits = unsafe { _mm512_loadu_si512(sixteen.as_ptr().cast()) };
            _mm512_cmpge_epu32_mask(_mm512_and_si512(bits, magnitude), threshold)
        });
    }

    #[target_feature(enable = "avx2")]
    pub fn compare_avx2(values: &[f32], threshold: u32, masks: &mut [u64]) {
        // magnitudes are not negative, so that signs do not matter; no magnitude is above the largest
        let below = threshold.wrapping_sub(1).min(MAGNITUDE.cast_unsigned());
        let (magnitude, below) =
            (_mm256_set1_epi32(MAGNITUDE), _mm256_set1_epi32(below.cast_signed()));
        each_word(values, masks, |sixteen| {
            let (halves, _) = sixteen.as_chunks::<8>();
            halves.iter().rev().fold(0, |mask, eight| {
                // SAFETY: there are 8 elements, and no alignment is asked for.
                let bits = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
                let reaches = _mm256_cmpgt_epi32(_mm256_and_si256(bits, magnitude), below);
                mask << 8 | _mm256_movemask_ps(_mm256_castsi256_ps(reaches)) as u16
            })
        });
    }

    /// Fills the words with the bits of sixteen elements after the other.
    #[inline(always)]
    fn each_word(values: &[f32], masks: &mut [u64], sixteen: impl Fn(&[f32; 16]) -> u16) {
        let word = |values: &[f32; WORD]| {
            let parts = values.as_chunks().0.iter().rev();
            parts.fold(0, |mask, part| mask << 16 | u64::from(sixteen(part)))
        };
        let (words, rest) = values.as_chunks();
        for (mask, values) in masks.iter_mut().zip(words) {
            *mask = word(values);
        }
        if let Some(mask) = masks.get_mut(words.len()) {
            let mut values = [0.0; WORD];
            values[..rest.len()].copy_from_slice(rest);
            *mask = word(&values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PIECE, Reaching};
    use crate::kernel::Isa;
    use crate::numeric::Real;

    fn check<R: Real>(values: &[R]) {
        let thresholds = [1e-30, 0.25, 0.5, 2.0, f64::INFINITY, f64::NAN].map(R::of);
        let smallest = R::min_positive_value() * R::epsilon();
        for threshold in thresholds.into_iter().chain([smallest, -R::nan()]) {
            let threshold = threshold.magnitude_bits();
            let reaches = |x: &R| x.magnitude_bits() >= threshold;
            let expected: Vec<u32> =
                (0..).zip(values).filter(|(_, x)| reaches(x)).map(|(i, _)| i).collect();
            for isa in Isa::available() {
                let mut found = Reaching::new();
                assert!(found.list(isa, values, threshold, expected.len()));
                assert_eq!(found.places(), expected, "{}", isa.name());
                assert_eq!(found.len(), expected.len());
                for (&place, &bits) in expected.iter().zip(found.magnitudes()) {
                    assert_eq!(Some(bits), values.get(place as usize).map(|x| x.magnitude_bits()));
                }
                if let Some(less) = expected.len().checked_sub(1) {
                    assert!(!found.list(isa, values, threshold, less));
                }
            }
        }
    }

    #[test]
    fn lists_what_reaches_and_nothing_else() {
        for len in [0, 1, 15, 16, 63, 64, 65, 1000, PIECE - 1, PIECE, 2 * PIECE + 77] {
            let special = [f32::NAN, f32::INFINITY, -f32::NAN, 0.0, -0.0, 1e-45, -0.5, 0.5];
            let values: Vec<f32> = (0..len)
                .map(|i| match i % 37 {
                    0 => special.get(i / 37 % special.len()).copied().unwrap_or(0.0),
                    _ => ((i * i) as f32).sin() * 3.0,
                })
                .collect();
            check(&values);
            check(&values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            check(&vec![1.0f32; len]);
        }
    }
}
