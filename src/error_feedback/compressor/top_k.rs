//! Which elements of a vector are its largest.

use crate::error::{Error, Result};
use crate::kernel::isa::{Isa, Kernel};
use crate::numeric::Real;

/// Elements that are tested at once: one register of the common instruction sets.
const LANES: usize = 8;

/// Vectors below this length are sorted out without a guess.
const SMALL: usize = 512;

/// Which elements of a vector are kept: those of largest magnitude; of equal ones those that come
/// first.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Selection {
    /// `max(1, ⌊density·d⌋)` of all `d` elements.
    TopK {
        /// Share that is kept, in `(0, 1]`.
        density: f64,
    },
    /// A fixed number of all elements.
    Count {
        /// How many, at least 1.
        k: usize,
    },
    /// `⌈density·b⌉` of every block of `b` elements; the last block may be shorter.
    BlockTopK {
        /// Share that is kept, in `(0, 1]`.
        density: f64,
        /// Elements `b` of a block, at least 1.
        block: usize,
    },
}

impl Selection {
    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for the field `density`, `k` or `block`.
    pub fn validate(&self, optimizer: &'static str) -> Result<()> {
        let wrong = |field, expected: &str, found: String| {
            Err(Error::InvalidHyperparameter { optimizer, field, expected: expected.into(), found })
        };
        match *self {
            Self::TopK { density } | Self::BlockTopK { density, .. }
                if !(density > 0.0 && density <= 1.0) =>
            {
                wrong("density", "in (0, 1]", density.to_string())
            }
            Self::Count { k: 0 } => wrong("k", "at least 1", "0".into()),
            Self::BlockTopK { block: 0, .. } => wrong("block", "at least 1", "0".into()),
            _ => Ok(()),
        }
    }

    /// Checks that a vector has as many elements as are to be kept, and not too many to be numbered.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for the field `k` or `selection`.
    pub fn check_numel(&self, optimizer: &'static str, numel: usize) -> Result<()> {
        let (field, expected, found) = match *self {
            Self::Count { k } if k > numel => {
                ("k", format!("at most the vector's {numel} elements"), k.to_string())
            }
            _ if u32::try_from(numel).is_err() => {
                let expected = "for a vector of less than 2^32 elements".into();
                ("selection", expected, format!("one of {numel}"))
            }
            _ => return Ok(()),
        };
        Err(Error::InvalidHyperparameter { optimizer, field, expected, found })
    }

    /// Elements of a block; `None`: the selection is from all.
    pub fn block(&self) -> Option<usize> {
        match self {
            Self::BlockTopK { block, .. } => Some((*block).max(1)),
            _ => None,
        }
    }

    /// Number of elements that are kept of `numel`.
    ///
    /// Densities are taken as the decimal fractions that they are written as: 7 of 100 at 0.07.
    pub fn count(&self, numel: usize) -> usize {
        match *self {
            Self::TopK { density } => share(density, numel, false).max(1).min(numel),
            Self::Count { k } => k.min(numel),
            Self::BlockTopK { density, block } => {
                let block = block.max(1);
                numel / block * share(density, block, true) + share(density, numel % block, true)
            }
        }
    }

    /// Writes the indices of the elements that are kept, ascending.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::error_feedback::Selection;
    ///
    /// let mut kept = Vec::new();
    /// Selection::Count { k: 2 }.select(&[1.0f32, -3.0, 3.0, 3.0], &mut kept);
    /// assert_eq!(kept, [1, 2]);
    /// Selection::BlockTopK { density: 0.5, block: 2 }.select(&[1.0f32, -3.0, 3.0, 3.0], &mut kept);
    /// assert_eq!(kept, [1, 2]);
    /// ```
    pub fn select<R: Real>(&self, a: &[R], indices: &mut Vec<u32>) {
        indices.clear();
        let mut search = Search::default();
        match self.block() {
            None => search.append(a, self.count(a.len()), 0, indices),
            Some(block) => {
                let k = self.count(block);
                for (number, piece) in a.chunks(block).enumerate() {
                    let k = if piece.len() == block { k } else { self.count(piece.len()) };
                    search.append(piece, k, number * block, indices);
                }
            }
        }
    }
}

/// `density·numel`, rounded up or down, of the shortest decimal fraction that reads as `density`.
fn share(density: f64, numel: usize, up: bool) -> usize {
    let text = density.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits: Option<u128> = format!("{whole}{fraction}").parse().ok();
    let unit = 10u128.checked_pow(fraction.len() as u32);
    let product = digits.and_then(|digits| digits.checked_mul(numel as u128));
    let exact = product.zip(unit).map(|(product, unit)| match up {
        true => product.div_ceil(unit),
        false => product / unit,
    });
    let rounded = || if up { (density * numel as f64).ceil() } else { density * numel as f64 };
    // more digits than 128 bits hold: far from any decision
    exact.map_or_else(|| rounded() as usize, |count| count as usize).min(numel)
}

/// Magnitude and index of a candidate, such that the larger pair is kept.
type Candidate = (u64, std::cmp::Reverse<u32>);

/// Bits of a magnitude, in the order of the magnitudes; a NaN is the largest.
fn magnitude<R: Real>(x: R) -> u64 {
    x.widen().abs().to_bits()
}

/// Finds the largest elements of one piece after another: the threshold of one is the guess for the
/// next. The result does not depend on the guess.
#[derive(Debug, Default)]
struct Search {
    guess: Option<f64>,
    candidates: Vec<Candidate>,
}

impl Search {
    /// Appends the indices, plus `base`, of the `k` largest elements.
    fn append<R: Real>(&mut self, a: &[R], k: usize, base: usize, indices: &mut Vec<u32>) {
        if k >= a.len() {
            indices.extend((base..base + a.len()).map(|index| index as u32));
            return;
        }
        if k == 0 {
            return;
        }
        let guess = self.guess.filter(|_| a.len() >= SMALL);
        let found = guess.is_some_and(|guess| self.collect(a, k, guess))
            || sampled(a, k).is_some_and(|guess| self.collect(a, k, guess))
            || self.collect(a, k, 0.0);
        if !found {
            return;
        }
        let (_, &mut (least, _), _) =
            self.candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        self.candidates.truncate(k);
        // room for the next piece to be a little smaller
        self.guess = Some(0.85 * f64::from_bits(least)).filter(|guess| guess.is_finite());
        let first = indices.len();
        indices.extend(self.candidates.iter().map(|(_, index)| index.0 + base as u32));
        indices.get_mut(first..).unwrap_or_default().sort_unstable();
    }

    /// Collects all elements that are not below `threshold`; whether these are enough.
    fn collect<R: Real>(&mut self, a: &[R], k: usize, threshold: f64) -> bool {
        self.candidates.clear();
        let candidates = &mut self.candidates;
        Isa::detect().run(Collect { a, threshold: R::of(threshold), candidates });
        candidates.len() >= k
    }
}

/// A threshold that somewhat more than `k` elements are likely to reach, from every so-manieth element.
fn sampled<R: Real>(a: &[R], k: usize) -> Option<f64> {
    if a.len() < SMALL {
        return None;
    }
    let stride = (a.len() / 1024).max(2);
    let mut sample: Vec<u64> = a.iter().step_by(stride).map(|&x| magnitude(x)).collect();
    let expected = k as f64 / stride as f64;
    let rank = (expected + 3.0 * expected.sqrt() + 2.0) as usize;
    if rank >= sample.len() {
        return None;
    }
    let (_, &mut threshold, _) = sample.select_nth_unstable_by(rank, |a, b| b.cmp(a));
    Some(f64::from_bits(threshold)).filter(|threshold| threshold.is_finite())
}

/// Collects the elements that are not below a threshold; most registers hold none.
struct Collect<'a, R> {
    a: &'a [R],
    threshold: R,
    candidates: &'a mut Vec<Candidate>,
}

impl<R: Real> Kernel for Collect<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { a, threshold, candidates } = self;
        // a NaN is below nothing
        let reaches = |x: R| !(x.abs() < threshold);
        let mut push = |index: usize, x: R| {
            if reaches(x) {
                candidates.push((magnitude(x), std::cmp::Reverse(index as u32)));
            }
        };
        let (registers, rest) = a.as_chunks::<LANES>();
        for (number, register) in registers.iter().enumerate() {
            if register.iter().fold(false, |any, &x| any | reaches(x)) {
                for (lane, &x) in register.iter().enumerate() {
                    push(number * LANES + lane, x);
                }
            }
        }
        for (place, &x) in rest.iter().enumerate() {
            push(registers.len() * LANES + place, x);
        }
    }
}
