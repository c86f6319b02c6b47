//! Sums in `f64` whose order depends on the length alone, so that they give the same bits on every
//! machine and for any number of threads.

use super::Real;

/// Number of independent partial sums; wide enough for the widest vector unit.
pub const LANES: usize = 16;

/// A running sum of `LANES` interleaved partial sums.
///
/// Element `i` of a run goes to lane `i mod LANES`; the lanes are added pairwise at the end. A
/// vector unit of any width computes exactly this.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneSum([f64; LANES]);

impl LaneSum {
    /// Adds `f(x)` for every `x`.
    #[inline(always)]
    pub fn extend<R: Real>(&mut self, xs: &[R], f: impl Fn(R) -> f64) {
        let (blocks, rest) = xs.as_chunks::<LANES>();
        for block in blocks {
            for (lane, &x) in self.0.iter_mut().zip(block) {
                *lane += f(x);
            }
        }
        for (lane, &x) in self.0.iter_mut().zip(rest) {
            *lane += f(x);
        }
    }

    /// Adds `f(a, b)` for every pair.
    #[inline(always)]
    pub fn extend_pairs<R: Real>(&mut self, a: &[R], b: &[R], f: impl Fn(R, R) -> f64) {
        let len = a.len().min(b.len());
        let (a, b) = (a.get(..len).unwrap_or_default(), b.get(..len).unwrap_or_default());
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for (lane, (&a, &b)) in self.0.iter_mut().zip(a.iter().zip(b)) {
                *lane += f(a, b);
            }
        }
        for (lane, (&a, &b)) in self.0.iter_mut().zip(a_rest.iter().zip(b_rest)) {
            *lane += f(a, b);
        }
    }

    /// Adds `xs`, the first of which is element `first` of the run.
    #[inline(always)]
    pub fn extend_from(&mut self, first: usize, xs: &[f64]) {
        let ahead = (LANES - first % LANES) % LANES;
        let (head, rest) = xs.split_at(ahead.min(xs.len()));
        for (i, &x) in head.iter().enumerate() {
            self.add(first + i, x);
        }
        self.extend(rest, |x| x);
    }

    /// Adds `value` to lane `i mod LANES`.
    #[inline(always)]
    pub fn add(&mut self, i: usize, value: f64) {
        if let Some(lane) = self.0.get_mut(i % LANES) {
            *lane += value;
        }
    }

    /// The sum of a run of `len` elements: of so few that lanes stay empty, one after the other.
    #[inline]
    pub fn total_of(self, len: usize) -> f64 {
        if len < LANES { self.0.iter().take(len).sum() } else { self.total() }
    }

    /// The sum of all lanes, added pairwise.
    #[inline]
    pub fn total(mut self) -> f64 {
        let mut width = LANES / 2;
        while width > 0 {
            let (low, high) = self.0.split_at_mut(width);
            for (a, b) in low.iter_mut().zip(high) {
                *a += *b;
            }
            width /= 2;
        }
        self.0.first().copied().unwrap_or(0.0)
    }
}

/// `Σ x²` in `f64`.
#[inline(always)]
pub fn sum_of_squares<R: Real>(xs: &[R]) -> f64 {
    let mut sum = LaneSum::default();
    sum.extend(xs, |x| {
        let x = x.widen();
        x * x
    });
    sum.total()
}
