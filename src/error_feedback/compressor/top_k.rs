//! Top-k selection: the entries of largest magnitude, in little more than one pass over the vector.
//!
//! 1. Guess a threshold that a few more than `k` entries reach.
//! 2. List these entries in one vectorised pass.
//! 3. Among them, find the magnitude of the `k`-th by bisection of its bits.
//!
//! If fewer than `k` entries reach the guess, the threshold comes from the maxima of groups: if the
//! maxima of `k` groups reach it, so do `k` entries. The result does not depend on the guess.

use super::density::block_count;
use crate::kernel::threshold::Reaching;
use crate::kernel::{Isa, Kernel};
use crate::numeric::Real;
use num_traits::{PrimInt, Zero};
use std::ops::RangeInclusive;

/// Entries of a group.
const LANES: usize = 16;
/// With more entries than this the first guess comes from a sample.
const SAMPLED: usize = 1 << 16;

/// Writes the indices of the `k` entries of largest magnitude into `indices`, ascending. Of equal
/// magnitudes the lower index is selected.
///
/// If `k >= a.len()` all entries are selected. NaN counts as larger than infinity. Entries beyond
/// `2^32` are ignored.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::select_top_k;
///
/// let mut kept = Vec::new();
/// select_top_k(&[1.0f32, -2.0, 0.5, 2.0, 2.0], 2, &mut kept);
/// assert_eq!(kept, [1, 3]);
/// ```
///
/// # Source
/// S. U. Stich, J.-B. Cordonnier, M. Jaggi, "Sparsified SGD with Memory", 2018.
pub fn select_top_k<R: Real>(a: &[R], k: usize, indices: &mut Vec<u32>) {
    indices.clear();
    let guess = if a.len() > SAMPLED && k < a.len() { sampled_threshold(a, k) } else { None };
    Selector::new(guess).select(a, k, 0, indices);
}

/// Writes the indices of the `ceil(density * len)` entries of largest magnitude of every block into
/// `indices`, ascending. Of equal magnitudes the lower index is selected.
///
/// A block has `block` entries; the last may be shorter. Indices count from the start of `a`. The
/// product is rounded up in decimal arithmetic, see [`Selection`](super::Selection).
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::block_top_k;
///
/// let mut kept = Vec::new();
/// block_top_k(&[1.0f32, -2.0, 0.5, 0.1, 0.2], 0.5, 2, &mut kept);
/// assert_eq!(kept, [1, 2, 4]);
/// ```
///
/// # Source
/// I.-V. Modoranu, M. Safaryan, G. Malinovsky, E. Kurtic, T. Robert, P. Richtarik, D. Alistarh,
/// "MicroAdam: Accurate Adaptive Optimization with Low Space Overhead and Provable Convergence",
/// 2024.
pub fn block_top_k<R: Real>(a: &[R], density: f64, block: usize, indices: &mut Vec<u32>) {
    indices.clear();
    let mut selector = Selector::new(None);
    let block = block.clamp(1, a.len().max(1));
    let full = block_count(density, block);
    for (number, values) in a.chunks(block).enumerate() {
        let Ok(base) = u32::try_from(number * block) else { return };
        let k = if values.len() == block { full } else { block_count(density, values.len()) };
        selector.select(values, k, base, indices);
    }
}

/// Buffers and the guess, carried from block to block.
struct Selector<R: Real> {
    guess: Option<R::Bits>,
    found: Reaching<R::Bits>,
    maxima: Vec<R::Bits>,
}

impl<R: Real> Selector<R> {
    fn new(guess: Option<R::Bits>) -> Self {
        Self { guess, found: Reaching::new(), maxima: Vec::new() }
    }

    /// Appends the indices of the `k` selected entries of `a`, plus `base`.
    fn select(&mut self, a: &[R], k: usize, base: u32, indices: &mut Vec<u32>) {
        let room = (u32::MAX - base) as usize;
        let a = a.get(..room).unwrap_or(a);
        if k >= a.len() {
            indices.extend((base..).take(a.len()));
            return;
        }
        if k == 0 {
            return;
        }
        // zeros are never listed: a block with many of them would list them all
        let smallest = (R::min_positive_value() * R::epsilon()).magnitude_bits();
        let bound = match self.guess.map(|guess| guess.max(smallest)) {
            Some(guess)
                if self.list(a, guess, 4 * (k + margin(k)) + LANES) && self.found.len() >= k =>
            {
                guess
            }
            _ => {
                let bound = self.threshold_of_groups(a, k).max(smallest);
                self.list(a, bound, usize::MAX);
                bound
            }
        };
        if let Some(zeros @ 1..) = k.checked_sub(self.found.len()) {
            return fill_with_zeros(a, zeros, base, smallest, indices);
        }
        let magnitudes = self.found.magnitudes();
        let last = threshold(magnitudes, bound, k..=k);
        append(&self.found, last, k, base, indices);
        // the guess for the next block: a threshold that a margin more than k entries of this one
        // reach. If fewer were listed, 1/8 less: in the tail of a normal distribution about a third
        // more entries
        let wanted = k + margin(k);
        self.guess = Some(match magnitudes.len() < wanted {
            true => (R::of(0.875) * R::from_magnitude_bits(last)).magnitude_bits(),
            false => threshold(magnitudes, bound, wanted..=wanted + margin(k) / 2),
        });
    }

    fn list(&mut self, a: &[R], threshold: R::Bits, limit: usize) -> bool {
        self.found.list(Isa::detect(), a, threshold, limit)
    }

    /// A large threshold that the maxima of at least `k` groups reach.
    fn threshold_of_groups(&mut self, a: &[R], k: usize) -> R::Bits {
        // groups of 16, but at least 2k groups: else the threshold would be far too low
        let groups = (2 * k).max(a.len() / LANES).next_multiple_of(LANES);
        self.maxima.clear();
        self.maxima.resize(groups, R::Bits::zero());
        Isa::detect().run(GroupMaxima { a, maxima: &mut self.maxima });
        threshold(&self.maxima, R::Bits::zero(), k..=k + k / 8)
    }
}

/// About three standard deviations of the difference of two counts of mean `k`.
fn margin(k: usize) -> usize {
    (4.0 * (k as f64).sqrt()) as usize + 2
}

/// A threshold that a few more than `k` entries reach, estimated from a sample.
fn sampled_threshold<R: Real>(a: &[R], k: usize) -> Option<R::Bits> {
    // four neighbours at a time: reaching a place costs more than reading it
    let size = (a.len() / 512).clamp(64, 1 << 11);
    // odd, so that it does not fall on the same column of rows whose length is a power of two
    let stride = (a.len() / size) | 1;
    let places = a.chunks(stride).flat_map(|chunk| chunk.iter().take(4));
    let sample: Vec<R::Bits> = places.map(|x| x.magnitude_bits()).collect();
    let mean = k as f64 / a.len() as f64 * sample.len() as f64;
    let wanted = (mean + 4.0 * mean.sqrt() + 4.0) as usize;
    (wanted < sample.len())
        .then(|| threshold(&sample, R::Bits::zero(), wanted..=wanted + wanted / 16))
}

/// Appends the indices of the `k` selected entries: all above `last`, then the first that are equal
/// to it.
fn append<B: PrimInt>(found: &Reaching<B>, last: B, k: usize, base: u32, indices: &mut Vec<u32>) {
    let magnitudes = found.magnitudes();
    let mut equal = k - Isa::detect().run(Count { magnitudes, threshold: last + B::one() });
    // branch-free: every index is written, and overwritten by the next one unless it is selected
    let mut end = indices.len();
    indices.resize(end + found.len(), 0);
    for (&place, &magnitude) in found.places().iter().zip(magnitudes) {
        if let Some(index) = indices.get_mut(end) {
            *index = base + place;
        }
        let ties = (magnitude == last) & (equal > 0);
        equal -= usize::from(ties);
        end += usize::from((magnitude > last) | ties);
    }
    indices.truncate(end);
}

/// Appends all entries of `a` that are not zero, and the first `zeros` that are.
fn fill_with_zeros<R: Real>(
    a: &[R],
    mut zeros: usize,
    base: u32,
    smallest: R::Bits,
    indices: &mut Vec<u32>,
) {
    indices.extend((base..).zip(a).filter_map(|(i, x)| {
        let is_zero = x.magnitude_bits() < smallest;
        let kept = !is_zero || zeros > 0;
        zeros -= usize::from(is_zero && kept);
        kept.then_some(i)
    }));
}

/// A threshold that a `wanted` number of magnitudes reach. If ties allow none: the highest threshold
/// that more of them reach. At least `wanted.start()` magnitudes must reach `low`.
fn threshold<B: PrimInt>(magnitudes: &[B], mut low: B, wanted: RangeInclusive<usize>) -> B {
    let one = B::one();
    let mut high =
        magnitudes.iter().fold(low, |most, &bits| if bits > most { bits } else { most }) + one;
    while high - low > one {
        let middle = low + ((high - low) >> 1);
        let count = Isa::detect().run(Count { magnitudes, threshold: middle });
        if wanted.contains(&count) {
            return middle;
        }
        match count < *wanted.start() {
            true => high = middle,
            false => low = middle,
        }
    }
    low
}

/// Counts the magnitudes that reach a threshold.
struct Count<'a, B> {
    magnitudes: &'a [B],
    threshold: B,
}

impl<B: PrimInt> Kernel for Count<'_, B> {
    type Output = usize;

    #[inline(always)]
    fn run(self) -> usize {
        // counters as wide as the magnitudes, so that the loop is vectorised
        let reaches = |&magnitude| if magnitude >= self.threshold { B::one() } else { B::zero() };
        let count = self.magnitudes.iter().map(reaches).fold(B::zero(), |sum, one| sum + one);
        count.to_usize().unwrap_or_default()
    }
}

/// The largest magnitude of the entries `i, i + n, i + 2 n, ...` for each of `n` groups.
struct GroupMaxima<'a, R: Real> {
    a: &'a [R],
    maxima: &'a mut [R::Bits],
}

impl<R: Real> Kernel for GroupMaxima<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.a.chunks(self.maxima.len()) {
            for (most, x) in self.maxima.iter_mut().zip(row) {
                let bits = x.magnitude_bits();
                *most = if bits > *most { bits } else { *most };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::random::philox4x32;

    /// By sorting everything.
    fn sorted<R: Real>(a: &[R], k: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..a.len() as u32).collect();
        let bits = |i: u32| a.get(i as usize).map(|x| x.magnitude_bits());
        order.sort_by(|&i, &j| bits(j).cmp(&bits(i)).then(i.cmp(&j)));
        order.truncate(k);
        order.sort_unstable();
        order
    }

    /// Vectors that a guess goes wrong on: steps in size, runs of zeros, ties, few values.
    fn vectors(len: usize) -> Vec<Vec<f32>> {
        let uniform = |i: usize| {
            let [bits, ..] = philox4x32([i as u32, 0, 0, 0], [1, 2]);
            bits as f32 / u32::MAX as f32 - 0.5
        };
        let step = |i: usize| if i < len / 2 { 1e-6 } else { 1e6 };
        vec![
            (0..len).map(uniform).collect(),
            (0..len).map(|i| uniform(i) * step(i)).collect(),
            (0..len).map(|i| uniform(i) / step(i)).collect(),
            (0..len).map(|i| if i % 97 == 0 { uniform(i) } else { 0.0 }).collect(),
            (0..len).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect(),
            (0..len).map(|i| (uniform(i) * 8.0).round() * f32::from_bits(1)).collect(),
            vec![0.0; len],
            (0..len).map(|i| if i == len / 3 { f32::NAN } else { uniform(i) }).collect(),
        ]
    }

    #[test]
    fn is_what_sorting_gives() {
        for len in [0usize, 1, 2, 15, 16, 17, 100, 1000, 5000] {
            for a in vectors(len) {
                let wide: Vec<f64> = a.iter().map(|&x| f64::from(x)).collect();
                for k in [0usize, 1, 2, len / 100, len / 3, len.saturating_sub(1), len, len + 1] {
                    let expected = sorted(&a, k);
                    let mut found = vec![7];
                    select_top_k(&a, k, &mut found);
                    assert_eq!(found, expected, "{k} of {len}");
                    select_top_k(&wide, k, &mut found);
                    assert_eq!(found, expected, "{k} of {len}");
                }
            }
        }
    }

    #[test]
    fn sampled_guesses_change_nothing() {
        for a in vectors(200_001) {
            for k in [1, 20, 2_000, 70_000, 200_000] {
                let mut found = Vec::new();
                select_top_k(&a, k, &mut found);
                assert_eq!(found, sorted(&a, k), "{k}");
            }
        }
    }

    #[test]
    fn any_guess_gives_the_same() {
        for a in vectors(3000) {
            for guess in [0.0f32, 1e-45, 1e-6, 0.4, 0.4999, 1.0, f32::INFINITY] {
                let mut found = Vec::new();
                Selector::new(Some(guess.to_bits())).select(&a, 30, 0, &mut found);
                assert_eq!(found, sorted(&a, 30), "{guess}");
            }
        }
    }

    #[test]
    fn blocks_are_chosen_one_by_one() {
        for a in vectors(10_001) {
            for (density, block) in [(0.01, 4096), (0.3, 100), (0.07, 100), (1.0, 7), (0.5, 1)] {
                let mut expected = Vec::new();
                for (number, values) in a.chunks(block).enumerate() {
                    let chosen = sorted(values, block_count(density, values.len()));
                    expected.extend(chosen.iter().map(|i| i + (number * block) as u32));
                }
                let mut found = Vec::new();
                block_top_k(&a, density, block, &mut found);
                assert_eq!(found, expected, "{density} of blocks of {block}");
            }
        }
    }
}
