//! Linear combinations of gradients of the same parameter, and inner products of them.

use super::source::{BLOCK, Source, fits};
use super::sums::{by_leaf, reciprocal_power};
use crate::kernel::{Isa, Kernel};
use crate::numeric::reduce::LaneSum;
use crate::numeric::{Element, Real};
use crate::params::{Elements, Generate, LeafEdit};

/// A factor for every gradient of a bundle.
pub(super) type Weights = Vec<f64>;

/// Several gradients of one parameter; those that are absent count as zero.
pub(super) struct Bundle<'g, T: Element> {
    pub shape: Vec<usize>,
    pub sources: Vec<Option<Source<'g, T>>>,
    /// The diagonal of a metric `h`: inner products are `Σ a·b/h`, combinations are divided by `h`.
    pub metric: Option<Source<'g, T>>,
}

impl<'g, T: Element> Bundle<'g, T> {
    pub fn new(shape: &[usize], sources: Vec<Option<Source<'g, T>>>) -> Self {
        Self { shape: shape.to_vec(), sources, metric: None }
    }

    fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The gradients' elements `offset .. offset + len`, one block of `len` after the other.
    fn load(&self, offset: usize, len: usize, out: &mut Vec<f64>) {
        let mut block = [T::Compute::default(); BLOCK];
        let block = block.get_mut(..len).unwrap_or_default();
        out.clear();
        for source in &self.sources {
            block.fill(T::Compute::default());
            if let Some(source) = source {
                source.load(offset, block);
            }
            out.extend(block.iter().map(|x| x.widen()));
        }
    }

    /// Divides the elements `offset ..` by the metric.
    fn divide(&self, offset: usize, xs: &mut [f64]) {
        let Some(metric) = &self.metric else { return };
        let mut block = [T::Compute::default(); BLOCK];
        let block = block.get_mut(..xs.len()).unwrap_or_default();
        metric.load(offset, block);
        xs.iter_mut().zip(block).for_each(|(x, h)| *x /= h.widen());
    }

    /// The combination as a gradient; `sizes` are those of [`Sizes`].
    pub fn combined(self, weights: Weights, sizes: &[f64]) -> LeafEdit<'g, T> {
        let terms = weights.iter().zip(sizes).filter(|(weight, _)| **weight != 0.0);
        let largest: f64 = terms.map(|(weight, size)| weight.abs() * size).sum();
        let finite = self.metric.is_none() && fits::<T>(largest);
        let elements = Elements::New(Box::new(Combination { bundle: self, weights }));
        LeafEdit { elements, factor: 1.0, finite }
    }
}

/// How large the gradients of some bundles are.
pub(super) struct Sizes {
    /// `Σ |g|` of every gradient of every bundle.
    pub of: Vec<Vec<f64>>,
    /// A power of two for every gradient that brings it near 1 if its square could leave the range of
    /// `f64`; else 1.
    pub units: Vec<f64>,
}

impl Sizes {
    pub fn measure<T: Element>(bundles: &[Bundle<'_, T>], gradients: usize) -> Self {
        let isa = Isa::detect();
        let numels: Vec<usize> = bundles.iter().map(Bundle::numel).collect();
        let of = by_leaf(&numels, gradients, |piece| {
            let sources = bundles.get(piece.leaf).map(|bundle| bundle.sources.as_slice());
            let size = |source: &Option<Source<'_, T>>| {
                let mut sum = LaneSum::default();
                if let Some(source) = source {
                    source.visit(piece.start, piece.len, |_, xs| isa.run(AddSizes(&mut sum, xs)));
                }
                sum.total()
            };
            sources.unwrap_or_default().iter().map(size).collect()
        });
        let total = |gradient: usize| of.iter().filter_map(|sizes| sizes.get(gradient)).sum();
        let unit = |total: f64| match total {
            total if total == 0.0 || !total.is_finite() => 1.0,
            total if (1e-100..1e100).contains(&total) => 1.0,
            total => reciprocal_power(total),
        };
        Self { units: (0..gradients).map(|gradient| unit(total(gradient))).collect(), of }
    }
}

struct AddSizes<'a, R>(&'a mut LaneSum, &'a [R]);

impl<R: Real> Kernel for AddSizes<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.0.extend(self.1, |x| x.widen().abs());
    }
}

/// `⟨a, b⟩` for every `a` in `left(bundle)` and `b` in `right(bundle)`, of every bundle; the combinations
/// of a bundle follow `left` first.
pub(super) fn products<'w, T: Element>(
    bundles: &[Bundle<'_, T>],
    left: impl Fn(usize) -> &'w [Weights] + Sync + Send,
    right: impl Fn(usize) -> &'w [Weights] + Sync + Send,
) -> Vec<Vec<f64>> {
    let isa = Isa::detect();
    let numels: Vec<usize> = bundles.iter().map(Bundle::numel).collect();
    let count = (0..bundles.len()).map(|leaf| left(leaf).len() * right(leaf).len()).max();
    by_leaf(&numels, count.unwrap_or(0), |piece| {
        let Some(bundle) = bundles.get(piece.leaf) else { return Vec::new() };
        let (left, right) = (left(piece.leaf), right(piece.leaf));
        let mut sums = vec![LaneSum::default(); left.len() * right.len()];
        let (mut gradients, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
        for offset in (piece.start..piece.start + piece.len).step_by(BLOCK) {
            let len = BLOCK.min(piece.start + piece.len - offset);
            bundle.load(offset, len, &mut gradients);
            combine(isa, left, &gradients, len, &mut first);
            combine(isa, right, &gradients, len, &mut second);
            second.chunks_mut(len).for_each(|xs| bundle.divide(offset, xs));
            let pairs = first.chunks(len).flat_map(|a| second.chunks(len).map(move |b| (a, b)));
            sums.iter_mut().zip(pairs).for_each(|(sum, (a, b))| isa.run(AddProducts(sum, a, b)));
        }
        sums.into_iter().map(LaneSum::total).collect()
    })
}

/// Combinations of blocks of `len` elements, one after the other.
fn combine(isa: Isa, weights: &[Weights], blocks: &[f64], len: usize, out: &mut Vec<f64>) {
    out.clear();
    out.resize(weights.len() * len, 0.0);
    for (weights, out) in weights.iter().zip(out.chunks_mut(len)) {
        for (&weight, block) in weights.iter().zip(blocks.chunks(len)) {
            if weight != 0.0 {
                isa.run(AddScaled(out, weight, block));
            }
        }
    }
}

struct AddScaled<'a>(&'a mut [f64], f64, &'a [f64]);

impl Kernel for AddScaled<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.0.iter_mut().zip(self.2).for_each(|(sum, x)| *sum += self.1 * x);
    }
}

struct AddProducts<'a>(&'a mut LaneSum, &'a [f64], &'a [f64]);

impl Kernel for AddProducts<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.0.extend_pairs(self.1, self.2, |a, b| a * b);
    }
}

/// `Σ weight·gradient`, divided by the metric, computed where it is used.
struct Combination<'g, T: Element> {
    bundle: Bundle<'g, T>,
    weights: Weights,
}

impl<T: Element> Generate<T> for Combination<'_, T> {
    fn shape(&self) -> &[usize] {
        &self.bundle.shape
    }

    fn fill(&self, offset: usize, out: &mut [T]) {
        let (mut sums, mut block) = ([0.0; BLOCK], [T::Compute::default(); BLOCK]);
        for (offset, out) in (offset..).step_by(BLOCK).zip(out.chunks_mut(BLOCK)) {
            let sums = sums.get_mut(..out.len()).unwrap_or_default();
            let block = block.get_mut(..out.len()).unwrap_or_default();
            sums.fill(0.0);
            for (source, &weight) in self.bundle.sources.iter().zip(&self.weights) {
                let Some(source) = source.as_ref().filter(|_| weight != 0.0) else { continue };
                source.load(offset, block);
                sums.iter_mut().zip(&*block).for_each(|(sum, x)| *sum += weight * x.widen());
            }
            self.bundle.divide(offset, sums);
            out.iter_mut()
                .zip(sums)
                .for_each(|(out, &mut sum)| *out = T::store(T::Compute::of(sum)));
        }
    }

    fn writes_all(&self) -> bool {
        true
    }
}
