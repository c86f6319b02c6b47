//! Elements at random positions.

use super::draws::words;
use super::{Compressor, Message, Selection};
use crate::error::Result;
use crate::numeric::Real;
use std::collections::HashSet;

/// Rand-k: elements at random positions, the same positions on all workers, so messages can be summed.
///
/// ```text
/// C(x) = x at k positions, 0 elsewhere                     δ = k/d
/// C(x) = d/k·x at k positions, 0 elsewhere (unbiased)      ω = d/k − 1
/// ```
/// `k = max(1, ⌊density·d⌋)`. The positions depend on seed and step number alone, so a message holds
/// `k` values only: 4k bytes in `f32`.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `density` | 0.01 | – |
/// | `unbiased` | false, for use with error feedback; set it without | – |
/// | `seed` | 0 | – |
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::{Compressor, RandK};
///
/// let x = [1.0f32; 100];
/// let message = RandK { density: 0.05, unbiased: true, seed: 7 }.compress(1, &x);
/// assert_eq!(message.bytes(), 5 * 4);
/// let mut y = [0.0f32; 100];
/// message.decompress_into(&mut y);
/// assert_eq!(y.iter().sum::<f32>(), 100.0);
/// ```
///
/// # Source
/// S. U. Stich, J.-B. Cordonnier, M. Jaggi, "Sparsified SGD with Memory", NeurIPS 2018. Positions: R.
/// W. Floyd's algorithm in J. Bentley, "Programming Pearls: A Sample of Brilliance", 1987.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct RandK {
    /// Share of the elements that is kept, in `(0, 1]`.
    pub density: f64,
    /// Whether the elements are multiplied by `d/k`.
    pub unbiased: bool,
    /// Seed of the positions; it must be the same on all workers.
    pub seed: u64,
}
crate::config_file::named_fields!(RandK);

impl Default for RandK {
    fn default() -> Self {
        Self { density: 0.01, unbiased: false, seed: 0 }
    }
}

impl RandK {
    /// How many elements of `numel` are kept.
    pub fn count(&self, numel: usize) -> usize {
        Selection::TopK { density: self.density }.count(numel)
    }

    /// The `k` positions of step `t`, ascending. All subsets of `k` positions are equally likely.
    pub fn places(seed: u64, t: u64, numel: usize, k: usize) -> Vec<usize> {
        if k >= numel {
            return (0..numel).collect();
        }
        let mut places = HashSet::with_capacity(k);
        for (last, word) in (numel - k..numel).zip(words(seed, t)) {
            // uniform in 0..=last, up to one part in 2⁶⁴/numel
            let place = (u128::from(word) * (last as u128 + 1)) >> 64;
            if !places.insert(place as usize) {
                places.insert(last);
            }
        }
        let mut places: Vec<usize> = places.into_iter().collect();
        places.sort_unstable();
        places
    }

    /// Compresses with given positions, ascending. Positions outside of `x` are ignored.
    pub fn keep<R: Real>(x: &[R], places: &[u32], unbiased: bool) -> Message<R> {
        let kept = places.iter().filter_map(|&place| Some((place, *x.get(place as usize)?)));
        let (indices, mut values): (Vec<u32>, Vec<R>) = kept.unzip();
        if unbiased {
            stretch(&mut values, x.len());
        }
        Message::Sparse { numel: x.len(), indices, values }
    }
}

/// Multiplies by `d/k`.
fn stretch<R: Real>(values: &mut [R], numel: usize) {
    let factor = R::of(numel as f64 / values.len().max(1) as f64);
    values.iter_mut().for_each(|value| *value *= factor);
}

impl<R: Real> Compressor<R> for RandK {
    fn compress(&mut self, t: u64, x: &[R]) -> Message<R> {
        let (seed, numel) = (self.seed, x.len());
        let places = Self::places(seed, t, numel, self.count(numel));
        let mut values: Vec<R> = places.iter().filter_map(|&place| x.get(place).copied()).collect();
        if self.unbiased {
            stretch(&mut values, numel);
        }
        Message::Seeded { numel, seed, t, values }
    }

    fn contraction(&self, numel: usize) -> f64 {
        match Compressor::<R>::variance(self, numel) {
            Some(variance) => 1.0 - variance,
            None => self.count(numel.max(1)) as f64 / numel.max(1) as f64,
        }
    }

    fn variance(&self, numel: usize) -> Option<f64> {
        let numel = numel.max(1);
        self.unbiased.then(|| numel as f64 / self.count(numel) as f64 - 1.0)
    }

    fn validate(&self, _: usize) -> Result<()> {
        Selection::TopK { density: self.density }.validate("RandK")
    }
}
